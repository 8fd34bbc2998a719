"""The training step on data that a model's objective asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...models import Model, Terms
from ...models.latent import with_latents
from ...options.adversarial import Adversarial
from ...options.data_spec import DataSpec
from ..crops import crops_of
from ..discriminators import discriminator_of
from ..features import perceptual_network
from .adversarial import AdversarialStep
from .base import Step
from .bound import BoundStep

__all__ = ["step_for", "two_players"]


def step_for(model: Model, objective: Callable[[Terms, Any], Tensor] | None, examples: int, seed: int) -> Step:
    """The step of a model: with two players if its recipe's objective has them, and no other is given.

    Args:
        model: The model.
        objective: A function ``(terms, beta) -> (n,)`` to maximise instead of the recipe's objective.
        examples: Size of the training split.
        seed: Of the weights of other networks than the model's.
    """
    own = model.recipe.training_objective if model.recipe else None
    if objective is None and isinstance(own, Adversarial) and model.data_spec is not None:
        return two_players(model, own, model.data_spec, examples, seed)
    return BoundStep(model, objective, examples)


def two_players(model: Model, objective: Adversarial, data: DataSpec, examples: int, seed: int = 0) -> AdversarialStep:
    """The step of two players.

    Args:
        model: The model.
        objective: The objective.
        data: Shape and range of one example.
        examples: Size of the training split.
        seed: Of the weights of the discriminator, and of features of its own.

    Raises:
        UsageError: If the model has no latent, or the networks cannot take the images.
    """
    shape = data.shape if (crops := crops_of(model)) is None else (data.shape[0], *crops.sides)
    start = model.recipe.starts_from if model.recipe else ""
    judge = discriminator_of(objective, shape, seed, start)
    perceptual = perceptual_network(objective, dataclasses.replace(data, shape=shape), seed)
    return AdversarialStep(with_latents(model), objective, perceptual, judge, examples)
