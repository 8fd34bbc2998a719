"""From the names of parts to the parts: the only place that knows both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..autoregressive import AutoregressiveLikelihood
from ..data.spec import DataSpec
from ..errors import UsageError
from ..likelihoods import Bernoulli, Categorical, DiscretizedLogisticLikelihood, Gaussian, LogitLaplaceLikelihood, Scale
from ..networks import MLP, ConvolutionalDecoder, ConvolutionalEncoder, PixelDecoder
from ..posteriors import CholeskyGaussian, DiagonalGaussian, DiracPosterior, FlowPosterior
from ..priors import DiagonalNormal, FlowPrior, GaussianMixture, StandardNormal, VampPrior

if TYPE_CHECKING:
    from .autoencoder import Autoencoder
    from .vae import VAE

CONTEXT = 64
"""Features of an example that the layers of a flow posterior see."""

__all__ = ["decoder", "encoder", "likelihood", "posterior", "prior"]


def encoder(recipe: VAE | Autoencoder, data: DataSpec, outputs: int, condition_dim: int = 0) -> nn.Module:
    """The encoder's network, from one example to that many features."""
    if recipe.network == "mlp":
        return MLP(data.shape, outputs, recipe.hidden, recipe.activation, condition_dim)
    _check_image(data)
    return ConvolutionalEncoder(
        data.shape, outputs, recipe.channels, activation=recipe.activation, condition_dim=condition_dim
    )


def decoder(recipe: VAE | Autoencoder, data: DataSpec, parameters: int, condition_dim: int = 0) -> nn.Module:
    """The decoder's network, from one latent to that many parameters for each entry of an example."""
    if recipe.network == "mlp":
        outputs = parameters * data.dimensions
        return MLP(recipe.latent_dim, outputs, recipe.hidden[::-1], recipe.activation, condition_dim)
    _check_image(data)
    channels, *sides = data.shape
    shape = (parameters * channels, *sides)
    return ConvolutionalDecoder(
        recipe.latent_dim, shape, recipe.channels, activation=recipe.activation, condition_dim=condition_dim
    )


def likelihood(recipe: VAE | Autoencoder, data: DataSpec, condition_dim: int = 0) -> Any:
    """The likelihood of the recipe's name and scale for that data.

    Raises:
        UsageError: If it cannot model that data.
    """
    kind, scale = _resolved(recipe, data)
    if recipe.scale != "auto" and kind in ("bernoulli", "categorical", "logit-laplace", "autoregressive"):
        raise UsageError(f"The likelihood {kind!r} has no scale.", got=recipe.scale, remedy="Leave --scale out.")
    latent, per_entry = (recipe.latent_dim,), 2 if scale == "network" else 1
    make = lambda parameters: decoder(recipe, data, parameters, condition_dim)
    if kind == "bernoulli":
        _check_unit_interval(data)
        return Bernoulli(make(1), latent, data.shape)
    if kind == "gaussian":
        return Gaussian(make(per_entry), latent, data.shape, scale, recipe.variance)
    if kind == "logit-laplace":
        _check_unit_interval(data)
        return LogitLaplaceLikelihood(make(2), latent, data.shape)
    if kind == "autoregressive":
        return _autoregressive(recipe, data, condition_dim)
    if not data.discrete or data.levels is None:
        raise UsageError(
            f"The likelihood {kind!r} is over levels, and this data is continuous.",
            got="dequantized data" if data.dequantized else "continuous data",
            remedy="Use --likelihood gaussian, or data with levels (without --dequantize).",
        )
    if kind == "categorical":
        return Categorical(make(data.levels), latent, data.shape, data.levels)
    return DiscretizedLogisticLikelihood(make(per_entry), latent, data.shape, data.levels, scale)


def _autoregressive(recipe: Any, data: DataSpec, condition_dim: int) -> nn.Module:
    _check_image(data)
    if not data.discrete or data.levels is None:
        raise UsageError(
            "The autoregressive likelihood is over levels, and this data is continuous.",
            remedy="Use --likelihood gaussian, or data with levels (without --dequantize).",
        )
    parameters = 1 if data.levels == 2 else data.levels
    network = PixelDecoder(
        recipe.latent_dim,
        data.shape,
        parameters,
        recipe.pixel_channels,
        recipe.pixel_layers,
        condition_dim=condition_dim,
    )
    return AutoregressiveLikelihood(network, recipe.latent_dim, data.shape, data.levels)


def posterior(recipe: VAE, data: DataSpec, condition_dim: int = 0) -> Any:
    """The posterior of the recipe's name."""
    d = recipe.latent_dim
    if recipe.posterior == "gaussian":
        return DiagonalGaussian(encoder(recipe, data, 2 * d, condition_dim), data.shape)
    if recipe.posterior == "cholesky":
        return CholeskyGaussian(encoder(recipe, data, d + d * (d + 1) // 2, condition_dim), data.shape, d)
    if recipe.posterior == "dirac":
        return DiracPosterior(encoder(recipe, data, d, condition_dim), data.shape)
    network = encoder(recipe, data, 2 * d + CONTEXT, condition_dim)
    return FlowPosterior(network, data.shape, d, CONTEXT, recipe.posterior, recipe.transforms)


def prior(recipe: VAE, data: DataSpec, q: nn.Module) -> nn.Module:
    """The prior of the recipe's name; pseudo-inputs go through its posterior, and training starts them from data."""
    d = recipe.latent_dim
    if recipe.prior == "normal":
        return StandardNormal(d)
    if recipe.prior == "diagonal":
        return DiagonalNormal(d)
    if recipe.prior == "mixture":
        return GaussianMixture(d, recipe.components)
    if recipe.prior == "vamp":
        inputs = torch.rand(recipe.components, *data.shape)
        return VampPrior(q, inputs, bounded=data.levels is not None)
    return FlowPrior(d, recipe.prior, recipe.transforms)


def _resolved(recipe: VAE | Autoencoder, data: DataSpec) -> tuple[str, Scale]:
    """The names with ``auto`` replaced."""
    automatic = "bernoulli" if data.levels == 2 else "discretized-logistic"
    kind = recipe.likelihood if recipe.likelihood != "auto" else automatic if data.discrete else "gaussian"
    if recipe.scale != "auto":
        return kind, recipe.scale
    if kind == "discretized-logistic":
        return kind, "per-dimension"
    return kind, "shared" if recipe.likelihood == "auto" else "fixed"


def _check_image(data: DataSpec) -> None:
    if len(data.shape) != 3:
        raise UsageError(
            "A convolutional network needs images.",
            got=f"examples of shape {data.shape}",
            expected="(channels, height, width)",
            remedy="Use --network mlp.",
        )


def _check_unit_interval(data: DataSpec) -> None:
    if data.levels is None:
        raise UsageError(
            "This likelihood needs values in [0, 1].",
            got="continuous data",
            remedy="Use --likelihood gaussian.",
        )
