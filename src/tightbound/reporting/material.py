"""What a report is made of: a run, its data, what was measured, and the codes of the examples that it shows."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from .. import runs
from ..conditions import Given
from ..data import Data, DataSpec, Split
from ..data.spacing import evenly_spaced
from ..errors import DataError, UsageError
from ..evaluation import Diagnosis, Evaluation
from ..evaluation.kept import damaged, read_diagnosis, read_evaluation
from ..evaluation.passes import terms_of_the_first
from ..models import LatentVariableModel, Model
from ..models.latent import with_latents
from ..runs import RunConfig, RunFolder
from ..runtime.randomness import fixed_noise
from ..training.device import find_device
from ..views.latents import posterior_means
from .quick import Plan, measure_pace, plan_diagnosis, plan_evaluation, quick_diagnosis, quick_evaluation

__all__ = ["SHOWN", "Material", "gather"]

SHOWN = 2000
"""Test examples at most, evenly spread, that pictures and maps are made of."""


@dataclass(frozen=True)
class Material:
    """Everything that the sections of a report need.

    Args:
        folder: The run.
        config: Its configuration.
        model: Its model, in evaluation mode.
        data: Its data, or other data.
        learned: What it has learned from; None where that is not there.
        test: The examples that are shown: of the test split, or of what other data has in its place.
        measured: The examples that ``evaluation`` is of.
        evaluation: What was measured; None where nothing was, and nothing may be.
        codes: Posterior means of ``test``, ``(n, d)``.
        seed: Seed of all noise.
        stored: Whether ``evaluation`` was stored in the run folder; else it is a quick one.
        diagnosed: A diagnosis that was stored there.
        seconds: That are left for a quick diagnosis.
    """

    folder: RunFolder
    config: RunConfig
    model: Model
    data: Data
    learned: Data | None
    test: Split
    measured: Split
    evaluation: Evaluation | None
    codes: Tensor
    seed: int = 0
    stored: bool = True
    diagnosed: Diagnosis | None = None
    seconds: float = 0.0

    @property
    def latent(self) -> LatentVariableModel:
        """Its model, for the sections on latents, which are written of no other."""
        return with_latents(self.model)

    @property
    def spec(self) -> DataSpec:
        """What the model sees."""
        return self.data.spec

    @property
    def other(self) -> bool:
        """Whether the data is known to be another than what the model was trained on."""
        return bool(self.config.fingerprint) and self.config.fingerprint != self.data.fingerprint

    @property
    def whole(self) -> Split:
        """All the examples that could be measured."""
        return self.data.split(self.data.default)

    @property
    def shown(self) -> Tensor:
        """Which of all examples ``test`` is."""
        return evenly_spaced(len(self.whole), len(self.test))

    def of_the_measured(self) -> Material:
        """The same, to show the examples that ``evaluation`` is of."""
        return dataclasses.replace(self, test=self.measured)

    @property
    def kl_per_dimension(self) -> tuple[float, ...] | None:
        """The KL of each latent dimension, where it was measured and can be told apart."""
        layers = (self.evaluation and self.evaluation.kl_per_dimension) or {}
        wise = tuple(nats for each in layers.values() for nats in each)
        return wise if wise and len(wise) == self.codes.shape[1] else None

    @property
    def labels(self) -> Tensor | None:
        """Class numbers of ``test``, on the CPU."""
        return None if self.test.labels is None else self.test.labels.cpu()

    def examples(self, indices: Tensor) -> tuple[Tensor, Given | None]:
        """Examples of ``test`` in the model's arithmetic, and their conditions, by the same draws every time."""
        with fixed_noise(self.seed):
            return self.model.see(self.test.batch(indices, self.model.device))

    def spread(self, count: int) -> Tensor:
        """Indices of so many examples, taken evenly, whatever their classes."""
        return evenly_spaced(len(self.test), count)

    def representative(self, count: int) -> Tensor:
        """Indices of so many examples, or of all, one of each class in turn."""
        return self.test.representative(min(count, len(self.test)))

    @cached_property
    def bounded(self) -> bool:
        """Whether there is an ELBO, and latents that it can be taken apart for."""
        return self.model.space is not None and terms_of_the_first(self.model, self.test).bounded

    @cached_property
    def diagnosis(self) -> Diagnosis | None:
        """The stored diagnosis, or a quick one where there is time for it."""
        if self.diagnosed is not None or self.seconds <= 0:
            return self.diagnosed
        plan = plan_diagnosis(self.latent, self.test, self.seconds, measure_pace(self.latent, self.test))
        if plan is None:
            command = f"tightbound diagnose {self.folder.path} takes the time it needs"
            print(f"no time for a quick diagnosis: {command}; --quick SECONDS gives more", file=sys.stderr)
            return None
        optimised = f", the posteriors of {plan.optimised} optimised" if plan.optimised else ""
        _say(plan, self.test, f"a quick diagnosis{optimised}", "diagnose", self.folder)
        return quick_diagnosis(self.latent, self.test, plan, self.seed, self.config.training)


