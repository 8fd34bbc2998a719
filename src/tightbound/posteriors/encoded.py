r"""Encoded examples: the training data of a second stage.

Convention: ``values`` has one entry for each of n examples, as stored; codes stay integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import lower_bound
from ..distributions.codes import CodeDistribution, CodeSpace
from ..errors import ObjectiveError

__all__ = ["Draws", "Encoded", "EncodedCodes", "Moments"]


@dataclass(frozen=True, eq=False)
class Encoded:
    """Abstract: n encoded examples.

    Args:
        values: What is stored, ``(n, ...)``.
    """

    values: Tensor

    def draw(self) -> Tensor:
        """Draws a latent of each, ``(n, *latent)``."""
        raise NotImplementedError

    @property
    def varied(self) -> bool:
        """Whether several draws of an example differ."""
        return False

    @property
    def deviations(self) -> Tensor | None:
        """The standard deviations of each example's posterior, ``(n, *latent)``; None if they are not known."""
        return None

    def log_prob(self, prior: Distribution) -> Tensor:
        """Log p(z) of a latent of each under a prior, or a bound on it, ``(n,)`` nats."""
        return lower_bound(prior, self.draw())

    def of(self, values: Tensor) -> Encoded:
        """Other examples in the same form."""
        return type(self)(values)


@dataclass(frozen=True, eq=False)
class Draws(Encoded):
    """Sampled latents, ``(n, *latent)``.

    Args:
        values: The latents.
        certain: Whether every draw is the same, so that one per example suffices.

    Example:
        >>> Draws(torch.zeros(5, 2)).draw().shape
        torch.Size([5, 2])
    """

    certain: bool = False

    def draw(self) -> Tensor:
        return self.values

    @property
    def varied(self) -> bool:
        return not self.certain

    def of(self, values: Tensor) -> Encoded:
        return Draws(values, self.certain)


class Moments(Encoded):
    """Means and standard deviations of independent Gaussians, ``(n, 2, *latent)``, for vectors and grids.

    Example:
        >>> Moments(torch.zeros(5, 2, 3, 8, 8)).draw().shape
        torch.Size([5, 3, 8, 8])
    """

    def draw(self) -> Tensor:
        mean, std = self.values.unbind(1)
        return mean + std * torch.randn_like(std)

    @property
    def deviations(self) -> Tensor:
        return self.values[:, 1]


@dataclass(frozen=True, eq=False)
class EncodedCodes(Encoded):
    """The codes of all levels, flattened, integers ``(n, positions)``, in the smallest sufficient type.

    Args:
        values: The codes.
        space: Their code space.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> model = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> kept = EncodedCodes.of_levels((torch.zeros(5, 4, 4).long(),), model.posterior)
        >>> kept.values.shape, kept.values.dtype, kept.draw().shape
        (torch.Size([5, 16]), torch.uint8, torch.Size([5, 64, 4, 4]))
    """

    space: CodeSpace

    @classmethod
    def of_levels(cls, levels: Sequence[Tensor], space: CodeSpace) -> EncodedCodes:
        """Codes of each level ``(n, *grid)``."""
        codes = torch.cat([level.flatten(1) for level in levels], dim=1)
        return cls(codes.to(torch.uint8 if max(space.levels) <= 256 else torch.int32), space)

    @property
    def levels(self) -> tuple[Tensor, ...]:
        """The codes of each level, int64 ``(n, *grid)``."""
        rows = self.values.long().split([math.prod(grid) for grid in self.space.grids], dim=1)
        return tuple(row.unflatten(1, grid) for row, grid in zip(rows, self.space.grids, strict=True))

    def draw(self) -> Tensor:
        return self.space.embed(self.levels)

    def log_prob(self, prior: Distribution) -> Tensor:
        if not isinstance(prior, CodeDistribution):
            raise ObjectiveError(
                "Encoded codes need a prior over codes.", got=type(prior).__name__, expected="a CodeDistribution"
            )
        return prior.code_bound(self.levels).sum(-1)

    def of(self, values: Tensor) -> Encoded:
        return EncodedCodes(values, self.space)
