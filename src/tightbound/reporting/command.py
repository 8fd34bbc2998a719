"""Reconstructs the command of a run from its configuration."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from ..data import DataOptions
from ..options.choices import choices, flat, name_of
from ..options.training import TrainingOptions
from ..recipes import Recipe, TwoStage
from ..runs import RunConfig
from ..spec import Dataclass, Option, flag, kind_of

__all__ = ["changed", "command_on", "reproduction_command"]


def command_on(run: str | PurePath, name: str) -> str:
    """A command for a run folder.

    Example:
        >>> command_on("runs/a b", "evaluate")
        "tightbound evaluate 'runs/a b'"
    """
    return shlex.join(["tightbound", name, PurePath(run).as_posix()])


def reproduction_command(config: RunConfig, out: str) -> str | None:
    """The ``tightbound train`` command of a run: only the options that differ from their defaults.

    For a second stage: the command of the first, into a folder FIRST, then ``tightbound fit-prior`` on a second line.

    Args:
        config: The content of the run's ``config.json``.
        out: The folder of the new run.

    Returns:
        One command or two for a POSIX shell, or None if the run cannot be made by a command: its model or its data came
        from Python.

    Example:
        >>> from tightbound.data import DataOptions, DataSpec
        >>> from tightbound.recipes import VAE
        >>> from tightbound.options.training import TrainingOptions
        >>> spec = DataSpec("digits", shape=(1, 8, 8), levels=17)
        >>> config = RunConfig(spec, TrainingOptions(epochs=30), VAE(hidden=(64, 32)), DataOptions("digits"))
        >>> reproduction_command(config, "runs/a b")
        "tightbound train vae --data digits --out 'runs/a b' --hidden 64 32 --epochs 30"
    """
    recipe, data = config.recipe, config.data
    if recipe is None or data is None or not data.data:
        return None
    if not isinstance(recipe, TwoStage):
        return _train(recipe, data, config.training, out)
    first, training = recipe.first.data, recipe.first.training
    other = ["--data", data.data] if first is not None and first.data != data.data else []
    words = ["--out", out, *other, "--prior", name_of(recipe.prior, "prior"), *_flags(recipe.prior, config.training)]
    fit = shlex.join(["tightbound", "fit-prior", "FIRST", *words])
    if first is None or training is None or not first.data:  # an old version, or trained on arrays
        return fit
    return f"{_train(recipe.first.recipe, first, training, 'FIRST')}\n{fit}"


def _train(recipe: Recipe, data: DataOptions, training: TrainingOptions, out: str) -> str:
    words = ["tightbound", "train", kind_of(recipe), "--data", data.data, "--out", out]
    return shlex.join([*words, *_flags(recipe, data, training)])


def _flags(*parts: Dataclass) -> Iterator[str]:
    for options in parts:
        for name, value in changed(options).items():
            if name != "data":
                yield from _flag(name, value)


def changed(options: Dataclass) -> dict[str, Any]:
    """The options of a dataclass that differ from their defaults, named as on the command line.

    Example:
        >>> from tightbound.recipes import VAE
        >>> changed(VAE(latent_dim=2))
        {'latent_dim': 2}
    """
    defaults = dict[str, Any]()
    for field in dataclasses.fields(options):
        if field.name not in choices(options):
            defaults[field.name] = _default(field)
        else:  # options of a choice have the defaults of its class
            defaults |= flat(type(getattr(options, field.name))())
            if field.default is not dataclasses.MISSING:
                defaults[field.name] = name_of(field.default, field.name)
    return {name: value for name, value in flat(options).items() if name not in defaults or value != defaults[name]}


def _default(field: dataclasses.Field[object]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _flag(name: str, value: Option) -> Iterator[str]:
    if isinstance(value, bool):
        yield flag(name if value else f"no_{name}")
        return
    yield flag(name)
    yield from (map(str, value) if isinstance(value, tuple) else [str(value)])
