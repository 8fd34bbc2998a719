"""What training maximises, as values: each has the options that mean something for it, and no others.

They are data; what they compute of a batch is in :mod:`tightbound.objectives.rows`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..errors import UsageError
from ..spec import check_choices, register, registered

__all__ = [
    "Capacity",
    "Elbo",
    "Gsnn",
    "Hybrid",
    "Iwae",
    "LatentObjective",
    "LogLikelihood",
    "LogPrior",
    "Mmd",
    "NaiveMonteCarlo",
    "Objective",
    "Quantized",
    "Reconstruction",
    "Score",
    "StickingTheLanding",
    "TotalCorrelation",
    "nested",
]

Divergence = Literal["auto", "analytic", "monte-carlo"]


@dataclass(frozen=True)
class Objective:
    """Abstract: what training maximises, by how many samples.

    Raises:
        UsageError: If an option is out of range.
    """

    untrained: ClassVar[str] = ""
    """Why nothing trains the posterior, in words; empty where training does."""
    draws_prior: ClassVar[bool] = False
    """Whether the prior learns by its draws, so that gradients must flow through them."""

    samples: int = 1
    """Samples of the posterior in a training step."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.samples < 1:
            raise UsageError("A training step needs a sample.", got=f"samples = {self.samples}", expected="at least 1")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                expected = f"0 <= {field.name} < infinity"
                raise UsageError(f"The option {field.name} is out of range.", got=value, expected=expected)

    @property
    def warming(self) -> str:
        """What of it rises over warm-up, in words; empty if nothing does."""
        return ""

    @property
    def teaches_prior(self) -> bool:
        """Whether a prior with parameters learns from it."""
        return True

    @property
    def needs_density(self) -> bool:
        """Whether the posterior must have a density, as every KL needs."""
        return True


@dataclass(frozen=True)
class LatentObjective(Objective):
    """Abstract: an objective among which a model with continuous latents chooses."""


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
    """Weight of the KL in training; what is reported is always the bound at 1."""
    free_bits: float = 0.0
    """Nats of KL that each group of dimensions has for free in training (0: none); all of the latent where its KL has
    no dimensions (a mixture, vamp or flow prior; a cholesky or flow posterior)."""
    free_bits_group: int = 1
    """Dimensions of such a group; 0: the whole latent."""
    divergence: Divergence = "auto"
    """KL in closed form (SGVB's form B), by the samples (form A), or in closed form where there is one."""

    @property
    def warming(self) -> str:
        return "the KL's weight" if self.beta else ""

    @property
    def teaches_prior(self) -> bool:
        return self.beta > 0


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


@register("capacity")
@dataclass(frozen=True)
class Capacity(LatentObjective):
    r"""The KL held to a capacity C, :math:`\mathbb{E}_q \log p(x \mid z) - \beta \, \lvert \mathrm{KL} - C \rvert`.

    References:
        Understanding Disentangling in beta-VAE (Burgess et al., 2018).

    Example:
        >>> Capacity(capacity=25.0).warming
        'the capacity'
    """

    capacity: float = 25.0
    """Nats that the KL is held to in training, reached linearly over warm-up."""
    beta: float = 1.0
    """Weight of the distance from it."""
    divergence: Divergence = "auto"
    """KL in closed form, by the samples, or in closed form where there is one, as for elbo."""

    @property
    def warming(self) -> str:
        return "the capacity" if self.beta else ""

    @property
    def teaches_prior(self) -> bool:
        return self.beta > 0


@register("tc")
@dataclass(frozen=True)
class TotalCorrelation(LatentObjective):
    """The ELBO with another weight of the total correlation alone.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen, Li, Grosse and Duvenaud, 2018).

    Example:
        >>> TotalCorrelation(beta=6.0).warming
        "the total correlation's weight"
    """

    beta: float = 1.0
    """Weight of the total correlation in training; the rest of the KL keeps its own."""
    divergence: Divergence = "auto"
    """KL of the bound that is reported: in closed form, by the samples, or in closed form where there is one."""

    @property
    def warming(self) -> str:
        return "the total correlation's weight" if self.beta else ""


@register("mmd")
@dataclass(frozen=True)
class Mmd(LatentObjective):
    """InfoVAE's: a lighter KL, and a maximum mean discrepancy of the aggregate posterior from the prior.

    References:
        InfoVAE: Balancing Learning and Inference in Variational Autoencoders (Zhao, Song and Ermon, 2019).

    Example:
        >>> Mmd(beta=0.0).needs_density
        False
    """

    beta: float = 1.0
    """Weight of the KL in training; at 0 the posterior may be a point mass."""
    mmd: float = 100.0
    """Weight of the maximum mean discrepancy."""
    divergence: Divergence = "auto"
    """KL of the bound that is reported: in closed form, by the samples, or in closed form where there is one."""

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
    """The ELBO, with the pathwise gradient less its score part.

    References:
        Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference (Roeder, Wu and
        Duvenaud, 2017).

    Example:
        >>> StickingTheLanding(samples=2).warming
        ''
    """


