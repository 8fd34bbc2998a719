"""Training metrics: means of the rows, for the log and the progress bar."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..data import Split
from ..errors import TrainingError
from .clock import Clock
from .device import reduced
from .engine import Engine
from .log import MetricsLog, ProgressBar
from .notes import steadier, values_too_large
from .place import Place
from .skipping import IN_A_ROW, Outcome
from .state import Progress
from .units import Unit
from .validation import mean_rows, mean_squared_error

__all__ = ["Readings"]


class Readings:
    """The log and progress bar of a run.

    Args:
        engine: The engine of the steps.
        progress: The progress of the run.
        unit: The unit of the row that selects the model.
        place: The run folder.
    """

    log: MetricsLog | None = None
    bar: ProgressBar

    def __init__(self, engine: Engine, progress: Progress, unit: Unit, place: Place) -> None:
        self.engine, self.progress, self.unit, self.place = engine, progress, unit, place
        self.rows, self.selects = engine.step.rows, engine.step.selects
        self.per_second, self.read_at = 1, time.monotonic()

    def open(self) -> None:
        """Starts the log and the bar."""
        clock, done, first = self.engine.clock, self.progress.step, self.engine.first
        events = self.place.folder.path / "tensorboard" if self.engine.options.tensorboard else None
        self.log = MetricsLog(self.place.folder.metrics, done, events) if first else None
        sizes = {"per_epoch": clock.per_epoch, "examples": len(self.engine.train) / clock.per_epoch}
        self.bar = ProgressBar(clock.steps, done, show=first, **sizes)

    def close(self) -> None:
        """Ends them."""
        self.bar.close()
        if self.log is not None:
            self.log.close()

    def rest(self) -> None:
        """Excludes time in which no step was made."""
        self.read_at = time.monotonic()

    # -- training ---------------------------------------------------------------------------------------------------

    def take(self, sums: Tensor, outcome: Outcome) -> None:
        """Records a step: the sums of its rows and its number of examples, which stay on the device.

        Raises:
            TrainingError: If it is the last of many skipped in a row.
        """
        self.progress.window.append(sums)
        self.bar.advance(self.progress.step)
        if self.progress.in_a_row >= IN_A_ROW:
            raise self._stuck(outcome)
        if self.bar.due:
            self._tell_lately()

    def _stuck(self, outcome: Outcome) -> TrainingError:
        size, limit, clock = outcome.norm, self.engine.options.skip_norm, self._clock(-1)
        large = limit is not None and size > limit
        return TrainingError(
            f"{self.progress.in_a_row} steps in a row were skipped, up to step {clock.step} (epoch {clock.epoch}).",
            got=f"a gradient of norm {size:.4g}" if large else "a loss or a gradient that is not finite",
            expected=f"a norm of at most {limit:g}" if large else "finite numbers",
            remedy=self._larger(size) if large else self._how_to_go_on(self._clock(-IN_A_ROW)),
        )

    def _larger(self, norm: float) -> str:
        last = self.place.folder.checkpoint("last")
        return f"Start a new run with --skip-norm well above {norm:.4g}, or without; the last good state is in {last}."

    def read(self) -> None:
        """Writes the means since the last record from the device to the log."""
        window = reduced(self.engine.fabric, torch.stack(self.progress.window), "sum")
        self.require_finite(window)
        seconds = max(time.monotonic() - self.read_at, 1e-9)
        *sums, examples = window.double().sum(0).tolist()
        last = self._clock(-1)
        rates = {"beta": last.beta} if "kl" in self.rows else {}
        rates |= {"lr": last.lr, "examples_per_second": examples / seconds, **self.engine.step.readings()}
        if self.engine.skipping.active:
            rates |= {"skipped": self.progress.skipped, "gradient_norm": self.progress.norm}
        self._write("train", [total / examples if examples else math.nan for total in sums], rates)
        most = self.engine.options.log_every
        self.per_second = self.engine.fabric.broadcast(max(1, min(most, int(len(window) / seconds))))
        self.progress.window, self.progress.norm, self.read_at = [], 0.0, time.monotonic()

    def require_finite(self, window: Tensor) -> None:
        """Raises if training has diverged.

        Args:
            window: The sums of each of the last steps, ``(steps, rows + 1)``.

        Raises:
            TrainingError: If one is not finite, with the step and a remedy.
        """
        bad = (~window.isfinite().all(1)).nonzero()
        if len(bad):
            clock = self._clock(int(bad[0]) - len(window))
            examples = ", ".join(str(i) for i in self.engine.batch_of(clock)[:8].tolist())
            sums = window[bad[0, 0]].tolist()
            raise self._diverged("loss is no longer", clock, sums, f", summed over examples {examples}, ...")

    def _diverged(self, what: str, clock: Clock, sums: Sequence[float], more: str = "") -> TrainingError:
        return TrainingError(
            f"The {what} a number at step {clock.step} (epoch {clock.epoch}).",
            got=f"{dict(zip(self.rows, sums, strict=False))}{more}",
            expected="finite numbers",
            remedy=self._how_to_go_on(clock),
        )

    def _how_to_go_on(self, clock: Clock) -> str:
        if clock.step == 0:  # nothing was learned yet, so the data is the cause
            return values_too_large(self.engine.train.batch(self.engine.batch_of(clock)))
        last = self.place.folder.checkpoint("last")
        return f"Start a new run with {steadier(self.engine.options)}; the last good state is in {last}."

    # -- validation -------------------------------------------------------------------------------------------------

    def validate(self, valid: Split) -> float:
        """Logs the means over the validation split, and returns the one that selects the model.

        Raises:
            TrainingError: If one is not finite.
        """
        means = mean_rows(self.engine.fabric, self.engine.step, valid)
        if not means.isfinite().all():
            raise self._diverged("validation bound is not", self._clock(), means.tolist())
        bound = means[self.selects].item()
        bits, (error, also) = self.unit.bits_per_dim(bound), self._squared_error(valid)
        more = {"bits_per_dim": bits, "squared_error": error}
        self._write("valid", means.tolist(), {name: value for name, value in more.items() if value is not None})
        self._tell("valid", bound, also)
        return bound

    def _squared_error(self, valid: Split) -> tuple[float | None, str]:
        """Squared error of reconstructions, summed over an example in the data's units; and per entry, as text."""
        if self.log is None or "bound" not in self.rows:
            return None, ""
        if (found := mean_squared_error(self.engine.model, valid)) is None:
            return None, ""
        summed, per_entry, n = found.tolist()
        what = "of the variance" if valid.spec.scale else "per entry"
        some = f" of {n:.0f} examples" if n < len(valid) else ""
        return summed, f", squared error {per_entry:.3g} {what}{some}"

    # -- words ------------------------------------------------------------------------------------------------------

    def _clock(self, ahead: int = 0) -> Clock:
        """The clock at the next step, plus an offset."""
        return self.engine.clock.at(self.progress.step + ahead)

    def _tell(self, split: Literal["train", "valid"], bound: float, also: str = "") -> None:
        full, brief = self.unit.told(bound), self.unit.told(bound, brief=True)
        last = self.progress.step == self.engine.clock.steps
        self.bar.reading(split, full + also + self._skipped, brief + also, brief + self._skipped, brief, last=last)

    @property
    def _skipped(self) -> str:
        """The number of skipped steps, as text; empty if there are none."""
        skipped = self.progress.skipped
        return f", {skipped:,} step{'s' * (skipped > 1)} skipped" if skipped else ""

    def _tell_lately(self) -> None:
        """The training bound since the last record, of this process's share."""
        sums = torch.stack(self.progress.window).double().sum(0)
        if not sums[-1]:  # all were skipped
            return
        means = dict(zip(self.rows, (sums[:-1] / sums[-1]).tolist(), strict=True))
        if not (warming := self._warming):
            self._tell("train", means[self.rows[self.selects]])
        else:  # the bound has the full KL, which warm-up does not penalise yet
            unit = dataclasses.replace(self.unit, what="reconstruction")
            told = [unit.told(means["reconstruction"], brief=brief) for brief in (False, True)]
            self.bar.reading("train", *(f"{each}, {warming}{self._skipped}" for each in told), told[1])

    @property
    def _warming(self) -> str:
        """The quantity in warm-up and its current share; empty after warm-up."""
        recipe = self.engine.model.recipe
        what = recipe.training_objective.warming if recipe and "reconstruction" in self.rows else ""
        return "" if self._clock().warm or not what else f"{what} at {self._clock(-1).beta:.2f}"

    def _write(self, split: str, means: list[float], more: Mapping[str, float | list[float]]) -> None:
        if self.log is None:
            return
        self.place.require()
        rows, offset = dict(zip(self.rows, means, strict=True)), self.unit.offset
        if offset:  # in nats of the data; a KL has no offset
            rows = {name: value - offset * (name != "kl") for name, value in rows.items()}
            rows["offset"] = offset
        if not self.engine.model.can_sample:
            rows.pop("kl", None)
        step, epoch = self.progress.step, self.progress.step / self.engine.clock.per_epoch
        self.log.write({"step": step, "epoch": epoch, "split": split, **rows, **more})
