"""Models whose latents are the nearest codes of a codebook."""

from __future__ import annotations

import math

from torch import nn

from ..models.latent import LatentVariableModel
from ..networks import GridDecoder, GridEncoder, grid_of
from ..options.data_spec import DataSpec
from ..posteriors.quantized import PyramidDecoder, PyramidPosterior, QuantizedPosterior
from ..priors.uniform import UniformCodePrior
from ..quantizers import FiniteScalarQuantizer, VectorQuantizer
from ..recipes import VQVAE, VQVAE2
from ..recipes.vq_vae import QuantizedRecipe
from .base import assemble
from .parts import entry_likelihood

__all__ = ["vq_vae", "vq_vae_2"]

Shape = tuple[int, ...]


@assemble.register(VQVAE)
def vq_vae(recipe: VQVAE, data: DataSpec) -> LatentVariableModel:
    """One grid of codes."""
    encoder = _encoder(recipe, data.shape, recipe.code_dim, recipe.channels)
    q = QuantizedPosterior(encoder, _quantizer(recipe), data.shape, encoder.grid)
    make = lambda parameters: _decoder(recipe, recipe.code_dim, data.shape, recipe.channels, parameters)
    px = entry_likelihood(recipe, make, (recipe.code_dim, *encoder.grid), data)
    return LatentVariableModel(UniformCodePrior(q), px, q)


@assemble.register(VQVAE2)
def vq_vae_2(recipe: VQVAE2, data: DataSpec) -> LatentVariableModel:
    """Several grids of codes, the finer ones given the coarser."""
    grid_of(data.shape, len(recipe.channels) + sum(recipe.coarser))  # so that errors refer to the full image
    width, d, halvings = recipe.channels[-1], recipe.code_dim, recipe.coarser[::-1]
    encoder = _encoder(recipe, data.shape, width, recipe.channels)
    coarser = _upward(recipe, encoder.grid)
    grids = [part.grid for part in (encoder, *coarser)][::-1]
    heads = [nn.Conv2d(width, d, 1), *[nn.Conv2d(2 * width, d, 1) for _ in halvings]]
    quantizers = [_quantizer(recipe) for _ in grids]
    q = PyramidPosterior(encoder, coarser, heads, _downward(recipe, grids), quantizers, data.shape, grids)
    last = lambda parameters: _decoder(recipe, d + width, data.shape, recipe.channels, parameters)
    make = lambda parameters: PyramidDecoder(_downward(recipe, grids), last(parameters), q.dims, grids)
    px = entry_likelihood(recipe, make, (sum(d * math.prod(grid) for grid in grids),), data)
    return LatentVariableModel(UniformCodePrior(q), px, q)


def _upward(recipe: VQVAE2, grid: Shape) -> list[GridEncoder]:
    """Networks from each grid's features to the next coarser, finest first."""
    width, found = recipe.channels[-1], list[GridEncoder]()
    for halvings in recipe.coarser:
        found.append(_encoder(recipe, (width, *grid), width, (width,) * halvings))
        grid = found[-1].grid
    return found


def _downward(recipe: VQVAE2, grids: list[tuple[int, int]]) -> list[nn.Module]:
    """Networks from each grid's vectors, with those upsampled to it, to the next finer grid, top first."""
    width = recipe.channels[-1]
    inputs = [recipe.code_dim, *[recipe.code_dim + width] * len(recipe.coarser)]
    steps = zip(inputs, grids[1:], recipe.coarser[::-1], strict=False)
    return [_decoder(recipe, n, (width, *finer), (width,) * halvings) for n, finer, halvings in steps]


def _encoder(recipe: QuantizedRecipe, shape: Shape, outputs: int, channels: Shape) -> GridEncoder:
    return GridEncoder(shape, outputs, channels, recipe.blocks, recipe.hidden, recipe.activation)


def _decoder(recipe: QuantizedRecipe, inputs: int, shape: Shape, channels: Shape, parameters: int = 1) -> GridDecoder:
    blocks, hidden, activation = recipe.blocks, recipe.hidden, recipe.activation
    return GridDecoder(inputs, shape, channels, blocks, hidden, parameters, activation, upsampling=recipe.upsampling)


def _quantizer(recipe: QuantizedRecipe) -> FiniteScalarQuantizer | VectorQuantizer:
    if recipe.quantizer == "fsq":
        return FiniteScalarQuantizer(recipe.fsq_levels, dim=recipe.code_dim)
    ema = recipe.decay if recipe.quantizer == "ema" else None
    compared = {"cosine": recipe.cosine, "project": recipe.project}
    return VectorQuantizer(recipe.codes, recipe.code_dim, ema=ema, revive=recipe.revive, **compared)
