"""What a case is given and gives back: how long to measure, and lines of a table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from process import Result, median_of, median_ratio

__all__ = ["UNITS", "Plan", "Row", "at_least"]

UNITS = {
    "examples_per_second": "examples/s",
    "points_times_k_per_second": "points·k/s",
    "vectors_per_second": "vectors/s",
    "codes_per_second": "codes/s",
    "steps_per_second": "steps/s",
}
"""The rates that contenders report, and what the table calls them."""


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    examples: int
    epochs: int
    rounds: int
    images: int
    turns: int
    """How often contenders that share a process take turns in it."""
    grids: tuple[int, ...]
    """The batches, in grids of codes, that are drawn; the largest is also quantised to see its memory."""
    threads: int
    weights: Path
    """A folder for the weights that the contenders share."""


@dataclass(frozen=True)
class Row:
    """One line of a table; ``value`` is a median and ``ratio`` compares ours with it, round by round."""

    what: str
    value: float
    unit: str
    ratio: float | None = None
    target: str = ""
    met: bool | None = None

    def json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def at_least(what: str, results: dict[str, list[Result]], ours: str, key: str, least: float | None = None) -> Row:
    """A contender's speed, and how many times as fast ours is, which shall be ``least`` times."""
    value = median_of(results[what], key)
    if what == ours:
        return Row(what, value, UNITS[key])
    ratio = median_ratio(results[ours], results[what], key)
    target = "" if least is None else f"≥ {least:.3g}"
    return Row(what, value, UNITS[key], ratio, target, None if least is None else ratio >= least)
