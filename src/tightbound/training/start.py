"""Where a new model starts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ..data import DataSpec, Split
from ..errors import DataError
from ..likelihoods.completion import Pretrained
from ..models.latent import LatentVariableModel
from ..recipes import Recipe
from ..runtime.budget import within_memory
from ..runtime.randomness import epoch_order, fixed_noise, mix

__all__ = ["build_seeded", "draw_by_xavier", "start_from_data", "take_over_weights"]


def build_seeded(recipe: Recipe, spec: DataSpec, seed: int) -> LatentVariableModel:
    """A new model whose initial weights follow from the seed.

    Raises:
        UsageError: If it does not fit in memory.
    """
    with torch.random.fork_rng(devices=[]), within_memory():
        torch.manual_seed(mix(seed))
        return recipe.build(spec)


@torch.no_grad()
def draw_by_xavier(model: LatentVariableModel, seed: int = 0) -> None:
    r"""Draws the weights of a new model's linear layers and convolutions anew, with biases of zero; frozen ones stay.

    .. math:: w \sim \mathcal{U}(-a, a), \qquad a = \sqrt{6 / (n_{\text{in}} + n_{\text{out}})}

    References:
        Understanding the Difficulty of Training Deep Feedforward Neural Networks (Glorot and Bengio, 2010).

    Args:
        model: The model, which a recipe has just built; others are left as they are.
        seed: Of the weights.
    """
    if not model.starts_from_data:
        return
    with fixed_noise(seed):
        for module in model.modules():
            if isinstance(module, _WEIGHTED) and module.weight.requires_grad:
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def take_over_weights(model: nn.Module) -> None:
    """Lets the parts of a new model that go on from another run take over its weights.

    Args:
        model: The model; parts that have their weights already keep them.

    Raises:
        UsageError: If the other run does not fit the model.
        CheckpointError: If there is none.
    """
    for module in model.modules():
        if isinstance(module, Pretrained):
            module.take_over()


_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
STARTING = 2000
"""Training examples that a part which starts from data sees, unless it says how many it wants."""


@torch.no_grad()
def start_from_data(model: LatentVariableModel, train: Split, seed: int = 0) -> None:
    """Lets the parts of a new model that can start from data do so: pseudo-inputs, means and scales.

    A part has a method ``initialise(x)``, and may say by ``examples_wanted`` how many examples it wants.

    Args:
        model: The model, which a recipe has just built; others are left as they are.
        train: The training split.
        seed: Which of its examples, and their binarisation.
    """
    if not model.starts_from_data:
        return
    parameter = next(model.parameters())
    for module in _parts(model):
        initialise = getattr(module, "initialise", None)
        if initialise is not None:
            order = epoch_order(seed, 0, len(train))[: getattr(module, "examples_wanted", STARTING)]
            with fixed_noise(seed):
                initialise(train.batch(order, parameter.device).x.to(parameter.dtype))
        learn = getattr(module, "initialise_captions", None)
        if learn is not None:
            if train.captions is None:
                raise DataError(
                    "The model is given a text, and this data has none.",
                    remedy='Use a folder with a metadata.jsonl: {"file_name": "a.png", "text": "a red circle"}.',
                )
            learn(train.captions)
    model.starts_from_data = False


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """All modules but those of a model within the model, whose data is not this, and of a part that starts itself."""
    yield module
    for child in () if hasattr(module, "initialise") else module.children():
        if not isinstance(child, LatentVariableModel):
            yield from _parts(child)
