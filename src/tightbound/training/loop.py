"""The training loop: steps, evaluations and checkpoints; the model with the best validation bound is kept."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__, checkpoint
from ..data import Data
from ..errors import UnknownName
from ..models import Model, Terms
from ..options.training import TrainingOptions
from ..runs import RunConfig, RunFolder
from ..runtime.memory import keep_freed_memory
from ..runtime.processor import slow_arithmetic
from ..runtime.randomness import fixed_noise
from ..spec import Option, field_names
from .checkpoints import Checkpoints
from .concluding import measure_latents, measures_latents
from .device import among_peers, by_first, cuda_devices, reduced
from .engine import Engine
from .interrupt import Stop, stop_on_signals
from .metrics import Readings
from .notes import (
    idle_balance,
    require_float32_range,
    require_trainable,
    said_of_data,
    warmup_outlasts_run,
    warnings_before_training,
)
from .opening import say, told_latents, told_limit, told_model, told_plan
from .picture import draw_progress
from .place import Place, held, require_place, require_resumable, require_unused, said_of_place, saying_way_on
from .start import start_model
from .state import Progress, TrainingResult
from .steps.base import Step
from .steps.choice import step_for
from .units import unit_of

__all__ = ["TrainingResult", "train", "train_on", "with_changes"]


def train(
    model: Model,
    data: Data,
    *,
    out: str | Path,
    options: TrainingOptions | None = None,
    resume: bool = False,
    resume_from: str = "last",
    objective: Callable[[Terms, Tensor], Tensor] | None = None,
    **changes: Option,
) -> TrainingResult:
    """Trains a model and writes a run folder.

    Args:
        model: The model; it has the selected weights at the end.
        data: The data; its validation split selects the weights.
        out: The run folder; it must not hold another run.
        options: How to train.
        resume: Resume the run in ``out`` where it stopped; its options must be the same.
        resume_from: The ``"last"`` or the ``"best"`` checkpoint.
        objective: An objective to use instead of the recipe's: ``(terms, beta) -> (n,)`` nats, to be maximised.
        **changes: Fields of :class:`TrainingOptions` that differ from ``options``.

    Returns:
        How it ended.

    Raises:
        UsageError: If ``out`` holds a run already, or the options differ from those of the run to resume.
        TrainingError: If the loss is no longer finite (the last good state is kept), or if the folder is moved.
        CheckpointError: If the disk is full, another training holds ``out``, or the checkpoint to resume from is
            damaged.

    Example:
        >>> import tempfile, tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> tb.train(model, data, steps=3, out=tempfile.mkdtemp()).stopped
        'done'
    """
    options = with_changes(options or TrainingOptions(), changes)
    keep_freed_memory()
    if resume:  # as the run loaded it, whatever later versions do
        data = data.scaled_as(RunFolder(Path(out)).config().data_spec)
        model.data_spec = None if model.data_spec is None else data.spec
    config = _config(model, data, options)
    step = step_for(model, objective, len(data.train), options.seed)
    return _trained(step, data, config, said_of_data(data), Path(out), resume, resume_from)


def with_changes(options: TrainingOptions, changes: Mapping[str, Option]) -> TrainingOptions:
    """Training options with some changed, by name.

    Raises:
        UnknownName: If an option does not exist.
    """
    known = field_names(TrainingOptions)
    if unknown := [name for name in changes if name not in known]:
        raise UnknownName("training option", unknown[0], known)
    return dataclasses.replace(options, **dict[str, Any](changes))


def train_on(
    step: Step,
    data: Data,
    examples: Data,
    *,
    out: Path,
    options: TrainingOptions,
    resume: bool = False,
    resume_from: str = "last",
) -> TrainingResult:
    """Trains a part of a model on examples other than its data: a prior on latents.

    Args:
        step: The computation of a step, with the model.
        data: The model's data, recorded in the run folder.
        examples: The training examples.
        out: The run folder.
        options: How to train.
        resume: Resume the run in ``out`` where it stopped.
        resume_from: The ``"last"`` or the ``"best"`` checkpoint.

    Raises:
        UsageError, TrainingError, CheckpointError: As :func:`train`.
    """
    keep_freed_memory()
    config = _config(step.model, data, options)
    return _trained(step, examples, config, [told_latents(examples, step.model)], out, resume, resume_from)


def _config(model: Model, data: Data, options: TrainingOptions) -> RunConfig:
    """The config for a run folder."""
    require_trainable(data)
    require_float32_range(model, data.spec)
    return RunConfig(data.spec, options, model.recipe, data.options, __version__, data.fingerprint)


def _trained(
    step: Step, data: Data, config: RunConfig, said: Iterable[str], out: Path, resume: bool, which: str
) -> TrainingResult:
    engine, folder = Engine(step, data.train, config.training), RunFolder(out)
    require_place(folder, config)
    with among_peers(), stop_on_signals() as stop, held(engine.fabric, folder) as place:
        run = _Run(engine, data, config, place)
        run.prepare(resume, which, said)
        with torch.random.fork_rng(devices=cuda_devices()):
            return run.go(stop)


class _Run:
    """One training in its folder, from the start or a checkpoint to the end."""

    def __init__(self, engine: Engine, data: Data, config: RunConfig, place: Place) -> None:
        self.engine, self.data, self.config, self.place, self.options = engine, data, config, place, config.training
        self.model, self.folder, self.clock = engine.model, place.folder, engine.clock
        sizes = len(data.train), len(data.valid), data.spec.dimensions
        self.evaluate_every = self.options.evaluation_steps(*sizes)
        self.patience = None if engine.step.keeps_last else self.options.evaluations_to_wait(*sizes)
        self.progress = Progress(parts=engine.parts)
        self.unit = unit_of(self.model, engine.step.rows[engine.step.selects], config.data_spec, data.spec)
        self.readings = Readings(engine, self.progress, self.unit, place)
        self.checkpoints = Checkpoints(engine, self.progress, self.readings, place)

    # -- beginning --------------------------------------------------------------------------------------------------

    def prepare(self, resume: bool, which: str, said: Iterable[str]) -> None:
        """Creates a run folder, or restores the state in an existing one, whose model is already initialised."""
        check = require_resumable if resume else require_unused
        begun = by_first(self.engine.fabric, lambda: check(self.folder, self.config))
        if self.engine.first:
            say([*self._introduction(said), *said_of_place(self.place, restarted=resume and not begun)])
        if begun:
            self.engine.restore(self.folder.checkpoint(which), self.progress)
            if self.engine.first:
                self.folder.clear_leftovers()
        else:
            start_model(self.model, self.engine.train, self.options)
            self.engine.step.begin(self.data, self.options)
            self.engine.started()
            by_first(self.engine.fabric, lambda: self.checkpoints.begin(self.config))

    def _introduction(self, said: Iterable[str]) -> list[str]:
        """Prints the plan, and warnings, before anything is computed."""
        engine, clock, examples = self.engine, self.clock, len(self.engine.train)
        of_data, *notes = said
        every = self.evaluate_every if len(self.data.valid) else 0
        plan = told_plan(self.options, examples, every, self.patience, engine.device, engine.fabric.world_size)
        slow = slow_arithmetic(self.options.precision, engine.device.type)
        limit = told_limit(self.options, engine.groups[0].clip_norm)
        lines = [of_data, told_model(self.model, engine.precision), plan, *limit, *notes, *slow]
        lines += engine.step.describe()
        lines += warnings_before_training(self.model, self.config.data_spec, examples)
        if self.model.recipe and self.model.space:
            lines += idle_balance(self.model.recipe.training_objective, len(self.model.space.names), clock.warmup)
        warming = self.model.recipe.training_objective.warming if self.model.recipe else "the KL's weight"
        if warming and clock.warmup > clock.steps:
            lines.append(warmup_outlasts_run(warming, clock.warmup, clock.steps, clock.at(clock.steps - 1).beta))
        return lines

    # -- steps ------------------------------------------------------------------------------------------------------

    def go(self, stop: Stop) -> TrainingResult:
        """Steps until the end, early stopping or a signal."""
        with saying_way_on(self.folder):
            self.readings.open()
        self.engine.prepare_compiling()
        self.model.train()
        with saying_way_on(self.folder):
            try:
                reason = self._steps(stop)
            finally:
                self.readings.close()
            self._keep_selected()
            if reason in ("done", "early"):
                self._measure()
        return self._result(reason)

    def _steps(self, stop: Stop) -> str:
        progress, clock = self.progress, self.clock
        while not (reason := self._ended(stop)):
            sums, outcome = self.engine.advance(clock.at(progress.step))
            progress.count(outcome)
            self.readings.take(sums, outcome)
            evaluate = progress.step % self.evaluate_every == 0 or progress.step == clock.steps
            if evaluate or progress.step % self.options.log_every == 0:
                self.readings.read()
            if evaluate:
                self._evaluate()
            if evaluate or self.checkpoints.age >= self.options.save_every:
                self.checkpoints.save("last")
        self.checkpoints.save("last")
        return reason

    def _ended(self, stop: Stop) -> str:
        """The reason why the run ends, or an empty string."""
        fabric = self.engine.fabric
        if self.progress.step >= self.clock.steps:
            return "done"
        if self.patience is not None and self.progress.stale >= self.patience:
            return "early"
        if fabric.world_size == 1:
            return stop.signal.name if stop.signal else ""
        if self.progress.step % self.readings.per_second:  # processes must agree, which needs communication
            return ""
        asked = torch.tensor(int(stop.signal or 0), device=fabric.device)
        number = int(reduced(fabric, asked, "max"))
        return signal.Signals(number).name if number else ""

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Evaluates the bound on the validation split, in float32 with fixed noise, to select the model."""
        progress, better = self.progress, False
        self.model.eval()
        with self.engine.average.applied(), fixed_noise():
            if len(self.data.valid):
                bound = self.readings.validate(self.data.valid)
                warm, last = self.clock.at(progress.step).warm, self.engine.step.keeps_last
                better = progress.judge(bound, warm, keeps_last=last)
                if better and self.engine.first:
                    self.checkpoints.write_weights()
            if self.options.pictures and self.engine.first:
                draw_progress(self.model, self.data, self.folder.samples / f"step_{progress.step:07d}.png")
        self.model.train()
        if better:
            self.checkpoints.save("best")
        self.readings.rest()

    # -- end --------------------------------------------------------------------------------------------------------

    def _keep_selected(self) -> None:
        """Loads the selected weights; without a validation split these are the last ones."""
        if self.engine.first and (self.progress.best is None or not self.folder.weights.exists()):
            with self.engine.average.applied():
                self.checkpoints.write_weights()
        self.engine.fabric.barrier()
        self._load_selected()
        self.model.eval()

    def _measure(self) -> None:
        """Measures the latents of a model that keeps their statistics; all processes then have those of the first."""
        if measures_latents(self.model):
            measure_latents(self.model, self.data.train)
            if self.engine.first:
                self.checkpoints.write_weights()
            self.engine.fabric.barrier()
            self._load_selected()

    def _load_selected(self) -> None:
        checkpoint.load_into(self.model, checkpoint.read(self.folder.weights), self.folder.weights)

    def _result(self, reason: str) -> TrainingResult:
        progress, unit = self.progress, self.unit
        steps, skipped = (progress.step, self.clock.steps), progress.skipped
        ended = TrainingResult(self.folder.path, *steps, None, reason, skipped=skipped)
        if progress.best is None:
            return ended
        bits, words = unit.bits_per_dim(progress.best), unit.told(progress.best)
        best = {"best_bound": progress.best - unit.offset, "best_bits_per_dim": bits, "best_step": progress.best_step}
        return dataclasses.replace(ended, **best, best_in_words=words)
