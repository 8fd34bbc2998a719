"""Top-down hierarchical variational autoencoders: the ladder, and very deep ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

from ..errors import UsageError
from ..options.choices import CHOICE
from ..options.objectives import Elbo, LatentObjective
from ..options.parts import Activation, EntryLikelihood, require_sizes
from ..options.priors import LatentSpace
from ..spec import register
from .base import Recipe

__all__ = ["VDVAE", "Ladder", "TopDownRecipe"]

ArmName = Literal["residual", "direct", "merge"]
AUTO = "auto"


@dataclass(frozen=True)
class TopDownRecipe(EntryLikelihood, Recipe):
    """Abstract: groups of latents on grids of rising resolution, inferred from the top down."""

    first_options: ClassVar[tuple[str, ...]] = ("grids", "groups", "channels")
    latent_space: ClassVar[LatentSpace] = "vector"

    grids: tuple[int, ...] = ()
    """Rows of each grid of latents, the coarsest first; the last must divide the image's height. Default: 1, and a
    quarter of the height."""
    groups: tuple[int, ...] = (2, 4)
    """Groups of latents on each grid, the coarsest first, or one number for all."""
    channels: int = 64
    """Channels of all networks."""
    latent_channels: int = 8
    """Channels of each group of latents."""
    posterior: ArmName = "residual"
    """q(z of a group given those above it, and x): residual (changes the prior's mean and deviation), direct, or merge
    (multiplies the prior by a message from x alone)."""
    blocks: int = 2
    """Residual blocks of the encoder on each grid."""
    activation: Activation = "silu"
    """Nonlinearity between layers."""
    zero_last: bool = True
    """Start with the prior's and the residual posterior's last layers at zero."""
    scale_last: bool = True
    """Scale the initial last layers of residual blocks by one over the root of the number of groups."""
    recompute: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    objective: LatentObjective = field(default=Elbo(), metadata=CHOICE)
    """The objective to maximise."""

    @property
    def training_objective(self) -> LatentObjective:
        return self.objective


@register("ladder")
@dataclass(frozen=True)
class Ladder(TopDownRecipe):
    r"""Ladder."""


@register("vdvae")
@dataclass(frozen=True)
class VDVAE(TopDownRecipe):
    r"""VDVAE."""
