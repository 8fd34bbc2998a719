"""Training objectives as values: each class has only the options that apply to it.

They are data; their computations are in :mod:`tightbound.objectives.rows`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..errors import UsageError
from ..spec import register, require_choices

__all__ = [
    "Capacity",
    "Elbo",
    "Gsnn",
    "Hybrid",
    "Iwae",
    "LatentObjective",
    "LogPrior",
    "Mmd",
    "NaiveMonteCarlo",
    "Objective",
    "Quantized",
    "Reconstruction",
    "Score",
    "StickingTheLanding",
    "TotalCorrelation",
]

Divergence = Literal["auto", "analytic", "monte-carlo"]


@dataclass(frozen=True)
class Objective:
    """Abstract: a training objective and its number of samples.

    Raises:
        UsageError: If an option is out of range.
    """

    untrained: ClassVar[str] = ""
    """The reason why the posterior is not trained, as text; empty if it is trained."""
    draws_prior: ClassVar[bool] = False
    """Whether the prior is trained through its samples, which then need gradients."""
    needs_latent: ClassVar[bool] = True
    """Whether it is of a model with latents."""
    rows: ClassVar[tuple[str, ...]] = ("objective", "bound", "reconstruction", "kl")
    """The numbers of each example: what is maximised; the bound that selects and is reported, never weighted, annealed
    or relaxed; its two terms."""

    samples: int = 1
    """Posterior samples per training step."""

    def __post_init__(self) -> None:
        require_choices(self)
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), int(field.name == "samples")
            if isinstance(value, int | float) and not least <= value < math.inf:
                expected = f"{least} <= {field.name} < infinity"
                raise UsageError(f"The option {field.name} is out of range.", got=value, expected=expected)

    @property
    def warming(self) -> str:
        """The quantity that rises over warm-up, as text; empty if none does."""
        return ""

    @property
    def teaches_prior(self) -> bool:
        """Whether it trains a prior with parameters."""
        return True

    @property
    def needs_density(self) -> bool:
        """Whether the posterior must have a density, as every KL needs."""
        return True

    @property
    def one_latent(self) -> bool:
        """Whether it is defined only for a model with one latent, not for a hierarchy."""
        return False

    @property
    def weighs_layers(self) -> bool:
        """Whether each layer's KL has its own weight, for which the log ratios of a chain will not do."""
        return False


@dataclass(frozen=True)
class LatentObjective(Objective):
    """Abstract: an objective for models with continuous latents."""


@register("elbo")
@dataclass(frozen=True)
class Elbo(LatentObjective):
    r"""The evidence lower bound, :math:`\mathbb{E}_q \log p(x \mid z) - \beta \, \mathrm{KL}(q \,\|\, p)`.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).
        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et al., 2017).
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), for free bits.

    Example:
        >>> Elbo(beta=4.0).warming
        "the KL's weight"
    """

    beta: float = 1.0
    """Weight of the KL in training; reports always use 1."""
    free_bits: float = 0.0
    """Nats of KL that cost nothing in training (0: none), by the mean over a batch, or its part in a process."""
    free_bits_group: int = 1
    """What has that many nats free: every dimension (1), every n adjacent dimensions (n), or every layer (0: all of the
    latent if there is one). A KL that does not factorise (mixture, vamp, flow, cholesky) counts as a layer."""
    balance: bool = False
    """In warm-up, weigh each layer's KL by its nats per dimension: unused layers cost little (for ladder and vdvae)."""
    divergence: Divergence = "auto"
    """KL in closed form (analytic, SGVB's form B), estimated from samples (monte-carlo, form A), or auto: in closed
    form if there is one."""

    @property
    def warming(self) -> str:
        return "the KL's weight" if self.beta else ""

    @property
    def teaches_prior(self) -> bool:
        return self.beta > 0

    @property
    def weighs_layers(self) -> bool:
        return self.balance


@register("iwae")
@dataclass(frozen=True)
class Iwae(LatentObjective):
    r"""The importance-weighted bound, :math:`\log \frac{1}{k} \sum_j p(x, z_j) / q(z_j \mid x)`.

    References:
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016).
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker et al., 2019).

    Example:
        >>> Iwae(samples=5).gradient
        'pathwise'
    """

    gradient: Literal["pathwise", "dreg"] = "pathwise"
    """Estimator of the gradient: pathwise (reparameterised) or dreg (doubly reparameterised)."""

    @property
    def one_latent(self) -> bool:
        return self.gradient == "dreg"


@register("capacity")
@dataclass(frozen=True)
class Capacity(LatentObjective):
    r"""The KL held at a capacity C, :math:`\mathbb{E}_q \log p(x \mid z) - \beta \, \lvert \mathrm{KL} - C \rvert`.

    References:
        Understanding Disentangling in beta-VAE (Burgess et al., 2018).

    Example:
        >>> Capacity(capacity=25.0).warming
        'the capacity'
    """

    capacity: float = 25.0
    """Target KL in nats, reached linearly over warm-up."""
    beta: float = 1.0
    """Weight of the KL's deviation from the capacity."""
    divergence: Divergence = "auto"
    """KL in closed form (analytic), from samples (monte-carlo), or auto, as for elbo."""

    @property
    def warming(self) -> str:
        return "the capacity" if self.beta else ""

    @property
    def teaches_prior(self) -> bool:
        return self.beta > 0


