"""The command line: maps options to functions, and errors to a message and an exit code.

0 done, 1 failed, 2 bad usage, 130 stopped by a signal.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import io
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec, get_type_hints

import tyro

from .. import __version__
from ..data import DataOptions
from ..errors import TightboundError, UnknownName, UsageError
from ..options.training import TrainingOptions
from ..recipes import Recipe
from ..recipes.base import find_recipe, recipes_by_name
from ..recipes.kl_autoencoder import GridAutoencoder
from ..spec import closed_list, flag, kind_of, require_numbers
from .choices import given, help_of, plain, prepared, prepared_command, refuse_options_of_others
from .commands import COMMANDS
from .learning import PriorArguments, TrainArguments, train
from .telling import first_sentence

__all__ = ["main"]

P = ParamSpec("P")
_CONFIG = (tyro.conf.FlagCreatePairsOff,)
_TRAIN_EXAMPLES = """
Examples:
  tightbound train RECIPE --data digits --out runs/digits && tightbound report runs/digits
  tightbound train RECIPE --data photos/ --image-size 64 --color rgb --epochs 100 --out runs/photos
  tightbound train --resume --out runs/digits
  torchrun --nproc-per-node 2 -m tightbound train RECIPE --data mnist --out runs/mnist

A first Ctrl-C (or SIGTERM, SIGHUP) saves and exits with code 130; --resume continues exactly there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The words after ``tightbound``; default: those of this process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # file names need not be valid text, nor terminals UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _run(words)
        sys.stdout.flush()
    except UsageError as error:
        return _fail(error, 2)
    except TightboundError as error:
        return _fail(error, 1)
    except BrokenPipeError:  # the reader of a pipe has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, MemoryError) as error:
        return _fail(f"{type(error).__name__}: {error}", 1)
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        return _fail(f"There is not enough memory: {str(error).splitlines()[0]}", 1)
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130)
    except SystemExit as end:  # tyro: help was shown, or an option is wrong
        return end.code if isinstance(end.code, int) else 2
    return 0


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        if not words:
            raise SystemExit(2)
        return
    if words[0] == "--version":
        print(__version__)
        return
    name, *rest = words
    if name not in COMMANDS:
        raise UnknownName("command", name, COMMANDS)
    if empty := [before for before, word in pairwise(words) if not word] or [w for w in rest if w.endswith("=")]:
        raise UsageError("An option has an empty value.", got=empty[0], remedy="Leave it out, or give it a value.")
    if name == "train":
        _train(rest)
    else:
        natural = name == "fit-prior" and given(rest, "prior") is None
        before = {"prior": PriorArguments.natural(rest)} if natural else {}
        function = prepared_command(_in_range(COMMANDS[name]), rest, before)
        asked = not {"-h", "--help"}.isdisjoint(rest)  # tyro leaves arguments that were given out of the usage
        tyro.cli(function, prog=f"tightbound {name}", args=["--help"] if asked else rest, config=_CONFIG)


def _in_range(function: Callable[P, None]) -> Callable[P, None]:
    """A command that refuses out-of-range numbers."""

    @functools.wraps(function)
    def checked(*arguments: P.args, **options: P.kwargs) -> None:
        require_numbers(options)
        function(*arguments, **options)

    return checked


def _train(words: list[str]) -> None:
    """`train` takes its options from the recipe, or from a resumed run."""
    if not words or words[0] in ("-h", "--help"):
        print(_train_overview())
        if not words:
            raise SystemExit(2)
        return
    named = None if words[0].startswith("-") else words[0]
    default = _resumed(words) if "--resume" in words else _new(named, words)
    cls = type(default.recipe)
    default = dataclasses.replace(default, recipe=prepared(default.recipe, words))
    refuse_options_of_others((default.recipe, default.data, default.training), words, vars(default))
    if named and find_recipe(named) is not cls:
        raise UsageError("The run to resume is of another recipe.", got=named, expected=kind_of(default.recipe))
    parsed = tyro.cli(
        TrainArguments[cls],
        prog=f"tightbound train {kind_of(default.recipe)}",
        description="\n".join(
            [f"{first_sentence(cls)}\n", _first_options(default), _examples(kind_of(default.recipe))]
        ),
        args=words[1:] if named else words,
        default=default,
    )
    train(dataclasses.replace(parsed, recipe=plain(parsed.recipe)))


