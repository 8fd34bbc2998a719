"""The training engine: batches in parts, on a device, over processes, and optimiser steps.

A step takes one batch of the epoch's order, in ``processes * accumulate`` parts; the loss is the negative objective in
nats, averaged over the batch's examples, however they are distributed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import Split
from ..errors import CheckpointError, reading
from ..options.training import TrainingOptions
from ..runtime.modes import evaluating
from ..runtime.randomness import epoch_order, fixed_noise, reseed
from .clock import Clock
from .device import launch
from .ema import MovingAverage
from .optimizer import memory_layout, optimizer_of
from .skipping import Outcome, Skipping
from .state import Progress, restore_state, save_state
from .steps.base import Step

__all__ = ["Engine"]


class Engine:
    """A training step with its optimiser, on this process's device; ``clock`` is at its start.

    Args:
        step: The computation of a step.
        train: The training split.
        options: The training options.

    Raises:
        UsageError: If the device is not available.
    """

    def __init__(self, step: Step, train: Split, options: TrainingOptions) -> None:
        self.fabric = launch(options)
        self.device = self.fabric.device
        self.step, self.model, self.options = step, step.model, options
        self.train, self.clock = train.to(self.device), Clock(options, len(train))
        self.layout = memory_layout(self.model, self.device)
        if self.layout is torch.channels_last:
            self.model.to(memory_format=self.layout)  # pyright: ignore[reportCallIssue]
        self.groups = step.groups(options)
        module = step.compiled() if options.compile else step
        self.module, self.optimizer = self.fabric.setup(module, optimizer_of(self.groups, options, self.device))
        self.skipping = Skipping(self.fabric, step, self.groups, options)
        self.learning = self.skipping.learning
        self.average = MovingAverage(self.model, step.ema(options))
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def first(self) -> bool:
        """Whether this is the first of the processes."""
        return self.fabric.is_global_zero

    @property
    def parts(self) -> int:
        """Number of parts of a batch."""
        return self.fabric.world_size * self.options.accumulate

    @property
    def precision(self) -> str:
        """The precision of the networks."""
        return self.fabric.strategy.precision.precision

    def started(self) -> None:
        """Starts the weight average, after the model is initialised."""
        self.average = MovingAverage(self.model, self.step.ema(self.options))

    def prepare_compiling(self) -> None:
        """Runs the step once as it is, without gradients or a trace, if it will be compiled.

        torch looks up the function of a KL at its first call, which cannot be compiled: the graph would break there.
        """
        if not self.options.compile:
            return
        with torch.no_grad(), fixed_noise(), evaluating(self.step):
            x, c = self.step.see(self.train.batch(torch.arange(1), self.device))
            self.step(x, torch.ones((), device=self.device), c)

    # -- a step -----------------------------------------------------------------------------------------------------

    def advance(self, clock: Clock) -> tuple[Tensor, Outcome]:
        """Runs one step, unless it is to be skipped.

        Returns:
            For this process's parts, the sums of the rows and the number of examples, all 0 if the step was skipped for
            a loss that is not finite; and what became of the step.
        """
        self._set(clock)
        self.skipping.remember()
        beta = torch.full((), clock.beta, device=self.device)
        batch, accumulate = self.batch_of(clock), self.options.accumulate
        sums = torch.zeros(len(self.step.rows) + 1, device=self.device)
        for i in range(accumulate):
            part = i * self.fabric.world_size + self.fabric.global_rank
            reseed(self.device, self.options.seed, clock.step, part)
            sums += self._part(batch, part, beta, more=i < accumulate - 1)
        outcome = self._move(sums)
        if outcome.skipped:
            self.skipping.take_back()
        else:
            self.average.update(clock.step)
        return (torch.zeros_like(sums) if outcome.lost else sums), outcome

    def batch_of(self, clock: Clock) -> Tensor:
        """The examples of a step."""
        if self._order[0] != clock.epoch:
            self._order = clock.epoch, epoch_order(self.options.seed, clock.epoch, len(self.train))
        size = self.options.batch_size
        return self._order[1][clock.position * size : (clock.position + 1) * size]

    def _set(self, clock: Clock) -> None:
        for group, own in zip(self.optimizer.param_groups, self.groups, strict=True):
            group["lr"] = clock.lr * own.share
        self.step.before_step(clock)

    def _part(self, batch: Tensor, number: int, beta: Tensor, *, more: bool) -> Tensor:
        """Gradients of one part of a batch, the sums of its rows and its size: all parts add up to the batch."""
        share = batch[number :: self.parts]
        weight = 1.0 if len(share) else 0.0  # an empty part uses the first example, with weight 0
        examples = self.train.batch(share if len(share) else batch[:1], self.device)
        x, c = examples.x, self.model.conditions(examples)
        x = x.contiguous(memory_format=self.layout) if x.dim() == 4 else x
        with self.fabric.no_backward_sync(self.module, enabled=more):
            with ExitStack() as stack:
                for part in self.learning:
                    place = part.part_of_batch(number=number, of=self.parts, more=more, empty=not len(share))
                    stack.enter_context(place)
                rows = self.module(x, beta, c)
            loss = -rows[0].sum() * (weight * self.fabric.world_size / len(batch))
            self.fabric.backward(loss)
        return torch.cat([rows.detach().sum(1), rows.new_tensor([rows.shape[1]])]) * weight

    def _move(self, sums: Tensor) -> Outcome:
        """The optimiser step with the gradients of all parts, or none if it is skipped."""
        limited = [(group.parameters, norm) for group in self.groups if (norm := group.clip_norm) is not None]
        if limited or self.skipping.active:
            self.fabric.strategy.precision.unscale_gradients(self.optimizer.optimizer)
        outcome = self.skipping.decide(sums)
        if outcome.skipped:
            self.optimizer.zero_grad()  # without gradients nothing moves but the scale of 16-bit losses
        else:
            self._prepare(limited)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return outcome

    def _prepare(self, limited: Sequence[tuple[Sequence[nn.Parameter], float]]) -> None:
        for parameters, norm in limited:
            nn.utils.clip_grad_norm_(parameters, norm, error_if_nonfinite=False)
        for part in self.learning:
            part.before_step(self.optimizer)

    # -- state ------------------------------------------------------------------------------------------------------

    def save(self, path: Path, progress: Progress) -> None:
        """Writes a resumable state.

        Raises:
            TrainingError, CheckpointError: As :func:`~tightbound.training.state.save_state`.
        """
        scaler = self.fabric.strategy.precision.state_dict()
        save_state(path, self.step, self.average, self.optimizer, scaler, progress)

    def restore(self, path: Path, progress: Progress) -> None:
        """Restores a state that :meth:`save` wrote, and its progress.

        Raises:
            CheckpointError: If it cannot be read, or is not of this run.
        """
        scaler = restore_state(path, self.step, self.average, self.optimizer, progress)
        with reading(path, CheckpointError, expected="the scale of a gradient's losses"):
            self.fabric.strategy.precision.load_state_dict(scaler)
        if any(len(sums) != len(self.step.rows) + 1 for sums in progress.window):  # of a version with other rows
            progress.window = []
