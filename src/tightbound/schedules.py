"""Learning rate and weight of the KL over a run: pure functions of the step, so that resuming needs no state."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["learning_rate", "ramp"]


def ramp(step: int, length: int) -> float:
    """A linear rise from just above 0 at step 0 to 1 at step ``length - 1`` and after.

    Example:
        >>> [ramp(step, 4) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return 1.0 if length <= 0 else min(1.0, (step + 1) / length)


def learning_rate(step: int, steps: int, schedule: Literal["constant", "cosine"], warmup: int = 0) -> float:
    """The factor on the learning rate: a linear rise, then constant or half a cosine down to 0 at the end.

    Args:
        step: The step to come, from 0.
        steps: Steps of the whole run.
        schedule: ``"constant"`` or ``"cosine"``.
        warmup: Steps of the rise.

    Example:
        >>> [round(learning_rate(step, 4, "cosine"), 2) for step in range(4)]
        [1.0, 0.85, 0.5, 0.15]
    """
    rise = ramp(step, warmup)
    if schedule == "constant" or step < warmup:
        return rise
    done = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * done))
