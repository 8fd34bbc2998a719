"""What is measured of hierarchies: a training step of many groups, and how its memory grows."""

from __future__ import annotations

from functools import partial

from process import Result, alternate, contender
from rows import Plan, Row, at_least

__all__ = ["ladder"]

STEPS = "steps_per_second"
NAMES = {"ours": "tightbound", "bare": "bare loop, same network", "network": "the network alone, no KL"}


def ladder(plan: Plan) -> list[Row]:
    """A step of a vdvae of 20 groups (5 at 1 × 1, 15 at 7 × 7), 64 channels, batch 100, float32.

    Memory is what the backward pass keeps. At most 5 % of the step for distributions, KLs and bookkeeping is at least
    0.95 of the network's own speed.
    """
    runs = {"step": partial(contender, "ladder", "step", turns=plan.turns, threads=plan.threads)}
    found = alternate(runs, plan.rounds)["step"]
    rates: dict[str, list[Result]] = {
        name: [{STEPS: rate} for result in found for rate in result[STEPS][who]] for who, name in NAMES.items()
    }
    rows = [at_least(name, rates, "tightbound", STEPS, None if name == "tightbound" else 0.95) for name in rates]
    return [*rows, *_memory()]


def _memory() -> list[Row]:
    found = contender("ladder", "memory")["mebibytes"]
    rows = []
    for i, how in enumerate(("", ", recomputed")):
        kept = {int(groups): values[i] for groups, values in found.items()}
        each = (kept[40] - kept[20]) / 20
        rows += [Row(f"kept for 20 groups{how}", kept[20], "MiB"), Row(f"each further group{how}", each, "MiB")]
        expected = kept[5] + 35 * (kept[10] - kept[5]) / 5
        apart = abs(kept[40] / expected - 1)
        rows.append(Row(f"40 groups from a line through 5 and 10{how}", apart, "", target="≤ 0.1", met=apart <= 0.1))
    return rows
