"""Where a new model starts: its weights, what it takes from other runs, from the data and from its captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from .. import checkpoint
from ..data import DataSpec, Split
from ..errors import DataError
from ..likelihoods.completion import Pretrained
from ..models.latent import LatentVariableModel
from ..options.training import TrainingOptions
from ..recipes import Recipe
from ..runtime.budget import within_memory
from ..runtime.parts import LearnsFromCaptions, StartsFromData
from ..runtime.randomness import epoch_order, fixed_noise, mix

__all__ = ["build_seeded", "draw_by_xavier", "learn_captions", "start_model", "start_second_stage"]


def build_seeded(recipe: Recipe, spec: DataSpec, seed: int) -> LatentVariableModel:
    """A new model whose initial weights follow from the seed.

    Raises:
        UsageError: If it does not fit in memory.
    """
    with torch.random.fork_rng(devices=[]), within_memory():
        torch.manual_seed(mix(seed))
        return recipe.build(spec)


def start_model(model: LatentVariableModel, train: Split, options: TrainingOptions | None = None) -> None:
    """Starts a model that a recipe has just built, once; one that was given weights, or trained, keeps them.

    Parts that go on from another run take over its weights. Parts that can start where the data lies
    (:class:`~tightbound.runtime.parts.StartsFromData`) or learn from captions do so.

    Args:
        model: The model; of one that was put together by hand only the parts from other runs are started.
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
    for part in model.modules():
        if isinstance(part, Pretrained):
            part.take_over()
    if not model.new:
        return
    if options.initial_weights == "xavier":
        draw_by_xavier(model, options.seed)
    if options.data_start:
        _start_from_data(model, train, options.seed)
    learn_captions(model, train)
    model.new = False


def start_second_stage(model: LatentVariableModel, first: LatentVariableModel, run: str | Path, train: Split) -> None:
    """Starts a two-stage model: the parts of its first stage are those of a trained one.

    Args:
        model: The model, which a recipe has just built.
        first: The trained model.
        run: Its run folder, to be named where it does not fit.
        train: The training split of the data.

    Raises:
        CheckpointError: If the first stage is another.
    """
    checkpoint.load_into(model.posterior, checkpoint.tensors_of(first.posterior), run)
    checkpoint.load_into(model.likelihood, checkpoint.tensors_of(first.likelihood), run)
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
def _start_from_data(model: LatentVariableModel, train: Split, seed: int) -> None:
    parameter = next(model.parameters())
    for part in _parts(model):
        if isinstance(part, StartsFromData):
            order = epoch_order(seed, 0, len(train))[: part.examples_wanted]
            with fixed_noise(seed):
                part.initialise(train.batch(order, parameter.device).x.to(parameter.dtype))


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


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """All modules but those of a model within the model, whose data is not this, and of a part that starts itself."""
    yield module
    for child in () if isinstance(module, StartsFromData) else module.children():
        if not isinstance(child, LatentVariableModel):
            yield from _parts(child)
