"""The variational autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..data.spec import DataSpec
from ..errors import UsageError
from ..spec import register
from .base import Recipe, check_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.latent import LatentVariableModel, Terms

__all__ = ["VAE", "Activation", "LikelihoodName", "NetworkName", "ScaleName"]

NetworkName = Literal["mlp", "convolutional"]
Activation = Literal["relu", "tanh", "silu", "gelu", "softplus"]
LikelihoodName = Literal["auto", "bernoulli", "gaussian", "discretized-logistic", "categorical"]
ScaleName = Literal["auto", "fixed", "shared", "per-dimension", "network"]


@register("vae")
@dataclass(frozen=True)
class VAE(Recipe):
    r"""Variational autoencoder: a standard normal prior, a Gaussian posterior, any likelihood.

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

    latent_dim: int = 16
    """Size of the latent vector z."""
    network: NetworkName = "mlp"
    """Kind of encoder and decoder."""
    hidden: tuple[int, ...] = (256, 256)
    """Sizes of the hidden layers of an mlp, from the data to the latent; the decoder mirrors them."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of the levels of a convolutional network, from the finest down."""
    activation: Activation = "relu"
    """Nonlinearity between layers."""
    likelihood: LikelihoodName = "auto"
    """p(x given z); auto: bernoulli for binary data, discretized-logistic for levels, gaussian (scale shared) else."""
    scale: ScaleName = "auto"
    """Scale of gaussian and discretized-logistic: fixed, learned (shared or per-dimension), or given by the network;
    auto: fixed for gaussian, per-dimension for discretized-logistic."""
    variance: float = 0.5
    """Fixed or initial variance of gaussian; 0.5 makes its loss the summed squared error."""
    posterior: Literal["gaussian"] = "gaussian"
    """q(z given x)."""
    prior: Literal["normal"] = "normal"
    """p(z)."""
    objective: Literal["elbo", "iwae"] = "elbo"
    """What training maximises."""
    samples: int = 1
    """Samples of the posterior in a training step: of the ELBO's expectation, or of the importance-weighted bound."""
    beta: float = 1.0
    """Weight of the KL in training; what is reported is always the bound at 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self.latent_dim, self.hidden, self.channels)
        if self.samples < 1:
            raise UsageError("A training step needs a sample.", got=f"samples = {self.samples}", expected="at least 1")
        if not 0 <= self.beta < math.inf:
            raise UsageError("The weight of the KL is out of range.", got=self.beta, expected="0 <= beta < infinity")
        if self.objective == "iwae" and self.beta != 1:
            raise UsageError("The importance-weighted bound has no beta.", got=self.beta, remedy="Use the elbo.")

    def assemble(self, data: DataSpec) -> LatentVariableModel:
        from ..models.latent import LatentVariableModel
        from ..posteriors import DiagonalGaussian
        from ..priors import StandardNormal
        from .parts import encoder, likelihood

        posterior = DiagonalGaussian(encoder(self, data, 2 * self.latent_dim), data.shape)
        return LatentVariableModel(StandardNormal(self.latent_dim), likelihood(self, data), posterior)

    def training_objective(self, terms: Terms, beta: float | Tensor) -> Tensor:
        from ..objectives import elbo, iwae

        return iwae(terms) if self.objective == "iwae" else elbo(terms, beta=self.beta * beta)

    def bound(self, terms: Terms) -> Tensor:
        from ..objectives import elbo, iwae

        return iwae(terms) if self.objective == "iwae" else elbo(terms)

    @property
    def training_samples(self) -> int:
        return self.samples
