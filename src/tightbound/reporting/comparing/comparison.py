r"""Runs side by side: the same examples, the same noise, and differences with paired errors.

Convention: a difference is the first run's value minus another's, over the same n examples,

.. math:: \bar d = \frac{1}{n} \sum_i (a_i - b_i), \qquad \text{standard error} \; s_d / \sqrt{n};

the difficulty of an example for both runs cancels, so the difference has a much smaller error than either value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import runs as run_folders
from ...data import Data, Split
from ...errors import UsageError
from ...evaluation import Estimate, Evaluation, sample_quality
from ...evaluation.evaluate import How, evaluate_examples
from ...evaluation.kept import as_json
from ...evaluation.samples.features import FeatureName
from ...models.latent import LatentVariableModel
from ...runs import RunConfig, RunFolder, options_of
from ...runtime.randomness import fixed_noise
from ...spec import to_json
from ...training.device import find_device
from ..command import changed

__all__ = [
    "ComparedRun",
    "Comparison",
    "Difference",
    "compare",
    "differing_options",
    "labels_of",
    "same_examples",
]

IGNORED = ("device", "log_every", "save_every", "pictures")
"""Options that do not change the trained model."""
FIRST = "first.recipe."
"""Prefix of the options of a first stage."""


@dataclass(frozen=True)
class ComparedRun:
    """One run and its evaluation.

    Args:
        run: The folder.
        label: A short name of it.
        recipe: Name of the recipe.
        options: Options that differ between runs.
        data: Its training data.
        steps: Training steps.
        parameters: Number of trained parameters.
        found: Its evaluation on the examples of all runs.
        folder: The run.
        model: Its model, in evaluation mode.
        test: The examples as inputs of the model.
        per_example: ``nll`` and ``elbo`` where they are defined, and ``squared_error``, each ``(n,)``.
        codes: Posterior means, ``(n, dimensions)``.
    """

    run: str
    label: str
    recipe: str
    options: dict[str, Any]
    data: str
    steps: int
    parameters: int
    found: Evaluation
    folder: RunFolder = field(repr=False, compare=False)
    model: LatentVariableModel = field(repr=False, compare=False)
    test: Split = field(repr=False, compare=False)
    per_example: dict[str, Tensor] = field(repr=False, compare=False)
    codes: Tensor = field(repr=False, compare=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on its numbers."""
        quality = self.found.sample_quality
        return self.found.notes + (() if quality is None else quality.notes)

    def json(self) -> dict[str, Any]:
        """The run and its evaluation as one mapping."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.compare and f.name != "found"}
        return own | as_json(self.found)


@dataclass(frozen=True)
class Difference:
    """The first run's values minus another's, with paired standard errors; below 0, the first run's are lower.

    Args:
        run: The first run.
        other: The other.
        nll: Of the negative log-likelihoods, nats per example.
        elbo: Of the ELBOs, nats per example.
        squared_error: Of the reconstructions.
        reason: The reason why one of them is missing; else empty.
    """

    run: str
    other: str
    nll: Estimate | None
    elbo: Estimate | None
    squared_error: Estimate | None
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`.

    Args:
        runs: Every run.
        differences: Of the first run from each other.
        split: Which split the examples are of.
        n: Examples.
        k: Importance samples of each.
        seed: Seed of all noise.
    """

    runs: tuple[ComparedRun, ...]
    differences: tuple[Difference, ...]
    split: str
    n: int
    k: int
    seed: int

    def json(self) -> dict[str, Any]:
        """As ``tightbound compare --json`` prints it."""
        found = {"split": self.split, "n": self.n, "k": self.k, "seed": self.seed}
        return found | {
            "runs": [run.json() for run in self.runs],
            "differences": [dataclasses.asdict(difference) for difference in self.differences],
        }


