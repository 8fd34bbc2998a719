"""Parts of a new model taken from other runs, with frozen weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import nn

from .. import checkpoint
from ..errors import UsageError
from ..models import LatentVariableModel, Model
from ..models.latent import require_unconditional, with_latents
from ..options.choices import flat
from ..options.data_spec import DataSpec
from ..recipes import Recipe, Stage, TwoStage
from ..runs import RunFolder, load
from ..spec import Option, field_names, flag, kind_of, typed
from .device import find_device

__all__ = ["first_stage", "stage_of", "take_over"]


def stage_of(run: str | Path) -> Stage:
    """A run as the first stage of another; for a second stage, its own first stage.

    Raises:
        UsageError: If its model was built by hand.
        CheckpointError: If there is no run.
    """
    config = RunFolder(Path(run)).config()
    if config.recipe is None:
        raise UsageError(
            "The first stage was built by hand, so its parts are not in the folder.",
            got=run,
            remedy="Train a recipe first; or fit the prior in your own loop.",
        )
    if isinstance(config.recipe, TwoStage):
        return dataclasses.replace(config.recipe.first, run=str(run))
    return Stage(config.recipe, str(run), config.training, config.data)


def first_stage(run: str | Path, device: str) -> tuple[Stage, LatentVariableModel]:
    """A run as a first stage, and its model on a device, for fitting a prior to its latents.

    Raises:
        UsageError: If its model was built by hand, or has no latent.
        CheckpointError: If the folder holds no complete run.
    """
    stage, model = stage_of(run), with_latents(load(run)).to(find_device(device))
    if not isinstance(model.recipe, TwoStage):  # the latents of a second stage are those of its first
        require_unconditional(model)
    return stage, model


def take_over(model: Model, *, any_data: bool = False) -> None:
    """Loads the weights of parts that a new model takes from other runs, if any.

    Args:
        model: The model, just built by a recipe.
        any_data: Whether those runs may have other training data.

    Raises:
        UsageError: If a run has another recipe, other options or other data.
        CheckpointError: If a run is not complete.
    """
    for name, stage in model.recipe.stages.items() if model.lacks else ():
        if stage.run:
            _check(name, stage, model, any_data)
            _fill(model.taken[name], stage)
    model.lacks = ""


def _fill(parts: dict[str, nn.Module], stage: Stage) -> None:
    theirs = load(stage.run)
    for name, part in parts.items():
        checkpoint.load_into(part, checkpoint.tensors_of(theirs.get_submodule(name)), stage.run)


def _check(name: str, stage: Stage, model: Model, any_data: bool) -> None:
    """Refuses a run that does not match the recipe's options."""
    kind = kind_of(stage.recipe)
    if not RunFolder(Path(stage.run)).config_file.is_file():
        raise _no_run(name, kind, f"no run in {stage.run}")
    config = RunFolder(Path(stage.run)).config()
    if config.recipe is None:
        raise _no_run(name, kind, "a run of a model built by hand")
    if type(theirs := stage_of(stage.run).recipe) is not type(stage.recipe):
        raise _no_run(name, kind, f"a run of {kind_of(theirs)}")
    _check_options(name, stage, theirs, model.recipe)
    if not any_data and model.data_spec is not None:
        _check_data(name, model.data_spec, config.data_spec)


def _no_run(name: str, kind: str, got: str) -> UsageError:
    return UsageError(
        f"The {name} must be a run of recipe {kind}.",
        got=got,
        remedy=f"Train one: tightbound train {kind} --data DATA --out RUN, and pass --{name} RUN.",
    )


def _check_options(name: str, stage: Stage, theirs: Recipe, recipe: Recipe) -> None:
    """Refuses parts with other options, naming them as in the recipe."""
    mine, found, own = flat(stage.recipe), flat(theirs), flat(recipe)
    options = {key: f"{name}_{key}" if f"{name}_{key}" in own else key for key in mine if found.get(key) != mine[key]}
    if options:
        raise UsageError(
            f"The {name} was trained with other options.",
            got=f"{', '.join(_typed(options[key], found.get(key)) for key in options)}, in {stage.run}",
            expected=", ".join(_typed(options[key], mine[key]) for key in options),
            remedy=f"Use the options of the {name} for this run, or train a {name} with those of this run.",
        )


def _typed(name: str, value: Option) -> str:
    return f"{flag(name)} {typed(value)}"


def _check_data(name: str, mine: DataSpec, theirs: DataSpec) -> None:
    """Refuses parts that were trained on other data."""
    names = [each for each in field_names(DataSpec) if getattr(mine, each) != getattr(theirs, each)]
    if names:
        raise UsageError(
            f"The {name} was trained on other data.",
            got=", ".join(f"{each} {getattr(theirs, each)!r}" for each in names),
            expected=", ".join(f"{each} {getattr(mine, each)!r}" for each in names),
            remedy=f"Train a {name} on this data, with the same data options.",
        )
