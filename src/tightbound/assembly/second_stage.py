"""Trained models whose prior is replaced by one that is fitted to their latents."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ..autoregressive import PixelCNN, Transformer
from ..autoregressive.prior import AutoregressivePrior, ConvolutionalGrid, TransformerGrid
from ..conditions import Condition
from ..errors import UsageError
from ..models.latent import LatentVariableModel
from ..options.data_spec import DataSpec
from ..posteriors import BernoulliPosterior, CategoricalPosterior
from ..priors import FlowPrior, GaussianMixture
from ..recipes import PriorOptions, TwoStage
from ..recipes.two_stage import is_code_space
from .base import assemble, build
from .conditions import condition_of, embedding_of, prefix_of, rotary_places

__all__ = ["two_stage"]


@assemble.register(TwoStage)
def two_stage(recipe: TwoStage, data: DataSpec) -> LatentVariableModel:
    """A frozen posterior and likelihood, and a new prior over their latents."""
    first = build(recipe.first, data)
    if first.condition is not None:
        raise UsageError(
            "A prior is fitted to latents that do not depend on a condition.",
            got=f"a first stage given {type(first.condition).__name__}",
            remedy="Train the first stage without; the prior can be given one: --condition class.",
        )
    o = recipe.second
    condition = None if o.condition == "none" else condition_of(o, data)
    coded = is_code_space(first.posterior)
    prior = _over_codes(first.posterior, o, condition) if coded else _over_vectors(recipe, o)
    for part in (first.posterior, first.likelihood):
        part.requires_grad_(False)
    if isinstance(first.posterior, BernoulliPosterior | CategoricalPosterior):
        first.posterior.at_mode = True
    model = LatentVariableModel(prior, first.likelihood, first.posterior)
    model.condition, model.prior_only = condition, True
    return model


def _over_codes(posterior: Any, o: PriorOptions, condition: Condition | None) -> nn.Module:
    if o.prior not in ("auto", "pixelcnn", "transformer"):
        raise UsageError(
            "This prior is over vectors, and the latents are codes.", got=o.prior, remedy="--prior pixelcnn"
        )
    make = _transformer if o.prior == "transformer" else _pixelcnn
    return AutoregressivePrior(posterior, [make(posterior, i, o, condition) for i in range(len(posterior.grids))])


def _pixelcnn(posterior: Any, level: int, o: PriorOptions, condition: Condition | None) -> Any:
    shape, above = posterior.grids[level], posterior.levels[:level]
    network = PixelCNN(
        posterior.levels[level],
        shape if len(shape) > 1 else (1, *shape),
        o.channels,
        o.layers,
        o.kernel,
        attention_every=o.attention_every if level == 0 else 0,
        heads=o.heads,
        dropout=o.dropout,
        condition_dim=o.channels if condition else 0,
        grid_channels=o.channels if above else 0,
    )
    return ConvolutionalGrid(network, embedding_of(condition, o.channels) if condition else None, above)


def _transformer(posterior: Any, level: int, o: PriorOptions, condition: Condition | None) -> Any:
    above = posterior.levels[:level]
    positions = sum(math.prod(grid) for grid in posterior.grids[:level])
    rotary = rotary_places(condition, o.text_positions, positions)
    network = Transformer(
        posterior.levels[level], posterior.grids[level], o.width, o.layers, o.heads, o.dropout, rotary
    )
    embedding = prefix_of(condition, o.width, o.text_positions)
    return TransformerGrid(network, embedding, above, positions)


def _over_vectors(recipe: TwoStage, o: PriorOptions) -> nn.Module:
    dim = getattr(recipe.first, "latent_dim", None)
    if dim is None:
        raise UsageError("The latents of this recipe are neither codes nor a vector.", got=type(recipe.first).__name__)
    if o.prior not in ("auto", "mixture", "flow"):
        raise UsageError("This prior is over codes, and the latents are vectors.", got=o.prior, remedy="--prior flow")
    if o.condition != "none":
        raise UsageError(
            "A mixture or flow is given no condition.", got=o.condition, remedy="Leave --condition out, or use codes."
        )
    return GaussianMixture(dim, o.components) if o.prior == "mixture" else FlowPrior(dim, "coupling", o.transforms)
