"""A split as float64 rows in chunks, with the same noise in every pass, for fitting baselines.

Convention: a row is an example of D entries as a model sees it; a level :math:`l` of L is :math:`x = l / (L - 1)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ...data import DataSpec, Split
from ...errors import UsageError
from ...runtime.randomness import fixed_noise

__all__ = ["chunks", "levels_of", "levels_only", "undequantized", "within_limit"]

ENTRIES = 1 << 21
"""Number of entries per chunk."""
MOST_ENTRIES = 1 << 28
"""Maximum number of entries for fitting a baseline, from evenly spaced training examples."""


def chunks(split: Split) -> Iterator[Tensor]:
    """All examples in order, ``(n, D)``, with the same noise in every pass."""
    size = max(1, ENTRIES // split.spec.dimensions)
    for part, indices in enumerate(torch.arange(len(split)).split(size)):
        with fixed_noise(0, part):
            x = split.batch(indices).x
        yield x.flatten(1).double()


def undequantized(split: Split) -> Split:
    """The split without dequantisation noise, flips and random crops."""
    return replace(split, transform=replace(split.transform.still, dequantize=False))


def levels_only(split: Split) -> Split:
    """Levels, or the probabilities of dynamically binarised values."""
    split = undequantized(split)
    if split.transform.binarize != "dynamic":
        return split
    return replace(split, transform=replace(split.transform, binarize="none"))


def within_limit(split: Split) -> Split:
    """All examples, or as many evenly spaced ones as :data:`MOST_ENTRIES` allows."""
    return split.evenly_spaced(max(2, MOST_ENTRIES // split.spec.dimensions))


def levels_of(spec: DataSpec) -> int:
    """The number of levels of the data.

    Raises:
        UsageError: If it is continuous.
    """
    if spec.levels is None:
        raise UsageError(
            "Continuous data has no probability mass.",
            got=f"{spec.name!r}, floats",
            expected="data with levels",
            remedy="Compare densities instead: ppca_log_density.",
        )
    return spec.levels