def gather(
    run: str | Path,
    data: Data | str | Path | None = None,
    model: Model | None = None,
    k: int | None = None,
    *,
    quick: float = 6.0,
    device: str = "auto",
    seed: int = 0,
) -> Material:
    """Loads a run and its data, and measures on a few examples what has not been measured.

    Args:
        run: The run folder.
        data: Other data than the run's own; what was measured of that is not read.
        model: For a model put together by hand, one of the same parts.
        k: Importance samples; default: as in ``evaluation.json``, or as many as each example needs.
        quick: Seconds for all that is measured; 0: nothing is.
        device: Where to compute.
        seed: Seed of all noise.

    Raises:
        CheckpointError: If the folder holds no complete run.
        DataError: If its data cannot be loaded.
        UsageError: If the data is not known, has changed, or does not fit the model, there is no such device, the
            seconds are no such number, or samples are asked for and no second to draw them.
    """
    _check(quick, k)
    folder, place = RunFolder(Path(run)), find_device(device)
    with fixed_noise():  # building a model draws initial weights
        config, loaded = folder.config(), runs.load(run, model).to(place)
    found = runs.load_run_data(run, data)
    whole = found.split(found.default)
    test = whole.evenly_spaced(SHOWN).to(place)
    evaluation, diagnosed = (None, None) if data is not None else (_read(folder, len(whole), k), read_diagnosis(folder))
    if data is None:
        _tell_of_damage(folder, evaluation)
    stored, measured, left = evaluation is not None, whole, quick
    if evaluation is None and quick > 0:
        plan = plan_evaluation(loaded, whole, k, quick if diagnosed else quick / 2, measure_pace(loaded, test))
        _say(plan, whole, _samples(plan), "evaluate", folder)
        measured, left = whole.evenly_spaced(plan.examples).to(place), quick - plan.seconds
        evaluation = quick_evaluation(loaded, measured, plan, seed)
    codes = posterior_means(loaded, test, seed=seed)[0]
    learned = _learned(run) if found.new else found
    parts = (folder, config, loaded, found, learned, test, measured, evaluation, codes)
    return Material(*parts, seed=seed, stored=stored, diagnosed=diagnosed, seconds=left)


def _check(quick: float, k: int | None) -> None:
    if not 0 <= quick < float("inf"):
        raise UsageError("A quick measurement takes a number of seconds.", got=quick, expected="0 or more")
    if quick == 0 and k is not None:
        raise UsageError(
            "Importance samples are asked for, and no second to draw them.",
            got=f"-k {k} --quick 0",
            remedy="Leave out one of the two, or evaluate first: tightbound evaluate RUN -k N.",
        )


def _samples(plan: Plan) -> str:
    return "a quick evaluation" if plan.k is None else f"a quick evaluation, {plan.k:,} samples of each"


def _say(plan: Plan, split: Split, what: str, command: str, folder: RunFolder) -> None:
    """What is about to be measured: nobody asked for it by name."""
    there = "" if plan.examples == len(split) else f" of {len(split):,}"
    seconds = f"{max(1, round(plan.seconds))} s at most"
    text = f"measuring {plan.examples:,}{there} {split.name} examples, about {seconds}: {what}"
    print(f"{text} (not stored; tightbound {command} {folder.path} measures more; --quick 0: nothing)", file=sys.stderr)


def _tell_of_damage(folder: RunFolder, evaluation: Evaluation | None) -> None:
    """Nobody shall wonder where the numbers of a file have gone."""
    for name in damaged(folder):
        print(f"note: {name} is damaged or of another version, so it is not shown", file=sys.stderr)
    kept = evaluation is not None and evaluation.nll_per_example is not None
    if evaluation is not None and not kept and folder.examples.is_file():
        print(f"note: {folder.examples.name} is damaged or of another evaluation, so it is not shown", file=sys.stderr)


def _learned(run: str | Path) -> Data | None:
    """The data that a run was trained on, if it is still there."""
    try:
        return runs.load_run_data(run)
    except (DataError, UsageError):
        return None


def _read(folder: RunFolder, n: int, k: int | None) -> Evaluation | None:
    """What was measured of these very weights on a whole test split of n examples, with k samples."""
    found = read_evaluation(folder)
    if found is None or (found.split, found.n) != ("test", n):
        return None
    taken = None if found.method == "auto" else found.k
    return found if k in (None, taken) or found.elbo is None else None  # without an ELBO, one sample says all
