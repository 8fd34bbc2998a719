"""Quantities that depend on the progress of training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..annealing import learning_rate, weight
from ..options.training import TrainingOptions

__all__ = ["Clock"]


@dataclass(frozen=True)
class Clock:
    """The position of a step in training, and the scheduled quantities.

    Args:
        options: The training options.
        examples: Size of the training split.
        step: The next step, counted from 0.

    Example:
        >>> clock = Clock(TrainingOptions(epochs=2, batch_size=100, lr_schedule="constant"), examples=250, step=4)
        >>> clock.steps, clock.epoch, clock.position, clock.lr, clock.beta, clock.warm
        (6, 1, 1, 0.001, 1.0, True)
    """

    options: TrainingOptions
    examples: int
    step: int = 0

    def at(self, step: int) -> Clock:
        """The clock at another step of the same run."""
        return dataclasses.replace(self, step=step)

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.options.total_steps(self.examples)

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.options.steps_per_epoch(self.examples)

    @property
    def epoch(self) -> int:
        """The epoch, from 0."""
        return self.step // self.per_epoch

    @property
    def position(self) -> int:
        """Index of the step in its epoch, from 0."""
        return self.step % self.per_epoch

    @property
    def lr(self) -> float:
        """The learning rate."""
        o, milestones = self.options, [m * self.per_epoch for m in self.options.lr_milestones]
        factor = o.lr_factor
        return o.lr * learning_rate(
            self.step, self.steps, o.lr_schedule, o.lr_warmup, milestones=milestones, factor=factor
        )

    @property
    def warmup(self) -> int:
        """Steps over which the weight of the KL rises."""
        return self.options.warmup_steps(self.examples)

    @property
    def warm(self) -> bool:
        """Whether warm-up is over."""
        return self.step >= self.warmup

    @property
    def beta(self) -> float:
        """The weight of the KL, from 0 to 1."""
        return weight(self.step, self.warmup, self.options.beta_schedule, self.options.beta_cycles)