def _first_options(default: TrainArguments[Any]) -> str:
    """The five most important options, with their help and defaults."""
    recipe = default.recipe
    named = [(default.data, "data"), (default.training, "epochs"), *((recipe, name) for name in recipe.first_options)]
    rows = ["  --out RUN", "      The run folder to write."]
    for options, name in named:
        value = getattr(options, name)
        usual = (
            "" if value is None else f" (default: {' '.join(map(str, value)) if isinstance(value, tuple) else value})"
        )
        told = textwrap.fill(
            f"{help_of(type(options), name)}{usual}", 80, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
        rows += [f"  {flag(name)}{_choices(type(options), name)}", told]
    return "\n".join(["Main options:", *rows, "", "All options are listed below by group."])


def _examples(recipe: str) -> str:
    return _TRAIN_EXAMPLES.replace("RECIPE", recipe)


def _choices(options: type, name: str) -> str:
    known = closed_list(get_type_hints(options)[name])
    return f" {{{','.join(map(str, known))}}}" if known else f" {name.upper()}"


def _new(name: str | None, words: Sequence[str]) -> TrainArguments[Any]:
    """The default arguments of a recipe."""
    if name is None:
        known = ", ".join(recipes_by_name())
        raise UsageError("No recipe was given.", expected=f"one of: {known}", remedy="tightbound train vae --out RUN")
    return TrainArguments(_of_file(find_recipe(name)(), words), DataOptions(), TrainingOptions(), out=tyro.MISSING)


def _of_file(recipe: Recipe, words: Sequence[str]) -> Recipe:
    """The default options, with the architecture of the autoencoder that training starts from."""
    path = given(words, "init")
    if path is None or not isinstance(recipe, GridAutoencoder):
        return recipe
    from ..exchange import read_autoencoder

    found = read_autoencoder(Path(path)).recipe
    if type(found) is not type(recipe):
        raise UsageError(f"{path} is of recipe {kind_of(found)}.", got=kind_of(recipe), expected=kind_of(found))
    return dataclasses.replace(recipe, **found.architecture)


def _resumed(words: list[str]) -> TrainArguments[Any]:
    """The arguments that the run in ``--out`` was trained with, from its config."""
    from ..runs import RunFolder

    out = given(words, "out")
    if out is None:
        raise UsageError("No run to resume was given.", remedy="tightbound train --resume --out RUN")
    folder = RunFolder(Path(out))
    config = folder.config()
    if config.recipe is None or config.data is None or not config.data.data:
        raise UsageError(
            "This run was started in Python, with its own model or data.", remedy=f"Resume with: {folder.way_on()}."
        )
    if not config.recipe.by_itself:
        raise UsageError("This run is a second stage.", remedy=f"Resume with: {folder.way_on()}.")
    return TrainArguments(config.recipe, config.data, config.training, out=Path(out))


def _overview() -> str:
    rows = "\n".join(f"  {name:<18} {_summary(function)}" for name, function in COMMANDS.items())
    return f"""usage: tightbound COMMAND ...

Train, measure and explore latent-variable generative models.

{rows}

Examples:
  tightbound train vae --data digits --out runs/digits
  tightbound evaluate runs/digits -k 1000
  tightbound report runs/digits

`tightbound COMMAND --help` explains a command; `tightbound --version` prints the version.
Exit codes: 0 done, 1 failed, 2 bad usage, 130 stopped by a signal."""


def _train_overview() -> str:
    rows = "\n".join(f"  {name:<19} {first_sentence(cls)}" for name, cls in sorted(recipes_by_name().items()))
    return f"""usage: tightbound train RECIPE --data DATA --out RUN [options]

Trains a model and writes a run folder. The recipes:

{rows}
{_examples("vae")}

`tightbound train RECIPE --help` explains every option."""


def _summary(function: Callable[..., None]) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]


def _fail(error: object, code: int) -> int:
    rank = os.environ.get("RANK", "0")
    if rank == "0" or code != 2:  # of several processes with the same usage error, only one prints it
        print(f"{'' if rank == '0' else f'[process {rank}] '}error: {error}", file=sys.stderr)
    return code
