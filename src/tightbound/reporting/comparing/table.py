"""A comparison as rows of text: the runs, their numbers, and the differences."""

from __future__ import annotations

from ...evaluation import Estimate
from ...evaluation.numbers import rows
from ...spec import flag, typed
from .comparison import Comparison, Difference

__all__ = ["about", "differences", "numbers"]

Line = tuple[str, list[str]]
"""What a line is called, and a cell for each run."""

MISSING = "–"
COMPARED = {"NLL [nats]": ("nll", 2), "ELBO [nats]": ("elbo", 2), "squared error": ("squared_error", 3)}
"""Quantities with paired differences: title, name and digits."""
_BOUND = "the NLL of one is a bound, so their difference has no error"


def about(found: Comparison) -> list[Line]:
    """Description of each run, and the options that differ."""
    lines = [
        ("recipe", [run.recipe for run in found.runs]),
        ("data", [run.data for run in found.runs]),
        ("training steps", [f"{run.steps:,}" for run in found.runs]),
        ("parameters", [f"{run.parameters:,}" for run in found.runs]),
    ]
    options = dict.fromkeys(name for run in found.runs for name in run.options)
    return lines + [(flag(name), [typed(run.options.get(name, MISSING)) for run in found.runs]) for name in options]


def numbers(found: Comparison) -> list[Line]:
    """The results; numbers of different kinds are on separate lines."""
    each: list[dict[str, str]] = []
    for run in found.runs:
        told = rows(run.found, units=f"{run.test.spec.units}, squared")
        each.append({_title(row.words, row.unit): row.text for row in told if row.number.section != "samples"})
    names = dict.fromkeys(name for numbers in each for name in numbers)
    return [(name, [numbers.get(name, MISSING) for numbers in each]) for name in names]


def _title(words: str, unit: str) -> str:
    return f"{words} [{unit.replace(' per example', '')}]" if unit.startswith("nats") else words


def differences(found: Comparison) -> list[list[str]]:
    """A header, and a line of paired differences of the first run from each other run, with notes."""
    lines = [_line(found, place) for place in range(1, len(found.runs))]
    return [["", *COMPARED, "notes"], *lines]


def _line(found: Comparison, place: int) -> list[str]:
    first, other, difference = found.runs[0], found.runs[place], found.differences[place - 1]
    bound = first.found.doubtful or other.found.doubtful
    cells = [_cell(difference, name, digits, bound) for name, digits in COMPARED.values()]
    reasons = (difference.reason, _BOUND if bound and difference.nll is not None else "")
    return [f"{first.label} − {other.label}", *cells, "; ".join(filter(None, reasons))]


def _cell(difference: Difference, name: str, digits: int, bound: bool) -> str:
    value: Estimate | None = getattr(difference, name)
    if value is None:
        return MISSING
    return (value.bare if bound and name == "nll" else value).text(digits)
