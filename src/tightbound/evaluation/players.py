"""The health of a perceptual and adversarial training, from the log of a run, as sentences."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..options.adversarial import Adversarial
from ..runs import RunFolder
from ..runs.readings import number

__all__ = ["health_of_players", "players_of"]

WINS, LOSES = 0.95, 0.55
"""Accuracies of the discriminator above which its judgement teaches nothing, and below which it is noise."""
CLAMPED = 0.99
"""Share of the largest adaptive weight from which on it counts as clamped."""
DEAD = 0.02
"""Share of the largest deviation of a channel below which another is dead."""
HALF, NEAR = 65504.0, 0.25
"""The largest number of half precision, and the share of it that is near."""
LATE = 4
"""The last records are those of the last n-th of the judged steps."""


def players_of(folder: RunFolder) -> tuple[str, ...]:
    """The health of the two players of a run, as sentences; empty if its objective has none."""
    recipe = folder.config().recipe
    objective = recipe.training_objective if recipe else None
    if not isinstance(objective, Adversarial):
        return ()
    return health_of_players([record for record in folder.records() if record["split"] == "train"], objective)


def health_of_players(records: Sequence[Mapping[str, Any]], objective: Adversarial) -> tuple[str, ...]:
    """What the log of a training tells of its two players, and what to change; one sentence each.

    Args:
        records: The records of the training split, in order.
        objective: What was trained.

    Example:
        >>> log = [{"step": i, "ramp": 1.0, "accuracy": 0.99, "gap": 4.0, "discriminator": 0.01} for i in range(8)]
        >>> health_of_players(log, Adversarial())[0][:41]
        'The discriminator wins: it tells 99 % of '
    """
    found = [*_of_discriminator(records, objective)] if objective.plays else []
    return (*found, *_of_latents(records[-1:]), *_of_activations(records))


def _of_discriminator(records: Sequence[Mapping[str, Any]], o: Adversarial) -> Iterator[str]:
    judged = [record for record in records if (number(dict(record), "ramp") or 0) > 0]
    if not judged:
        last = records[-1]["step"] if records else 0
        yield (
            f"The discriminator never judges: the run was to start it after {o.start:.0%} of its steps, and ended at "
            f"step {last:,}. Remedy: train longer, or lower --adversarial-start."
        )
        return
    late = judged[-max(1, len(judged) // LATE) :]
    accuracy, gap, weight = (_median(late, name) for name in ("accuracy", "gap", "adaptive_weight"))
    clamped = weight is not None and weight >= CLAMPED * o.largest
    if clamped:
        yield (
            f"The adaptive weight is at its largest value, {o.largest:g}: the discriminator's gradient at the "
            "decoder's last layer is almost nothing. Remedy: let it learn more before it judges "
            "(--adversarial-start), or faster (--discriminator-share), or use a fixed weight (--adaptive none)."
        )
    yield from _of_balance(accuracy, gap, weight, clamped)


def _of_balance(accuracy: float | None, gap: float | None, weight: float | None, clamped: bool) -> Iterator[str]:
    if accuracy is None or gap is None:
        return
    told = f"it tells {accuracy:.0%} of the patches apart, with a gap of {gap:.2g} between its logits"
    told = told.replace("%", " %")
    if accuracy >= WINS:
        yield (
            f"The discriminator wins: {told}, so the decoder learns little from it. Remedy: slow it down "
            "(--discriminator-share 0.25), keep it smooth (--lecam 0.01 or --r1 1), or start it earlier."
        )
    elif accuracy <= LOSES:
        yield (
            f"The discriminator is fooled: {told}, so its judgement is almost chance. Remedy: speed it up "
            "(--discriminator-share 2) or widen it (--discriminator-width 96)."
        )
    elif not clamped:
        balance = "" if weight is None else f", and the adaptive weight is {weight:.3g}"
        yield f"The two players are balanced: the discriminator is at {accuracy:.0%}".replace("%", " %") + (
            f" accuracy with a gap of {gap:.2g} between its logits{balance}."
        )


def _of_latents(last: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for record in last:
        deviations = record.get("latent_deviations")
        if not isinstance(deviations, list) or not all(isinstance(each, int | float) for each in deviations):
            return
        dead = [str(i) for i, each in enumerate(deviations) if each <= DEAD * max(deviations)]
        if dead:
            which = f"channel {dead[0]} is" if len(dead) == 1 else f"channels {', '.join(dead)} are"
            yield (
                f"Of {len(deviations)} channels of the latent, {which} dead: the same for all images. Remedy: fewer "
                "--latent-channels, or a smaller weight of the KL."
            )


def _of_activations(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    peak = max((number(dict(record), "largest_activation") or 0.0 for record in records[-1:]), default=0.0)
    if peak >= NEAR * HALF:
        yield (
            f"The largest activation is {peak:,.0f}, near the largest number of half precision, {HALF:,.0f}: the "
            "networks may return NaN there. Remedy: use them in bf16 or float32."
        )


def _median(records: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [value for record in records if (value := number(dict(record), name)) is not None]
    return statistics.median(values) if values else None
