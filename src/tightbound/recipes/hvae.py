"""The Markovian hierarchical variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ..errors import UsageError
from ..options.choices import CHOICE, flat
from ..options.data_spec import DataSpec
from ..options.objectives import Elbo, LatentObjective
from ..options.parts import Activation, EntryLikelihood, NetworkName, UpsamplingName, require_sizes
from ..options.priors import LatentSpace
from ..spec import register
from .base import Recipe

__all__ = ["HVAE", "TopPriorName"]

TopPriorName = Literal["normal", "diagonal", "mixture", "coupling", "spline"]


@register("hvae")
@dataclass(frozen=True)
class HVAE(EntryLikelihood, Recipe):
    r"""Markovian hierarchical variational autoencoder: each latent is generated from the one above it.

    .. math:: p(x, z_1, \dots, z_L) = p(x \mid z_1) \, p(z_1 \mid z_2) \cdots p(z_L), \qquad
        q(z_1, \dots, z_L \mid x) = q(z_1 \mid x) \, q(z_2 \mid z_1) \cdots q(z_L \mid z_{L-1})

    The published two-layer network is ``HVAE(layers=(100, 50), hidden=(200, 100), activation="tanh")``.

    References:
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016).
        Ladder Variational Autoencoders (Sønderby et al., 2016).

    Raises:
        UsageError: If there are no layers, if their sizes rise from the data up, or an option is out of range.

    Example:
        >>> from tightbound.data import DataSpec
        >>> model = HVAE(layers=(5, 3, 2), hidden=(16,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> [entry.name for entry in model().terms(model().sample((4,))).entries]
        ['z1', 'z2', 'z3']
    """

    first_options: ClassVar[tuple[str, ...]] = ("layers", "hidden")
    latent_space: ClassVar[LatentSpace] = "vector"

    layers: tuple[int, ...] = (32, 16)
    """Size of each latent vector, from the data up; they must not rise."""
    hidden: tuple[int, ...] = (256,)
    """Width of the networks of each layer, from the data up, or one width for all."""
    hidden_layers: int = 2
    """Hidden layers of each network."""
    network: NetworkName = "mlp"
    """Kind of the encoder and decoder of the data; those of higher layers are mlps."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of each level of a convolutional network, finest first."""
    upsampling: UpsamplingName = "resize"
    """How a convolutional decoder doubles a grid: resize or transposed."""
    activation: Activation = "relu"
    """Nonlinearity between layers of the networks."""
    prior: TopPriorName = "normal"
    """p(z) of the top latent: normal, diagonal (learned), mixture of gaussians, coupling or spline (flows)."""
    components: int = 100
    """Components of a mixture."""
    transforms: int = 2
    """Number of transformations of each flow."""
    objective: LatentObjective = field(default=Elbo(), metadata=CHOICE)
    """The objective to maximise; those of a single latent (tc, mmd, stl, iwae with dreg) are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers:
            raise UsageError(
                "A hierarchy needs at least one latent.",
                got="no layers",
                expected="the size of each latent, from the data up",
                remedy="Try --layers 32 16.",
            )
        names = ("layers", "hidden", "hidden_layers", "channels", "components", "transforms")
        require_sizes(**{name: getattr(self, name) for name in names})
        if any(above > below for below, above in zip(self.layers, self.layers[1:], strict=False)):
            raise UsageError(
                "The latents of a hierarchy must not grow from the data up.",
                got=f"layers {' '.join(map(str, self.layers))}",
                expected="the size of the latent next to the data first, then equal or smaller ones",
                remedy=f"Try --layers {' '.join(map(str, sorted(self.layers, reverse=True)))}.",
            )
        if len(self.hidden) not in (1, len(self.layers)):
            raise UsageError(
                "Each layer has one width.",
                got=f"{len(self.hidden)} widths for {len(self.layers)} layers",
                expected=f"1 or {len(self.layers)} numbers",
                remedy="Give as many to --hidden as to --layers; --hidden-layers is the depth of each network.",
            )
        if self.objective.one_latent and len(self.layers) > 1:
            raise UsageError(
                "This objective is defined for one latent.",
                got="a hierarchy of latents",
                remedy="Use --objective elbo, or iwae with --gradient pathwise; or recipe vae.",
            )
        if flat(self.objective).get("divergence") == "analytic" and len(self.layers) > 1:
            raise UsageError(
                "Below the top of a chain the KL has no closed form: its prior is given a sample that came from it.",
                got="--divergence analytic",
                remedy="Use --divergence auto: the closed form at the top, log ratios of samples below it.",
            )
        if self.objective.weighs_layers and len(self.layers) > 1:
            raise UsageError(
                "Balancing needs a KL of each layer, which is never negative.",
                got="a chain, whose lower layers have log ratios: weighing them differently rewards copies of a latent",
                expected="a top-down hierarchy",
                remedy="Use recipe ladder or vdvae; or --free-bits 1 --free-bits-group 0, which a chain can have.",
            )
        if self.prior != "normal" and not self.objective.teaches_prior:
            remedy = "Use --prior normal, or a beta above 0."
            raise UsageError("With a KL weight of 0 the prior is not trained.", remedy=remedy)

    @property
    def training_objective(self) -> LatentObjective:
        return self.objective

    def without_dead(self, alive: Sequence[bool], data: DataSpec) -> dict[str, Any]:
        """The layers below the first dead one, which cuts off all above it."""
        kept = [*alive, False].index(False)
        hidden = {} if len(self.hidden) == 1 else {"hidden": self.hidden[:kept]}
        return {"layers": self.layers[:kept], **hidden} if kept else {}

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of the networks of each layer, from the data up."""
        return self.hidden * len(self.layers) if len(self.hidden) == 1 else self.hidden
