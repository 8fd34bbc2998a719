r"""What a likelihood is: a decoder's distribution of the data, and what its number means.

Convention: log-densities are in nats and summed over the entries. Each likelihood says by :meth:`Likelihood.measure`
what its value is for given data: the probability of discrete data, a density, or no likelihood of that data at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ..distributions import Unconditional
from ..options.data_spec import DataSpec

__all__ = ["Likelihood", "Measure", "declared", "density_of", "mass_of", "undeclared"]


@dataclass(frozen=True)
class Measure:
    """What a log-likelihood is for given data, and how it becomes nats of that data.

    Args:
        kind: ``"mass"`` for the probability of discrete data, ``"bound"`` for a lower bound on it by dequantisation,
            ``"density"`` for a density, ``"none"`` if it is no likelihood of that data.
        note: The reason, as a sentence for reports.
        offset: Nats to add to the negative log-density so that it counts nats of the data: what dequantisation and
            standardising have changed.
        dimensions: How many entries it is of, where that is not all of an example.

    Example:
        >>> Measure("mass", "probability of binary data").comparable
        True
    """

    kind: Literal["mass", "bound", "density", "none"]
    note: str
    offset: float = 0.0
    dimensions: int | None = None

    @property
    def comparable(self) -> bool:
        """Whether bits per dimension of the discrete data follow from it."""
        return self.kind in ("mass", "bound")


class Likelihood(nn.Module):
    """Abstract: :math:`p(x | z, c)` that knows the shape of the data and what its number is.

    Any other module from z and c to a distribution can stand in its place; its number is then read as a density.
    """

    shape: tuple[int, ...] = ()
    """Shape of one example."""
    parameters_per_entry: int = 1
    """How many numbers are held for an entry."""
    mean_in_one_pass: bool = False
    """Whether its distributions have a mean without draws, of all entries."""
    scale: str = ""
    """Where its scale comes from, such as "per-dimension"; empty where it has none."""

    @property
    def sigma(self) -> tuple[str, Tensor] | None:
        """Whose the standard deviation of an entry is, and its value without the network's part; None without one."""
        return None

    embedding: nn.Module | None
    """From a condition to the features that its network is shown; None shows it the condition itself."""

    @property
    def unconditional(self) -> bool:
        """Whether it is given no condition, whatever the model is given."""
        return isinstance(self.embedding, Unconditional)

    def measure(self, data: DataSpec) -> Measure:
        """What the log-likelihood is for that data."""
        raise NotImplementedError


class _Undeclared(Likelihood):
    """What holds of a module that says nothing of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = None

    def measure(self, data: DataSpec) -> Measure:
        return undeclared(data)


def declared(likelihood: nn.Module) -> Likelihood:
    """A likelihood as far as it says what it is: itself, or what holds of any other module.

    Example:
        >>> declared(nn.Identity()).parameters_per_entry
        1
    """
    return likelihood if isinstance(likelihood, Likelihood) else _UNDECLARED


_UNDECLARED = _Undeclared()


def undeclared(data: DataSpec) -> Measure:
    """What the number of a model is that does not say what it measures.

    Example:
        >>> undeclared(DataSpec("vectors", shape=(3,), levels=None)).kind
        'density'
    """
    return Measure("density", "the model does not say what it measures: read as a density", data.log_volume)


def mass_of(levels: int, data: DataSpec, how: str = "") -> Measure:
    """What a probability of so many levels is for that data.

    Example:
        >>> mass_of(2, DataSpec("digits", shape=(1, 8, 8), levels=17)).kind
        'none'
    """
    if data.discrete and data.levels == levels:
        return Measure("mass", f"probability of data with {levels} levels{how}")
    return Measure("none", f"a mass over {levels} levels is no likelihood of this data")


def density_of(data: DataSpec) -> Measure:
    """What a density is of that data.

    Example:
        >>> density_of(DataSpec("vectors", shape=(3,), levels=None)).kind
        'density'
    """
    if data.levels is None:
        return Measure("density", "density of continuous data, in nats of its own units", data.log_volume)
    if data.dequantized:
        offset = data.dimensions * math.log(data.levels)
        density = f"the density of (level + u) / {data.levels} plus {data.dimensions} ln {data.levels} nats"
        return Measure("bound", f"bound on discrete data by uniform dequantisation: {density}", offset)
    scaled, gives = (
        f"density at {data.levels} discrete levels scaled to [0, 1]",
        "--likelihood auto, where the recipe has it",
    )
    gives += ", or --dequantize" if data.levels > 2 else ""
    return Measure("density", f"{scaled}: no likelihood of that data ({gives} gives one)")
