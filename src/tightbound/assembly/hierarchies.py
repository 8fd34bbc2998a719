"""Models with several layers of latents."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

from torch import nn

from ..likelihoods import Gaussian
from ..models.latent import LatentVariableModel
from ..networks import MLP
from ..networks.ladder import BottomUp, ConvolutionalGroup, LadderDecoder, PreactivationBlock
from ..networks.limits import Within
from ..options.data_spec import DataSpec
from ..options.parts import Networks
from ..posteriors import DiagonalGaussian
from ..posteriors.top_down import ARMS, Residual, TopDownPosterior
from ..priors import PRIORS, Setting, StandardNormal
from ..recipes.hvae import HVAE
from ..recipes.ladder import TopDownRecipe
from . import parts
from .base import assemble

__all__ = ["hvae", "top_down"]


@assemble.register(HVAE)
def hvae(recipe: HVAE, data: DataSpec) -> LatentVariableModel:
    """A chain: the prior of each latent is the model of the latents above it."""
    first = recipe.layers[0]
    width, *widths = recipe.widths
    networks = Networks(
        network=recipe.network,
        hidden=(width,) * recipe.hidden_layers,
        channels=recipe.channels,
        upsampling=recipe.upsampling,
        activation=recipe.activation,
    )
    q = DiagonalGaussian(parts.encoder(networks, data, 2 * first), data.shape)
    make = lambda parameters: parts.decoder(networks, data, first, parameters)
    likelihood = parts.entry_likelihood(recipe, make, (first,), data)
    above = list(zip(pairwise(recipe.layers), widths, strict=True))
    prior: nn.Module = PRIORS[recipe.prior](Setting(recipe.layers[-1], recipe.components, recipe.transforms, data, q))
    for (below, size), hidden in reversed(above):
        prior = _layer(recipe, below, size, hidden, prior)
    return LatentVariableModel(prior, likelihood, q)


def _layer(recipe: HVAE, below: int, size: int, width: int, prior: nn.Module) -> LatentVariableModel:
    """The model of a latent: p(z_below | z) and q(z | z_below), with networks of the same hidden layers."""
    hidden = (width,) * recipe.hidden_layers
    decoder = MLP(size, 2 * below, hidden, recipe.activation)
    encoder = MLP(below, 2 * size, hidden, recipe.activation)
    likelihood = Gaussian(decoder, (size,), (below,), "network", variance=1.0)
    return LatentVariableModel(prior, likelihood, DiagonalGaussian(encoder, (below,)))


@assemble.register(TopDownRecipe)
def top_down(recipe: TopDownRecipe, data: DataSpec) -> LatentVariableModel:
    """Groups of latents on several grids, packed into one vector."""
    per_grid, c, z, phi = recipe.levels(data), recipe.width, recipe.latent_channels, recipe.activation
    grids = [grid for grid, _ in per_grid]
    level_of = [level for level, (_, number) in enumerate(per_grid) for _ in range(number)]
    scale = len(level_of) ** -0.5 if recipe.scale_last else 1.0
    zero = 0.0 if recipe.zero_last else 1.0
    groups = list[ConvolutionalGroup]()
    for i, level in enumerate(level_of):
        above = None if level in level_of[:i] else grids[max(0, level - 1)]
        more = {"above": above, "blocks": recipe.blocks, "activation": phi, "zero": zero, "scale": scale}
        groups.append(ConvolutionalGroup(c, z, grids[level], **more))
    total = sum(math.prod(group.size) for group in groups)
    make = lambda parameters: LadderDecoder(groups, c, data.shape, parameters, phi, recipe.recompute)
    likelihood = parts.entry_likelihood(recipe, make, (total,), data)
    arm = ARMS[recipe.posterior]
    inputs, start = (2 * c if arm.sees_state else c), (zero if arm is Residual else 1.0)
    moments = [PreactivationBlock(inputs, 2 * z, c, grids[level], phi, start) for level in level_of]
    arms = [arm(Within(block) if arm.sees_state else block) for block in moments]  # a message may say nothing at all
    bottom_up = BottomUp(data.shape, c, grids, recipe.blocks, phi, scale)
    q = TopDownPosterior(bottom_up, arms, level_of, cast(LadderDecoder, likelihood.network), data.shape)
    return LatentVariableModel(StandardNormal(total), likelihood, q)
