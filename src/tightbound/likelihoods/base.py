r"""Likelihoods: the distribution of the data given a latent, and what its log-density means.

Convention: log-densities are in nats and summed over the entries. :meth:`Likelihood.measure` states what the value is
for given data: the probability of discrete data, a density, or not a likelihood of that data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.distributions import Distribution

from ..distributions import Unconditional
from ..errors import ObjectiveError
from ..options.data_spec import DataSpec

__all__ = ["Likelihood", "Measure", "declared", "density_of", "mass_of", "undeclared"]


@dataclass(frozen=True)
class Measure:
    """What a log-likelihood means for given data, and how it is converted to nats of that data.

    Args:
        kind: ``"mass"`` for the probability of discrete data, ``"bound"`` for a lower bound on it by dequantisation,
            ``"density"`` for a density, ``"none"`` if it is not a likelihood of that data.
        note: The reason, as a sentence for reports.
        offset: Nats to add to the negative log-density to undo dequantisation and standardisation.
        dimensions: Number of entries it covers, if not all of an example.

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
        """Whether it gives bits per dimension of the discrete data."""
        return self.kind in ("mass", "bound")


class Likelihood(nn.Module):
    """Abstract: :math:`p(x | z, c)`, with the shape of the data and the meaning of its log-density.

    Any other module that maps z and c to a distribution can be used instead; its value is then read as a density.
    """

    shape: tuple[int, ...] = ()
    """Shape of one example."""
    parameters_per_entry: int = 1
    """Number of parameters held per entry."""
    mean_in_one_pass: bool = False
    """Whether its distributions have a closed-form mean of all entries."""
    scale: str = ""
    """How its scale is determined, such as "per-dimension"; empty if it has none."""

    @property
    def sigma(self) -> tuple[str, Tensor] | None:
        """Source and value of the standard deviation of an entry, without the network's part; None without one."""
        return None

    input_shape: tuple[int, ...] = ()
    """Shape of one latent."""

    @property
    def decoder(self) -> nn.Module | None:
        """The network whose output :meth:`given` takes; None if there is none."""
        return None

    embedding: nn.Module | None
    """Maps a condition to features for its network; None passes the condition itself."""

    @property
    def unconditional(self) -> bool:
        """Whether it ignores the condition of the model."""
        return isinstance(self.embedding, Unconditional)

    def measure(self, data: DataSpec) -> Measure:
        """What the log-likelihood means for that data."""
        raise NotImplementedError

    def nats_per_error(self, width: float) -> Tensor:
        r"""The nats of one unit of the summed error, absolute or squared, of which its log-density is made.

        Args:
            width: Units of the error for one unit of the data: 2 where images in [0, 1] are compared in [-1, 1].

        Raises:
            ObjectiveError: If its log-density is not such an error.
        """
        raise ObjectiveError(
            "A published weight needs a likelihood whose logarithm is an absolute or a squared error.",
            got=type(self).__name__,
            expected="a Laplace or a Gaussian likelihood",
            remedy="Use --likelihood laplace or gaussian; or state the weight of a KL in nats: --kl-weight 0.001.",
        )

    def takes_output_of(self, network: nn.Module) -> bool:
        """Whether :meth:`given` takes what that very network outputs."""
        return False

    def given(self, output: Tensor) -> Distribution:
        """The distribution of x from what its network outputs, ``(*leading, ...)``: the end of a call.

        Raises:
            ShapeError: If the output does not fit.
        """
        raise NotImplementedError


class _Undeclared(Likelihood):
    """The declarations assumed for any other module."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = None

    def measure(self, data: DataSpec) -> Measure:
        return undeclared(data)


def declared(likelihood: nn.Module) -> Likelihood:
    """The declarations of a likelihood: the module itself, or defaults if it is not a :class:`Likelihood`.

    Example:
        >>> declared(nn.Identity()).parameters_per_entry
        1
    """
    return likelihood if isinstance(likelihood, Likelihood) else _UNDECLARED


_UNDECLARED = _Undeclared()


def undeclared(data: DataSpec) -> Measure:
    """The measure of a model that does not state what it measures.

    Example:
        >>> undeclared(DataSpec("vectors", shape=(3,), levels=None)).kind
        'density'
    """
    return Measure("density", "the model does not state what it measures: read as a density", data.log_volume)


def mass_of(levels: int, data: DataSpec, how: str = "") -> Measure:
    """What a probability mass over that many levels means for that data.

    Example:
        >>> mass_of(2, DataSpec("digits", shape=(1, 8, 8), levels=17)).kind
        'none'
    """
    if data.discrete and data.levels == levels:
        return Measure("mass", f"probability of data with {levels} levels{how}")
    return Measure("none", f"a mass over {levels} levels is not a likelihood of this data")


def density_of(data: DataSpec) -> Measure:
    """What a density means for that data.

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
        "--likelihood auto, if the recipe supports it",
    )
    gives += ", or --dequantize" if data.levels > 2 else ""
    return Measure("density", f"{scaled}: not a likelihood of that data ({gives} gives one)")
