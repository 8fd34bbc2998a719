"""Tables of numbers, ``.csv``, ``.tsv`` and ``.parquet``: a row is an example, a column a feature, one the classes.

A text is read line by line into blocks of bounded size: nothing of it is guessed, and nothing is left out. The first
line names the columns; commas, semicolons or tabs separate them, whichever the first line has most of.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import DataError, UnknownName, UsageError, reading
from .arrays import checked_values
from .labels import MOST_CLASSES, as_words
from .raw import Part, Raw
from .store import memory_limit

__all__ = ["TABLES", "read_table"]

TABLES = (".csv", ".tsv", ".parquet")
"""Endings of what is read here."""
MOST_LINE = 2**26
"""Characters of the longest line that is read."""
MOST_COLUMNS = 2**16
"""A table with more is taken for one whose rows are its columns."""
BLOCK = 2**20
"""Numbers that are gathered before they become an array."""
MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-")
LARGEST = float(np.finfo(np.float32).max)

Block = npt.NDArray[np.float64]


def read_table(path: Path, label: str = "") -> Raw:
    """The rows of a table as vectors of continuous numbers.

    Args:
        path: The table.
        label: The column that holds the classes, numbers or words; empty: all columns are numbers that a model sees.

    Raises:
        DataError: If it is no table of numbers: the line and the column are named.
        UnknownName: If it has no column of that name.
        UsageError: If it is a Parquet table and pyarrow is not installed.
    """
    read = _parquet if path.suffix.lower() == ".parquet" else _text
    with reading(path, expected="a table of numbers", remedy="Export the table again, as a .csv in UTF-8."):
        names, blocks, classes = read(path, label)
    values = checked_values(np.concatenate(blocks) if blocks else np.zeros((0, 0)), None, path.name)
    if len(values) == 0 or not names:
        raise DataError(
            f"{path} has no numbers for a model to see.",
            got=f"{len(values)} rows, {len(names)} columns{f' beside {label!r}' if label else ''}",
            expected="a row for each example, a column for each feature",
        )
    numbers, names_of_classes, notes = (None, (), ()) if not label else _classes(classes, label)
    columns = f"{len(names)} column{'s' * (len(names) != 1)} of continuous numbers"
    told = f"A table of {len(values):,} rows and {columns}."
    return Raw(path.stem, {"train": Part(values, numbers)}, None, names_of_classes, (told, *notes))


def _classes(words: Sequence[str], label: str) -> tuple[npt.NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    """Numbers in the order of their size, other words in the order of the alphabet."""
    found = set(words)
    if whole := all(_is_whole(word) for word in found):
        words = [str(int(float(word))) for word in words]
    elif all(_number(word) is not None for word in found):
        _refuse_measurements(label, found)
    names = sorted(set(words), key=int) if whole else sorted(found)
    numbers, classes, (told,) = as_words({"train": np.array(words)}, tuple(names))
    return numbers["train"], classes, (told.replace("Labels are words", f"Labels are those of column {label!r}"),)


def _refuse_measurements(label: str, found: set[str]) -> NoReturn:
    raise DataError(
        f"The column {label!r} holds measurements, not classes.",
        got=f"{len(found):,} different numbers, such as {_short(min(found))}",
        expected="words or whole numbers",
        remedy="Leave --label out: the column is then a number that the model sees like the others.",
    )


# -- text -------------------------------------------------------------------------------------------------------------


def _text(path: Path, label: str) -> tuple[list[str], list[Block], list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline(MOST_LINE)
        separator = _separator(first)
        file.seek(0)
        rows = csv.reader(_lines(path, file), delimiter=separator, strict=True)
        names = _header(path, next(rows, []), separator)
        place = _place(path, names, label)
        kept = [name for i, name in enumerate(names) if i != place]
        return kept, *_body(path, rows, names, place)


def _body(path: Path, rows: Any, names: list[str], place: int | None) -> tuple[list[Block], list[str]]:
    room = _Room(path)
    classes, flat, empty = list[str](), list[float](), 0
    for row in rows:
        line = rows.line_num
        if not row:
            empty = empty or line
            continue
        if empty:
            raise DataError(f"{path} has an empty line.", got=f"line {empty}", remedy="Delete the line.")
        if len(row) != len(names):
            _refuse_ragged(path, line, len(row), len(names))
        if place is not None:
            classes.append(_class(path, line, names[place], row.pop(place)))
            if len(classes) % BLOCK == 0:
                room.check_classes(classes)
        try:
            flat.extend(map(float, row))
        except ValueError:
            _refuse_entry(path, line, names, place, row)
        if not all(-LARGEST <= value <= LARGEST for value in flat[-len(row) :]) or any("_" in text for text in row):
            _refuse_entry(path, line, names, place, row)
        if len(flat) >= BLOCK:
            room.add(flat, len(row))
            flat = list[float]()
    room.add(flat, len(names) - (place is not None))
    return room.blocks, classes


class _Room:
    """The blocks that have been read, as long as they fit in memory.

    Args:
        path: The table.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.blocks = path, list[Block]()

    def add(self, flat: list[float], columns: int) -> None:
        if flat:
            self.append(np.array(flat).reshape(-1, columns))

    def append(self, block: Block) -> None:
        self.blocks.append(block)
        size, limit = sum(block.nbytes for block in self.blocks), memory_limit()
        if 2 * size > limit:  # they are joined at the end
            raise DataError(
                f"{self.path} is too large for a table.",
                got=f"more than {size:,} bytes of numbers",
                expected=f"at most half of {limit:,}, which one array may take",
                remedy="Save it as an .npy, which is read from the disk bit by bit; or set TIGHTBOUND_MEMORY_LIMIT.",
            )

    def check_classes(self, classes: list[str]) -> None:
        if len(set(classes)) > MOST_CLASSES:
            raise DataError(f"{self.path} has too many classes.", expected=f"at most {MOST_CLASSES:,}")


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    number = 0
    while line := file.readline(MOST_LINE):
        number += 1
        if len(line) == MOST_LINE:
            raise DataError(
                f"{path} has a line that no table has.",
                got=f"line {number}, longer than {MOST_LINE:,} characters",
                remedy="Is it a text file with a row on each line?",
            )
        yield line


