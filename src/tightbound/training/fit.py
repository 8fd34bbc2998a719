"""A network fitted by itself, in as few lines as can be: without a run folder, among no processes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..runtime.progress import progress
from ..runtime.randomness import epoch_order, fixed_noise

__all__ = ["fit", "steps_per_epoch"]


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Steps of an epoch of :func:`fit`: whole batches, or the one there is.

    Example:
        >>> steps_per_epoch(250, 100), steps_per_epoch(50, 100)
        (2, 1)
    """
    return max(1, examples // batch_size)


def fit(
    loss: Callable[[Tensor], Tensor],
    optimizer: Optimizer,
    schedule: LRScheduler,
    *,
    examples: int,
    batch_size: int,
    epochs: int,
    seed: int,
    name: str,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Moves what an optimiser moves down a loss; the same seed takes the same way.

    Args:
        loss: The loss of the examples of some numbers, whose noise follows from the seed and the step.
        optimizer: What moves.
        schedule: Of its learning rate, by the step.
        examples: How many there are.
        batch_size: How many a step takes.
        epochs: Passes over them; what is left behind the last whole batch of each is left out.
        seed: Of the order of the examples, and of all noise.
        name: What is fitted, for the progress bar.
        goes_on: Asked behind every epoch: whether another follows.

    Example:
        >>> import torch
        >>> w, x = torch.zeros(1, requires_grad=True), torch.ones(10)
        >>> optimizer = torch.optim.SGD([w], lr=0.25)
        >>> constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        >>> distance = lambda chosen: (x[chosen] - w).square().mean()
        >>> fit(distance, optimizer, constant, examples=10, batch_size=5, epochs=10, seed=0, name="a number")
        >>> round(w.item(), 4)
        1.0
    """
    steps = steps_per_epoch(examples, batch_size)
    with progress(name, epochs * steps) as advance:
        for epoch in range(epochs):
            for step, chosen in enumerate(epoch_order(seed, epoch, examples).split(batch_size)[:steps]):
                with fixed_noise(seed, 1 + epoch * steps + step):
                    found = loss(chosen)
                optimizer.zero_grad()
                found.backward()
                optimizer.step()
                schedule.step()
                advance()
            if not goes_on():
                return
