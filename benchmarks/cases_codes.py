"""What is measured of codes: vectors that become codes in a training step, and codes that are drawn one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from process import Result, alternate, contender
from rows import Plan, Row, at_least

__all__ = ["pixelcnn_sampling", "quantizer", "transformer_sampling"]

VECTORS, CODES = "vectors_per_second", "codes_per_second"
QUANTIZERS = {
    "ours": "tightbound",
    "product": "its distance product alone",
    "unchunked": "tightbound, in one piece",
    "plain": "by hand (one product, argmin, index)",
    "vqp": "vector-quantize-pytorch",
    "pythae": "pythae",
}
"""The contenders of ``quantizer.py``, and what the table calls them."""


def quantizer(plan: Plan) -> list[Row]:
    """A training step of a codebook that follows running averages: 8,192 vectors × 64, K = 1024; memory at K = 8192.

    Forward, averages and backward, without a network. At most 2.5 × the time of the distance product is at least 0.4 of
    its speed. Memory is what two steps add to the process at their peak, next to all float32 distances at once.
    """
    step = {"vectors": 8192, "codes": 1024, "turns": plan.turns, "threads": plan.threads}
    results = alternate({"step": partial(contender, "quantizer", "step", **step)}, plan.rounds)["step"]
    rates, least = _each(results, VECTORS, QUANTIZERS), {"its distance product alone": 1 / 2.5}
    return [*(at_least(name, rates, "tightbound", VECTORS, least.get(name)) for name in rates), *_memory(plan)]


def _each(results: Sequence[Result], key: str, names: Mapping[str, str]) -> dict[str, list[Result]]:
    """Every turn of every contender by its name; what was measured one after the other has the same place."""
    return {name: [{key: rate} for result in results for rate in result[key][who]] for who, name in names.items()}


def _memory(plan: Plan) -> list[Row]:
    """Peak memory of quantising the largest batch of 32 × 32 vectors, each in a process of its own."""
    options = {"vectors": 1024 * max(plan.grids), "codes": 8192, "threads": plan.threads}
    who = [name for name in QUANTIZERS if name != "product"]
    found = {name: contender("quantizer", "memory", contender=name, **options) for name in who}
    return [_peak(QUANTIZERS[name], result, options) for name, result in found.items()]


def _peak(name: str, result: Result, options: Mapping[str, Any]) -> Row:
    what = f"peak memory of {name}, {options['vectors']:,} vectors"
    peak, limit = result["peak_mebibytes"], 1.3 * result["distances_mebibytes"]
    if not name.startswith("tightbound"):
        return Row(what, peak, "MiB")
    return Row(what, peak, "MiB", target=f"≤ {limit:.0f} MiB (1.3 × the distances)", met=peak <= limit)


def pixelcnn_sampling(plan: Plan) -> list[Row]:
    """Drawing 28 × 28 codes of 512 from a gated PixelCNN of 8 layers × 64: cached, and by a pass for every code.

    A pass costs the same whatever the code's place, so eight of the 784 stand for all.
    """
    found = _drawn(plan, "pixelcnn")
    names = lambda n: {"cached": f"tightbound, {n} at once", "uncached": f"a pass for every code, {n} at once"}
    return [*_speeds(found, names, 30.0), _apart(found, "cached from uncached logits", -5)]


def transformer_sampling(plan: Plan) -> list[Row]:
    """Drawing 16 × 16 codes of 512 from a transformer of 6 layers × 256: ours, and ``generate`` of transformers.

    The same weights in a GPT-2 with a static cache; always the most probable code. At most 1.1 × its time is at least
    0.909 of its speed.
    """
    found = _drawn(plan, "transformer")
    names = lambda n: {"ours": f"tightbound, {n} at once", "transformers": f"transformers, {n} at once"}
    same = min(result["same_codes"] for results in found.values() for result in results)
    rows = [*_speeds(found, names, 1 / 1.1), _apart(found, "our cached logits from GPT-2's", -4)]
    return [*rows, Row("parity: share of codes that both choose alike, the least of all runs", same, "")]


def _drawn(plan: Plan, who: str) -> dict[int, list[Result]]:
    """What the contender found, round by round, for each size of the batch."""
    options = {"threads": plan.threads, "turns": plan.turns}
    runs = {f"{n} at once": partial(contender, who, "draw", n=n, **options) for n in plan.grids}
    return dict(zip(plan.grids, alternate(runs, plan.rounds).values(), strict=True))


def _speeds(found: Mapping[int, Sequence[Result]], names: Callable[[int], dict[str, str]], least: float) -> list[Row]:
    """For each size of the batch ours, which ``names(n)`` gives first, and the one that it is compared with."""
    rows: list[Row] = []
    for n, results in found.items():
        rates = _each(results, CODES, names(n))
        ours, other = rates
        rows += [at_least(ours, rates, ours, CODES), at_least(other, rates, ours, CODES, least)]
    return rows


def _apart(found: Mapping[int, Sequence[Result]], what: str, exponent: int) -> Row:
    """The largest difference of logits in all processes, each of which ends without a time where it is too large."""
    apart = max(result["largest_difference"] for results in found.values() for result in results)
    what, met = f"parity: largest difference of {what}", apart <= 10.0**exponent
    return Row(what, apart, "", target=f"≤ 1e{exponent}", met=met)
