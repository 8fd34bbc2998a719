"""Models conditioned on a class, numbers, an image or a text."""

from __future__ import annotations

from ..conditions import Condition
from ..models.latent import LatentVariableModel
from ..networks import MLP
from ..options.data_spec import DataSpec
from ..priors import ConditionalNormal
from ..recipes import CVAE
from . import parts
from .base import assemble
from .conditions import condition_of, embedding_of

__all__ = ["cvae"]


@assemble.register(CVAE)
def cvae(recipe: CVAE, data: DataSpec) -> LatentVariableModel:
    """Prior, posterior and likelihood, each with its own embedding of the condition."""
    condition, dim = condition_of(recipe, data), recipe.condition_dim
    q, px = parts.posterior(recipe, data, dim), parts.likelihood(recipe, data, dim)
    q.embedding, px.embedding = (embedding_of(condition, dim) for _ in range(2))
    p = _prior(recipe, condition) if recipe.prior == "conditional" else parts.prior(recipe, data, q)
    model = LatentVariableModel(p, px, q)
    model.condition = condition
    return model


def _prior(recipe: CVAE, condition: Condition) -> ConditionalNormal:
    network = MLP(recipe.condition_dim, 2 * recipe.latent_dim, recipe.hidden[:1], recipe.activation)
    return ConditionalNormal(network, embedding_of(condition, recipe.condition_dim), recipe.condition_dim)
