"""Files written during training: resumable states and the selected weights."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from .. import checkpoint
from ..runs import RunConfig
from ..runtime.files import write_again
from .engine import Engine
from .metrics import Readings
from .place import Place, saying_way_on
from .state import Progress

__all__ = ["Checkpoints"]


class Checkpoints:
    """The files of a run in progress, written by the first process.

    Args:
        engine: The engine of the steps.
        progress: The progress of the run.
        readings: Its metrics.
        place: The run folder.
    """

    def __init__(self, engine: Engine, progress: Progress, readings: Readings, place: Place) -> None:
        self.engine, self.progress, self.readings, self.place = engine, progress, readings, place
        self.saved_at, self.saved = time.monotonic(), dict[str, int]()

    @property
    def age(self) -> float:
        """Seconds since the last state was written."""
        return time.monotonic() - self.saved_at

    def begin(self, config: RunConfig) -> None:
        """Writes the config of a run, and its initial state."""
        self.place.folder.clear_leftovers()
        with saying_way_on(self.place.folder):
            self.place.folder.write_config(config)
            self.save("last")

    def save(self, which: str) -> None:
        """Writes a resumable state, at most once per step, and never with a loss or weights that are not finite."""
        if not self.engine.first:
            return
        self.place.require()
        path, step = self.place.folder.checkpoint(which), self.progress.step
        same = [name for name, saved in self.saved.items() if saved == step]
        self.saved[which] = step
        if same and which not in same:
            write_again(path, self.place.folder.checkpoint(same[0]))
        elif not same:
            self._write(path)
        self.saved_at = time.monotonic()

    def _write(self, path: Path) -> None:
        if self.progress.window:
            self.readings.require_finite(torch.stack(self.progress.window))
        self.engine.save(path, self.progress)

    def write_weights(self) -> None:
        """Writes the model's current weights, for use."""
        self.place.require()
        checkpoint.write(self.place.folder.weights, checkpoint.tensors_of(self.engine.model))