def _separator(first: str) -> str:
    counts = Counter(first)
    return max(",;\t", key=lambda character: counts[character])


def _header(path: Path, names: list[str], separator: str) -> list[str]:
    names = [name.strip() for name in names]
    remedy = None
    if not names:
        problem, got = "is empty", "no first line"
    elif len(names) > MOST_COLUMNS:
        problem, got = "has too many columns", f"{len(names):,}"
        remedy = "If its columns are the examples, transpose it; else save it as an .npy."
    elif all(_number(name) is not None for name in names):
        problem, got = "has no line that names its columns", f"numbers in line 1: {_short(separator.join(names))}"
        remedy = f"Write a first line such as a{separator}b{separator}c; or save the numbers as an .npy."
    elif "" in names:
        problem, got = "has a column without a name", f"column {names.index('') + 1} of line 1"
        remedy = "If it numbers the rows, leave it out (pandas: to_csv(..., index=False)); else name it."
    elif repeated := [name for name, count in Counter(names).items() if count > 1]:
        problem, got = "names two columns alike", f"{_short(repeated[0])} in line 1"
    else:
        return names
    expected = f"a first line with at most {MOST_COLUMNS:,} different names"
    raise DataError(f"{path} {problem}.", got=got, expected=expected, remedy=remedy)


def _place(path: Path, names: list[str], label: str) -> int | None:
    if not label:
        return None
    if label not in names:
        raise UnknownName(f"column of {path.name}", label, names[:50])
    return names.index(label)


def _class(path: Path, line: int, name: str, text: str) -> str:
    if text.strip().lower() in MISSING:
        raise DataError(
            f"{path} lacks a label.", got=f"{_short(text)} in line {line}, column {name!r}", remedy="Drop the row."
        )
    return text.strip()


def _refuse_ragged(path: Path, line: int, got: int, expected: int) -> NoReturn:
    raise DataError(
        f"{path} has rows of different lengths.",
        got=f"{got} field{'s' * (got != 1)} in line {line}",
        expected=f"{expected}, as line 1 names",
        remedy="Quote texts that hold the separator, and give every row a field for every column.",
    )


def _refuse_entry(path: Path, line: int, names: list[str], place: int | None, row: list[str]) -> NoReturn:
    """Names the first field of a row that is no number."""
    kept = [name for i, name in enumerate(names) if i != place]
    name, text = next((name, text) for name, text in zip(kept, row, strict=True) if _number(text) is None)
    missing = text.strip().lower() in MISSING
    remedy = f"If the column is the class of each row: --label {_short(name)}. Else drop it, or turn it into numbers."
    if _number(text.strip().replace(",", ".")) is not None:
        remedy = "Write decimals with a point."
    raise DataError(
        f"{path} lacks a number." if missing else f"{path} holds what is no number.",
        got=f"{'nothing' if not text.strip() else _short(text)} in line {line}, column {name!r}",
        expected="finite numbers",
        remedy="Fill in or drop the rows that have gaps." if missing else remedy,
    )


def _number(text: str) -> float | None:
    """The finite number that a text is, if float32 can hold it."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST and "_" not in text else None


def _is_whole(text: str) -> bool:
    value = _number(text)
    return value is not None and value == math.floor(value)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


# -- Parquet ----------------------------------------------------------------------------------------------------------


def _parquet(path: Path, label: str) -> tuple[list[str], list[Block], list[str]]:
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError(
            "Parquet tables are read by pyarrow, which is not installed.",
            got=path,
            remedy="pip install 'tightbound[tables]', or export the table as a .csv.",
        ) from None
    with parquet.ParquetFile(path) as table:
        names = [str(name) for name in table.schema_arrow.names]
        if len(names) > MOST_COLUMNS:
            _header(path, names, ",")
        place, room, classes = _place(path, names, label), _Room(path), list[str]()
        row = 0
        for batch in table.iter_batches(batch_size=max(1, BLOCK // max(1, len(names)))):
            columns = list[Block]()
            for i, name in enumerate(names):
                if i == place:
                    classes += [_class(path, row + j, name, str(v)) for j, v in enumerate(batch.column(i).to_pylist())]
                else:
                    columns.append(_numbers(path, row, name, batch.column(i)))
            if columns:
                room.append(np.stack(columns, 1))
            row += batch.num_rows
    return [name for i, name in enumerate(names) if i != place], room.blocks, classes


def _numbers(path: Path, row: int, name: str, column: Any) -> Block:
    """A run of rows of a column, from row ``row`` on."""
    values = np.asarray(column.to_numpy(zero_copy_only=False))
    numeric = values.dtype.kind in "buif"
    bad = ~(np.abs(values.astype(np.float64)) <= LARGEST) if numeric else np.ones(len(values), np.bool_)
    if bad.any():
        first = int(bad.argmax())
        missing = column.is_null()[first].as_py()
        raise DataError(
            f"{path} {'lacks a number' if missing else 'holds what is no number'}.",
            got=f"{'nothing' if missing else _short(str(values[first]))} in row {row + first}, column {name!r}",
            expected="finite numbers",
            remedy="Fill in or drop the rows that have gaps."
            if missing
            else f"If the column is the class of each row: --label {_short(name)}. Else drop it.",
        )
    return values.astype(np.float64)
