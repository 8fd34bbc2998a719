"""Reads numbers from a run's files, which may be damaged."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

from ..errors import CheckpointError, reading

__all__ = ["number", "recorded"]

_LARGEST = sys.float_info.max


def number(values: dict[str, Any], name: str) -> float | None:
    """The finite number under a name, or None.

    Example:
        >>> number({"bound": -3}, "bound"), number({"bound": "a"}, "bound"), number({}, "bound")
        (-3.0, None, None)
    """
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        return None
    return float(value)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def recorded(line: str) -> dict[str, Any] | None:
    """The record in a line of ``metrics.jsonl``, if it has a step and a split."""
    with suppress(CheckpointError), reading("a line", CheckpointError):
        found = json.loads(line)
        whole = isinstance(found, dict) and _is_count(found.get("step")) and isinstance(found.get("split"), str)
        return found if whole else None
    return None  # the last line of a run that was killed while writing it, or a damaged one
