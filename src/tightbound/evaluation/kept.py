"""Results stored in a run folder: ``evaluation.json`` and ``diagnosis.json``.

A file holds one result, written as a spec, and the digest of its weights; results of other weights are ignored. Files
of older versions are read as far as possible.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import checkpoint
from ..errors import CheckpointError, UnknownName, reading
from ..runs import RunFolder
from ..runtime.files import writing
from ..spec import from_json, registered, to_json
from .collapse.diagnosis import Diagnosis
from .results import Evaluation

__all__ = ["as_json", "damaged", "read_diagnosis", "read_evaluation", "write_diagnosis", "write_evaluation"]

MOST_HEAD = 2**16
"""Overhead of a file with one tensor, in bytes."""

R = TypeVar("R", bound=Evaluation | Diagnosis)


def write_evaluation(folder: RunFolder, found: Evaluation, weights: str) -> None:
    """Writes ``evaluation.json``, and the likelihood of each example into ``evaluation.safetensors``.

    Args:
        folder: The run.
        found: The evaluation on the complete test split of the run's own data. If it has a number that is not finite,
            which JSON cannot represent, the file is removed.
        weights: The digest of the evaluated weights: ``loaded_weights`` of the model.

    Raises:
        CheckpointError: If the run has other weights now, or none, or the file cannot be written.
    """
    folder.require_weights(weights)
    nlls = found.nll_per_example
    try:
        checkpoint.write_json(folder.evaluation, as_json(found) | {"weights": weights})
    except ValueError:
        folder.evaluation.unlink(missing_ok=True)
        nlls = None
    if nlls is not None:
        checkpoint.write(folder.examples, {"nll": nlls, "weights": weights})
        return
    with writing(folder.examples):
        folder.examples.unlink(missing_ok=True)


def write_diagnosis(folder: RunFolder, found: Diagnosis, weights: str) -> None:
    """Writes ``diagnosis.json``.

    Args:
        folder: The run.
        found: The diagnosis on the test split of the run's own data.
        weights: The digest of the diagnosed weights.

    Raises:
        CheckpointError: As :func:`write_evaluation`.
    """
    folder.require_weights(weights)
    checkpoint.write_json(folder.diagnosis, as_json(found) | {"weights": weights})


def as_json(found: Evaluation | Diagnosis) -> dict[str, Any]:
    """The JSON printed by the commands; for an evaluation with its headline."""
    return ({"headline": found.headline} if isinstance(found, Evaluation) else {}) | to_json(found)


def read_evaluation(folder: RunFolder) -> Evaluation | None:
    """The stored evaluation; None if missing, damaged, or of other weights than the current ones."""
    found = _of_these_weights(folder, folder.evaluation, Evaluation)
    return found and dataclasses.replace(found, nll_per_example=_read_nlls(folder, found))


def read_diagnosis(folder: RunFolder) -> Diagnosis | None:
    """The stored diagnosis; None as for :func:`read_evaluation`."""
    return _of_these_weights(folder, folder.diagnosis, Diagnosis)


def damaged(folder: RunFolder) -> list[str]:
    """Names of stored result files that exist but cannot be read."""
    kinds = ((folder.evaluation, Evaluation), (folder.diagnosis, Diagnosis))
    return [path.name for path, kind in kinds if path.is_file() and _read(path, kind) is None]


def _of_these_weights(folder: RunFolder, path: Path, kind: type[R]) -> R | None:
    if not (path.is_file() and folder.weights.is_file()) or (found := _read(path, kind)) is None:
        return None
    return found[0] if found[1] == folder.digest() else None


def _read(path: Path, kind: type[R]) -> tuple[R, str] | None:
    """The result in a file and the digest of its weights, also of older versions; None if damaged."""
    try:
        values = checkpoint.read_json(path)
        with reading(path, CheckpointError):
            older = {"kind": next(iter(registered(kind))), "version": 1}
            return from_json(older | values, kind), str(values.get("weights", ""))
    except (CheckpointError, UnknownName):
        return None


def _read_nlls(folder: RunFolder, found: Evaluation) -> Tensor | None:
    """The negative log-likelihood of each example, nats, float64 ``(n,)``, whose mean is in an evaluation.

    None if the file is missing, damaged, or of another evaluation.
    """
    try:
        checkpoint.require_file(folder.examples, 8 * found.n + MOST_HEAD)
        if checkpoint.stored_shapes(folder.examples) != {"nll": [found.n]}:
            return None
        kept = checkpoint.read(folder.examples)
        same_weights = kept.get("weights") == folder.digest()
    except CheckpointError:
        return None
    nlls = kept.get("nll")
    if not same_weights or found.nll is None or not isinstance(nlls, Tensor):
        return None
    if nlls.dtype != torch.float64 or nlls.shape != (found.n,):
        return None
    return nlls if math.isclose(nlls.mean().item(), found.nll.value, rel_tol=1e-9, abs_tol=1e-9) else None
