"""The progress of a run, and its storage."""

from __future__ import annotations

import dataclasses
import inspect
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import checkpoint
from ..errors import CheckpointError, TrainingError, UsageError, reading
from ..runs import RunConfig
from ..spec import Json, to_json
from .ema import MovingAverage
from .skipping import Outcome
from .steps.base import Step

__all__ = ["Progress", "TrainingResult", "require_same_run", "restore_state", "save_state"]

_FREE = ("save_every", "tensorboard", "pictures", "device", "accumulate")
"""Options that do not change the result; accumulation times processes is checked separately."""


@dataclass
class Progress:
    """The state of a run besides weights and optimiser.

    Args:
        parts: Number of parts of a batch: processes times accumulated parts.
        step: Steps done.
        best: Best validation bound so far, nats per example.
        stale: Evaluations since then, not counting warm-up.
        window: Sums of the rows and number of examples of each step since the last record.
        best_step: The step of the best bound; None before, or in a run of an old version.
        skipped: Steps skipped.
        in_a_row: Of them, those since the last that was made.
        norm: Largest finite norm of a gradient since the last record; 0 unless steps may be skipped.

    Example:
        >>> progress = Progress(parts=1)
        >>> [progress.judge(bound, warm=True) for bound in (-3.0, -4.0, -2.0)], progress.best
        ([True, False, True], -2.0)
    """

    parts: int
    step: int = 0
    best: float | None = None
    stale: int = 0
    window: list[Tensor] = field(default_factory=list)
    best_step: int | None = None
    skipped: int = 0
    in_a_row: int = 0
    norm: float = 0.0

    def count(self, outcome: Outcome) -> None:
        """Counts a step that is done, or skipped."""
        self.step += 1
        self.skipped += outcome.skipped
        self.in_a_row = self.in_a_row + 1 if outcome.skipped else 0
        self.norm = max(self.norm, outcome.norm)

    def judge(self, bound: float, warm: bool, *, keeps_last: bool = False) -> bool:
        """Records a validation bound, and returns whether it is the best; ``warm`` is whether warm-up is over.

        With ``keeps_last`` the last is the best.
        """
        better = self.best is None or bound > self.best or keeps_last
        if better:
            self.best, self.best_step, self.stale = bound, self.step, 0
        elif warm:
            self.stale += 1
        return better


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Args:
        out: The run folder.
        step: Steps done.
        steps: Steps of the run.
        best_bound: Best validation bound (of a prior's fit: log p(z)), nats per example; None without a validation
            split.
        stopped: ``"done"``, ``"early"`` for early stopping, or the name of the signal that interrupted it.
        best_bits_per_dim: The same in bits per dimension, if it is a probability of discrete data or a bound on it.
        best_step: The step at which it was reached.
        best_in_words: The best bound as text, in the unit printed in training.
        skipped: Steps that were skipped.
    """

    out: Path
    step: int
    steps: int
    best_bound: float | None
    stopped: str
    best_bits_per_dim: float | None = None
    best_step: int | None = None
    best_in_words: str = ""
    skipped: int = 0


def save_state(
    path: Path, step: Step, average: MovingAverage, optimizer: Optimizer, scaler: dict[str, Any], run: Progress
) -> None:
    """Writes a resumable state, never one with weights that are not finite.

    Raises:
        TrainingError: If the weights are no longer finite; the previous file is then kept.
        CheckpointError: If it cannot be written; likewise.
    """
    weights, own = checkpoint.tensors_of(step.model), step.own_tensors
    if lost := [name for name, t in {**weights, **own}.items() if t.is_floating_point() and not t.isfinite().all()]:
        raise TrainingError(
            f"The weights are no longer finite at step {run.step}.",
            got=", ".join(lost[:5]),
            expected="finite weights",
            remedy=f"Start a new run with a lower --lr; the last good state is in {path}.",
        )
    tensors = {"model": weights, "step": own, "average": average.tensors}
    rest = {"optimizer": optimizer.state_dict(), "scaler": scaler, "progress": dict(vars(run))}
    checkpoint.write(path, tensors | rest)


def restore_state(
    path: Path, step: Step, average: MovingAverage, optimizer: Optimizer, run: Progress
) -> dict[str, Any]:
    """Loads what :func:`save_state` wrote into the parts of a run, and returns the state of the scaler.

    Raises:
        CheckpointError: If there is no such file, it is damaged, or it is not a state of this run.
    """
    state = {"step": {}, **_read(path)}  # an old version's step had no tensors of its own
    if set(state) != {"step", "model", "average", "optimizer", "scaler", "progress"}:
        raise CheckpointError(f"{path} is not a resumable state.", got=f"it holds {', '.join(list(state)[:5])}")
    kept = _progress(path, state["progress"])
    if kept.parts != run.parts:
        raise CheckpointError(
            "The run was started with another number of parts per batch, which changes the noise.",
            got=f"{run.parts} (processes x --accumulate)",
            expected=kept.parts,
            remedy="Resume with the same product of processes and accumulated parts.",
        )
    moments = _moments(path, state["optimizer"], optimizer)
    _check(path, "average", checkpoint.misfits(average.tensors, state["average"]))
    _check(path, "training step", checkpoint.misfits(step.own_tensors, state["step"]))
    checkpoint.load_into(step.model, state["model"], path)
    for name, tensor in step.own_tensors.items():
        tensor.copy_(state["step"][name])
    device = step.model.device
    average.tensors = {name: t.to(device) for name, t in state["average"].items()}
    optimizer.load_state_dict({"state": moments, "param_groups": _groups(path, state["optimizer"], optimizer)})
    _lay_out_like_parameters(optimizer)
    vars(run).update(vars(kept) | {"window": [t.to(device) for t in kept.window]})
    with reading(path, CheckpointError, remedy=_REMEDY):
        return dict(state["scaler"])


_REMEDY = "Try --resume-from best, or train again."


def _check(path: Path, part: str, misfit: str) -> None:
    if misfit:
        raise CheckpointError(f"The {part} in {path} is damaged.", got=misfit, remedy=_REMEDY)


def _progress(path: Path, found: dict[str, Any]) -> Progress:
    """The progress of the run, with checked types."""
    with reading(path, CheckpointError, expected="how far the run has got", remedy=_REMEDY):
        kept = Progress(**found)
        counts = (kept.parts, kept.step, kept.stale, kept.best_step or 0, kept.skipped, kept.in_a_row)
        best, norm = kept.best, kept.norm
        sound = all(type(count) is int and 0 <= count < 2**53 for count in counts)
        sound &= best is None or (isinstance(best, float) and math.isfinite(best))
        sound &= isinstance(norm, float) and math.isfinite(norm)
        sound &= isinstance(kept.window, list) and all(isinstance(t, Tensor) and t.dim() == 1 for t in kept.window)
        _check(path, "progress", "" if sound else "fields of other types")
        return kept


def _moments(path: Path, found: dict[str, Any], optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """The optimiser's state of each parameter, in its shape or as one number."""
    with reading(path, CheckpointError, expected="an optimiser's state", remedy=_REMEDY):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        names = _remembered(optimizer)
        for number, entries in found["state"].items():
            if type(number) is not int or not 0 <= number < len(parameters) or set(entries) != names:
                _check(path, "optimiser", f"{', '.join(map(str, entries))} of parameter {number}")
            shapes = ((), parameters[number].shape)
            sizes = {name: tuple(t.shape) for name, t in entries.items()}
            _check(path, "optimiser", "" if all(size in shapes for size in sizes.values()) else str(sizes))
        return found["state"]


def _groups(path: Path, found: dict[str, Any], optimizer: Optimizer) -> list[dict[str, Any]]:
    """The optimiser's groups with their learning rate; the rest follows from the run's options."""
    groups = optimizer.state_dict()["param_groups"]
    with reading(path, CheckpointError, expected="an optimiser's learning rate", remedy=_REMEDY):
        for group, kept in zip(groups, found["param_groups"], strict=True):
            group["lr"] = float(kept["lr"])
    return groups


def _remembered(optimizer: Optimizer) -> set[str]:
    """The entries of the optimiser's state of a parameter, from a step of a copy."""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    rule = getattr(optimizer, "optimizer", optimizer)  # Fabric's wrapper, or the rule itself
    known = inspect.signature(type(rule)).parameters
    twin = type(rule)([parameter], **{name: value for name, value in rule.defaults.items() if name in known})
    twin.step()
    return set(twin.state[parameter])


def _read(path: Path) -> dict[str, Any]:
    other = path.with_stem("best" if path.stem == "last" else "last")
    remedy = (
        f"Try --resume-from {other.stem}." if other.is_file() else "There is no other: train again with another --out."
    )
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.", remedy=remedy)
    try:
        return checkpoint.read(path)
    except CheckpointError as error:
        raise CheckpointError(error.message, got=error.got, expected=error.expected, remedy=remedy) from None


def _lay_out_like_parameters(optimizer: Optimizer) -> None:
    """Gives an optimiser's tensors the strides of their parameters, as fused steps require."""
    for parameter, tensors in optimizer.state.items():
        for name, value in tensors.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                tensors[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def require_same_run(old: RunConfig, new: RunConfig) -> None:
    """A resumed run must be the same run; only options that cannot change the result may differ.

    Raises:
        UsageError: If it differs, with the differences.
    """
    free = {name: getattr(old.training, name) for name in _FREE}
    new = dataclasses.replace(new, training=dataclasses.replace(new.training, **free), tightbound=old.tightbound)
    if old == new:
        return
    was, now = to_json(old), to_json(new)
    different = [f"{part}: {_difference(_flat(was[part]), _flat(now[part]))}" for part in was if was[part] != now[part]]
    raise UsageError(
        "The options or the data differ from those of the run to resume.",
        got="; ".join(different),
        remedy="Keep them as they were, or start a new run with another --out.",
    )


def _flat(value: Json, name: str = "") -> dict[str, Json]:
    """The entries of nested objects under dotted names; other values under their own."""
    if not isinstance(value, dict):
        return {name: value}
    parts = (_flat(inner, f"{name}.{key}" if name else key) for key, inner in value.items())
    return {key: inner for part in parts for key, inner in part.items()}


def _difference(was: dict[str, Json], now: dict[str, Json]) -> str:
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return ", ".join(f"{name} {_brief(now.get(name))} (was {_brief(was.get(name))})".strip() for name in names)


def _brief(value: Json) -> str:
    told = repr(value)
    return told if len(told) <= 100 else f"{told[:100]}..."
