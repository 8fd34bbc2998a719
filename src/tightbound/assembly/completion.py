"""Models that complete images."""

from __future__ import annotations

import math

from torch import nn

from ..conditions import PartCondition, observed_part
from ..distributions import Unconditional
from ..errors import UsageError
from ..likelihoods import Likelihood
from ..likelihoods.completion import CompletionLikelihood, Filled, Prediction
from ..models import LatentVariableModel, PixelModel, Taken
from ..networks import MLP, Observed
from ..options.data_spec import DataSpec
from ..priors import ConditionalNormal, StandardNormal
from ..recipes import Completion, CompletionBaseline
from . import parts
from .base import assemble, build

__all__ = ["completion", "completion_baseline"]


@assemble.register(CompletionBaseline)
def completion_baseline(recipe: CompletionBaseline, data: DataSpec) -> PixelModel:
    """A network from what is observed to what is missing."""
    seen = 2 * data.dimensions
    make = lambda parameters: MLP(0, parameters * data.dimensions, recipe.hidden[::-1], recipe.activation, seen)
    complete = parts.likelihood_on(make, (0,), data, recipe.likelihood)
    model = PixelModel(Prediction(*_shown(complete, data, recipe.quadrants)))
    model.condition = _part(data, recipe.quadrants)
    return model


@assemble.register(Completion)
def completion(recipe: Completion, data: DataSpec) -> LatentVariableModel:
    """A recognition, a conditional prior and a generation network."""
    condition = _part(data, recipe.quadrants)
    q = parts.posterior(recipe, data)
    q.embedding = Unconditional()  # the complete image includes the observed part
    p, taken = _prior(recipe, data) if recipe.prior == "conditional" else (StandardNormal(recipe.latent_dim), {})
    px = CompletionLikelihood(*_shown(parts.likelihood(recipe, data, 2 * data.dimensions), data, recipe.quadrants))
    model = LatentVariableModel(p, px, q)
    model.condition, model.taken = condition, taken
    return model


def _shown(px: Likelihood, data: DataSpec, quadrants: int) -> tuple[Likelihood, int]:
    """A likelihood of all pixels given the observed ones, and the number of missing pixels."""
    px.embedding = Observed(data.dimensions)
    return px, int((~observed_part(quadrants, *data.shape[1:])).sum()) * data.shape[0]


def _prior(recipe: Completion, data: DataSpec) -> tuple[nn.Module, Taken]:
    """The prior network, and its parts taken from the run of a baseline."""
    size = 2 * math.prod(data.shape)
    network = MLP(size, 2 * recipe.latent_dim, recipe.hidden, recipe.activation)
    if "baseline" not in recipe.stages:
        return ConditionalNormal(network, Observed(data.dimensions), size), {}
    baseline = build(recipe.stages["baseline"].recipe, data).requires_grad_(False)
    taken = {"baseline": {"likelihood": baseline.get_submodule("likelihood")}}
    return ConditionalNormal(network, Filled(baseline), size), taken


def _part(data: DataSpec, quadrants: int) -> PartCondition:
    if not data.image:
        raise UsageError("Only images have quadrants.", got=f"examples of shape {data.shape}", remedy="Use images.")
    return PartCondition(data.shape, quadrants)
