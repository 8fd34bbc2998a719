"""The settings of a run: the command that reproduces it, and its options."""

from __future__ import annotations

import platform

import torch

from .. import __version__
from ..options.choices import flat, name_of
from ..recipes.two_stage import TwoStage
from ..spec import Dataclass, Option, kind_of
from . import page
from .command import changed, reproduction_command
from .headline import recipe_name
from .material import Material

__all__ = ["configuration", "differing", "reproduction", "trained"]


def configuration(m: Material) -> str:
    """The run's data, its folder and the options that differ from their defaults, as HTML; all of them folded."""
    parts = _parts(m)
    text = page.paragraph("Options that differ from the defaults. The run folder is") + page.code(
        m.folder.path.as_posix()
    )
    rest = page.tiles(*(_headed(title, _every(options)) for title, options in parts.items()))
    first = page.tiles(*(_headed(title, _differing(options)) for title, options in parts.items()))
    return text + first + page.folded("All options", rest)


def differing(m: Material) -> str:
    """The number of options that are not at their defaults, as text."""
    count = sum(len(changed(options)) for options in _parts(m).values())
    if not count:
        return "all options are at their defaults"
    return f"{count} option{'s' * (count != 1)} {'differ' if count != 1 else 'differs'} from the default"


def trained(m: Material) -> str:
    """How long it was trained, text."""
    last = max((record["step"] for record in m.folder.records()), default=None)
    return "no readings" if last is None else f"{last:,} steps of {m.config.training.batch_size} examples"


def _parts(m: Material) -> dict[str, Dataclass]:
    recipe = m.config.recipe
    parts: dict[str, Dataclass | None] = {f"Recipe {recipe_name(m)}": recipe}
    if isinstance(recipe, TwoStage):
        first = recipe.first
        parts = {f"First stage: {kind_of(first.recipe)}": first.recipe, "Its data": first.data}
        parts |= {"Its training": first.training, f"Prior: {name_of(recipe.prior, 'prior')}": recipe.prior}
    parts |= {"Data": m.config.data, "Training": m.config.training}
    return {title: options for title, options in parts.items() if options is not None}


def _headed(title: str, content: str) -> str:
    return page.tag("div", page.tag("h3", page.escape(title)), content)


def _all(options: Dataclass) -> list[str]:
    return list(flat(options))


def _differing(options: Dataclass) -> str:
    """What is not at its default; the data is named whatever it is."""
    given = {name: _row(options, name) for name in _all(options) if name in changed(options) or name == "data"}
    if not given:
        return page.paragraph("All options are at their defaults.", "soft")
    return page.table(["option", "value"], list(given.values()))


def _every(options: Dataclass) -> str:
    given = changed(options)
    rows = [[*_row(options, name), "given" if name in given else "default"] for name in _all(options)]
    return page.table(["option", "value", "given or default"], rows)


def _row(options: Dataclass, name: str) -> list[str]:
    return [page.Verbatim(name), page.Verbatim(shown(flat(options)[name]))]


def shown(value: Option) -> str:
    """The value of an option as text."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "–" if value is None else str(value)


def reproduction(m: Material) -> str:
    """The command that makes the run again, and the versions, as HTML."""
    command = reproduction_command(m.config, m.folder.path.as_posix())
    if command is None:
        how = page.paragraph("No command reproduces this run: its model or data came from Python.")
    else:
        how = page.code(command)
    versions = [
        ["tightbound", f"{m.config.tightbound or 'unknown'} (trained), {__version__} (this report)"],
        ["torch", torch.__version__],
        ["Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"],
    ]
    same = "The same command with the same versions on the same machine gives the same weights, bit for bit."
    return how + page.paragraph(same) + page.table(["what", "version"], versions)