@register("tc")
@dataclass(frozen=True)
class TotalCorrelation(LatentObjective):
    """The ELBO with a weight on the total correlation only.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen, Li, Grosse and Duvenaud, 2018).

    Example:
        >>> TotalCorrelation(beta=6.0).warming
        "the total correlation's weight"
    """

    @property
    def one_latent(self) -> bool:
        return True

    beta: float = 1.0
    """Weight of the total correlation in training; the rest of the KL keeps weight 1."""
    divergence: Divergence = "auto"
    """KL of the reported bound: in closed form (analytic), from samples (monte-carlo), or auto, as for elbo."""

    @property
    def warming(self) -> str:
        return "the total correlation's weight" if self.beta else ""


@register("mmd")
@dataclass(frozen=True)
class Mmd(LatentObjective):
    """InfoVAE: a down-weighted KL, plus a maximum mean discrepancy of the aggregate posterior from the prior.

    References:
        InfoVAE: Balancing Learning and Inference in Variational Autoencoders (Zhao, Song and Ermon, 2019).

    Example:
        >>> Mmd(beta=0.0).needs_density
        False
    """

    @property
    def one_latent(self) -> bool:
        return True

    beta: float = 1.0
    """Weight of the KL in training; at 0 the posterior may be a point mass."""
    mmd: float = 100.0
    """Weight of the maximum mean discrepancy."""
    divergence: Divergence = "auto"
    """KL of the reported bound: in closed form (analytic), from samples (monte-carlo), or auto, as for elbo."""

    @property
    def warming(self) -> str:
        return "the KL's weight" if self.beta else ""

    @property
    def teaches_prior(self) -> bool:
        return self.beta > 0

    @property
    def needs_density(self) -> bool:
        return self.beta != 0


@register("stl")
@dataclass(frozen=True)
class StickingTheLanding(LatentObjective):
    """The ELBO, with the pathwise gradient without its score term.

    References:
        Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference (Roeder, Wu and
        Duvenaud, 2017).

    Example:
        >>> StickingTheLanding(samples=2).warming
        ''
    """

    @property
    def one_latent(self) -> bool:
        return True


@register("score")
@dataclass(frozen=True)
class Score(LatentObjective):
    """The ELBO, with the score-function gradient, for comparison.

    References:
        Black Box Variational Inference (Ranganath, Gerrish and Blei, 2014).

    Example:
        >>> Score().samples
        2
    """

    samples: int = 2
    """Posterior samples per training step; each uses the others as its baseline."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 2:
            raise UsageError(
                "The score function's baseline needs at least two samples.",
                got=f"samples = {self.samples}",
                remedy="Use --samples 2 or more.",
            )


@register("hybrid")
@dataclass(frozen=True)
class Hybrid(LatentObjective):
    r"""A weighted mean of the ELBO and gsnn, whose latents come from the prior as in conditional prediction.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Raises:
        UsageError: If the share is not strictly between 0 and 1.

    Example:
        >>> Hybrid(share=0.25).draws_prior
        True
    """

    draws_prior: ClassVar[bool] = True

    share: float = 0.5
    """Weight of the ELBO against gsnn in training, above 0 and below 1."""
    beta: float = 1.0
    """Weight of the ELBO's KL."""
    divergence: Divergence = "auto"
    """KL in closed form (analytic), from samples (monte-carlo), or auto, as for elbo."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            remedy = "Use --objective elbo for all of it, --objective gsnn for none."
            raise UsageError("The share must lie strictly between 0 and 1.", got=f"share {self.share}", remedy=remedy)

    @property
    def warming(self) -> str:
        return "the KL's weight" if self.beta else ""


@register("gsnn")
@dataclass(frozen=True)
class Gsnn(LatentObjective):
    """The log-likelihood with latents of the prior, as in conditional prediction; its own bound selects the model.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Example:
        >>> Gsnn().untrained
        'objective gsnn'
    """

    untrained: ClassVar[str] = "objective gsnn"
    draws_prior: ClassVar[bool] = True

    samples: int = 1
    """Prior samples per training step."""


@register("naive-monte-carlo")
@dataclass(frozen=True)
class NaiveMonteCarlo(LatentObjective):
    """The likelihood averaged over samples of the prior, for comparison.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).

    Example:
        >>> NaiveMonteCarlo(samples=100).untrained
        'objective naive-monte-carlo'
    """

    untrained: ClassVar[str] = "objective naive-monte-carlo"
    draws_prior: ClassVar[bool] = True

    samples: int = 1
    """Prior samples per training step."""


@register("reconstruction")
@dataclass(frozen=True)
class Reconstruction(Objective):
    """The log-likelihood at latents of the posterior, for an autoencoder."""


@register("log-prior")
@dataclass(frozen=True)
class LogPrior(Objective):
    """The log-density of the posterior's latents under the prior, for a second stage, whose other parts are frozen."""


@register("quantized")
@dataclass(frozen=True)
class Quantized(Objective):
    """Reconstruction, codebook and commitment losses.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017), equation 3.
    """

    codebook: float = 1.0
    """Weight of the codes' squared distance from the encoder's output."""
    commitment: float = 0.25
    """Weight of the encoder's squared distance from its codes."""
