"""Initialisation of a new model: weights, parts of other runs, and parts initialised from data and captions."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import DataSpec, Split
from ..errors import DataError
from ..exchange import read_autoencoder
from ..models import Model
from ..models.latent import with_latents
from ..options.training import TrainingOptions
from ..recipes import Recipe
from ..runtime.budget import within_memory
from ..runtime.parts import LearnsFromCaptions, StartsFromData
from ..runtime.randomness import epoch_order, fixed_noise, mix
from .stages import take_over

__all__ = ["build_seeded", "draw_by_xavier", "learn_captions", "start_model", "start_second_stage"]


def build_seeded(recipe: Recipe, spec: DataSpec, seed: int) -> Any:
    """A new model with initial weights determined by the seed.

    Raises:
        UsageError: If it does not fit in memory.
    """
    with torch.random.fork_rng(devices=[]), within_memory():
        torch.manual_seed(mix(seed))
        return recipe.build(spec)


def start_model(model: Model, train: Split, options: TrainingOptions | None = None) -> None:
    """Initialises a model just built by a recipe, once; loaded or trained weights are kept.

    Parts taken from another run load its weights, frozen. Parts that can be initialised from data
    (:class:`~tightbound.runtime.parts.StartsFromData`) or from captions are.

    Args:
        model: The model.
        train: The training split.
        options: The weight initialisation, whether parts are initialised from data, and the seed.

    Raises:
        DataError: If it needs captions, and the data has none.
        UsageError: If another run does not fit the model.
        CheckpointError: If the run does not exist.

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
    if start := model.recipe.starts_from if model.recipe else "":
        read_autoencoder(Path(start)).load_into(with_latents(model), start)
    else:
        _start(model, train, options)
    learn_captions(model, train)
    model.new = False


def _start(model: Model, train: Split, options: TrainingOptions) -> None:
    """Random weights, and parts that start from data."""
    if options.initial_weights == "xavier":
        draw_by_xavier(model, options.seed)
    if options.data_start:
        _start_from_data(model, train, options.seed)


def start_second_stage(model: Model, train: Split) -> None:
    """Initialises a two-stage model, whose prior is trained on latents only: loads its first stage.

    Args:
        model: The model, just built by a recipe, for data that fits its first stage.
        train: The training split of the data.

    Raises:
        CheckpointError: If the run does not exist.
    """
    take_over(model, any_data=True)
    if train.captions is not None:
        learn_captions(model, train)
    model.new = False


@torch.no_grad()
def draw_by_xavier(model: nn.Module, seed: int = 0) -> None:
    r"""Reinitialises the weights of linear layers and convolutions, with zero biases; frozen ones are kept.

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
    """Initialises the parts that learn from captions.

    Raises:
        DataError: If there are such parts and no captions.
    """
    for part in _parts(model):
        if isinstance(part, LearnsFromCaptions):
            if train.captions is None:
                raise DataError(
                    "The model is conditioned on text, but this data has no captions.",
                    remedy='Use a folder with a metadata.jsonl: {"file_name": "a.png", "text": "a red circle"}.',
                )
            part.initialise_captions(train.captions)


def _parts(module: nn.Module, taken: Container[nn.Module] = ()) -> Iterator[nn.Module]:
    """All modules except those of nested models with other data, of parts that initialise themselves, and of parts
    taken from another run.
    """
    yield module
    for child in () if isinstance(module, StartsFromData) else module.children():
        if not isinstance(child, Model) and child not in taken:
            yield from _parts(child, taken)
