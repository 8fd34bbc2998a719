"""A minimal training loop: without a run folder, in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..runtime.progress import progress
from ..runtime.randomness import epoch_order, fixed_noise

__all__ = ["Passes", "fit"]


@dataclass(frozen=True)
class Passes:
    """The order of examples in a fit; an incomplete last batch of an epoch is dropped.

    Args:
        examples: Number of examples.
        batch_size: Examples per step.
        epochs: Passes over the examples.
        seed: Seed of the order and of all noise.

    Example:
        >>> Passes(250, 100, epochs=3).steps, Passes(50, 100, epochs=3).steps
        (6, 3)
    """

    examples: int
    batch_size: int
    epochs: int
    seed: int = 0

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return max(1, self.examples // self.batch_size)

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return self.epochs * self.per_epoch

    def epoch(self, number: int) -> tuple[Tensor, ...]:
        """The examples of each step of an epoch."""
        return epoch_order(self.seed, number, self.examples).split(self.batch_size)[: self.per_epoch]


def fit(
    name: str,
    loss: Callable[[Tensor], Tensor],
    passes: Passes,
    optimizer: Optimizer,
    schedule: LRScheduler,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Minimises a loss with an optimiser; deterministic given the seed.

    Args:
        name: A name for the progress bar.
        loss: The loss of examples by index; its noise depends on seed and step.
        passes: The order of the examples.
        optimizer: The optimiser.
        schedule: Its learning rate by step.
        goes_on: Called after every epoch; returns whether to continue.

    Example:
        >>> import torch
        >>> w, x = torch.zeros(1, requires_grad=True), torch.ones(10)
        >>> optimizer = torch.optim.SGD([w], lr=0.25)
        >>> constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        >>> fit("a number", lambda chosen: (x[chosen] - w).square().mean(), Passes(10, 5, 10), optimizer, constant)
        >>> round(w.item(), 4)
        1.0
    """
    with progress(name, passes.steps) as advance:
        for epoch in range(passes.epochs):
            for step, chosen in enumerate(passes.epoch(epoch)):
                with fixed_noise(passes.seed, 1 + epoch * passes.per_epoch + step):
                    found = loss(chosen)
                optimizer.zero_grad()
                found.backward()
                optimizer.step()
                schedule.step()
                advance()
            if not goes_on():
                return
