"""Reported numbers: the annotation of a result's field defines its label and format.

The class body of a result is thus the only table of its numbers. The terminal, the report and the comparison of runs
print the rows of a result without naming any number: a new one needs only a field and the code that computes it.

Convention: in labels, units and meanings ``{name}`` is replaced by a fact of the result or of its reader, such as the
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

__all__ = ["Fact", "Number", "Row", "by_layer", "listed", "numbers_of", "rows"]


Fact = str | int | None
"""What words are filled with; a number may be written after it: "2 of 16"."""


@dataclass(frozen=True)
class Number:
    """Label and format of a number.

    Args:
        words: Its label.
        section: Section of the table.
        meaning: A short explanation.
        unit: Its unit.
        digits: Number of decimals.
        percent: Whether to print it in percent.
        of: Name of the fact with the total count.
        bounded: Whether it is a likelihood, which may be only a bound.
        shown: Name of the property to print instead of the field.
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


Value = Estimate | float | str | tuple[float, ...]
"""The printed value; of a tuple, its length."""


class Result(Protocol):
    """A result with numbers to report."""

    @property
    def facts(self) -> Mapping[str, Fact]:
        """Values for labels, units and meanings."""
        ...


@dataclass(frozen=True)
class Row:
    """A printed number.

    Args:
        name: Name of the field.
        number: Its label and format.
        value: The value as text.
        error: Its standard error as text; empty if there is none.
        words: Its label.
        unit: Its unit.
        meaning: A short explanation.
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
    """The fields of a kind of result, with the format of reported ones."""
    hints = typing.get_type_hints(result, include_extras=True)
    told = {f.name: getattr(hints[f.name], "__metadata__", ()) for f in dataclasses.fields(result)}
    return {name: next((each for each in extras if isinstance(each, Number)), None) for name, extras in told.items()}


def rows(result: Result, **facts: Fact) -> Iterator[Row]:
    """The numbers of a result and of nested results, in the order of the fields.

    Args:
        result: The result.
        **facts: Further or overriding values for labels.

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
    if isinstance(value, str):
        return value, ""
    if isinstance(value, float):
        return f"{value:.{reported.digits}{'%' if reported.percent else 'f'}}", ""
    return f"{len(value) if isinstance(value, tuple) else value:,}", ""


def by_layer(values: Mapping[str, str], line: int = 5) -> str:
    """A value of each layer by its name, as text: of many layers a few to a line.

    Args:
        values: The values as text, from the data up.
        line: Number of layers in a line.

    Example:
        >>> by_layer({"z1": "3.21", "z2": "0.10"})
        'z1 3.21, z2 0.10'
        >>> print(by_layer({f"z{i}": f"{i}" for i in range(1, 8)}))
        z1-z5: 1 2 3 4 5
        z6-z7: 6 7
    """
    if len(values) <= line:
        return ", ".join(f"{name} {value}" for name, value in values.items())
    names = list(values)
    parts = [names[i : i + line] for i in range(0, len(names), line)]
    ends = [part[0] if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts]
    return "\n".join(f"{end}: {' '.join(values[name] for name in part)}" for end, part in zip(ends, parts, strict=True))


def listed(result: type[Any], facts: Mapping[str, str]) -> str:
    """The numbers of a kind of result as a Markdown table, for the documentation.

    Args:
        result: The kind.
        facts: Placeholders for values that a result would give.
    """
    told = {name: each for name, each in numbers_of(result).items() if each is not None}
    cells = {name: (n.words.strip(), n.unit, n.meaning) for name, n in told.items()}
    lines = [f"| `{name}` | {' | '.join(cell.format(**facts) for cell in row)} |" for name, row in cells.items()]
    return "\n".join(["| name in JSON | number | unit | what it is |", "|---|---|---|---|", *lines])
