"""A run folder: the files of a training, with everything needed to rebuild the model.

config.json            recipe, data, training: everything needed to rebuild
model.safetensors      the selected weights
metrics.jsonl          one line per reading
checkpoints/           last and best, both resumable
lock                   held by the training that writes to the folder samples/               pictures made while
training evaluation.json        results of `tightbound evaluate` evaluation.safetensors the negative log-likelihood of
each example, whose mean is in evaluation.json diagnosis.json results of `tightbound diagnose` latents.safetensors the
encoded latents that a second stage learns from report.html the page of `tightbound report`
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import checkpoint
from ..data import DataOptions, DataSpec
from ..errors import CheckpointError, DataError, TightboundError, UnknownName, UsageError, reading
from ..options.choices import flat
from ..options.training import TrainingOptions
from ..recipes import Recipe
from ..runtime.budget import within_stored
from ..spec import from_json, register, to_json
from .readings import number, recorded

if TYPE_CHECKING:
    from ..data import Data
    from ..models import Model

__all__ = ["RunConfig", "RunFolder", "load", "load_run_data", "number", "options_of"]

MOST_ENTRIES = 2**30
"""Maximum number of entries of an example."""


@register("run")
@dataclass(frozen=True)
class RunConfig:
    """Content of ``config.json``.

    Args:
        data_spec: The data the model was built for.
        training: How it was trained.
        recipe: The recipe it was built from; None for a model built by hand.
        data: Where the data came from; None for arrays passed in Python.
        tightbound: Version of the package that wrote it.
        fingerprint: Of the data, from :attr:`tightbound.data.Data.fingerprint`; empty in runs of old versions.
    """

    data_spec: DataSpec
    training: TrainingOptions
    recipe: Recipe | None = None
    data: DataOptions | None = None
    tightbound: str = ""
    fingerprint: str = ""


def options_of(spec: Any, of: Callable[[Any], dict[str, Any]] = flat) -> dict[str, Any]:
    """The options of a dataclass by their names, and of the dataclasses in it by dotted names.

    Args:
        spec: The dataclass.
        of: Gives the options of one dataclass.

    Example:
        >>> from tightbound.options.priors import FlowPrior
        >>> from tightbound.recipes import VAE, Stage, TwoStage
        >>> options_of(TwoStage(Stage(VAE(latent_dim=2)), FlowPrior()))["first.recipe.latent_dim"]
        2
    """
    found: dict[str, Any] = {}
    for name, value in of(spec).items():
        inner = options_of(value, of) if dataclasses.is_dataclass(value) else None
        found |= {name: value} if inner is None else {f"{name}.{key}": each for key, each in inner.items()}
    return found


@dataclass(frozen=True)
class RunFolder:
    """The paths in a run folder.

    Example:
        >>> RunFolder(Path("runs/demo")).weights.as_posix()
        'runs/demo/model.safetensors'
    """

    path: Path

    def __post_init__(self) -> None:
        if str(self.path) != str(self.path).encode("utf8", "replace").decode("utf8"):  # safetensors needs it
            raise UsageError(
                "The name of a run folder must be valid UTF-8.", got=repr(self.path), remedy="Rename the folder."
            )

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def examples(self) -> Path:
        return self.path / "evaluation.safetensors"

    @property
    def diagnosis(self) -> Path:
        return self.path / "diagnosis.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def checkpoint(self, which: str) -> Path:
        """The ``last`` or ``best`` resumable state."""
        return self.path / "checkpoints" / f"{which}.safetensors"

    @property
    def begun(self) -> bool:
        """Whether it has files of a training that a new one would overwrite."""
        states = (self.checkpoint(which) for which in ("last", "best"))
        return any(path.exists() for path in (*states, self.weights, self.metrics))

    def owns(self, path: Path) -> bool:
        """Whether a path is one of this run's own files, existing or not; pictures are not.

        Example:
            >>> RunFolder(Path("runs/demo")).owns(Path("runs/demo/checkpoints/last.safetensors"))
            True
        """
        own, path = self.path.resolve(), path.resolve()
        named = {own / name for name in _NAMES}
        return path in named or own / "checkpoints" in path.parents or own / "tensorboard" in path.parents

    def clear_leftovers(self) -> None:
        """Removes temporary files left by killed processes."""
        for folder in (self.path, self.path / "checkpoints", self.samples):
            checkpoint.clear_leftovers(folder)

    def way_on(self) -> str:
        """The command that resumes the training of this run."""
        config = self.config()
        if config.recipe is None or config.data is None or not config.data.data:
            return "train(..., resume=True) in Python, with the same model and data"
        if not config.recipe.by_itself:
            return f"tightbound fit-prior FIRST --resume --out {self.path}, with the same options"
        return f"tightbound train --resume --out {self.path}"

    def config(self) -> RunConfig:
        """The content of ``config.json``.

        Raises:
            CheckpointError: If there is no run in the folder, or its config cannot be read.
        """
        if not self.config_file.is_file():
            problem = "has no config.json" if self.path.is_dir() else "does not exist"
            raise CheckpointError(
                f"There is no run in {self.path}: it {problem}.",
                expected="a folder that `tightbound train` wrote",
                remedy="Check the path, or train one: tightbound train vae --out " + str(self.path),
            )
        values = checkpoint.read_json(self.config_file)
        with _describing(self.config_file):
            config = from_json(values, RunConfig)
            _check_spec(config.data_spec)
            return config

    def write_config(self, config: RunConfig) -> None:
        """Writes ``config.json``."""
        checkpoint.write_json(self.config_file, to_json(config))

    def records(self) -> list[dict[str, Any]]:
        """Every record in ``metrics.jsonl``: the lines with a step and a split."""
        if not self.metrics.is_file():
            return []
        text = self.metrics.read_text(encoding="utf8", errors="replace")
        return [record for line in text.splitlines() if (record := recorded(line)) is not None]

    def require_weights(self, weights: str) -> None:
        """Refuses to store measurements if a training has replaced the weights meanwhile.

        Args:
            weights: The digest of the measured weights: ``loaded_weights`` of the model.

        Raises:
            CheckpointError: If the run has other weights now, or none.
        """
        if (now := self.digest()) != weights:
            raise CheckpointError(
                f"The weights of {self.path} have changed since they were measured.",
                got=f"digest {now}",
                expected=f"digest {weights}",
                remedy="Measure again when its training has ended.",
            )

    def digest(self) -> str:
        """The digest of the current weights."""
        return checkpoint.read_with_digest(self.weights)[1]


_NAMES = (
    *("config.json", "model.safetensors", "metrics.jsonl", "evaluation.json", "diagnosis.json", "report.html"),
    *("evaluation.safetensors", "latents.safetensors", "lock"),
)


def _check_spec(spec: DataSpec) -> None:
    levels = spec.levels is None or 2 <= spec.levels <= 256
    if not (levels and spec.shape and min(spec.shape) > 0 and math.prod(spec.shape) <= MOST_ENTRIES):
        raise CheckpointError("The data spec is invalid.", got=f"shape {spec.shape}, levels {spec.levels}")
    numbers = (*spec.location, *spec.scale, spec.low, spec.high)
    sizes = len(spec.location) == len(spec.scale) in (0, 1, spec.shape[0])
    if not (sizes and all(map(math.isfinite, numbers)) and min(spec.scale, default=1.0) > 0 and spec.low < spec.high):
        raise CheckpointError(
            "The location and scale of the data are invalid.",
            got=f"{len(spec.location)} locations, {len(spec.scale)} scales, values {spec.low} to {spec.high}",
            expected="equally many finite locations and positive scales: none, one, or one for each feature or channel",
        )


@contextmanager
def _describing(path: Path) -> Generator[None]:
    """Reports any problem as one of a config file."""
    try:
        with reading(path, CheckpointError):
            yield
    except TightboundError as told:
        raise CheckpointError(
            f"{path} does not describe a run. {told.message}",
            got=told.got,
            expected=told.expected,
            remedy=told.remedy or "Use the config.json that `tightbound train` wrote.",
        ) from told


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
    found: Any = model
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


def _built(folder: RunFolder, recipe: Recipe, spec: DataSpec) -> Any:
    with within_stored(folder.weights), _describing(folder.config_file):
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
