"""Where a new model starts: its weights, what it takes from other runs, from the data and from its captions."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import nn

from ..data import DataSpec, Split
from ..errors import DataError
from ..models import Model
from ..options.training import TrainingOptions
from ..recipes import Recipe
from ..runtime.budget import within_memory
from ..runtime.parts import LearnsFromCaptions, StartsFromData
from ..runtime.randomness import epoch_order, fixed_noise, mix
from .stages import take_over

__all__ = ["build_seeded", "draw_by_xavier", "learn_captions", "start_model", "start_second_stage"]


def build_seeded(recipe: Recipe, spec: DataSpec, seed: int) -> Any:
    """A new model whose initial weights follow from the seed.

    Raises:
        UsageError: If it does not fit in memory.
    """
    with torch.random.fork_rng(devices=[]), within_memory():
        torch.manual_seed(mix(seed))
        return recipe.build(spec)


def start_model(model: Model, train: Split, options: TrainingOptions | None = None) -> None:
    """Starts a model that a recipe has just built, once; one that was given weights, or trained, keeps them.

    Parts that are taken from another run get its weights, and keep them. Parts that can start where the data lies
    (:class:`~tightbound.runtime.parts.StartsFromData`) or learn from captions do so.

    Args:
        model: The model.
        train: The training split.
        options: How weights are drawn, whether parts start from data, and the seed of both.

    Raises:
        DataError: If it needs captions, and the data has none.
        UsageError: If another run does not fit the model.
        CheckpointError: If there is no such run.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> start_model(model, data.train)
        >>> model.new
        False
    """
    options = options or TrainingOptions()
    if not model.new:
        return
    take_over(model)
    if options.initial_weights == "xavier":
        draw_by_xavier(model, options.seed)
    if options.data_start:
        _start_from_data(model, train, options.seed)
    learn_captions(model, train)
    model.new = False


def start_second_stage(model: Model, train: Split) -> None:
    """Starts a two-stage model, whose prior learns from latents alone: it takes over its first stage.

    Args:
        model: The model, which a recipe has just built, for data that was found to fit its first stage.
        train: The training split of the data.

    Raises:
        CheckpointError: If there is no such run.
    """
    take_over(model, any_data=True)
    if train.captions is not None:
        learn_captions(model, train)
    model.new = False


@torch.no_grad()
def draw_by_xavier(model: nn.Module, seed: int = 0) -> None:
    r"""Draws the weights of linear layers and convolutions anew, with biases of zero; frozen ones stay.

    .. math:: w \sim \mathcal{U}(-a, a), \qquad a = \sqrt{6 / (n_{\text{in}} + n_{\text{out}})}

    References:
        Understanding the Difficulty of Training Deep Feedforward Neural Networks (Glorot and Bengio, 2010).

    Args:
        model: The model.
        seed: Of the weights.
    """
    with fixed_noise(seed):
        for module in model.modules():
            if isinstance(module, _WEIGHTED) and module.weight.requires_grad:
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


@torch.no_grad()
def _start_from_data(model: Model, train: Split, seed: int) -> None:
    for part in _parts(model, {part for parts in model.taken.values() for part in parts.values()}):
        if isinstance(part, StartsFromData):
            order = epoch_order(seed, 0, len(train))[: part.examples_wanted]
            with fixed_noise(seed):
                part.initialise(train.batch(order, model.device).x.to(model.dtype))


def learn_captions(model: nn.Module, train: Split) -> None:
    """Lets the parts that learn from captions do so.

    Raises:
        DataError: If there are such parts and no captions.
    """
    for part in _parts(model):
        if isinstance(part, LearnsFromCaptions):
            if train.captions is None:
                raise DataError(
                    "The model is given a text, and this data has none.",
                    remedy='Use a folder with a metadata.jsonl: {"file_name": "a.png", "text": "a red circle"}.',
                )
            part.initialise_captions(train.captions)


def _parts(module: nn.Module, taken: Container[nn.Module] = ()) -> Iterator[nn.Module]:
    """All modules but those of a model within the model, whose data is not this, of a part that starts itself, and of
    one that is taken from another run.
    """
    yield module
    for child in () if isinstance(module, StartsFromData) else module.children():
        if not isinstance(child, Model) and child not in taken:
            yield from _parts(child, taken)
