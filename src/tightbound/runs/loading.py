"""The model and the data of a run, read again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import checkpoint
from ..data import DataOptions, DataSpec
from ..errors import CheckpointError, DataError, UnknownName, UsageError
from ..recipes import Recipe
from ..runtime.budget import within_stored
from .folder import RunConfig, RunFolder, describing

if TYPE_CHECKING:
    from ..data import Data
    from ..models import Model

__all__ = ["load", "load_run_data"]


def load(run: str | Path, model: Model | None = None) -> Any:
    """The model of a run, ready to use.

    Args:
        run: The run folder.
        model: For a model put together by hand: one of the same parts, which gets the weights.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If the folder holds no complete run, or a weight is not a number.

    Example:
        >>> load("no/such/run")
        Traceback (most recent call last):
        tightbound.errors.CheckpointError: There is no run in no/such/run: it does not exist.
          expected: a folder that `tightbound train` wrote
          remedy:   Check the path, or train one: tightbound train vae --out no/such/run
    """
    folder = RunFolder(Path(run))
    config = folder.config()
    if not folder.weights.is_file():
        raise CheckpointError(
            f"{folder.path} has no model.safetensors: its training has not got that far.",
            remedy=f"Go on with: {folder.way_on()}. Should that fail, train anew in another --out.",
        )
    found = model
    if found is None:
        if config.recipe is None:
            raise CheckpointError(
                "This run's model was put together by hand, so its parts are not in the folder.",
                remedy="Build the same model and call load(run, model).",
            )
        found = _built(folder, config.recipe, config.data_spec)
    tensors, found.loaded_weights = checkpoint.read_with_digest(folder.weights)
    checkpoint.load_into(found, tensors, folder.weights)
    checkpoint.require_finite(found)
    return found.eval()


def _built(folder: RunFolder, recipe: Recipe, spec: DataSpec) -> Model:
    with within_stored(folder.weights), describing(folder.config_file):
        return recipe.build(spec)


def load_run_data(run: str | Path, source: Data | str | Path | None = None, *, divide: bool = False) -> Data:
    """The data of a run, or other data seen through the same options, checked to fit its model.

    Args:
        run: The run folder.
        source: Other data: a name, folder, archive, picture or array, or what was loaded already; default: the run's
            own, which must be what the run was trained on.
        divide: Whether splits are held out of other data too, to learn from it; else all of it is one split, or those
            that it comes in, unless it is what the run was trained on, in another place.

    Raises:
        CheckpointError: If there is no run in the folder.
        DataError: If the data cannot be loaded.
        UsageError: If the run was trained on arrays handed over in Python and no source is given, the run's own data
            has changed since, or the source does not fit the model.
    """
    from ..data import Data

    config = RunFolder(Path(run)).config()
    if isinstance(source, Data):
        data = source
    else:
        data = _own_data(config) if source is None else _other_data(config, str(source), divide)
    data = data.scaled_as(config.data_spec)
    _check_fits(config.data_spec, data.spec)
    return data


def _own_data(config: RunConfig) -> Data:
    from ..data import load_data

    if config.data is None or not config.data.data:
        raise UsageError(
            "This run was trained on arrays that were handed over in Python.",
            got="no data",
            remedy="Name the data: --data DATA at the command line; in Python: data=Data.from_arrays(...).",
        )
    try:
        data = load_data(config.data)
    except (DataError, UnknownName) as error:
        raise DataError(
            f"The data of this run cannot be loaded. {error.message}",
            got=config.data.data,
            expected="the data that the run was trained on",
            remedy="Say where it is now: --data DATA at the command line, data= in Python.",
        ) from error
    if config.fingerprint and config.fingerprint != data.fingerprint:
        raise _changed(config, data)
    return data


def _changed(config: RunConfig, data: Data) -> UsageError:
    now, then = _counts(data.fingerprint), _counts(config.fingerprint)
    return UsageError(
        "The data of this run has changed since it was trained, and its test examples with it.",
        got=f"{now}, {'of other values' if now == then else 'divided anew'}, in {data.options.data!r}",
        expected=then,
        remedy=f"Put back what was there, or name it to use what is there now: --data {data.options.data}",
    )


def _counts(fingerprint: str) -> str:
    counts = zip(("training", "validation", "test"), fingerprint.split("-"), strict=False)
    return f"{', '.join(f'{count} {name}' for name, count in counts)} examples"


def _other_data(config: RunConfig, source: str, divide: bool) -> Data:
    from ..data.load import load_data, load_for_learned
    from ..data.sources.tables import TABLES

    options = config.data or DataOptions()
    label = options.label if Path(source).suffix.lower() in TABLES else ""  # other data may be no table
    options = dataclasses.replace(options, data=source, label=label, standardize="none")
    if divide:
        asked = config.data.standardize if config.data else "auto"
        found = load_data(options)
        return dataclasses.replace(found, options=dataclasses.replace(found.options, standardize=asked))
    found = load_for_learned(options, config.data_spec, config.fingerprint)
    if found.new and config.data is not None and found.options.data == config.data.data:
        said = "this is where the run's own data was, which has changed: what the model was trained on may be in it"
        return dataclasses.replace(found, said=(*found.said, said))
    return found


def _check_fits(model: DataSpec, data: DataSpec) -> None:
    def kind(spec: DataSpec) -> str:
        values = "continuous" if spec.levels is None else f"{spec.levels} levels"
        return f"examples of shape {spec.shape}, {values}{', dequantized' if spec.dequantized else ''}"

    if kind(model) != kind(data):
        raise UsageError(
            "This data does not fit the run's model.",
            got=f"{data.name!r}: {kind(data)}",
            expected=kind(model),
            remedy=_fitting(model, data),
        )


def _fitting(model: DataSpec, data: DataSpec) -> str:
    """What to do with data that does not fit."""
    if model.image and data.image and model.shape[0] == data.shape[0] and model.shape != data.shape:
        height, width = model.shape[1:]
        return f"Resize the pictures to {width} x {height} (width x height) first, or train a model on this data."
    if model.shape == data.shape and None in (model.levels, data.levels):
        kind = "floats" if model.levels is None else f"whole numbers 0 ... {model.levels - 1} (uint8)"
        return f"Save it as {kind}, in the range of the run's own data, or train a model on this data."
    return "Give data of the same kind with the same options, or train a model on this data."
