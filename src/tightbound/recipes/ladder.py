"""Top-down hierarchical variational autoencoders: the ladder, and very deep ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ..errors import UsageError
from ..options.choices import CHOICE
from ..options.data_spec import DataSpec
from ..options.objectives import Elbo, LatentObjective
from ..options.parts import Activation, EntryLikelihood, require_sizes
from ..options.priors import LatentSpace
from ..spec import register
from .base import Recipe

__all__ = ["VDVAE", "Ladder", "TopDownRecipe"]

ArmName = Literal["residual", "direct", "merge"]
MOST = 256
"""Latents for each entry of an image, at most: published models have up to about 130."""
SizeName = Literal["small", "medium", "large"]


@dataclass(frozen=True)
class Size:
    """Defaults of one size.

    Args:
        channels: Channels of all networks.
        patches: For each grid, the coarsest first, the side of a position in pixels; 0 for one position.
        groups: Groups of each grid.
    """

    channels: int
    patches: tuple[int, ...]
    groups: tuple[int, ...]

    def rows(self, height: int, fits: Sequence[int]) -> tuple[int, ...]:
        """Rows of the grids of an image; coarse grids that coincide are left out.

        The finest is the divisor of the height nearest to what is wanted, and one row only if there is no other near.

        Args:
            height: Of the image.
            fits: Rows that divide it.
        """
        wanted = [1 if patch == 0 else max(1, height // patch) for patch in self.patches]
        near = [rows for rows in fits if 1 < rows <= 4 * wanted[-1]] or [1]
        finest = min(near, key=lambda rows: abs(math.log(rows / wanted[-1])))
        return tuple(sorted({*(rows for rows in wanted if rows < finest), finest}))


@dataclass(frozen=True)
class TopDownRecipe(EntryLikelihood, Recipe):
    """Abstract: groups of latents on grids of rising resolution, inferred from the top down."""

    first_options: ClassVar[tuple[str, ...]] = ("size", "groups")
    latent_space: ClassVar[LatentSpace] = "vector"
    sizes: ClassVar[dict[str, Size]]
    """Default channels, and for every grid its share of the image's height and its number of groups, by size."""

    size: SizeName = "small"
    """Sets the defaults of grids, groups and channels: small for a CPU (a ladder has 2 groups on 1 x 1, and 4 on a
    quarter of the image's rows), medium, or large for a GPU."""
    grids: tuple[int, ...] | Literal["auto"] = "auto"
    """Rows of each grid of latents, the coarsest first; the last must divide the image's height. Columns follow from
    the shape of the image."""
    groups: tuple[int, ...] | Literal["auto"] = "auto"
    """Groups of latents on each grid, the coarsest first, or one number for all."""
    channels: int | Literal["auto"] = "auto"
    """Channels of all networks."""
    latent_channels: int = 8
    """Channels of each group of latents."""
    posterior: ArmName = "residual"
    """q(z) of a group given those above it, and x: residual (changes the prior's mean and deviation), direct, or merge
    (multiplies the prior by a message from x alone)."""
    blocks: int = 2
    """Residual blocks of the encoder on each grid, and of the decoder after each group."""
    activation: Activation = "silu"
    """Nonlinearity between layers."""
    zero_last: bool = True
    """Start the last layer of the networks that give each group's prior at zero, and of a residual posterior: each
    posterior is then its prior."""
    scale_last: bool = True
    """Scale the initial last layer of each residual block by one over the root of the number of groups."""
    recompute: bool = False
    """Recompute activations in the backward pass (gradient checkpointing): less memory, about a third more time."""
    objective: LatentObjective = field(default=Elbo(), metadata=CHOICE)
    """The objective to maximise; those of a single latent (tc, mmd, stl, iwae with dreg) are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("grids", "groups", "channels", "latent_channels", "blocks")
        given = {name: value for name in names if (value := getattr(self, name)) != "auto"}
        if not all(value for value in given.values() if isinstance(value, tuple)):
            raise UsageError(
                "A hierarchy needs at least one group of latents.",
                got="no grids, or no groups",
                expected="rows of each grid, and its number of groups",
                remedy="Leave --grids and --groups out: --size sets them.",
            )
        require_sizes(**given)
        if isinstance(self.grids, tuple) and any(
            finer <= coarser for coarser, finer in zip(self.grids, self.grids[1:], strict=False)
        ):
            raise UsageError(
                "The grids must rise from the top down.",
                got=f"grids {' '.join(map(str, self.grids))}",
                expected="the coarsest first, each finer than the one before",
                remedy=f"Try --grids {' '.join(map(str, sorted(set(self.grids))))}.",
            )
        if self.objective.one_latent:
            raise UsageError(
                "This objective is defined for one latent.",
                got="a hierarchy of latents",
                remedy="Use --objective elbo, or iwae with --gradient pathwise; or recipe vae.",
            )

    @property
    def training_objective(self) -> LatentObjective:
        return self.objective

    @property
    def width(self) -> int:
        """Channels of all networks."""
        return self.sizes[self.size].channels if self.channels == "auto" else self.channels

    def levels(self, data: DataSpec) -> list[tuple[tuple[int, int], int]]:
        """Rows and columns of each grid, the coarsest first, and its number of groups.

        Args:
            data: Images.

        Raises:
            UsageError: If the data are not images, or have no such grids.

        Example:
            >>> Ladder(grids=(1, 7), groups=(2, 4)).levels(DataSpec("mnist", shape=(1, 28, 28), levels=2))
            [((1, 1), 2), ((7, 7), 4)]
        """
        grids = self._grids(data)
        default = self.sizes[self.size].groups
        given = (default if len(default) == len(grids) else default[-1:]) if self.groups == "auto" else self.groups
        if len(given) not in (1, len(grids)):
            raise UsageError(
                "Each grid has a number of groups.",
                got=f"{len(given)} numbers for {len(grids)} grids: {_told(grids)}",
                expected=f"1 or {len(grids)} numbers",
                remedy=f"Try --groups {' '.join(['2'] * len(grids))}.",
            )
        each = given * len(grids) if len(given) == 1 else given
        self._require_room(data, grids, each)
        return list(zip(grids, each, strict=True))

    def chosen(self, data: DataSpec) -> list[str]:
        return [", ".join(f"{n} group{'s' * (n != 1)} on {_told([grid])}" for grid, n in self.levels(data))]

    def clip_norm(self, data: DataSpec) -> float:
        """A quarter of a nat for each dimension, since a rare example may have a gradient of any size.

        Example:
            >>> Ladder().clip_norm(DataSpec("digits", shape=(1, 8, 8), levels=17))
            16.0
        """
        return data.dimensions / 4

    def _require_room(self, data: DataSpec, grids: Sequence[tuple[int, int]], groups: Sequence[int]) -> None:
        """Refuses more groups than the image has entries, and far more latents than that."""
        latents = sum(n * rows * columns for (rows, columns), n in zip(grids, groups, strict=True))
        latents *= self.latent_channels
        if sum(groups) <= data.dimensions and latents <= MOST * data.dimensions:
            return
        raise UsageError(
            "The image has no room for so many groups of latents.",
            got=f"{sum(groups):,} groups with {latents:,} latents for {data.dimensions:,} entries of an image",
            expected=f"at most {data.dimensions:,} groups, and {MOST * data.dimensions:,} latents",
            remedy="Lower --groups or --latent-channels.",
        )

    def without_dead(self, alive: Sequence[bool], data: DataSpec) -> dict[str, Any]:
        """As many groups of each grid as are used; the finest grid keeps one, since the image needs it.

        Example:
            >>> digits = DataSpec("digits", shape=(1, 8, 8), levels=17)
            >>> Ladder(grids=(1, 4), groups=(2, 2)).without_dead([False, False, True, False], digits)
            {'grids': (4,), 'groups': (1,)}
        """
        left, kept = iter(alive), list[tuple[int, int]]()
        for (rows, _), count in self.levels(data):
            kept.append((rows, sum(next(left) for _ in range(count))))
        finest, used = kept.pop(), [(rows, n) for rows, n in kept if n]
        grids, groups = zip(*used, (finest[0], max(1, finest[1])), strict=True)
        return {"grids": grids, "groups": groups} if sum(groups) < len(alive) else {}

    def _grids(self, data: DataSpec) -> list[tuple[int, int]]:
        if len(data.shape) != 3:
            raise UsageError(
                "A top-down hierarchy on grids needs images.",
                got=f"examples of shape {data.shape}",
                expected="(channels, height, width)",
                remedy="Use recipe hvae, whose latents are vectors.",
            )
        _, height, width = data.shape
        fits = [rows for rows in range(1, height + 1) if height % rows == 0]
        rows = self.sizes[self.size].rows(height, fits) if self.grids == "auto" else self.grids
        if rows[-1] not in fits:
            too_fine = rows[-1] > height
            raise UsageError(
                "The image has no room for this grid." if too_fine else "The finest grid must divide the image.",
                got=f"{rows[-1]} rows for images of {height} x {width}",
                expected=f"one of: {', '.join(map(str, fits))}",
                remedy=f"Try --grids {' '.join(map(str, sorted({1, self.sizes['small'].rows(height, fits)[-1]})))}.",
            )
        divisors = [columns for columns in range(1, width + 1) if width % columns == 0]
        return [(r, min(divisors, key=lambda columns: abs(columns - r * width / height))) for r in rows]


@register("ladder")
@dataclass(frozen=True)
class Ladder(TopDownRecipe):
    r"""Ladder variational autoencoder: a few wide groups of latents, inferred from the top down.

    .. math:: p(x, z_1, \dots, z_L) = p(x \mid z) \, p(z_L) \prod_{l < L} p(z_l \mid z_{>l}), \qquad
        q(z \mid x) = q(z_L \mid x) \prod_{l < L} q(z_l \mid z_{>l}, x)

    The latent is the standard noise u of all groups in one vector, :math:`z_l = \mu_l(z_{>l}) + \sigma_l(z_{>l}) \,
    u_l`, so its prior is :math:`\mathcal{N}(0, I)`.

    References:
        Ladder Variational Autoencoders (Sønderby et al., 2016).
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), for the residual posterior.

    Raises:
        UsageError: If an option is out of range, or the images have no such grids.

    Example:
        >>> recipe = Ladder(grids=(1, 4), groups=(1, 2), channels=8)
        >>> model = recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> {name: z.shape[-1] for name, z in model().sample_layers((5,)).items()}
        {'z1': 128, 'z2': 128, 'z3': 8}
    """

    sizes: ClassVar[dict[str, Size]] = {
        "small": Size(64, (0, 4), (2, 4)),
        "medium": Size(96, (0, 8, 4), (2, 3, 4)),
        "large": Size(128, (0, 8, 4, 2), (2, 4, 6, 4)),
    }


@register("vdvae")
@dataclass(frozen=True)
class VDVAE(TopDownRecipe):
    r"""Very deep variational autoencoder: many groups of latents on grids up to the image's own.

    The same model as recipe ladder, with more groups and finer grids: for a GPU, or for images whose details matter.

    References:
        Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images (Child, 2021).

    Raises:
        UsageError: If an option is out of range, or the images have no such grids.

    Example:
        >>> recipe = VDVAE(grids=(1, 2, 4), groups=(2,), channels=8)
        >>> model = recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> len(model.space.names)
        6
    """

    sizes: ClassVar[dict[str, Size]] = {
        "small": Size(64, (0, 8, 4), (2, 4, 6)),
        "medium": Size(96, (0, 8, 4, 2), (2, 6, 8, 4)),
        "large": Size(128, (0, 8, 4, 2, 1), (2, 6, 10, 10, 6)),
    }


def _told(grids: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{rows} x {columns}" for rows, columns in grids)
