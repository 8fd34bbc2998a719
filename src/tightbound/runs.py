"""A run folder: what a training leaves behind, and all that rebuilds the model.

config.json            recipe, data, training: everything needed to rebuild
model.safetensors      the selected weights
metrics.jsonl          one line per reading
checkpoints/           last and best, both resumable
samples/               pictures made while training
evaluation.json        what `tightbound evaluate` found
report.html            what `tightbound report` wrote
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import checkpoint
from .data import DataOptions, DataSpec
from .errors import CheckpointError, UsageError
from .recipes import Recipe
from .spec import from_json, register, to_json
from .training.options import TrainingOptions

if TYPE_CHECKING:
    from .data import Data
    from .models.latent import LatentVariableModel

__all__ = ["RunConfig", "RunFolder", "load", "load_run_data"]


@register("run")
@dataclass(frozen=True)
class RunConfig:
    """Content of ``config.json``.

    Args:
        data_spec: What the model was built for.
        training: How it was trained.
        recipe: What it was built from; None for a model put together by hand.
        data: Where the data came from; None for arrays handed over in Python.
        tightbound: Version of the package that wrote it.
    """

    data_spec: DataSpec
    training: TrainingOptions
    recipe: Recipe | None = None
    data: DataOptions | None = None
    tightbound: str = ""


@dataclass(frozen=True)
class RunFolder:
    """The paths in a run folder.

    Example:
        >>> RunFolder(Path("runs/demo")).weights.as_posix()
        'runs/demo/model.safetensors'
    """

    path: Path

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
    def report(self) -> Path:
        return self.path / "report.html"

    def checkpoint(self, which: str) -> Path:
        """The ``last`` or ``best`` resumable state."""
        return self.path / "checkpoints" / f"{which}.safetensors"

    def config(self) -> RunConfig:
        """What ``config.json`` says.

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
        return from_json(checkpoint.read_json(self.config_file), RunConfig)

    def write_config(self, config: RunConfig) -> None:
        """Writes ``config.json``."""
        checkpoint.write_json(self.config_file, to_json(config))

    def records(self) -> list[dict[str, Any]]:
        """Every complete line of ``metrics.jsonl``."""
        if not self.metrics.is_file():
            return []
        return [r for line in self.metrics.read_text(encoding="utf8").splitlines() if (r := _parsed(line)) is not None]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # the last line of a run that was killed while writing it
        return None


def load(run: str | Path, model: LatentVariableModel | None = None) -> LatentVariableModel:
    """The model of a run, ready to use.

    Args:
        run: The run folder.
        model: For a model put together by hand: one of the same parts, which gets the weights.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If the folder holds no complete run.

    Example:
        >>> load("no/such/run")
        Traceback (most recent call last):
        tightbound.errors.CheckpointError: There is no run in no/such/run: it does not exist.
          expected: a folder that `tightbound train` wrote
          remedy:   Check the path, or train one: tightbound train vae --out no/such/run
    """
    folder = RunFolder(Path(run))
    config = folder.config()
    if model is None:
        if config.recipe is None:
            raise CheckpointError(
                "This run's model was put together by hand, so its parts are not in the folder.",
                remedy="Build the same model and call load(run, model).",
            )
        model = config.recipe.build(config.data_spec)
    if not folder.weights.is_file():
        raise CheckpointError(
            f"{folder.path} has no model.safetensors: its training has not got that far.",
            remedy=f"Go on with: tightbound train --resume --out {folder.path}",
        )
    checkpoint.load_into(model, checkpoint.read(folder.weights), folder.weights)
    return model.eval()


def load_run_data(run: str | Path, source: str | None = None) -> Data:
    """The data of a run, or other data seen through the same options, checked to fit its model.

    Args:
        run: The run folder.
        source: Other data: a name, folder, archive or array.

    Raises:
        UsageError: If the run was trained on arrays handed over in Python and no source is given, or the source does
            not fit the model.
    """
    from .data import load_data

    config = RunFolder(Path(run)).config()
    options = config.data or DataOptions(data="")
    if source is None and not options.data:
        raise UsageError(
            "This run was trained on arrays that were handed over in Python.", remedy="Name the data: --data DATA."
        )
    data = load_data(options if source is None else dataclasses.replace(options, data=source))
    model, here = config.data_spec, data.spec
    if (model.shape, model.levels, model.dequantized) != (here.shape, here.levels, here.dequantized):
        raise UsageError(
            "This data does not fit the run's model.",
            got=f"shape {here.shape}, levels {here.levels}",
            expected=f"shape {model.shape}, levels {model.levels}",
            remedy="Choose data of the same kind, or train a model on this data.",
        )
    return data
