"""The commands that describe runs, recipes and data. Heavy imports are deferred until one runs."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from .. import __version__
from ..data import DATASETS, DataOptions
from ..errors import UsageError
from ..options.choices import flat
from ..recipes.base import recipes_by_name
from .arguments import Json
from .output import print_json, print_pairs

__all__ = ["data", "first_sentence", "info", "recipes"]


def info(
    run: Annotated[Positional[Path | None], arg(metavar="RUN", help="A run folder.")] = None, /, json: Json = False
) -> None:
    """Describe a run, or without RUN: versions and devices.

    Example: tightbound info runs/demo
    """
    found = _environment() if run is None else _run_info(run)
    if json:
        print_json(found)
        return
    if evaluation := found.get("evaluation"):
        found["evaluation"] = evaluation["headline"]
    print_pairs(found)


def recipes(json: Json = False) -> None:
    """List the recipes that can be trained, and their options.

    Example: tightbound recipes
    """
    found = {
        name: {"is": first_sentence(cls), "options": flat(cls())} for name, cls in sorted(recipes_by_name().items())
    }
    if json:
        print_json(found)
        return
    print_pairs({name: f"{entry['is']}\noptions: {', '.join(entry['options'])}" for name, entry in found.items()})
    print("tightbound train RECIPE --help explains every option.")


def data(
    source: Annotated[Positional[str | None], arg(metavar="DATA", help="The data to describe.")] = None,
    /,
    options: Annotated[OmitArgPrefixes[DataOptions], arg(name="data", help="Options of the data.")] = DataOptions(),  # noqa: B008
    json: FlagCreatePairsOff[Json] = False,
) -> None:
    """List the named data sets, or describe one, or a folder, archive, array or table.

    Example: tightbound data scans/ --levels stretch
    """
    if source is not None and options.data not in (DataOptions().data, source):
        raise UsageError("Which data?", got=f"{source!r} and --data {options.data!r}", expected="one of the two")
    if source is None and options == DataOptions():
        found: dict[str, Any] = {
            name: {
                "is": entry.description,
                "shape": entry.shape,
                "levels": entry.levels,
                "examples": entry.examples,
                "licence": entry.licence,
            }
            for name, entry in DATASETS.items()
        }
    else:
        from ..data import load_data

        found = load_data(dataclasses.replace(options, data=source or options.data)).summary()
    if json:
        print_json(found)
        return
    notes = found.pop("notes", [])
    print_pairs(found)
    for note in notes:
        print(f"note: {note}")


_BEST = ("bound", "log_prior", "log_prior_bound")
"""Rows that select a model."""


def _run_info(run: Path) -> dict[str, Any]:
    from ..evaluation import learned_sigma
    from ..evaluation.kept import as_json, read_evaluation
    from ..runs import RunFolder, load, number
    from ..spec import to_json

    folder = RunFolder(run)
    config = folder.config()
    valid = [r for r in folder.records() if r["split"] == "valid"]
    best = {name: [v for r in valid if (v := number(r, name)) is not None] for name in _BEST}
    steps = max((r["step"] for r in folder.records()), default=0)
    model = load(run) if folder.weights.is_file() and config.recipe is not None else None
    evaluation = read_evaluation(folder)
    return {
        "run": str(run),
        **{k: v for k, v in to_json(config).items() if k not in ("kind", "version")},
        "parameters": model and sum(p.numel() for p in model.parameters()),
        "decoder_sigma": model and learned_sigma(model.parts.get("decoder"), model.data_spec),
        **(config.recipe.equivalents(model) if model and config.recipe else {}),
        "steps": steps,
        **{f"best_validation_{name}": max(values, default=None) for name, values in best.items() if values},
        "evaluation": evaluation and as_json(evaluation),
    }


def _environment() -> dict[str, Any]:
    import torch

    return {
        "tightbound": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "data_folder": os.environ.get("TIGHTBOUND_DATA"),
    }


def first_sentence(cls: type) -> str:
    """The first line of a docstring."""
    return (cls.__doc__ or "").split("\n")[0]
