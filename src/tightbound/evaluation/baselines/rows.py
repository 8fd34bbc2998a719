"""A split as float64 rows in chunks, the same draws at every pass: what models without a network are fitted on.

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

__all__ = ["chunks", "levels_of", "levels_only", "limited", "undequantized"]

ENTRIES = 1 << 21
"""Entries that are worked on at once."""
MOST_ENTRIES = 1 << 28
"""A baseline is fitted on at most so many entries, of examples taken evenly from the training split."""


def chunks(split: Split) -> Iterator[Tensor]:
    """All examples in order, ``(n, D)``, with the same draws at every pass."""
    size = max(1, ENTRIES // split.spec.dimensions)
    for part, indices in enumerate(torch.arange(len(split)).split(size)):
        with fixed_noise(0, part):
            x = split.batch(indices).x
        yield x.flatten(1).double()


def undequantized(split: Split) -> Split:
    """The same without the noise of dequantisation, without mirroring and random crops."""
    return replace(split, transform=replace(split.transform.still, dequantize=False))


def levels_only(split: Split) -> Split:
    """Levels, or in place of draws of a binary value its probability."""
    split = undequantized(split)
    if split.transform.binarize != "dynamic":
        return split
    return replace(split, transform=replace(split.transform, binarize="none"))


def limited(split: Split) -> Split:
    """All examples, or as many at even distances as :data:`MOST_ENTRIES` allows."""
    return split.evenly_spaced(max(2, MOST_ENTRIES // split.spec.dimensions))


def levels_of(spec: DataSpec) -> int:
    """How many levels the data has.

    Raises:
        UsageError: If it is continuous.
    """
    if spec.levels is None:
        raise UsageError(
            "Continuous data has no probability of its values.",
            got=f"{spec.name!r}, floats",
            expected="data with levels",
            remedy="Compare densities instead: ppca_log_density.",
        )
    return spec.levels