@register("score")
@dataclass(frozen=True)
class Score(LatentObjective):
    """The ELBO, with the score-function gradient: to see why the others are used.

    References:
        Black Box Variational Inference (Ranganath, Gerrish and Blei, 2014).

    Example:
        >>> Score().samples
        2
    """

    samples: int = 2
    """Samples of the posterior in a training step, each with the others as its baseline."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 2:
            raise UsageError(
                "The score function's baseline needs other samples.",
                got=f"samples = {self.samples}",
                remedy="Use --samples 2 or more.",
            )


@register("hybrid")
@dataclass(frozen=True)
class Hybrid(LatentObjective):
    r"""A share of the ELBO; the rest has its latents from the prior, as when a conditional model predicts (gsnn).

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Raises:
        UsageError: If the share is none, or all.

    Example:
        >>> Hybrid(share=0.25).draws_prior
        True
    """

    draws_prior: ClassVar[bool] = True

    share: float = 0.5
    """Share of the ELBO in training, above 0 and below 1."""
    beta: float = 1.0
    """Weight of its KL."""
    divergence: Divergence = "auto"
    """KL in closed form, by the samples, or in closed form where there is one, as for elbo."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise UsageError(
                "A share lies between 0 and 1.",
                got=f"share {self.share}",
                remedy="Use --objective elbo for all of it, --objective gsnn for none.",
            )

    @property
    def warming(self) -> str:
        return "the KL's weight" if self.beta else ""


@register("gsnn")
@dataclass(frozen=True)
class Gsnn(LatentObjective):
    """The log-likelihood with latents of the prior, as when a conditional model predicts; its own bound selects.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Example:
        >>> Gsnn().untrained
        'objective gsnn'
    """

    untrained: ClassVar[str] = "objective gsnn"
    draws_prior: ClassVar[bool] = True

    samples: int = 1
    """Samples of the prior in a training step."""


@register("naive-monte-carlo")
@dataclass(frozen=True)
class NaiveMonteCarlo(LatentObjective):
    """The likelihood averaged over samples of the prior: to see why the others are used.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).

    Example:
        >>> NaiveMonteCarlo(samples=100).untrained
        'objective naive-monte-carlo'
    """

    untrained: ClassVar[str] = "objective naive-monte-carlo"
    draws_prior: ClassVar[bool] = True

    samples: int = 1
    """Samples of the prior in a training step."""


@register("reconstruction")
@dataclass(frozen=True)
class Reconstruction(Objective):
    """The log-likelihood at latents of the posterior alone: of an autoencoder."""


@register("log-likelihood")
@dataclass(frozen=True)
class LogLikelihood(Objective):
    """The log-likelihood itself: of a model without a latent."""


@register("log-prior")
@dataclass(frozen=True)
class LogPrior(Objective):
    """The log-density of the posterior's latents under the prior: of a second stage, whose other parts are frozen."""


@register("quantized")
@dataclass(frozen=True)
class Quantized(Objective):
    """Reconstruction, and what draws a codebook and the encoder together.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017), equation 3.
    """

    codebook: float = 1.0
    """Weight of the codes' squared distance from the encoder's output."""
    commitment: float = 0.25
    """Weight of the encoder's squared distance from its codes."""


_FLAT = ("samples", "gradient", "divergence", "beta", "free_bits", "free_bits_group", "capacity", "mmd", "hybrid")
"""Options of an objective that files of older versions have beside those of the model."""


def nested(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a recipe of an older version, whose objective was one of its names and lay flat among them.

    Example:
        >>> nested({"latent_dim": 2, "objective": "iwae", "samples": 5, "beta": 1.0})
        {'latent_dim': 2, 'objective': {'kind': 'iwae', 'version': 1, 'samples': 5}}
    """
    old = {name: fields[name] for name in _FLAT if name in fields}
    kind = _kind({**old, "objective": fields.get("objective", "elbo")})
    names = {f.name: {"share": "hybrid"}.get(f.name, f.name) for f in dataclasses.fields(registered(Objective)[kind])}
    own = {name: old[before] for name, before in names.items() if before in old}
    rest = {name: value for name, value in fields.items() if name not in (*_FLAT, "objective")}
    return {**rest, "objective": {"kind": kind, "version": 1, **own}}


def _kind(old: dict[str, Any]) -> str:
    """Which objective the flat options were of."""
    if (share := old.get("hybrid", 1.0)) < 1:
        return "hybrid" if share > 0 else "gsnn"
    if old.get("capacity") is not None:
        return "capacity"
    return old["gradient"] if old.get("gradient") in ("stl", "score") else old["objective"]
