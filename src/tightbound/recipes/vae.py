"""The variational autoencoder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UsageError
from ..options.data_spec import DataSpec
from .base import Recipe, check_sizes, register_version_2

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.latent import LatentVariableModel, Terms

__all__ = [
    "VAE",
    "Activation",
    "LikelihoodName",
    "NetworkName",
    "PosteriorName",
    "PriorName",
    "ScaleName",
    "UpsamplingName",
]

NetworkName = Literal["mlp", "convolutional"]
UpsamplingName = Literal["resize", "transposed"]
Activation = Literal["relu", "tanh", "silu", "gelu", "softplus"]
LikelihoodName = Literal[
    "auto", "bernoulli", "gaussian", "full-gaussian", "discretized-logistic", "categorical", "logit-laplace"
]
DecoderName = Literal[
    "auto",
    "bernoulli",
    "gaussian",
    "full-gaussian",
    "discretized-logistic",
    "categorical",
    "logit-laplace",
    "autoregressive",
]
ScaleName = Literal["auto", "fixed", "shared", "per-dimension", "network"]
PosteriorName = Literal["gaussian", "cholesky", "iaf", "spline", "dirac"]
PriorName = Literal["normal", "diagonal", "mixture", "vamp", "coupling", "spline"]


@register_version_2("vae")
@dataclass(frozen=True)
class VAE(Recipe):
    r"""Variational autoencoder: any prior, any posterior, any likelihood.

    .. math:: \log p(x) \ge \mathbb{E}_{q(z \mid x)} \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, p(z))

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016).

    Raises:
        UsageError: If an option is out of range, or the options cannot model the data.

    Example:
        >>> from tightbound.data import DataSpec
        >>> model = VAE(latent_dim=2, hidden=(32,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> sum(p.numel() for p in model.parameters())
        4484
    """

    first_options: ClassVar[tuple[str, ...]] = ("latent_dim", "network")

    latent_dim: int = 16
    """Size of the latent vector z."""
    network: NetworkName = "mlp"
    """Kind of encoder and decoder."""
    hidden: tuple[int, ...] = (256, 256)
    """Sizes of the hidden layers of an mlp, from the data to the latent; the decoder mirrors them."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of the levels of a convolutional network, from the finest down."""
    upsampling: UpsamplingName = "resize"
    """How a convolutional decoder doubles a grid: resize (each pixel four times, then a convolution: even surfaces stay
    even) or transposed (a transposed convolution, which leaves a checkerboard)."""
    activation: Activation = "relu"
    """Nonlinearity between layers."""
    likelihood: DecoderName = "auto"
    """p(x given z); auto: bernoulli for binary data, discretized-logistic for levels, gaussian (scale shared) else;
    full-gaussian: small vectors whose entries are correlated given z too; autoregressive: pixels that depend on those
    before them too (masked convolutions)."""
    scale: ScaleName = "auto"
    """Scale of gaussian and discretized-logistic: fixed, learned (shared or per-dimension), or given by the network;
    auto: fixed for gaussian, per-dimension for discretized-logistic. The covariance of full-gaussian is learned, one
    for every z (auto), or given by the network."""
    variance: float = 0.5
    """Fixed or initial variance of gaussian, initial of full-gaussian; 0.5 makes the loss the summed squared error."""
    posterior: PosteriorName = "gaussian"
    """q(z given x): gaussian (diagonal), cholesky (full covariance), iaf or spline (flows); dirac (for mmd)."""
    prior: PriorName = "normal"
    """p(z): normal, diagonal (learned), mixture of gaussians, vamp (of pseudo-inputs), coupling or spline (flows)."""
    components: int = 100
    """Components of a mixture, or pseudo-inputs of a vamp prior."""
    transforms: int = 2
    """Transformations of each flow."""
    objective: Literal["elbo", "iwae", "naive-monte-carlo", "tc", "mmd"] = "elbo"
    """What training maximises; naive-monte-carlo: the likelihood averaged over samples of the prior, to see why the
    others are used; tc: the ELBO with beta on the total correlation alone; mmd: InfoVAE's, see mmd."""
    samples: int = 1
    """Samples of the posterior in a training step: of the ELBO's expectation, or of the importance-weighted bound;
    of the prior with naive-monte-carlo."""
    gradient: Literal["pathwise", "stl", "dreg", "score"] = "pathwise"
    """Estimator of the gradient: pathwise (reparameterised), stl (sticking the landing, of the elbo), dreg (doubly
    reparameterised, of iwae), score (score function, of the elbo; to see why the others are used)."""
    divergence: Literal["auto", "analytic", "monte-carlo"] = "auto"
    """KL in closed form (SGVB's form B), by the samples (form A), or in closed form where there is one."""
    beta: float = 1.0
    """Weight of the KL in training; what is reported is always the bound at 1."""
    free_bits: float = 0.0
    """Nats of KL that each group of dimensions has for free in training (0: none); all of the latent where its KL has
    no dimensions (a mixture, vamp or flow prior; a cholesky or flow posterior)."""
    free_bits_group: int = 1
    """Dimensions of such a group; 0: the whole latent."""
    capacity: float | None = None
    """Nats that the KL is held to in training, reached linearly over warm-up; beta weighs the distance."""
    mmd: float = 100.0
    """Weight of the maximum mean discrepancy of objective mmd, whose KL has the weight beta."""
    hybrid: float = 1.0
    """Share of the ELBO in training; the rest has its latents from the prior, as when a conditional model predicts
    (GSNN). At 0 nothing trains the posterior, and GSNN's own bound selects the model."""
    pixel_layers: int = 3
    """Layers of likelihood autoregressive, each of which sees two pixels further: the fewer, the more is left to z."""
    pixel_channels: int = 32
    """Channels of these layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("latent_dim", "hidden", "channels", "components", "transforms", "pixel_layers", "pixel_channels")
        check_sizes(**{name: getattr(self, name) for name in names})
        if self.free_bits_group < 0:
            raise UsageError("A group of dimensions is not negative.", got=self.free_bits_group, expected="0 or more")
        if self.samples < 1:
            raise UsageError("A training step needs a sample.", got=f"samples = {self.samples}", expected="at least 1")
        for name in ("beta", "free_bits", "capacity", "mmd"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"The option {name} is out of range.", got=value, expected=f"0 <= {name} < infinity")
        if not 0 <= self.hybrid <= 1:
            raise UsageError("A share lies between 0 and 1.", got=f"hybrid {self.hybrid}")
        for wrong, message, remedy in self._contradictions():
            if wrong:
                raise UsageError(message, remedy=remedy)

    def _contradictions(self) -> Iterator[tuple[bool, str, str]]:
        """Options that exclude each other, and what to do."""
        objective, plain = self.objective, self.objective == "elbo" and self.gradient == "pathwise"
        yield objective == "iwae" and self.beta != 1, "The importance-weighted bound has no beta.", "Use the elbo."
        naive = objective == "naive-monte-carlo"
        yield naive and self.beta != 1, "Naive Monte Carlo has no KL and so no beta.", "Use the elbo."
        yield (
            self.free_bits > 0 and not plain,
            "Free bits are of the ELBO.",
            "Use --objective elbo --gradient pathwise.",
        )
        yield self.capacity is not None and not plain, "A capacity is of the ELBO.", "Use --objective elbo."
        both = self.free_bits > 0 and self.capacity is not None
        yield both, "Free bits and a capacity contradict each other.", "Give one of them."
        mixed = self.hybrid < 1 and (not plain or self.free_bits > 0 or self.capacity is not None)
        yield mixed, "The hybrid objective is of the plain ELBO.", "Leave the other options out."
        deaf = self.generates and self.prior in ("mixture", "vamp")
        yield (
            deaf,
            f"This objective learns the prior by its draws, and those of {self.prior!r} have no gradient.",
            "Use the elbo (--hybrid 1), or a prior of normal, diagonal, coupling, spline, or conditional, if any.",
        )
        misfit = self.gradient != "pathwise" and objective != {"dreg": "iwae"}.get(self.gradient, "elbo")
        yield (
            misfit,
            f"The gradient {self.gradient!r} is not of the objective {objective!r}.",
            "stl and score: elbo; dreg: iwae.",
        )
        yield (
            self.gradient in ("stl", "score") and self.beta != 1,
            "This gradient is of the ELBO at beta 1.",
            "Use --gradient pathwise.",
        )
        few = self.gradient == "score" and self.samples < 2
        yield few, "The score function's baseline needs other samples.", "Use --samples 2 or more."
        dirac = self.posterior == "dirac" and (objective != "mmd" or self.beta != 0)
        yield dirac, "A point mass has no KL to a prior.", "Use --objective mmd --beta 0, or recipe autoencoder."
        unlearned = self.posterior == "dirac" and self.prior != "normal"
        yield unlearned, "A point mass cannot teach a prior.", "Use --prior normal, or another posterior."
        idle = self.beta == 0 and self.prior != "normal" and self.hybrid == 1
        remedy = "Use --prior normal, a beta above 0, or --hybrid below 1."
        yield idle, "With a KL of weight 0 the prior learns nothing.", remedy

    def build(self, data: DataSpec) -> LatentVariableModel:
        model = super().build(data)
        if self.untrained:
            model.posterior.requires_grad_(False)
        return model

    def assemble(self, data: DataSpec) -> LatentVariableModel:
        from ..assembly.parts import likelihood, posterior, prior
        from ..models.latent import LatentVariableModel

        q = posterior(self, data)
        return LatentVariableModel(prior(self, data, q), likelihood(self, data), q)

    def training_objective(self, terms: Terms, beta: float | Tensor, examples: int) -> Tensor:
        from .. import objectives as o

        if self.gradient == "dreg":
            return o.dreg(terms)
        if self.gradient == "stl":
            return o.sticking_the_landing(terms)
        if self.gradient == "score":
            return o.score_function(terms)
        if self.objective == "iwae":
            return o.iwae(terms)
        if self.objective == "naive-monte-carlo":
            return o.naive_monte_carlo(terms)
        if self.objective == "tc":
            return o.beta_tcvae(terms, examples, 1 + (self.beta - 1) * beta)
        if self.objective == "mmd":
            return o.info_vae(terms, alpha=1 - self.beta * beta, weight=self.mmd)
        if self.capacity is not None:
            return o.capacity(terms, self.capacity * beta, self.beta, analytic=self._analytic)
        if self.free_bits:
            nats, group = self.free_bits, self.free_bits_group
            return o.free_bits(terms, nats, self.beta * beta, group=group, analytic=self._analytic)
        if self.hybrid < 1:
            return o.hybrid(terms, self.hybrid, self.beta * beta, analytic=self._analytic)
        return o.elbo(terms, self.beta * beta, analytic=self._analytic)

    def bound(self, terms: Terms) -> Tensor:
        from ..objectives import elbo, gsnn, iwae, naive_monte_carlo, reconstruction

        if self.posterior == "dirac":
            return reconstruction(terms)
        if self.untrained:  # so no bound of the posterior tells a good model from a bad one
            return gsnn(terms) if self.hybrid == 0 else naive_monte_carlo(terms)
        return iwae(terms) if self.objective == "iwae" else elbo(terms, analytic=self._analytic)

    @property
    def training_samples(self) -> int:
        return self.samples

    @property
    def generates(self) -> bool:
        return self.hybrid < 1 or self.objective == "naive-monte-carlo"

    @property
    def untrained(self) -> str:
        naive = "objective naive-monte-carlo" if self.objective == "naive-monte-carlo" else ""
        return "hybrid 0" if self.hybrid == 0 else naive

    @property
    def pathwise(self) -> bool:
        return self.gradient != "score"

    @property
    def warming(self) -> str:
        if self.gradient != "pathwise" or self.objective == "iwae" or self.beta == 0 or self.hybrid == 0:
            return ""
        if self.objective == "tc":
            return "the total correlation's weight"
        return "the KL's weight" if self.capacity is None else "the capacity"

    @property
    def _analytic(self) -> bool | None:
        return {"auto": None, "analytic": True, "monte-carlo": False}[self.divergence]
