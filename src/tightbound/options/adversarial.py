"""The objective of two players as a value, and the options that a recipe offers for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import UsageError
from ..spec import register
from .objectives import Elbo, Objective

__all__ = ["AdaptiveName", "Adversarial", "GameName", "TwoPlayers"]

GameName = Literal["none", "hinge", "non-saturating"]
AdaptiveName = Literal["published", "none"]


@register("adversarial")
@dataclass(frozen=True)
class Adversarial(Objective):
    r"""Any objective, with a perceptual and an adversarial term: what makes reconstructions look sharp.

    .. math:: \mathcal{L}_{\text{base}} - s \bigl(w_p D \, d(x, \hat x) + r \, w_a \lambda \, G(\hat x)\bigr), \qquad
        \lambda = \frac{\lVert \nabla_L (\tfrac{1}{s} \log p(x \mid z) - w_p D \, d(x, \hat x)) \rVert}
        {\lVert \nabla_L G(\hat x) \rVert + \delta}

    with D entries of an example, and s nats for a unit of the error of which the likelihood is made, in images from -1
    to 1: 1 / b for a Laplace, 1 / (2 σ²) for a Gaussian. So a perceptual distance of 1 costs as much as an absolute, or
    squared, error of 1 in every entry, and λ is in units of the error too, as published: the published loss times s. r
    rises from 0 to 1; the gradients of λ are those of the decoder's last layer L. Without the adaptive weight λ is D.

    References:
        Taming Transformers for High-Resolution Image Synthesis (Esser, Rombach and Ommer, 2021).
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022).

    Raises:
        UsageError: If an option is out of range, or the base takes several samples.

    Example:
        >>> Adversarial(base=Elbo(beta=1e-6), game="hinge").more_rows[-2:]
        ('gap', 'accuracy')
    """

    base: Objective = field(default=Elbo())
    """The objective without the two terms."""
    perceptual: str = "auto"
    """Network of the perceptual distance."""
    perceptual_heads: str = ""
    """File of LPIPS heads."""
    perceptual_weight: float = 1.0
    """Weight of the perceptual distance."""
    game: GameName = "hinge"
    """The losses of discriminator and generator."""
    start: float = 0.2
    """Share of the run after which the generator is judged."""
    ramp: float = 0.1
    """Share of the run over which the weight of the judgement rises."""
    weight: float = 0.5
    """Weight of the adversarial term."""
    adaptive: AdaptiveName = "published"
    """Whether the weight is multiplied by the adaptive one."""
    delta: float = 1e-4
    """What is added to the divisor of the adaptive weight."""
    largest: float = 1e4
    """The largest adaptive weight."""
    lecam: float = 0.0
    """Weight of LeCam regularisation."""
    r1: float = 0.0
    """Weight of the R1 penalty."""
    width: int = 64
    """Channels of the discriminator's first layer."""
    layers: int = 0
    """Halvings of the discriminator; 0: as many as fit, at most 3."""
    share: float = 1.0
    """Learning rate of the discriminator, as a share of the generator's."""
    clip_norm: float | None = None
    """Maximum norm of the discriminator's gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base.samples != 1 or self.samples != 1:
            raise UsageError(
                "Two players need one reconstruction of each example.",
                got=f"{max(self.base.samples, self.samples)} samples",
                remedy="Use one sample of the posterior.",
            )
        if not self.start + self.ramp <= 1:
            raise UsageError(
                "The generator would never be judged in full.",
                got=f"a start at {self.start:g} of the run, and a ramp of {self.ramp:g}",
                expected="together at most 1",
                remedy="Lower --adversarial-start or --adversarial-ramp.",
            )
        if self.width < 1:
            raise UsageError("A discriminator needs channels.", got=self.width, remedy="Raise --discriminator-width.")

    @property
    def plays(self) -> bool:
        """Whether there is a discriminator."""
        return self.game != "none"

    @property
    def perceives(self) -> bool:
        """Whether there is a perceptual distance."""
        return self.perceptual != "none" and self.perceptual_weight > 0

    @property
    def more_rows(self) -> tuple[str, ...]:
        """The numbers of each example beside those of the base."""
        return (*(("perceptual",) if self.perceives else ()), *(PLAYED if self.plays else ()))

    @property
    def warming(self) -> str:
        return self.base.warming

    @property
    def teaches_prior(self) -> bool:
        return self.base.teaches_prior

    @property
    def needs_density(self) -> bool:
        return self.base.needs_density

    @property
    def one_latent(self) -> bool:
        return self.base.one_latent

    @property
    def weighs_layers(self) -> bool:
        return self.base.weighs_layers


PLAYED = ("adversarial", "discriminator", "gap", "accuracy")
"""The generator's loss before it is weighted, the discriminator's, the mean logit of data less that of
reconstructions, and the share of patches that the discriminator tells apart."""


@dataclass(frozen=True, kw_only=True)
class TwoPlayers:
    """Abstract: a perceptual and an adversarial term beside the likelihood."""

    perceptual: str = "none"
    """Network of the perceptual distance: none; auto (EfficientNet-Lite0 if installed, else features);
    efficientnet-lite0; features (trained first, on the labels of the data or without); a file with VGG-16, or with a
    CompVis autoencoder."""
    perceptual_heads: str = ""
    """File of the published LPIPS heads, for a file with VGG-16."""
    perceptual_weight: float = 1.0
    """Weight of the perceptual distance: at 1 a distance of 1 costs as much as an error of 1 in every entry of an image
    from -1 to 1, absolute for laplace and squared for gaussian, as published."""
    adversarial: GameName = "none"
    """Losses of a discriminator of patches: none (there is none), hinge, or non-saturating."""
    adversarial_start: float = 0.2
    """Share of the run after which the discriminator judges; until then it only learns."""
    adversarial_ramp: float = 0.1
    """Share of the run over which its judgement then rises to its full weight."""
    adversarial_weight: float = 0.5
    """Weight of its judgement: with the adaptive weight, as a share of the gradient of the rest in the last layer; with
    a fixed one, against the mean error of an entry."""
    adaptive: AdaptiveName = "published"
    """Weight that balances the gradients in the decoder's last layer (published), or none: a fixed weight."""
    adaptive_delta: float = 1e-4
    """What is added to the divisor of the adaptive weight: 1e-4 in the published code, 1e-6 in the paper."""
    lecam: float = 0.0
    """Weight of LeCam regularisation, for little data; 0.001 to 0.05."""
    r1: float = 0.0
    """Weight of the R1 penalty on the discriminator's slope at data; it doubles the discriminator's cost."""
    discriminator_width: int = 64
    """Channels of the discriminator's first layer."""
    discriminator_layers: int = 0
    """Halvings of the discriminator: its patches are of side 16, 34 or 70 with 1, 2 or 3; 0: as many as fit."""
    discriminator_share: float = 1.0
    """Learning rate of the discriminator, as a share of --lr."""

    def two_players(self, base: Objective) -> Objective:
        """An objective with the two terms, or as it is if there are none.

        Args:
            base: The objective.

        Raises:
            UsageError: If an option is out of range.
        """
        found = Adversarial(
            base=base,
            perceptual=self.perceptual,
            perceptual_heads=self.perceptual_heads,
            perceptual_weight=self.perceptual_weight,
            game=self.adversarial,
            start=self.adversarial_start,
            ramp=self.adversarial_ramp,
            weight=self.adversarial_weight,
            adaptive=self.adaptive,
            delta=self.adaptive_delta,
            lecam=self.lecam,
            r1=self.r1,
            width=self.discriminator_width,
            layers=self.discriminator_layers,
            share=self.discriminator_share,
        )
        return found if found.plays or found.perceives else base
