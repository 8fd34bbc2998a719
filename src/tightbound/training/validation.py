"""A pass over the validation split, by any number of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data import Batch, Split
from ..randomness import fixed_noise
from .step import Step

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from .prior import PriorStep

__all__ = ["mean_rows"]

CHUNK = 100
"""Examples at once, whatever the batch size: the noise that an example sees depends on nothing but its place."""


def mean_rows(fabric: Fabric, step: Step | PriorStep, split: Split) -> Tensor:
    """The mean of every row of a step over a split, in float64: the same for any number of processes.

    The split is cut alike for all, each chunk draws the noise of its place and goes to one process, and the sums of
    the chunks are added up in their order.

    Args:
        fabric: This process, and how it speaks to the others.
        step: From a batch to its rows, not wrapped for training.
        split: At least one example.

    Returns:
        ``(rows,)``, on the CPU, equal in all processes.
    """
    chunks = torch.arange(len(split)).split(CHUNK)
    sums = torch.zeros(len(chunks), len(step.rows), device=fabric.device)
    for i in range(fabric.global_rank, len(chunks), fabric.world_size):
        with fixed_noise(part=i):
            sums[i] = _rows_of(step, split.batch(chunks[i], fabric.device)).sum(1)
    every: Tensor = fabric.all_reduce(sums, reduce_op="sum")  # pyright: ignore[reportAssignmentType]
    return every.cpu().double().sum(0) / len(split)


def _rows_of(step: Step | PriorStep, batch: Batch) -> Tensor:
    x = batch.x.to(next(step.parameters()).dtype)
    return step(x, torch.ones((), device=x.device), step.model.conditions(batch))
