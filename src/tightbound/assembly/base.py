"""Builds the model of a recipe, with the function registered for the recipe's class."""

from __future__ import annotations

import functools

from ..errors import UsageError
from ..models import Model
from ..options.data_spec import DataSpec
from ..recipes import Recipe

__all__ = ["assemble", "build"]


@functools.singledispatch
def assemble(recipe: Recipe, data: DataSpec) -> Model:
    """Assembles the parts that a recipe's options name; one function for each class of recipe.

    Args:
        recipe: The options.
        data: Shape and range of one example.

    Raises:
        UsageError: If these options cannot model that data, or no function is registered for the recipe.
    """
    raise UsageError(
        f"No model is registered for {type(recipe).__name__}.",
        remedy="Register a function that builds it: tightbound.assembly.assemble.register.",
    )


def build(recipe: Recipe, data: DataSpec) -> Model:
    """A new model with its recipe and data stored; a posterior that is not trained is frozen.

    Args:
        recipe: The options.
        data: Shape and range of one example.

    Raises:
        UsageError: If these options cannot model that data.

    Example:
        >>> from tightbound.recipes import VAE
        >>> model = build(VAE(latent_dim=2, hidden=(32,)), DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model.recipe.latent_dim
        2
    """
    model = assemble(recipe, data)
    model.recipe, model.data_spec, model.new = recipe, data, True
    model.lacks = " and ".join(stage.run for stage in recipe.stages.values() if stage.run)
    if recipe.training_objective.untrained:
        model.parts["encoder"].requires_grad_(False)
    return model
