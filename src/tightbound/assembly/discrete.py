"""Models with discrete latents, relaxed in training."""

from __future__ import annotations

import math
from typing import Any

from ..models.latent import LatentVariableModel
from ..networks import GridDecoder, GridEncoder
from ..options.data_spec import DataSpec
from ..posteriors import BernoulliPosterior, CategoricalPosterior
from ..priors import BernoulliPrior, CategoricalPrior
from ..recipes import DVAE, GumbelVAE
from . import parts
from .base import assemble

__all__ = ["dvae", "gumbel_vae"]


@assemble.register(GumbelVAE)
def gumbel_vae(recipe: GumbelVAE, data: DataSpec) -> LatentVariableModel:
    """A class or a bit at each position."""
    n, k, learned = recipe.positions, recipe.classes, recipe.prior == "learned"
    latent = (n,) if recipe.latents == "binary" else (n, k)
    size = math.prod(latent)
    network = parts.encoder(recipe, data, size)
    make = lambda parameters: parts.decoder(recipe, data, size, parameters)
    px = parts.entry_likelihood(recipe, make, latent, data)
    if recipe.latents == "binary":
        q = BernoulliPosterior(network, data.shape, n, recipe.straight_through, recipe.temperature)
        return LatentVariableModel(BernoulliPrior(n, learned), px, q)
    q = CategoricalPosterior(network, data.shape, n, k, recipe.straight_through, recipe.temperature)
    return LatentVariableModel(CategoricalPrior(n, k, learned), px, q)


@assemble.register(DVAE)
def dvae(recipe: DVAE, data: DataSpec) -> LatentVariableModel:
    """A code at each position of a grid."""
    like: dict[str, Any] = {"activation": recipe.activation, "norm": recipe.norm}
    network = GridEncoder(data.shape, recipe.codes, recipe.channels, recipe.blocks, **like)
    positions, codes = math.prod(network.grid), recipe.codes
    through, start = recipe.straight_through, recipe.temperature
    q = CategoricalPosterior(network, data.shape, positions, codes, through, start, network.grid, spread=1.0)
    like |= {"upsampling": recipe.upsampling}

    def make(parameters: int) -> GridDecoder:
        decoder = GridDecoder(codes, data.shape, recipe.channels, recipe.blocks, parameters=parameters, **like)
        decoder.join.weight.data *= math.sqrt(codes)  # initialised for a sum over all codes, but the input is one-hot
        return decoder

    px = parts.entry_likelihood(recipe, make, (positions, codes), data)
    return LatentVariableModel(CategoricalPrior(positions, codes, recipe.prior == "learned"), px, q)
