"""A pass over the validation split, with any number of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data import Batch, Split
from ..data.transform import widths
from ..models import LatentVariableModel, Model
from ..runtime.randomness import fixed_noise
from ..views.latents import residual
from .device import reduced
from .steps.base import Step

if TYPE_CHECKING:
    from lightning_fabric import Fabric


__all__ = ["mean_rows", "mean_squared_error"]

CHUNK = 100
"""Examples per chunk, independent of the batch size, so that the noise of an example depends only on its index."""
ENTRIES = 2**17
"""Approximate number of entries for the squared error: a mean over 256 levels costs more than a bound."""


def mean_rows(fabric: Fabric, step: Step, split: Split) -> Tensor:
    """The mean of every row of a step over a split, in float64: the same for any number of processes.

    The chunks are the same for all; each chunk has its own noise and is computed by one process, and the sums are added
    in order.

    Args:
        fabric: This process and its communication.
        step: Maps a batch to its rows, not wrapped for training.
        split: At least one example.

    Returns:
        ``(rows,)``, on the CPU, equal in all processes.
    """
    chunks = torch.arange(len(split)).split(CHUNK)
    sums = torch.zeros(len(chunks), len(step.rows), device=fabric.device)
    for i in range(fabric.global_rank, len(chunks), fabric.world_size):
        with fixed_noise(part=i):
            sums[i] = _rows_of(step, split.batch(chunks[i], fabric.device)).sum(1)
    return reduced(fabric, sums, "sum").cpu().double().sum(0) / len(split)


def _rows_of(step: Step, batch: Batch) -> Tensor:
    x, c = step.see(batch)
    return step(x, torch.ones((), device=x.device), c)


def mean_squared_error(model: Model, split: Split) -> Tensor | None:
    """Squared error of the mean of p(x | z) at representative latents, of evenly spaced examples of a split.

    Args:
        model: The model.
        split: At least one example; examples with about :data:`ENTRIES` entries are used.

    Returns:
        Three numbers on the CPU: summed over an example, in squared units of the data; the mean of an entry, in those
        that the model sees; how many examples. None if the mean of p(x | z) takes more than one pass.
    """
    if not isinstance(model, LatentVariableModel) or not model.reconstructs:
        return None
    wanted = max(1, ENTRIES // split.spec.dimensions)
    n = min(len(split), wanted)
    chosen = torch.arange(n) * len(split) // n
    units, sums = widths(split.spec).to(model.device, model.dtype), list[Tensor]()
    with fixed_noise():
        for part in chosen.split(CHUNK):
            errors = residual(model, split.batch(part, model.device)).float()
            sums.append(torch.stack([(errors * units).square().sum(), errors.square().sum() / split.spec.dimensions]))
    return torch.cat([torch.stack(sums).cpu().double().sum(0) / n, torch.tensor([n], dtype=torch.float64)])
