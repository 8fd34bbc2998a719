"""What a report is made of: a run, its data, what was measured, and the codes of the measured examples."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import runs
from ..checkpoint import read_json, write_json
from ..data import Data, DataSpec, Split, load_data
from ..errors import CheckpointError, DataError, TightboundError, UsageError
from ..evaluation import Estimate, Evaluation, evaluate
from ..evaluation.latents import posterior_means
from ..models.latent import LatentVariableModel
from ..randomness import fixed_noise
from ..runs import RunConfig, RunFolder

__all__ = ["Material", "gather"]

WORK = 10**10
"""An evaluation that nobody asked for decodes at most so many entries: examples times samples times dimensions."""


@dataclass(frozen=True)
class Material:
    """Everything that the sections of a report need.

    Args:
        folder: The run.
        config: Its configuration.
        model: Its model, in evaluation mode.
        data: Its data.
        test: The examples that ``evaluation`` is of.
        evaluation: What was measured.
        codes: Posterior means of ``test``, ``(n, d)``.
    """

    folder: RunFolder
    config: RunConfig
    model: LatentVariableModel
    data: Data
    test: Split
    evaluation: Evaluation
    codes: Tensor

    @property
    def spec(self) -> DataSpec:
        """What the model sees."""
        return self.data.spec

    @property
    def labels(self) -> Tensor | None:
        """Class numbers of ``test``, on the CPU."""
        return None if self.test.labels is None else self.test.labels.cpu()

    def examples(self, indices: Tensor) -> Tensor:
        """Examples of ``test`` in the model's arithmetic, binarised or dequantised by the same draws every time."""
        parameter = next(self.model.parameters())
        with fixed_noise():
            return self.test.batch(indices, parameter.device).x.to(parameter.dtype)

    def spread(self, count: int) -> Tensor:
        """Indices of so many examples, taken evenly, because a folder's examples lie in the order of their class."""
        return torch.linspace(0, len(self.test) - 1, min(count, len(self.test))).round().long()


def gather(
    run: str | Path, data: Data | str | Path | None = None, model: LatentVariableModel | None = None, k: int = 1000
) -> Material:
    """Loads a run and its data, and measures what has not been measured.

    Args:
        run: The run folder.
        data: The data, or where it is now; default: what the run's configuration names.
        model: For a model put together by hand, one of the same parts.
        k: Importance samples, where there is no ``evaluation.json`` of these weights; one is then written.

    Raises:
        CheckpointError: If the folder holds no complete run.
        DataError: If its data cannot be loaded.
        UsageError: If the data is not of the kind that the model was built for.
    """
    folder = RunFolder(Path(run))
    with fixed_noise():  # building a model draws initial weights
        config, loaded = folder.config(), runs.load(run, model)
    found = data if isinstance(data, Data) else _load(config, data)
    _check_same_kind(found.spec, config.data_spec)
    evaluation = _read_evaluation(folder) or _evaluate(folder, loaded, found, k)
    split = found.split(evaluation.split)
    test = split.subset(min(evaluation.n, len(split)))
    return Material(folder, config, loaded, found, test, evaluation, posterior_means(loaded, test)[0])


def _load(config: RunConfig, source: str | Path | None) -> Data:
    if config.data is None:
        raise DataError(
            "This run does not say which data it was trained on.",
            remedy="Give it: --data FOLDER at the command line, data= in Python.",
        )
    options = config.data if source is None else dataclasses.replace(config.data, data=str(source))
    try:
        return load_data(options)
    except TightboundError as error:
        raise DataError(
            f"The data of this run cannot be loaded. {error.message}",
            got=options.data,
            expected="the data that the run was trained on" if source is None else "a data set, folder or file",
            remedy="Say where it is now: --data FOLDER at the command line. Arrays that were handed over in Python: "
            "write_report(run, data=Data.from_arrays(...)).",
        ) from error


def _check_same_kind(got: DataSpec, expected: DataSpec) -> None:
    def kind(spec: DataSpec) -> str:
        values = "continuous" if spec.levels is None else f"{spec.levels} levels"
        return f"examples of shape {spec.shape}, {values}{', dequantized' if spec.dequantized else ''}"

    if kind(got) != kind(expected):
        raise UsageError(
            f"{got.name!r} is not the data that the model of this run was built for.",
            got=kind(got),
            expected=kind(expected),
            remedy="Give the data of the run, with the same options: --data FOLDER, or data= in Python.",
        )


def _evaluate(folder: RunFolder, model: LatentVariableModel, data: Data, k: int) -> Evaluation:
    n = min(len(data.test), max(200, WORK // max(1, k * data.spec.dimensions)))
    evaluation = evaluate(model, data.test.subset(n), k)
    write_json(folder.evaluation, evaluation.json())
    return evaluation


def _read_evaluation(folder: RunFolder) -> Evaluation | None:
    """What was measured of these very weights, if it can be read."""
    path = folder.evaluation
    if not path.is_file() or path.stat().st_mtime < folder.weights.stat().st_mtime:
        return None
    try:
        return _evaluation(read_json(path))
    except (CheckpointError, TypeError, KeyError):
        return None


def _evaluation(values: dict[str, Any]) -> Evaluation:
    return Evaluation(**{name: _field(value) for name, value in values.items()})


def _field(value: Any) -> Any:
    if isinstance(value, dict):
        return Estimate(value["value"], value["standard_error"])
    return tuple(value) if isinstance(value, list) else value
