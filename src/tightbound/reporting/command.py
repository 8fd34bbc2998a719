"""From a run's configuration back to the command that made it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from typing import Any

from ..recipes import TwoStage
from ..runs import RunConfig
from ..spec import to_json

__all__ = ["changed", "reproduction_command"]


def reproduction_command(config: RunConfig, out: str) -> str | None:
    """The ``tightbound train`` command of a run: only the options that differ from their defaults.

    Of a second stage it is the ``tightbound fit-prior``, with FIRST for the run of the first.

    Args:
        config: What the run's ``config.json`` says.
        out: Where the new run shall be.

    Returns:
        One command for a POSIX shell, or None if the run cannot be made by a command: its model was put together, or
        its data handed over, in Python.

    Example:
        >>> from tightbound.data import DataOptions, DataSpec
        >>> from tightbound.recipes import VAE
        >>> from tightbound.training.options import TrainingOptions
        >>> spec = DataSpec("digits", shape=(1, 8, 8), levels=17)
        >>> config = RunConfig(spec, TrainingOptions(epochs=30), VAE(hidden=(64, 32)), DataOptions("digits"))
        >>> reproduction_command(config, "runs/a b")
        "tightbound train vae --data digits --out 'runs/a b' --hidden 64 32 --epochs 30"
    """
    if config.recipe is None or config.data is None:
        return None
    if isinstance(config.recipe, TwoStage):
        words, parts = ["tightbound", "fit-prior", "FIRST", "--out", out], (config.recipe.second, config.training)
    else:
        words = ["tightbound", "train", to_json(config.recipe)["kind"], "--data", config.data.data, "--out", out]
        parts = (config.recipe, config.data, config.training)
    for options in parts:
        for name, value in changed(options).items():
            if name != "data":
                words.extend(_flag(name, value))
    return shlex.join(words)


def changed(options: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults.

    Example:
        >>> from tightbound.recipes import VAE
        >>> changed(VAE(latent_dim=2))
        {'latent_dim': 2}
    """
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    defaults = {field.name: _default(field) for field in dataclasses.fields(options)}
    return {name: value for name, value in values.items() if value != defaults[name]}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _flag(name: str, value: Any) -> Iterator[str]:
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        yield f"--{dashed}" if value else f"--no-{dashed}"
        return
    yield f"--{dashed}"
    yield from (map(str, value) if isinstance(value, tuple) else [str(value)])
