r"""The training loop.

A step takes one batch of the epoch's order, in ``processes * accumulate`` parts; the loss is the negative objective in
nats, averaged over the batch's examples, however they are spread. The model with the best validation bound is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from .. import __version__, checkpoint
from ..annealing import learning_rate, weight
from ..data import Data
from ..errors import CheckpointError, TrainingError, UnknownName, reading
from ..models.latent import LatentVariableModel, Terms
from ..options.training import TrainingOptions
from ..pictures import sheets
from ..quantizers.vector import VectorQuantizer, forget, part_of_batch
from ..runs import RunConfig, RunFolder
from ..runtime.lock import Lock
from ..runtime.memory import keep_freed_memory
from ..runtime.processor import slow_arithmetic
from ..runtime.progress import silent
from ..runtime.randomness import epoch_order, fixed_noise, reseed
from .device import among_peers, by_first, cuda_devices, launch
from .ema import MovingAverage
from .interrupt import Stop, stop_on_signals
from .log import MetricsLog, ProgressBar
from .notes import check_data, check_range, never_warm, said_before, said_of_data, steadier, values_too_large
from .opening import say, told_latents, told_model, told_plan
from .optimizer import memory_layout, optimizer_of
from .place import check_free, check_place, check_resumable, held, said_of_place, saying_way_on
from .start import draw_by_xavier, start_from_data, take_over_weights
from .state import Progress, TrainingResult, restore_state, save_state
from .steps.base import Step
from .steps.bound import BoundStep
from .units import unit_of
from .validation import mean_rows, mean_squared_error

__all__ = ["TrainingResult", "train", "train_on"]


def train(
    model: LatentVariableModel,
    data: Data,
    *,
    out: str | Path,
    options: TrainingOptions | None = None,
    resume: bool = False,
    resume_from: str = "last",
    objective: Callable[[Terms, Any], Tensor] | None = None,
    **changes: Any,
) -> TrainingResult:
    """Trains a model and leaves a run folder.

    Args:
        model: The model; it ends with the selected weights.
        data: Its training split is learned from, its validation split selects.
        out: The run folder; it must not hold another run.
        options: How to train.
        resume: Go on where the run in ``out`` stopped, be it before the first step; its options must be the same.
        resume_from: The ``"last"`` or the ``"best"`` checkpoint.
        objective: Instead of the recipe's: ``(terms, beta) -> (n,)`` nats, to be maximised.
        **changes: Fields of :class:`TrainingOptions` that differ from ``options``.

    Returns:
        How it ended.

    Raises:
        UsageError: If ``out`` holds a run already, or the options differ from those of the run to resume.
        TrainingError: If the loss stops being a number, where the last good state is kept; or if the folder is moved.
        CheckpointError: If the disk is full, another training holds ``out``, or the checkpoint to resume from is
            damaged.

    Example:
        >>> import tempfile, tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> tb.train(model, data, steps=3, out=tempfile.mkdtemp()).stopped
        'done'
    """
    known = [f.name for f in dataclasses.fields(TrainingOptions)]
    if unknown := [name for name in changes if name not in known]:
        raise UnknownName("training option", unknown[0], known)
    options = dataclasses.replace(options or TrainingOptions(), **changes)
    keep_freed_memory()
    if resume:  # as the run saw it, whatever a later version would make of it
        data = data.scaled_as(RunFolder(Path(out)).config().data_spec)
        model.data_spec = None if model.data_spec is None else data.spec
    return _run(_Run(model, data, RunFolder(Path(out)), options, objective), resume, resume_from)


def train_on(
    model: LatentVariableModel,
    data: Data,
    examples: Data,
    step: Step,
    *,
    out: Path,
    options: TrainingOptions,
    resume: bool = False,
    resume_from: str = "last",
) -> TrainingResult:
    """Trains a part of a model on other examples than its data: a prior on latents.

    Args:
        model: The model.
        data: Its data, which the run folder names.
        examples: What is learned from.
        step: What a step computes, as :class:`~tightbound.training.steps.base.Step`.
        out: The run folder.
        options: How to train.
        resume: Go on where the run in ``out`` stopped.
        resume_from: The ``"last"`` or the ``"best"`` checkpoint.

    Raises:
        UsageError, TrainingError, CheckpointError: As :func:`train`.
    """
    keep_freed_memory()
    return _run(_Run(model, data, RunFolder(out), options, None, examples, step), resume, resume_from)


def _run(run: _Run, resume: bool, resume_from: str) -> TrainingResult:
    check_place(run.folder, run.config)
    with among_peers(), stop_on_signals() as stop, held(run.fabric, run.folder) as run.lock:
        run.prepare(resume, resume_from)
        with torch.random.fork_rng(devices=cuda_devices()):
            return run.go(stop)


class _Run:
    """One training: what it works on, and how far it has got."""

    log: MetricsLog | None
    bar: ProgressBar
    lock: Lock | None = None

    def __init__(
        self,
        model: LatentVariableModel,
        data: Data,
        folder: RunFolder,
        options: TrainingOptions,
        objective: Callable[[Terms, Any], Tensor] | None,
        examples: Data | None = None,
        step: Step | None = None,
    ) -> None:
        check_data(data)
        check_range(model, data.spec)
        self.fabric = launch(options)
        self.model, self.data, self.folder, self.options = model, data, folder, options
        self.config = RunConfig(data.spec, options, model.recipe, data.options, __version__, data.fingerprint)
        self.from_latents = examples is not None
        self.data = data = examples or data
        self.train_split = data.train.to(self.fabric.device)
        self.steps = options.total_steps(len(data.train))
        self.per_epoch = options.steps_per_epoch(len(data.train))
        sizes = len(data.train), len(data.valid), data.spec.dimensions
        self.evaluate_every, self.patience = options.evaluation_steps(*sizes), options.evaluations_to_wait(*sizes)
        self.warmup = options.warmup_steps(len(data.train))
        self.layout = memory_layout(model, self.fabric.device)
        if self.layout is torch.channels_last:
            model.to(memory_format=self.layout)  # pyright: ignore[reportCallIssue]
        self.raw: Any = step or BoundStep(model, objective, len(data.train))
        self.rows: tuple[str, ...] = self.raw.rows
        self.selects = self.rows.index("bound") if "bound" in self.rows else 0
        self.unit = unit_of(model, self.rows[self.selects], self.config.data_spec, data.spec)
        module = cast(nn.Module, torch.compile(self.raw)) if options.compile else self.raw
        self.module, self.optimizer = self.fabric.setup(module, optimizer_of(model, options, self.fabric.device))
        self.quantizers = [m for m in model.modules() if isinstance(m, VectorQuantizer)]
        self.revived = [m for m in self.quantizers if m.ema is None and m.revive]
        self.average = MovingAverage(model, options.ema)
        self.run = Progress(parts=self.fabric.world_size * options.accumulate)
        self.ask_every = 1
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.read_at = self.saved_at = time.monotonic()
        self.saved: dict[str, int] = {}

    # -- beginning and end ------------------------------------------------------------------------------------------

    def prepare(self, resume: bool, which: str) -> None:
        """Makes a new run folder, or takes up the state in an old one."""
        check = check_resumable if resume else check_free
        begun = by_first(self.fabric, lambda: check(self.folder, self.config))
        if not begun:
            take_over_weights(self.model)
        self._introduce(restarted=resume and not begun)
        if begun:
            self._take_up(self.folder.checkpoint(which))
        else:
            self._begin()

    def _take_up(self, path: Path) -> None:
        scaler = restore_state(path, self.model, self.average, self.optimizer, self.run)
        with reading(path, CheckpointError, expected="the scale of a gradient's losses"):
            self.fabric.strategy.precision.load_state_dict(scaler)
        old = [len(sums) != len(self.rows) + 1 for sums in self.run.window]  # of a version with other rows
        self.run.window = [] if any(old) else self.run.window
        self.model.starts_from_data = False
        if self.fabric.is_global_zero:
            self.folder.clear_leftovers()

    def _begin(self) -> None:
        if self.options.initial_weights == "xavier":
            draw_by_xavier(self.model, self.options.seed)
        if self.options.data_start:
            start_from_data(self.model, self.train_split, self.options.seed)
        self.average = MovingAverage(self.model, self.options.ema)
        by_first(self.fabric, self._write_start)

    def _write_start(self) -> None:
        self.folder.clear_leftovers()
        with saying_way_on(self.folder):
            self.folder.write_config(self.config)
            self._save("last")

    def _introduce(self, restarted: bool) -> None:
        """Says what is about to be done, and what speaks against it while nothing has been computed."""
        if not self.fabric.is_global_zero:
            return
        of_data, *notes = [told_latents(self.data, self.model)] if self.from_latents else said_of_data(self.data)
        every = self.evaluate_every if len(self.data.valid) else 0
        place = self.fabric.device, self.fabric.world_size
        plan = told_plan(self.options, len(self.train_split), every, self.patience, *place)
        slow = slow_arithmetic(self.options.precision, self.fabric.device.type)
        lines = [of_data, told_model(self.model, self.fabric.strategy.precision.precision), plan, *notes, *slow]
        lines += said_before(self.model, self.config.data_spec, len(self.train_split))
        warming = self.model.recipe.training_objective.warming if self.model.recipe else "the KL's weight"
        if warming and self.warmup > self.steps:
            lines.append(never_warm(warming, self.warmup, self.steps, self._beta(self.steps - 1)))
        lines += said_of_place(self.folder, self.lock, restarted)
        say(lines)

    def go(self, stop: Stop) -> TrainingResult:
        """Steps until the end, early stopping or a signal."""
        first = self.fabric.is_global_zero
        events = self.folder.path / "tensorboard" if self.options.tensorboard else None
        with saying_way_on(self.folder):
            self.log = MetricsLog(self.folder.metrics, self.run.step, events) if first else None
        sizes = {"per_epoch": self.per_epoch, "examples": len(self.train_split) / self.per_epoch}
        self.bar = ProgressBar(self.steps, self.run.step, show=first, **sizes)
        self.model.train()
        with saying_way_on(self.folder):
            try:
                reason = self._steps(stop)
            finally:
                self.bar.close()
                if self.log is not None:
                    self.log.close()
            self._keep_selected()
        return self._result(reason)

    def _result(self, reason: str) -> TrainingResult:
        run, unit = self.run, self.unit
        ended = TrainingResult(self.folder.path, run.step, self.steps, None, reason)
        if run.best is None:
            return ended
        bits, words = unit.bits_per_dim(run.best), unit.told(run.best)
        best = {"best_bound": run.best - unit.offset, "best_bits_per_dim": bits, "best_step": run.best_step}
        return dataclasses.replace(ended, **best, best_in_words=words)

    def _steps(self, stop: Stop) -> str:
        while not (reason := self._ended(stop)):
            self._one_step()
            self._tell_lately()
            evaluate = self.run.step % self.evaluate_every == 0 or self.run.step == self.steps
            if evaluate or self.run.step % self.options.log_every == 0:
                self._read_metrics()
            if evaluate:
                self._evaluate()
            if evaluate or time.monotonic() - self.saved_at >= self.options.save_every:
                self._save("last")
        self._save("last")
        return reason

    def _ended(self, stop: Stop) -> str:
        """Why the run is over, or nothing."""
        if self.run.step >= self.steps:
            return "done"
        if self.patience is not None and self.run.stale >= self.patience:
            return "early"
        if self.fabric.world_size == 1:
            return stop.signal.name if stop.signal else ""
        if self.run.step % self.ask_every:  # processes must agree, and asking costs
            return ""
        asked = torch.tensor(int(stop.signal or 0), device=self.fabric.device)
        number = int(self.fabric.all_reduce(asked, reduce_op="max"))  # pyright: ignore[reportArgumentType]
        return signal.Signals(number).name if number else ""

    def _keep_selected(self) -> None:
        """Without a validation split the last weights are the selected ones; either way the model ends with them."""
        if self.fabric.is_global_zero and (self.run.best is None or not self.folder.weights.exists()):
            self._write_weights()
        self.fabric.barrier()
        checkpoint.load_into(self.model, checkpoint.read(self.folder.weights), self.folder.weights)
        self.model.eval()

    # -- steps ------------------------------------------------------------------------------------------------------

    def _one_step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        beta = torch.full((), self._beta(self.run.step), device=self.fabric.device)
        if self.model.recipe is not None:
            self.model.recipe.anneal(self.model, self.run.step, self.steps)
        batch, accumulate = self._batch_indices(), self.options.accumulate
        sums = self._no_sums()
        for i in range(accumulate):
            sums += self._part(batch, i * self.fabric.world_size + self.fabric.global_rank, beta, i < accumulate - 1)
        if self.options.clip_norm is not None:
            self.fabric.clip_gradients(
                self.module, self.optimizer, max_norm=self.options.clip_norm, error_if_nonfinite=False
            )
        forget(self.revived, self.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.run.step)
        self.run.step += 1
        self.run.window.append(sums)
        self.bar.advance(self.run.step)

    def _part(self, batch: Tensor, part: int, beta: Tensor, more: bool) -> Tensor:
        """Gradients of one part of a batch, the sums of its rows and its size: all parts add up to the batch."""
        share = batch[part :: self.fabric.world_size * self.options.accumulate]
        weight = 1.0 if len(share) else 0.0  # a part without examples takes the first, for nothing
        reseed(self.fabric.device, self.options.seed, self.run.step, part)
        examples = self.train_split.batch(share if len(share) else batch[:1], self.fabric.device)
        x, c = examples.x, self.model.conditions(examples)
        x = x.contiguous(memory_format=self.layout) if x.dim() == 4 else x
        with self.fabric.no_backward_sync(self.module, enabled=more):
            with part_of_batch(self.quantizers, more=more, empty=not len(share)):
                rows = self.module(x, beta, c)
            loss = -rows[0].sum() * (weight * self.fabric.world_size / len(batch))
            self.fabric.backward(loss)
        return torch.cat([rows.detach().sum(1), rows.new_tensor([rows.shape[1]])]) * weight

    def _no_sums(self) -> Tensor:
        return torch.zeros(len(self.rows) + 1, device=self.fabric.device)

    def _batch_indices(self) -> Tensor:
        epoch, position = divmod(self.run.step, self.per_epoch)
        if self.order[0] != epoch:
            self.order = epoch, epoch_order(self.options.seed, epoch, len(self.train_split))
        size = self.options.batch_size
        return self.order[1][position * size : (position + 1) * size]

    def _learning_rate(self) -> float:
        o = self.options
        milestones = [m * self.per_epoch for m in o.lr_milestones]
        return o.lr * learning_rate(
            self.run.step, self.steps, o.lr_schedule, o.lr_warmup, milestones=milestones, factor=o.lr_factor
        )

    def _beta(self, step: int) -> float:
        return weight(step, self.warmup, self.options.beta_schedule, self.options.beta_cycles)

    # -- readings ---------------------------------------------------------------------------------------------------

    def _read_metrics(self) -> None:
        """The means since the last reading, from the device to the log."""
        window: Tensor = self.fabric.all_reduce(torch.stack(self.run.window), reduce_op="sum")  # pyright: ignore
        self._check_finite(window)
        seconds = max(time.monotonic() - self.read_at, 1e-9)
        *sums, examples = window.double().sum(0).tolist()
        rates = {"beta": self._beta(self.run.step - 1)} if "kl" in self.rows else {}
        rates |= {"lr": self.optimizer.param_groups[0]["lr"], "examples_per_second": examples / seconds}
        self._write("train", [total / examples for total in sums], rates)
        self.ask_every = self.fabric.broadcast(max(1, min(self.options.log_every, int(len(window) / seconds))))
        self.run.window, self.read_at = [], time.monotonic()

    def _check_finite(self, window: Tensor) -> None:
        bad = (~window.isfinite().all(1)).nonzero()
        if len(bad) == 0:
            return
        self.run.step -= len(window) - int(bad[0])
        examples = ", ".join(str(i) for i in self._batch_indices()[:8].tolist())
        raise self._not_finite("loss is no longer", window[bad[0, 0]], f", summed over examples {examples}, ...")

    def _not_finite(self, what: str, sums: Tensor, more: str = "") -> TrainingError:
        return TrainingError(
            f"The {what} a number at step {self.run.step} (epoch {self.run.step // self.per_epoch}).",
            got=f"{dict(zip(self.rows, sums.tolist(), strict=False))}{more}",
            expected="finite numbers",
            remedy=self._how_to_go_on(),
        )

    def _how_to_go_on(self) -> str:
        if self.run.step == 0:  # nothing has been learned that could have gone wrong
            return values_too_large(self.train_split.batch(self._batch_indices()))
        last = self.folder.checkpoint("last")
        return f"Start a new run with {steadier(self.options)}; the last good state is in {last}."

    @torch.no_grad()
    def _evaluate(self) -> None:
        """The honest bound on the validation split, float32 and with the same noise every time, selects the model."""
        better = False
        self.model.eval()
        with self.average.applied(), fixed_noise():
            if len(self.data.valid):
                better = self.run.judge(self._validate(), warm=self.run.step >= self.warmup)
                if better and self.fabric.is_global_zero:
                    self._write_weights(applied=True)
            self._draw()
        self.model.train()
        if better:
            self._save("best")
        self.read_at = time.monotonic()

    def _validate(self) -> float:
        means = mean_rows(self.fabric, self.raw, self.data.valid)
        if not means.isfinite().all():
            raise self._not_finite("validation bound is not", means)
        bound = means[self.selects].item()
        bits, (error, also) = self.unit.bits_per_dim(bound), self._squared_error()
        more = {"bits_per_dim": bits, "squared_error": error}
        self._write("valid", means.tolist(), {name: value for name, value in more.items() if value is not None})
        self._tell("valid", bound, also)
        return bound

    def _squared_error(self) -> tuple[float | None, str]:
        """Of reconstructions, summed over an example in the data's units; and that of an entry in words."""
        if self.log is None or "bound" not in self.rows:
            return None, ""
        if (found := mean_squared_error(self.model, self.data.valid)) is None:
            return None, ""
        summed, per_entry, n = found.tolist()
        what = "of the variance" if self.data.spec.scale else "per entry"
        some = f" of {n:.0f} examples" if n < len(self.data.valid) else ""
        return summed, f", squared error {per_entry:.3g} {what}{some}"

    def _tell(self, split: Literal["train", "valid"], bound: float, also: str = "") -> None:
        full, brief = self.unit.told(bound), self.unit.told(bound, brief=True)
        self.bar.reading(split, full + also, brief + also, brief, last=self.run.step == self.steps)

    def _tell_lately(self) -> None:
        """The training bound since the last reading, of this process's share, where it is time for a word."""
        if self.bar.due:
            sums = torch.stack(self.run.window).double().sum(0)
            means = dict(zip(self.rows, (sums[:-1] / sums[-1]).tolist(), strict=True))
            if not (warming := self._warming):
                self._tell("train", means[self.rows[self.selects]])
            else:  # the bound charges all of a KL that is not held down yet
                unit = dataclasses.replace(self.unit, what="reconstruction")
                told = [unit.told(means["reconstruction"], brief=brief) for brief in (False, True)]
                self.bar.reading("train", *(f"{each}, {warming}" for each in told), told[1])

    @property
    def _warming(self) -> str:
        """What still rises, and to which share of its value it has; empty where nothing does."""
        what = (
            self.model.recipe.training_objective.warming if self.model.recipe and "reconstruction" in self.rows else ""
        )
        done = self.run.step >= self.warmup
        return "" if done or not what else f"{what} at {self._beta(self.run.step - 1):.2f}"

    def _write(self, split: str, means: list[float], more: dict[str, float]) -> None:
        if self.log is None:
            return
        self._require_folder()
        rows, offset = dict(zip(self.rows, means, strict=True)), self.unit.offset
        if offset:  # in the data's own nats; a KL has none
            rows = {name: value - offset * (name != "kl") for name, value in rows.items()}
            rows["offset"] = offset
        if self.model.prior is None:
            rows.pop("kl", None)
        self.log.write({"step": self.run.step, "epoch": self.run.step / self.per_epoch, "split": split, **rows, **more})

    def _draw(self) -> None:
        if not (self.options.pictures and self.data.spec.image and self.fabric.is_global_zero):
            return
        split = self.data.valid if len(self.data.valid) else self.data.train
        batch = split.batch(split.representative(min(8, len(split))), self.fabric.device)
        x = batch.x.to(next(self.model.parameters()).dtype)
        with silent():
            path = self.folder.samples / f"step_{self.run.step:07d}.png"
            sheets.training_picture(self.model.given(batch), x, path, self.data.spec)

    # -- state ------------------------------------------------------------------------------------------------------

    def _save(self, which: str) -> None:
        """A resumable state, never one whose loss or weights are not numbers; of one step it is written once."""
        if not self.fabric.is_global_zero:
            return
        self._require_folder()
        saved, self.saved[which] = [name for name, step in self.saved.items() if step == self.run.step], self.run.step
        if saved and which not in saved:
            checkpoint.write_again(self.folder.checkpoint(which), self.folder.checkpoint(saved[0]))
        elif not saved:
            self._write_state(self.folder.checkpoint(which))
        self.saved_at = time.monotonic()

    def _write_state(self, path: Path) -> None:
        if self.run.window:
            self._check_finite(torch.stack(self.run.window))
        scaler = self.fabric.strategy.precision.state_dict()
        save_state(path, self.model, self.average, self.optimizer, scaler, self.run)

    def _write_weights(self, applied: bool = False) -> None:
        self._require_folder()
        with contextlib.nullcontext() if applied else self.average.applied():
            checkpoint.write(self.folder.weights, checkpoint.tensors_of(self.model))

    def _require_folder(self) -> None:
        """Ends the training if its folder was moved away, in whose place another would be made."""
        if self.lock is not None:
            self.lock.check()
