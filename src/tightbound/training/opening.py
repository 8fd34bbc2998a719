"""The first lines printed by a run: data, model and plan."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

import torch
from rich.console import Console
from torch import nn

from ..data import Data
from ..likelihoods import Likelihood
from ..models import Model
from ..options.choices import choices, flat, name_of
from ..options.training import TrainingOptions
from ..recipes import Recipe
from ..recipes.two_stage import TwoStage
from ..runtime.processor import processor_name
from ..spec import kind_of
from .log import count

__all__ = ["say", "told_device", "told_latents", "told_limit", "told_model", "told_patience", "told_plan"]


def say(lines: Iterable[str]) -> None:
    """Prints lines to standard error, wrapped at words in a terminal."""
    console = Console(stderr=True, highlight=False)
    for line in lines:
        width = console.width if console.is_terminal else 10**6
        for part in textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False):
            console.print(part, soft_wrap=True, markup=False)


def told_latents(encoded: Data, model: Model) -> str:
    """The line about the latents of a second stage."""
    train, valid = f"{len(encoded.train):,} training", f"{len(encoded.valid):,} validation"
    size, codes = encoded.spec.shape[-1], model.codes
    each = f"{size} numbers" if codes is None else f"{size} codes out of {' and '.join(map(str, codes.levels))}"
    return f"data: {encoded.spec.name}: {train} and {valid} examples of {each}"


def told_model(model: Model, precision: str) -> str:
    """The line about the model: recipe, size, and resolved "auto" options."""
    name = "built by hand" if model.recipe is None else told_recipe(model.recipe)
    return f"model: {'; '.join([name, _told_size(model), *_chosen(model), f'precision {precision}'])}"


def told_recipe(recipe: Recipe) -> str:
    """The name of a recipe, including that of a first stage."""
    if not isinstance(recipe, TwoStage):
        return kind_of(recipe)
    return f"{kind_of(recipe.first.recipe)} with a new prior, {name_of(recipe.prior, 'prior')}"


def _told_size(model: Model) -> str:
    sizes = {name: sum(p.numel() for p in own) for name, own in _own_parameters(model.parts).items() if own}
    shares = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = f", {learned:,} trained" if learned < _count(model) else ""
    return f"{_count(model):,} parameters{frozen}" + (f" ({shares})" if len(sizes) > 1 else "")


def _own_parameters(parts: dict[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """The number of parameters of each part; shared ones are counted in the first."""
    seen, own = set[nn.Parameter](), dict[str, list[nn.Parameter]]()
    for name, part in parts.items():
        own[name] = [p for p in part.parameters() if p not in seen]
        seen.update(own[name])
    return own


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _chosen(model: Model) -> list[str]:
    """The likelihood with its scale, the condition, and the objective of a model."""
    recipe: Recipe | None = model.recipe
    if isinstance(recipe, TwoStage):
        return []
    found = list[str]()
    if (decoder := model.parts.get("decoder")) is not None:
        scale = decoder.scale if isinstance(decoder, Likelihood) else ""
        found.append(f"likelihood {_name(decoder, 'Likelihood')}" + (f", scale {scale}" if scale else ""))
    if model.condition is not None:
        found.append(f"given {', '.join(model.condition.parts)}")
    if recipe is not None and model.data_spec is not None:
        found = [*recipe.chosen(model.data_spec), *found]
    return found if recipe is None else [*found, *(f"{name} {flat(recipe)[name]}" for name in choices(recipe))]


def _name(module: nn.Module, kind: str) -> str:
    """``full-gaussian`` of ``FullGaussianLikelihood``."""
    return re.sub(r"(?<=.)(?=[A-Z])", "-", type(module).__name__.removesuffix(kind)).lower()


def told_plan(
    options: TrainingOptions, examples: int, every: int, patience: int | None, device: torch.device, processes: int
) -> str:
    """The line about the plan: length, device, evaluations and early stopping.

    Args:
        options: The training options.
        examples: Size of the training split.
        every: Steps between evaluations; 0 without a validation split.
        patience: Evaluations without a better bound after which it stops.
        device: The device.
        processes: Number of processes.
    """
    steps, epochs = options.total_steps(examples), options.total_steps(examples) / options.steps_per_epoch(examples)
    parts = [f"{steps:,} steps of {min(options.batch_size, examples):,} examples ({count(epochs)} epochs)"]
    parts += [f"on {told_device(device)}" + (f" in {processes} processes" if processes > 1 else "")]
    when = f"every {every:,} steps, {told_patience(patience)}" if every < steps else "at the end"
    parts += [f"evaluated {when}" if every else "no validation split"]
    return f"plan: {'; '.join(parts)}"


def told_limit(options: TrainingOptions, limit: float | None) -> list[str]:
    """The line about the gradients, where they are clipped by default.

    Args:
        options: The training options.
        limit: Their maximum norm.

    Example:
        >>> told_limit(TrainingOptions(), 784.0)
        ['gradients: clipped to a norm of 784 (--clip-norm none: not)']
    """
    if options.clip_norm != "auto" or limit is None:
        return []
    return [f"gradients: clipped to a norm of {limit:,g} (--clip-norm none: not)"]


def told_patience(patience: int | None) -> str:
    """The early stopping rule, as text."""
    if patience is None:
        return "no early stopping"
    times = f"{patience} evaluation{'s' * (patience > 1)}"
    return f"stops after {times} without a better validation bound (--patience none: never)"


def told_device(device: torch.device) -> str:
    """The name of the GPU, or of the CPU with its threads.

    Example:
        >>> told_device(torch.device("cpu")).startswith("cpu (")
        True
    """
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type != "cpu":
        return str(device)
    threads = torch.get_num_threads()
    return f"cpu ({', '.join([*processor_name(), f'{threads} thread' + 's' * (threads > 1)])})"
