"""Learning rate, weight of the KL and temperature: pure functions of the step, so that resuming needs no state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

__all__ = ["learning_rate", "ramp", "temperature", "weight"]


def ramp(step: int, length: int) -> float:
    """A linear rise from just above 0 at step 0 to 1 at step ``length - 1`` and after.

    Example:
        >>> [ramp(step, 4) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return 1.0 if length <= 0 else min(1.0, (step + 1) / length)


def weight(
    step: int, length: int, kind: Literal["linear", "cosine", "sigmoid", "cyclical"] = "linear", cycles: int = 4
) -> float:
    r"""The factor on the KL's weight: rises from about 0 to 1 at step ``length - 1`` and stays at 1.

    With :math:`t` the linear :func:`ramp`: linear, :math:`t`; cosine, :math:`(1 - \cos \pi t) / 2`; sigmoid, a logistic
    curve from -6 to 6 stretched to reach 0 and 1; cyclical, in each cycle a linear rise over the first half and 1 over
    the second.

    References:
        Generating Sentences from a Continuous Space (Bowman et al., 2016).
        Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing (Fu et al., 2019).

    Args:
        step: The next step, counted from 0.
        length: Steps of the rise.
        kind: Its shape.
        cycles: Number of cycles of a cyclical weight.

    Example:
        >>> [round(weight(step, 4, "cosine"), 2) for step in range(5)]
        [0.15, 0.5, 0.85, 1.0, 1.0]
        >>> [weight(step, 8, "cyclical", cycles=2) for step in range(9)]
        [0.5, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    """
    t = ramp(step, length)
    if t == 1 or kind == "linear":
        return t
    if kind == "cosine":
        return 0.5 * (1 - math.cos(math.pi * t))
    if kind == "sigmoid":
        return 0.5 * (1 + math.tanh(3 * (2 * t - 1)) / math.tanh(3))
    begin = next(begin for i in range(cycles, -1, -1) if (begin := -(-i * length // cycles)) <= step)
    return ramp(step - begin, -(-length // (2 * cycles)))


def learning_rate(
    step: int,
    steps: int,
    schedule: Literal["constant", "cosine", "step"],
    warmup: int = 0,
    milestones: Sequence[int] = (),
    factor: float = 0.1,
) -> float:
    """The factor on the learning rate: a linear rise, then constant, half a cosine down to 0 at the end, or steps.

    Args:
        step: The next step, counted from 0.
        steps: Steps of the run.
        schedule: ``"constant"``, ``"cosine"`` or ``"step"``.
        warmup: Steps of the rise.
        milestones: Steps at which the schedule ``"step"`` multiplies by the factor.
        factor: The multiplier at each milestone.

    Example:
        >>> [round(learning_rate(step, 4, "cosine"), 2) for step in range(4)]
        [1.0, 0.85, 0.5, 0.15]
        >>> [learning_rate(step, 4, "step", milestones=[1, 3], factor=0.5) for step in range(4)]
        [1.0, 0.5, 0.5, 0.25]
    """
    rise = ramp(step, warmup)
    if schedule == "constant" or step < warmup:
        return rise
    if schedule == "step":
        return factor ** sum(step >= milestone for milestone in milestones)
    done = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def temperature(
    step: int,
    kind: Literal["exponential", "cosine", "constant"],
    start: float = 1.0,
    floor: float = 0.5,
    *,
    rate: float = 3e-5,
    steps: int = 0,
    hold: int = 1,
) -> float:
    r"""The temperature of a relaxation, falling from its start to its floor.

    Exponential, :math:`\max(\tau_1, \tau_0 e^{-r t})` from the start :math:`\tau_0` with rate r to the floor
    :math:`\tau_1`; cosine, half a cosine from start to floor over ``steps``, then the floor; constant, the start.

    References:
        Categorical Reparameterization with Gumbel-Softmax (Jang, Gu and Poole, 2017).
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

    Args:
        step: The next step, counted from 0.
        kind: Shape of the schedule.
        start: At step 0.
        floor: Where it ends.
        rate: Exponential decay rate per step.
        steps: Length of the cosine.
        hold: The temperature changes only every ``hold`` steps.

    Example:
        >>> [round(temperature(step, "exponential", rate=0.3), 3) for step in range(4)]
        [1.0, 0.741, 0.549, 0.5]
        >>> [temperature(step, "cosine", floor=0.5, steps=2) for step in range(4)]
        [1.0, 0.75, 0.5, 0.5]
    """
    step -= step % hold
    if kind == "constant":
        return start
    if kind == "exponential":
        return max(floor, start * math.exp(-rate * step))
    if step >= steps:
        return floor
    return floor + (start - floor) * 0.5 * (1 + math.cos(math.pi * step / steps))
