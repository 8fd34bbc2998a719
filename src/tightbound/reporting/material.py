"""The material of a report: a run, its data, evaluation and diagnosis, and codes of the examples shown."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

from .. import runs
from ..conditions import Given
from ..data import Data, DataSpec, Split
from ..data.spacing import evenly_spaced
from ..errors import DataError, UsageError
from ..evaluation import Diagnosis, Evaluation
from ..evaluation.kept import damaged, read_diagnosis, read_evaluation
from ..evaluation.latents.positions import active_units
from ..evaluation.passes import terms_of_the_first
from ..models import LatentVariableModel, Model
from ..models.latent import with_latents
from ..runs import RunConfig, RunFolder
from ..runtime.randomness import fixed_noise
from ..training.device import find_device
from ..views.latents import layer_means
from .quick import Plan, measure_pace, plan_diagnosis, plan_evaluation, quick_diagnosis, quick_evaluation

__all__ = ["SHOWN", "Material", "gather"]

SHOWN = 2000
"""Maximum number of evenly spaced test examples for images and maps."""


@dataclass(frozen=True)
class Material:
    """Everything that the sections of a report need.

    Args:
        folder: The run.
        config: Its configuration.
        model: Its model, in evaluation mode.
        data: Its data, or other data.
        learned: Its training data; None if not available.
        test: The examples shown, of the test split or of other data.
        measured: The examples of ``evaluation``.
        evaluation: The evaluation; None if there is none and none may be run.
        codes: Posterior means of ``test``, ``(n, d)``; of a chain of latents those of z1.
        layers: The same of each layer of latents by its name, from the data up.
        seed: Seed of all noise.
        stored: Whether ``evaluation`` was stored in the run folder; else it is a quick one.
        diagnosed: A diagnosis that was stored there.
        seconds: Time left for a quick diagnosis.
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
    layers: dict[str, Tensor]
    seed: int = 0
    stored: bool = True
    diagnosed: Diagnosis | None = None
    seconds: float = 0.0

    @property
    def latent(self) -> LatentVariableModel:
        """Its model, which must have latents, for the sections on latents."""
        return with_latents(self.model)

    @property
    def spec(self) -> DataSpec:
        """The data spec of the examples."""
        return self.data.spec

    @property
    def other(self) -> bool:
        """Whether the data is known to differ from the training data."""
        return bool(self.config.fingerprint) and self.config.fingerprint != self.data.fingerprint

    @property
    def whole(self) -> Split:
        """All examples available for evaluation."""
        return self.data.split(self.data.default)

    @property
    def shown(self) -> Tensor:
        """Indices of ``test`` among all examples."""
        return evenly_spaced(len(self.whole), len(self.test))

    def of_the_measured(self) -> Material:
        """The same material, for the examples of ``evaluation``."""
        return dataclasses.replace(self, test=self.measured)

    @property
    def kl_per_dimension(self) -> tuple[float, ...] | None:
        """The KL of each latent dimension of all layers, from the data up, if measured and if it factorises."""
        wise = tuple(nats for each in self._kl.values() for nats in each)
        there = sum(means.shape[1] for means in self.layers.values())
        return wise if wise and len(wise) == there else None

    @property
    def kl_per_layer(self) -> dict[str, float]:
        """The KL of each layer of a hierarchy, if measured."""
        return {name: sum(nats) for name, nats in self._kl.items()} if len(self._kl) > 1 else {}

    @property
    def _kl(self) -> Mapping[str, tuple[float, ...]]:
        return (self.evaluation and self.evaluation.kl_per_dimension) or {}

    @property
    def hierarchy(self) -> bool:
        """Whether the model has several layers of latents."""
        return len(self.layers) > 1

    @cached_property
    def activity(self) -> dict[str, tuple[int, int]]:
        """For each layer the number of active dimensions, or positions of codes, and of all."""
        if self.model.space is None:
            return {}
        spaces = cycle(self.model.space.layers)  # the layers of one vector share a space
        return {name: active_units(space, means) for space, (name, means) in zip(spaces, self.layers.items())}  # noqa: B905

    @property
    def active_units(self) -> tuple[int, int]:
        """The same for all layers together."""
        return sum(active for active, _ in self.activity.values()), sum(there for _, there in self.activity.values())

    @property
    def labels(self) -> Tensor | None:
        """Class indices of ``test``, on the CPU."""
        return None if self.test.labels is None else self.test.labels.cpu()

    def examples(self, indices: Tensor) -> tuple[Tensor, Given | None]:
        """Examples of ``test`` in the model's precision, and their conditions, with fixed noise."""
        with fixed_noise(self.seed):
            return self.model.see(self.test.batch(indices, self.model.device))

    def spread(self, count: int) -> Tensor:
        """Indices of n evenly spaced examples."""
        return evenly_spaced(len(self.test), count)

    def representative(self, count: int) -> Tensor:
        """Indices of n examples, or of all, cycling through the classes."""
        return self.test.representative(min(count, len(self.test)))

    @cached_property
    def bounded(self) -> bool:
        """Whether there is an ELBO to diagnose."""
        return self.model.space is not None and terms_of_the_first(self.model, self.test).bounded

    @cached_property
    def diagnosis(self) -> Diagnosis | None:
        """The stored diagnosis, or a quick one if there is time."""
        if self.diagnosed is not None or self.seconds <= 0:
            return self.diagnosed
        plan = plan_diagnosis(self.latent, self.test, self.seconds, measure_pace(self.latent, self.test))
        if plan is None:
            command = f"tightbound diagnose {self.folder.path} takes the time it needs"
            print(f"no time for a quick diagnosis: {command}; --quick SECONDS gives more", file=sys.stderr)
            return None
        single = len(self.latent.space.names) == 1
        optimised = f", the posteriors of {plan.optimised} optimised" if plan.optimised and single else ""
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
    """Loads a run and its data, and evaluates it quickly if there is no stored evaluation.

    Args:
        run: The run folder.
        data: Data to use instead of the run's own; stored results are then ignored.
        model: For a model built by hand: the same model.
        k: Importance samples; default: as in ``evaluation.json``, or adaptive.
        quick: Seconds for quick measurements; 0 for none.
        device: Where to compute.
        seed: Seed of all noise.

    Raises:
        CheckpointError: If the folder holds no complete run.
        DataError: If its data cannot be loaded.
        UsageError: If the data is unknown, has changed or does not fit the model, the device is not available, or
            ``quick`` is invalid or 0 with a given k.
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
    layers = layer_means(loaded, test, seed=seed)
    codes = torch.zeros(len(test), 0) if loaded.space is None else loaded.space.joined(layers)
    learned = _learned(run) if found.new else found
    parts = (folder, config, loaded, found, learned, test, measured, evaluation, codes, layers)
    return Material(*parts, seed=seed, stored=stored, diagnosed=diagnosed, seconds=left)


def _check(quick: float, k: int | None) -> None:
    if not 0 <= quick < float("inf"):
        raise UsageError("--quick must be a number of seconds.", got=quick, expected="0 or more")
    if quick == 0 and k is not None:
        raise UsageError(
            "-k has no effect with --quick 0.",
            got=f"-k {k} --quick 0",
            remedy="Leave out one of the two, or evaluate first: tightbound evaluate RUN -k N.",
        )


def _samples(plan: Plan) -> str:
    return "a quick evaluation" if plan.k is None else f"a quick evaluation, {plan.k:,} samples of each"


def _say(plan: Plan, split: Split, what: str, command: str, folder: RunFolder) -> None:
    """Prints what is about to be measured."""
    there = "" if plan.examples == len(split) else f" of {len(split):,}"
    seconds = f"{max(1, round(plan.seconds))} s at most"
    text = f"measuring {plan.examples:,}{there} {split.name} examples, about {seconds}: {what}"
    print(f"{text} (not stored; tightbound {command} {folder.path} measures more; --quick 0: none)", file=sys.stderr)


def _tell_of_damage(folder: RunFolder, evaluation: Evaluation | None) -> None:
    """Prints notes about stored results that cannot be read."""
    for name in damaged(folder):
        print(f"note: {name} is damaged or of another version, so it is not shown", file=sys.stderr)
    kept = evaluation is not None and evaluation.nll_per_example is not None
    if evaluation is not None and not kept and folder.examples.is_file():
        print(f"note: {folder.examples.name} is damaged or of another evaluation, so it is not shown", file=sys.stderr)


def _learned(run: str | Path) -> Data | None:
    """The data that a run was trained on, if still available."""
    try:
        return runs.load_run_data(run)
    except (DataError, UsageError):
        return None


def _read(folder: RunFolder, n: int, k: int | None) -> Evaluation | None:
    """The stored evaluation of these weights on the full test split of n examples, with k samples."""
    found = read_evaluation(folder)
    if found is None or (found.split, found.n) != ("test", n):
        return None
    taken = None if found.method == "auto" else found.k
    return found if k in (None, taken) or found.elbo is None else None  # without an ELBO, one sample says all
