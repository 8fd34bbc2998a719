"""Models with a vector of continuous latents."""

from __future__ import annotations

from ..likelihoods import Gaussian
from ..models.latent import LatentVariableModel
from ..networks import MLP, LinearWithConstant
from ..options.data_spec import DataSpec
from ..posteriors import DiagonalGaussian, DiracPosterior, ExactLinearGaussian
from ..priors import StandardNormal
from ..recipes import VAE, Autoencoder, LinearVAE
from . import parts
from .base import assemble

__all__ = ["autoencoder", "linear_vae", "vae"]


@assemble.register(VAE)
def vae(recipe: VAE, data: DataSpec) -> LatentVariableModel:
    """Any prior, posterior and likelihood."""
    q = parts.posterior(recipe, data)
    return LatentVariableModel(parts.prior(recipe, data, q), parts.likelihood(recipe, data), q)


@assemble.register(Autoencoder)
def autoencoder(recipe: Autoencoder, data: DataSpec) -> LatentVariableModel:
    """A deterministic posterior, and no prior."""
    q = DiracPosterior(parts.encoder(recipe, data, recipe.latent_dim), data.shape)
    make = lambda parameters: parts.decoder(recipe, data, recipe.latent_dim, parameters)
    return LatentVariableModel(None, parts.entry_likelihood(recipe, make, (recipe.latent_dim,), data), q)


@assemble.register(LinearVAE)
def linear_vae(recipe: LinearVAE, data: DataSpec) -> LatentVariableModel:
    """Linear networks, and a posterior that may be the exact one."""
    d = recipe.latent_dim
    likelihood = Gaussian(MLP(d, data.dimensions, hidden=()), (d,), data.shape, recipe.scale, recipe.variance)
    if recipe.posterior == "exact":
        q = ExactLinearGaussian(likelihood)
    else:
        q = DiagonalGaussian(LinearWithConstant(data.shape, d), data.shape)
    return LatentVariableModel(StandardNormal(d), likelihood, q)