def compare(
    runs: Sequence[str | Path],
    *,
    data: Data | str | Path | None = None,
    split: str | None = None,
    k: int = 200,
    limit: int | None = None,
    features: FeatureName | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Comparison:
    """Evaluates runs on the same examples with the same noise.

    A difference is left out, with the reason, if two values are not comparable: a density and a probability, or grey
    levels and their binarisation.

    Args:
        runs: At least two run folders.
        data: Other data than the runs' own.
        split: Split of the data; default: the test split, or all of other data.
        k: Importance samples per example.
        limit: Use at most this many evenly spaced examples; default: all.
        features: Also compare samples and reconstructions with the data, in these features: see
            :func:`~tightbound.evaluation.sample_quality`.
        device: Where to compute.
        seed: Seed of all noise.

    Raises:
        CheckpointError: If a folder holds no complete run.
        DataError: If the data of a run cannot be loaded.
        UsageError: If there are fewer than two runs, or they were trained on different data.

    Example:
        >>> import tempfile, tightbound as tb
        >>> data, folders = tb.load_data("digits"), [tempfile.mkdtemp() for _ in range(2)]
        >>> for folder, beta in zip(folders, (1.0, 4.0)):
        ...     recipe = tb.recipes.VAE(latent_dim=2, objective=tb.objectives.Elbo(beta=beta))
        ...     _ = tb.train(recipe.build(data.spec), data, steps=3, out=folder)
        >>> found = compare(folders, k=2, limit=50)
        >>> [run.options for run in found.runs], found.differences[0].nll is not None
        ([{'beta': 1.0}, {'beta': 4.0}], True)
    """
    folders = _folders(runs, limit)
    configs = [folder.config() for folder in folders]
    loaded, tests = same_examples(folders, data, split, limit)
    place = find_device(device)
    told = zip(folders, configs, labels_of(folders), differing_options(configs), tests, loaded, strict=True)
    found = [
        ComparedRun(label=label, options=options, **_measured(folder, config, test, place, k, seed, each, features))
        for folder, config, label, options, test, each in told
    ]
    differences = tuple(_difference(found[0], other) for other in found[1:])
    return Comparison(tuple(found), differences, tests[0].name, len(tests[0]), k, seed)


def same_examples(
    folders: Sequence[RunFolder], data: Data | str | Path | None, split: str | None, limit: int | None
) -> tuple[list[Data], list[Split]]:
    """The data of each run, and the examples that it is measured on: the same for all.

    Args:
        folders: The runs.
        data: Other data than the runs' own.
        split: Split of the data; default: the test split, or all of other data.
        limit: Use at most this many evenly spaced examples; default: all.

    Raises:
        UsageError: If the runs were trained on different data.
    """
    loaded = _loaded(folders, data)
    tests = [each.split(split or each.default) for each in loaded]
    for folder, test in zip(folders[1:], tests[1:], strict=True):
        _check_same(folders[0], tests[0], folder, test)
    return loaded, tests if limit is None else [test.evenly_spaced(limit) for test in tests]


def _loaded(folders: Sequence[RunFolder], data: Data | str | Path | None) -> list[Data]:
    """The data of each run; other data is divided the same way for all if one was trained on it."""
    loaded = [run_folders.load_run_data(folder.path, data) for folder in folders]
    if data is None or all(each.new for each in loaded):
        return loaded
    return [run_folders.load_run_data(folder.path, data, divide=True) for folder in folders]


def _folders(runs: Sequence[str | Path], limit: int | None) -> list[RunFolder]:
    """The folders of two runs or more."""
    if isinstance(runs, str | Path) or len(runs) < 2:
        raise UsageError(
            "A comparison needs two runs.",
            got=runs if isinstance(runs, str | Path) else [str(run) for run in runs],
            remedy="For a single one: tightbound report RUN",
        )
    if limit is not None and limit < 1:
        raise UsageError("--limit must be at least 1.", got=limit)
    return [RunFolder(Path(run)) for run in runs]


# -- the same examples ----------------------------------------------------------------------------------------------


def _check_same(first_run: RunFolder, first: Split, other_run: RunFolder, other: Split) -> None:
    if not _same(first, other):
        raise UsageError(
            "These runs have different examples, so no number of one can be held against one of the other.",
            got=f"{first_run.path}: {first!r}; {other_run.path}: {other!r}",
            expected="the same examples",
            remedy="Compare runs of one data set and split, or measure all on other data: --data DATA",
        )


def _same(a: Split, b: Split) -> bool:
    """Whether two splits hold the same values, whatever is then done with them."""
    if len(a) != len(b) or a.spec.shape != b.spec.shape:
        return False
    if a.values is b.values and a.rows is b.rows:
        return True
    pairs = zip(_stored(a).batches(500), _stored(b).batches(500), strict=True)
    return all(torch.equal(x.x, y.x) for x, y in pairs)


def _stored(split: Split) -> Split:
    plain = dataclasses.replace(split.transform.still, binarize="none", dequantize=False, location=(), scale=())
    return dataclasses.replace(split, transform=plain)


# -- what differs ---------------------------------------------------------------------------------------------------


def labels_of(folders: Sequence[RunFolder]) -> list[str]:
    """The folders' names; where two are alike, their paths."""
    names = [folder.path.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [folder.path.as_posix() for folder in folders]


def differing_options(configs: Sequence[RunConfig]) -> list[dict[str, Any]]:
    """The options of each run that differ between runs; one that a recipe lacks counts if another run changed it.

    Options of a first stage have the names of a run of its own, unless the second stage has the same names.
    """
    values, chosen = [], []
    for config in configs:
        parts = [part for part in (config.recipe, config.data, config.training) if part is not None]
        values.append(_named(options_of(part) for part in parts))
        chosen.append(_named(options_of(part, changed) for part in parts))
    names = dict.fromkeys(name for options in values for name in options if name.split(".")[-1] not in IGNORED)
    told = [name for name in names if _differs(name, values, chosen)]
    return [{name: options[name] for name in told if name in options} for options in values]


def _named(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found = {name: value for part in parts for name, value in part.items()}
    own = {name: name.removeprefix(FIRST) for name in found}
    return {name if own[name] in found else own[name]: value for name, value in found.items()}


def _differs(name: str, values: list[dict[str, Any]], chosen: list[dict[str, Any]]) -> bool:
    there = [options[name] for options in values if name in options]
    unlike = any(value != there[0] for value in there)
    return unlike or (len(there) < len(values) and any(name in different for different in chosen))


# -- what is measured -----------------------------------------------------------------------------------------------


def _identity(folder: RunFolder, config: RunConfig, model: LatentVariableModel) -> dict[str, Any]:
    """What is known of a run without any example."""
    return {
        "folder": folder,
        "run": folder.path.as_posix(),
        "recipe": "built by hand" if config.recipe is None else to_json(config.recipe)["kind"],
        "data": config.data_spec.name,
        "steps": max((record["step"] for record in folder.records()), default=0),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _measured(
    folder: RunFolder,
    config: RunConfig,
    test: Split,
    place: str,
    k: int,
    seed: int,
    data: Data,
    features: FeatureName | None,
) -> dict[str, Any]:
    """A run, its model, and what an evaluation with k samples, of all examples and of each."""
    with fixed_noise():  # building a model draws initial weights
        model = run_folders.load(folder.path).to(place)
    test = test.to(place)
    found, each = evaluate_examples(model, test, How(k, seed=seed))
    codes = each.pop("codes")
    if found.nll_per_example is not None:
        each["nll"] = found.nll_per_example
    found = dataclasses.replace(found, notes=(*found.notes[:1], *data.said, *found.notes[1:]))
    if features is not None:
        own = run_folders.load_run_data(folder.path) if data.new else data
        quality = sample_quality(model, own, test, features=features, seed=seed)
        found = dataclasses.replace(found, sample_quality=quality)
    measured = {"model": model, "test": test, "found": found, "per_example": each, "codes": codes}
    return _identity(folder, config, model) | measured


# -- differences ----------------------------------------------------------------------------------------------------


def _difference(a: ComparedRun, b: ComparedRun) -> Difference:
    nats, pixels = _unlike_nats(a, b), _unlike_values(a, b)
    missing = [] if nats else [f"no NLL of {run.label}: {run.found.meaning}" for run in (a, b) if run.found.nll is None]
    return Difference(
        run=a.run,
        other=b.run,
        nll=None if nats else _paired(a, b, "nll"),
        elbo=None if nats else _paired(a, b, "elbo"),
        squared_error=None if pixels else _paired(a, b, "squared_error"),
        reason="; ".join([*dict.fromkeys(filter(None, (nats, pixels))), *missing]),
    )


def _unlike_nats(a: ComparedRun, b: ComparedRun) -> str:
    """Why log-likelihoods of two models are not comparable; empty if they are."""
    if (a.test.spec.levels, a.test.transform.binarize) != (b.test.spec.levels, b.test.transform.binarize):
        return _UNLIKE
    kinds = [{"bound": "mass"}.get(run.found.measure, run.found.measure) for run in (a, b)]
    if kinds[0] != kinds[1]:
        if "none" in kinds:
            run = (a, b)[kinds.index("none")]
            return f"{run.label} has no likelihood of this data: {run.found.meaning}"
        words = {"mass": "a probability", "density": "a density"}
        told = " and ".join(f"{words[kind]} ({run.label})" for kind, run in zip(kinds, (a, b), strict=True))
        return f"{told} are not comparable"
    return _unlike_values(a, b) if kinds[0] != "mass" else ""


def _unlike_values(a: ComparedRun, b: ComparedRun) -> str:
    """Why two models see different values of an example; empty if they do not."""
    seen = [(run.test.spec.levels, run.test.transform.binarize, run.test.spec.dequantized) for run in (a, b)]
    return _UNLIKE if seen[0] != seen[1] else ""


_UNLIKE = "the runs see different values: other levels, binarised or dequantised"


def _paired(a: ComparedRun, b: ComparedRun, name: str) -> Estimate | None:
    if name not in a.per_example or name not in b.per_example:
        return None
    return Estimate.of(a.per_example[name] - b.per_example[name])
