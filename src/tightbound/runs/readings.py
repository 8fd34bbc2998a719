"""What is read back from a run's files of numbers, which a kill, a disk or a stranger may have damaged."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint
from ..errors import CheckpointError, reading

__all__ = ["is_diagnosis", "is_evaluation", "number", "per_example", "recorded"]

MOST_HEAD = 2**16
"""Bytes of a file of one tensor beside its numbers."""

_LARGEST = sys.float_info.max


def number(values: dict[str, Any], name: str) -> float | None:
    """A finite number under a name, or None if there is none.

    Example:
        >>> number({"bound": -3}, "bound"), number({"bound": "a"}, "bound"), number({}, "bound")
        (-3.0, None, None)
    """
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        return None
    return float(value)


def _is_number(value: Any) -> bool:
    return number({"": value}, "") is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_estimate(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"value", "standard_error"}:
        return False
    return number(value, "value") is not None and _optional(_is_number)(value["standard_error"])


def _list_of(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def _optional(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or kind(value)


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


def _holding(parts: dict[str, Callable[[Any], bool]]) -> Callable[[Any], bool]:
    """Whether a value is a JSON object with just these names, and what they shall hold."""
    return lambda value: (
        isinstance(value, dict) and value.keys() == parts.keys() and all(parts[name](value[name]) for name in parts)
    )


_QUALITY = _holding(
    {
        "samples": _is_estimate,
        "reconstructions": _optional(_is_estimate),
        "uniform": _optional(_is_estimate),
        "data": _is_estimate,
        "accuracy": _optional(_is_estimate),
        "n": _is_count,
        "split": lambda value: value in ("train", "valid", "test"),
        "notes": _list_of(lambda note: isinstance(note, str)),
    }
)
_NOISE = _holding(
    {"std": _is_number, "error": _is_number, "data_std": _is_number, "fixed": lambda value: isinstance(value, bool)}
)
_EVALUATION: dict[str, Callable[[Any], bool]] = {
    "elbo": _optional(_is_estimate),
    "reconstruction": _is_estimate,
    "kl": _optional(_is_estimate),
    "nll": _optional(_is_estimate),
    "bits_per_dim": _optional(_is_estimate),
    "prediction": _optional(_is_estimate),
    "uniform_bits_per_dim": _optional(_is_estimate),
    "codebook_usage": _optional(_is_number),
    "perplexity": _optional(_is_number),
    "relaxation_gap": _optional(_is_estimate),
    "squared_error": _optional(_is_estimate),
    "sample_quality": _optional(_QUALITY),
    "method": lambda value: value in ("auto", "importance", "prior", "annealed"),
    "k": _is_count,
    "n": _is_count,
    "split": lambda value: value in ("train", "valid", "test"),
    "effective_sample_size": _optional(_is_number),
    "pareto_k": _optional(_is_number),
    "unreliable": _optional(_is_number),
    "trusted": lambda value: value is None or isinstance(value, bool),
    "active_units": _is_count,
    "kl_per_dimension": _optional(_list_of(_is_number)),
    "kl_is_analytic": lambda value: value is None or isinstance(value, bool),
    "measure": lambda value: value in ("mass", "bound", "density", "none"),
    "notes": lambda value: bool(value) and _list_of(lambda note: isinstance(note, str))(value),
}
"""What a sound ``evaluation.json`` holds under each name."""
_ADDED: dict[str, Callable[[Any], bool]] = {
    "headline": lambda value: isinstance(value, str),
    "proposals": _optional(_is_counts),
    "bidirectional_gap": _optional(_is_estimate),
    "decoder_noise": _optional(_NOISE),
}
"""What it may hold besides: an older version's does not."""


_DIAGNOSIS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("verdict", "cause", "remedy"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("reconstruction", "kl", "mutual_information", "mutual_information_at_most"), _is_estimate),
    "decoder_use": _is_estimate,
    **dict.fromkeys(("fit", "aggregate_kl", "aggregate_kl_at_least", "gap"), _optional(_is_estimate)),
    **dict.fromkeys(("approximation_gap", "amortisation_gap", "total_correlation"), _optional(_is_estimate)),
    **dict.fromkeys(("active_units", "dimensions", "n", "fit_n", "k"), _is_count),
    "carrying": _optional(_list_of(_is_count)),
    **dict.fromkeys(("kl_per_dimension", "dimension_wise_kl"), _optional(_list_of(_is_number))),
    "information_per_position": _optional(_list_of(_is_number)),
    "split": lambda value: value in ("train", "valid", "test"),
    "measure": lambda value: value in ("mass", "bound", "density", "none"),
    "notes": _list_of(lambda note: isinstance(note, str)),
}
"""What a sound ``diagnosis.json`` holds under each name."""


def is_diagnosis(found: dict[str, Any]) -> bool:
    """Whether it holds what ``diagnosis.json`` shall."""
    return found.get("n", 0) != 0 and all(name in found and holds(found[name]) for name, holds in _DIAGNOSIS.items())


def is_evaluation(found: dict[str, Any]) -> bool:
    """Whether it holds what ``evaluation.json`` shall."""
    added = all(holds(found[name]) for name, holds in _ADDED.items() if name in found)
    return added and all(name in found and holds(found[name]) for name, holds in _EVALUATION.items())


def per_example(path: Path, found: dict[str, Any]) -> Tensor | None:
    """The negative log-likelihood of each example, nats, float64 ``(n,)``, of which an evaluation tells the mean.

    Args:
        path: What was kept beside ``evaluation.json``.
        found: A sound ``evaluation.json``.

    Returns:
        None where the file is damaged, or of another evaluation.
    """
    try:
        checkpoint.check_file(path, 8 * found["n"] + MOST_HEAD)
        if checkpoint.stored_shapes(path) != {"nll": [found["n"]]}:
            return None
        kept = checkpoint.read(path)
    except CheckpointError:
        return None
    nlls = kept.get("nll")
    if kept.get("weights") != found["weights"] or found["nll"] is None or not isinstance(nlls, Tensor):
        return None
    if nlls.dtype != torch.float64 or nlls.shape != (found["n"],):
        return None
    same = math.isclose(nlls.mean().item(), found["nll"]["value"], rel_tol=1e-9, abs_tol=1e-9)
    return nlls if same else None


def recorded(line: str) -> dict[str, Any] | None:
    """What a line of ``metrics.jsonl`` says, if it tells its step and split."""
    with suppress(CheckpointError), reading("a line", CheckpointError):
        found = json.loads(line)
        whole = isinstance(found, dict) and _is_count(found.get("step")) and isinstance(found.get("split"), str)
        return found if whole else None
    return None  # the last line of a run that was killed while writing it, or a damaged one
