"""Loading the model and the data of a run."""

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
    """Loads the model of a run.

    Args:
        run: The run folder.
        model: For a model built by hand: the same model, to load the weights into.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If the folder holds no complete run, or a weight is not finite.

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
            f"{folder.path} has no model.safetensors: its training has not finished an evaluation yet.",
            remedy=f"Resume with: {folder.way_on()}. If that fails, train again with another --out.",
        )
    found = model
    if found is None:
        if config.recipe is None:
            raise CheckpointError(
                "This run's model was built by hand, so its parts are not in the folder.",
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
    """The data of a run, or other data loaded with the same options, checked against its model.

    Args:
        run: The run folder.
        source: Other data: a name, folder, archive, image or array, or loaded data; default: the run's own, which must
            not have changed.
        divide: Whether other data is divided into splits too, for training; else it is one split, or its official
            splits, unless it is the run's own data in another place.

    Raises:
        CheckpointError: If there is no run in the folder.
        DataError: If the data cannot be loaded.
        UsageError: If the run was trained on arrays passed in Python and no source is given, the run's own data has
            changed since, or the data does not fit the model.
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
            "This run was trained on arrays that were passed in Python.",
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
            remedy="Give its current location: --data DATA at the command line, data= in Python.",
        ) from error
    if config.fingerprint and config.fingerprint != data.fingerprint:
        raise _changed(config, data)
    return data


def _changed(config: RunConfig, data: Data) -> UsageError:
    now, then = _counts(data.fingerprint), _counts(config.fingerprint)
    return UsageError(
        "The data of this run has changed since it was trained, including its test examples.",
        got=f"{now}, {'with other values' if now == then else 'divided differently'}, in {data.options.data!r}",
        expected=then,
        remedy=f"Restore the original data, or use the current data explicitly: --data {data.options.data}",
    )


def _counts(fingerprint: str) -> str:
    counts = zip(("training", "validation", "test"), fingerprint.split("-"), strict=False)
    return f"{', '.join(f'{count} {name}' for name, count in counts)} examples"


def _other_data(config: RunConfig, source: str, divide: bool) -> Data:
    from ..data.load import load_data, load_for_learned
    from ..data.sources.tables import TABLES

    options = config.data or DataOptions()
    label = options.label if Path(source).suffix.lower() in TABLES else ""  # other data may not be a table
    options = dataclasses.replace(options, data=source, label=label, standardize="none")
    if divide:
        asked = config.data.standardize if config.data else "auto"
        found = load_data(options)
        return dataclasses.replace(found, options=dataclasses.replace(found.options, standardize=asked))
    found = load_for_learned(options, config.data_spec, config.fingerprint)
    if found.new and config.data is not None and found.options.data == config.data.data:
        said = "this is the run's own data, which has changed: it may contain training examples"
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
    """The remedy for data that does not fit."""
    if model.image and data.image and model.shape[0] == data.shape[0] and model.shape != data.shape:
        height, width = model.shape[1:]
        return f"Resize the images to {width} x {height} (width x height) first, or train a model on this data."
    if model.shape == data.shape and None in (model.levels, data.levels):
        kind = "floats" if model.levels is None else f"integers 0 ... {model.levels - 1} (uint8)"
        return f"Save it as {kind}, in the range of the run's own data, or train a model on this data."
    return "Give data of the same kind with the same options, or train a model on this data."
