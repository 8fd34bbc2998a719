"""A run folder: the files of a training, with everything needed to rebuild the model.

config.json            recipe, data, training: everything needed to rebuild
model.safetensors      the selected weights
metrics.jsonl          one line per reading
checkpoints/           last and best, both resumable
lock                   held by the training that writes to the folder
samples/               images made while training
evaluation.json        results of `tightbound evaluate`
evaluation.safetensors the negative log-likelihood of each example, whose mean is in evaluation.json
diagnosis.json         results of `tightbound diagnose`
latents.safetensors    the encoded latents that a second stage is trained on
report.html            the page of `tightbound report`
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import checkpoint
from ..data import DataOptions, DataSpec
from ..errors import CheckpointError, TightboundError, UsageError, reading
from ..options.choices import flat
from ..options.training import TrainingOptions
from ..recipes import Recipe
from ..runtime.files import clear_leftovers
from ..spec import Dataclass, from_json, register, to_json
from .readings import recorded

__all__ = ["RunConfig", "RunFolder", "describing", "options_of"]

MOST_ENTRIES = 2**30
"""Maximum number of entries of an example."""


@register("run")
@dataclass(frozen=True)
class RunConfig:
    """Content of ``config.json``.

    Args:
        data_spec: The data the model was built for.
        training: Its training options.
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


def options_of(spec: Dataclass, of: Callable[[Dataclass], dict[str, Any]] = flat) -> dict[str, Any]:
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
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found |= {f"{name}.{key}": each for key, each in options_of(value, of).items()}
        else:
            found[name] = value
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
            clear_leftovers(folder)

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
        with describing(self.config_file):
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
def describing(path: Path) -> Generator[None]:
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
