"""What a report is made of: a run, its data, what was measured, and the codes of the measured examples."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import runs
from ..data import Data, DataSpec, Split
from ..errors import CheckpointError, DataError, UsageError
from ..evaluation import DecoderNoise, Estimate, Evaluation, SampleQuality, evaluate
from ..evaluation.latents import posterior_means
from ..models.latent import LatentVariableModel
from ..randomness import fixed_noise
from ..runs import RunConfig, RunFolder
from ..training.device import find_device

__all__ = ["Material", "gather"]

WORK = 10**10
"""An evaluation that nobody asked for decodes at most so many entries: examples times samples times dimensions."""
SAMPLES = 1000
"""Samples of each that it begins with."""


@dataclass(frozen=True)
class Material:
    """Everything that the sections of a report need.

    Args:
        folder: The run.
        config: Its configuration.
        model: Its model, in evaluation mode.
        data: Its data, or other data.
        learned: What it has learned from; None where that is not there.
        test: The examples that ``evaluation`` is of.
        evaluation: What was measured.
        codes: Posterior means of ``test``, ``(n, d)``.
        seed: Seed of all noise.
    """

    folder: RunFolder
    config: RunConfig
    model: LatentVariableModel
    data: Data
    learned: Data | None
    test: Split
    evaluation: Evaluation
    codes: Tensor
    seed: int = 0

    @property
    def spec(self) -> DataSpec:
        """What the model sees."""
        return self.data.spec

    @property
    def other(self) -> bool:
        """Whether the data is known to be another than what the model was trained on."""
        return bool(self.config.fingerprint) and self.config.fingerprint != self.data.fingerprint

    @property
    def labels(self) -> Tensor | None:
        """Class numbers of ``test``, on the CPU."""
        return None if self.test.labels is None else self.test.labels.cpu()

    def examples(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Examples of ``test`` in the model's arithmetic, and their conditions, by the same draws every time."""
        parameter = next(self.model.parameters())
        with fixed_noise(self.seed):
            batch = self.test.batch(indices, parameter.device)
            return batch.x.to(parameter.dtype), self.model.conditions(batch)

    def spread(self, count: int) -> Tensor:
        """Indices of so many examples, taken evenly, because a folder's examples lie in the order of their class."""
        return _spread(len(self.test), count)


def gather(
    run: str | Path,
    data: Data | str | Path | None = None,
    model: LatentVariableModel | None = None,
    k: int | None = None,
    *,
    device: str = "auto",
    seed: int = 0,
) -> Material:
    """Loads a run and its data, and measures what has not been measured.

    Args:
        run: The run folder.
        data: Other data than the run's own; what was measured of that is neither read nor kept.
        model: For a model put together by hand, one of the same parts.
        k: Importance samples; default: as in ``evaluation.json``, or as many as each example needs.
        device: Where to compute.
        seed: Seed of all noise.

    Raises:
        CheckpointError: If the folder holds no complete run.
        DataError: If its data cannot be loaded.
        UsageError: If the data is not known, has changed, or does not fit the model, or there is no such device.
    """
    folder, place = RunFolder(Path(run)), find_device(device)
    with fixed_noise():  # building a model draws initial weights
        config, loaded = folder.config(), runs.load(run, model).to(place)
    found = runs.load_run_data(run, data)
    there = found.split(found.default)
    evaluation = _read(folder, len(there), k) if data is None else None
    test = (there if evaluation else _affordable(there, SAMPLES if k is None else k)).to(place)
    if evaluation is None:
        evaluation = evaluate(loaded, test, k, seed=seed)
        if data is None and len(test) == len(there):
            _keep(folder, evaluation, loaded.loaded_weights)
    codes = posterior_means(loaded, test, seed=seed)[0]
    learned = _learned(run) if found.new else found
    return Material(folder, config, loaded, found, learned, test, evaluation, codes, seed)


def _learned(run: str | Path) -> Data | None:
    """The data that a run was trained on, if it is still there."""
    try:
        return runs.load_run_data(run)
    except (DataError, UsageError):
        return None


def _keep(folder: RunFolder, evaluation: Evaluation, weights: str) -> None:
    """Stores an evaluation, or says why not: the page shows it all the same."""
    try:
        folder.write_evaluation(evaluation.json(), weights, evaluation.nll_per_example)
    except CheckpointError as error:
        print(f"note: the evaluation is not stored. {error}", file=sys.stderr)


def _spread(there: int, count: int) -> Tensor:
    return torch.linspace(0, there - 1, min(count, there), dtype=torch.float64).round().long()


def _affordable(test: Split, k: int) -> Split:
    """All examples, or as many at even distances as :data:`WORK` allows."""
    most = max(200, WORK // max(1, k * test.spec.dimensions))
    return test if len(test) <= most else test.subset(_spread(len(test), most))


def _read(folder: RunFolder, n: int, k: int | None) -> Evaluation | None:
    """What was measured of these very weights on a whole test split of n examples, with k samples."""
    found = folder.read_evaluation()
    if found is None or (found["split"], found["n"]) != ("test", n):
        return None
    taken = None if found["method"] == "auto" else found["k"]
    if k not in (None, taken) and found["elbo"] is not None:  # without an ELBO, one sample says all
        return None
    names = [field.name for field in dataclasses.fields(Evaluation) if field.compare and field.name in found]
    told = {name: _field(name, found[name]) for name in names}
    return Evaluation(**told, nll_per_example=folder.read_nlls(found))


def _field(name: str, value: Any) -> Any:
    if isinstance(value, dict) and name != "proposals":
        parts = {name: _field(name, part) for name, part in value.items()}
        kind: Any = Estimate if "value" in parts else DecoderNoise if "data_std" in parts else SampleQuality
        return kind(**parts)
    return tuple(value) if isinstance(value, list) else value
