"""The numbers that are reported: the type of a result's field says what it is called and how it is written.

The class body of a result is thus the one table of its numbers. The terminal, the report and the comparison of runs
print the rows of a result, and none of them knows a number by name: a new one is a field here and the place that
computes it.

Convention: in words, units and meanings ``{name}`` stands for a fact that the result or its reader tells, such as the
units of the data.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from .estimate import Estimate

__all__ = ["Fact", "Number", "Row", "listed", "numbers_of", "rows"]


Fact = str | int | None
"""What words are filled with; a number may be written after it: "2 of 16"."""


@dataclass(frozen=True)
class Number:
    """How a number is written.

    Args:
        words: What it is called.
        section: Which part of a table it belongs to.
        meaning: What it is, for a reader.
        unit: Its unit.
        digits: Behind the point.
        percent: Whether it is a share.
        of: Name of the fact that it is out of.
        bounded: Whether it is the likelihood, which may be known as a bound only.
        shown: Name of the property that is printed in the field's place.
    """

    words: str
    section: str
    meaning: str = ""
    unit: str = ""
    digits: int = 2
    percent: bool = False
    of: str = ""
    bounded: bool = False
    shown: str = ""


Value = Estimate | float | tuple[float, ...]
"""What is written: of a tuple how many it has."""


class Result(Protocol):
    """What has numbers to report."""

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What words, units and meanings are filled with."""
        ...


@dataclass(frozen=True)
class Row:
    """A number as it is printed.

    Args:
        name: Of the field.
        number: What it is.
        value: In digits.
        error: Its standard error in digits; empty where there is none.
        words: What it is called here.
        unit: Its unit here.
        meaning: What it is here.
    """

    name: str
    number: Number
    value: str
    error: str
    words: str
    unit: str
    meaning: str

    @property
    def text(self) -> str:
        """Value and error in one."""
        return " ± ".join(filter(None, (self.value, self.error)))


@cache
def numbers_of(result: type[Any]) -> dict[str, Number | None]:
    """The fields of a kind of result, and of those that are reported how they are written."""
    hints = typing.get_type_hints(result, include_extras=True)
    told = {f.name: getattr(hints[f.name], "__metadata__", ()) for f in dataclasses.fields(result)}
    return {name: next((each for each in extras if isinstance(each, Number)), None) for name, extras in told.items()}


def rows(result: Result, **facts: Fact) -> Iterator[Row]:
    """The numbers that a result has, in the order of its fields, those of results within it included.

    Args:
        result: What was found.
        **facts: More that the words are filled with, or other than the result says.

    Example:
        >>> from tightbound.evaluation import DecoderNoise
        >>> [(row.words, row.text) for row in rows(DecoderNoise(0.1, error=0.09, data_std=0.2, fixed=False))]
        [('decoder σ', '0.100')]
    """
    told = {**result.facts, **facts}
    for name, reported in numbers_of(type(result)).items():
        value = getattr(result, name if reported is None else reported.shown or name)
        if reported is not None and value is not None:
            yield _row(name, value, reported, told)
        elif dataclasses.is_dataclass(value) and not isinstance(value, Estimate):
            yield from rows(typing.cast(Result, value), **facts)


def _row(name: str, value: Value, reported: Number, facts: Mapping[str, Fact]) -> Row:
    text, error = _texts(value, reported)
    if reported.bounded and facts["bounded"]:
        text, error = f"≤ {text}", "" if facts["doubtful"] else error
    if (there := facts.get(reported.of)) is not None:
        text = f"{text} of {there:,}"
    words, unit, meaning = (each.format(**facts) for each in (reported.words, reported.unit, reported.meaning))
    return Row(name, reported, text, error, words, unit, meaning)


def _texts(value: Value, reported: Number) -> tuple[str, str]:
    if isinstance(value, Estimate):
        if reported.percent:
            return f"{value.value:.{reported.digits}%}", ""
        return value.texts(reported.digits)
    if isinstance(value, float):
        return f"{value:.{reported.digits}{'%' if reported.percent else 'f'}}", ""
    return f"{len(value) if isinstance(value, tuple) else value:,}", ""


def listed(result: type[Any], facts: Mapping[str, str]) -> str:
    """The numbers of a kind of result as a table of Markdown, for the documentation.

    Args:
        result: The kind.
        facts: What stands in the words for what a result would tell.
    """
    told = {name: each for name, each in numbers_of(result).items() if each is not None}
    cells = {name: (n.words.strip(), n.unit, n.meaning) for name, n in told.items()}
    lines = [f"| `{name}` | {' | '.join(cell.format(**facts) for cell in row)} |" for name, row in cells.items()]
    return "\n".join(["| name in JSON | number | unit | what it is |", "|---|---|---|---|", *lines])
