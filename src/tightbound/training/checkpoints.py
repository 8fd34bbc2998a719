"""What a run keeps of itself while it goes: resumable states and the selected weights."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from .. import checkpoint
from ..runs import RunConfig
from .engine import Engine
from .metrics import Readings
from .place import Place, saying_way_on
from .state import Progress

__all__ = ["Checkpoints"]


class Checkpoints:
    """The files of a run that is going on, written by its first process.

    Args:
        engine: What makes the steps.
        progress: How far the run has got.
        readings: What was read of it.
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
        """Writes what a run is, and the state from which it starts."""
        self.place.folder.clear_leftovers()
        with saying_way_on(self.place.folder):
            self.place.folder.write_config(config)
            self.save("last")

    def save(self, which: str) -> None:
        """A resumable state, never one whose loss or weights are not numbers; of one step it is written once."""
        if not self.engine.first:
            return
        self.place.require()
        path, step = self.place.folder.checkpoint(which), self.progress.step
        same = [name for name, saved in self.saved.items() if saved == step]
        self.saved[which] = step
        if same and which not in same:
            checkpoint.write_again(path, self.place.folder.checkpoint(same[0]))
        elif not same:
            self._write(path)
        self.saved_at = time.monotonic()

    def _write(self, path: Path) -> None:
        if self.progress.window:
            self.readings.require_finite(torch.stack(self.progress.window))
        self.engine.save(path, self.progress)

    def write_weights(self) -> None:
        """The model's weights as they are, for those who come to use them."""
        self.place.require()
        checkpoint.write(self.place.folder.weights, checkpoint.tensors_of(self.engine.model))
