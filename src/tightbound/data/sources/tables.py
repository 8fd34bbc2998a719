"""Tables of numbers, ``.csv``, ``.tsv`` and ``.parquet``: a row is an example, a column a feature, one the classes.

A text is read line by line into blocks of bounded size, strictly and completely. The first line names the columns; the
separator is the most frequent of comma, semicolon and tab in it.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import DataError, UnknownName, UsageError, reading
from ...options.data import DataOptions
from ..store import memory_limit
from .arrays import checked_values
from .labels import MOST_CLASSES, told_classes
from .raw import Part, Raw

__all__ = ["TABLES", "read_table", "require_table"]

TABLES = (".csv", ".tsv", ".parquet")
"""Extensions of tables."""
MOST_LINE = 2**26
"""Maximum characters in a line."""
MOST_COLUMNS = 2**16
"""Maximum number of columns; a table with more is probably transposed."""
BLOCK = 2**20
"""Numbers per block."""
MOST_CHARACTERS = 200
"""Maximum characters in the name of a class."""
GAPS = "Fill or drop rows with missing values."
MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-")
LARGEST = float(np.finfo(np.float32).max)

Block = npt.NDArray[np.float64]


def read_table(path: Path, label: str = "") -> Raw:
    """The rows of a table as vectors of continuous numbers.

    Args:
        path: The table.
        label: The column with the classes, numbers or words; empty if all columns are numbers to model.

    Raises:
        DataError: If it is not a table of numbers, naming the line and column.
        UnknownName: If it has no column of that name.
        UsageError: If it is a Parquet table and pyarrow is not installed.
    """
    read = _parquet if path.suffix.lower() == ".parquet" else _text
    with reading(path, expected="a table in UTF-8", remedy="Export the table again, as a .csv in UTF-8."):
        names, blocks, classes = read(path, label)
    values = checked_values(np.concatenate(blocks) if blocks else np.zeros((0, 0)), None, path.name)
    if len(values) == 0 or not names:
        raise DataError(
            f"{path} has no numeric columns.",
            got=f"{len(classes) or len(values)} rows, {len(names)} columns{f' beside {label!r}' if label else ''}",
            expected="a row for each example, a column for each feature",
        )
    numbers, names_of_classes, notes = (None, (), ()) if not label else _classes(classes, label)
    columns = f"{len(names)} column{'s' * (len(names) != 1)} of continuous numbers"
    told = f"A table of {len(values):,} rows and {columns}."
    return Raw(path.stem, {"train": Part(values, numbers)}, None, names_of_classes, (told, *notes))


def require_table(options: DataOptions) -> None:
    """Refuses ``label`` for data that is not a table.

    Raises:
        UsageError: If the data is not a table.
    """
    if options.label and Path(options.data).suffix.lower() not in TABLES:
        raise UsageError(
            "--label needs a table.",
            got=f"label={options.label!r} with {options.data!r}",
            expected=f"data that ends in {', '.join(TABLES)}",
            remedy="Leave --label out: folders name their classes, an .npz has them as `y`; in Python as `labels`.",
        )


def _classes(words: Sequence[str], label: str) -> tuple[npt.NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    """Sorts numbers by value, other words alphabetically."""
    found = set(words)
    whole = all(_is_whole(word) for word in found)
    if not whole and all(_number(word) is not None for word in found):
        _refuse_measurements(label, found)
    name_of = {word: str(int(float(word))) if whole else word for word in found}
    names = sorted(set(name_of.values()), key=int if whole else None)
    place = {name: i for i, name in enumerate(names)}
    numbers = np.fromiter((place[name_of[word]] for word in words), np.int64, len(words))
    return numbers, tuple(names), (f"Column {label!r} holds the labels: {told_classes(names)}.",)


def _refuse_measurements(label: str, found: set[str]) -> NoReturn:
    raise DataError(
        f"The column {label!r} holds measurements, not classes.",
        got=f"{len(found):,} different numbers, such as {_short(min(found))}",
        expected="words or integers",
        remedy="Leave --label out: the column is then modelled like the others.",
    )


# -- text -------------------------------------------------------------------------------------------------------------


def _text(path: Path, label: str) -> tuple[list[str], list[Block], list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline(MOST_LINE)
        separator = _separator(first)
        file.seek(0)
        rows = csv.reader(_lines(path, file), delimiter=separator, strict=True)
        names = _header(path, next(_rows(path, rows), (0, list[str]()))[1], separator)
        place = _place(path, names, label)
        kept = [name for i, name in enumerate(names) if i != place]
        return kept, *_body(path, rows, names, place)


class _Reader(Protocol):
    """What :func:`csv.reader` returns, whose class has no public name."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...


def _body(path: Path, reader: _Reader, names: list[str], place: int | None) -> tuple[list[Block], list[str]]:
    room, classes, flat = _Room(path), _Classes(path), list[float]()
    for line, row in _rows(path, reader):
        if len(row) != len(names):
            _refuse_ragged(path, line, len(row), len(names))
        if place is not None:
            classes.add(row.pop(place), names[place], f"line {line}")
        try:
            numbers = list(map(float, row))
        except ValueError:
            _refuse_entry(path, line, names, place, row)
        if not all(-LARGEST <= number <= LARGEST for number in numbers) or any("_" in text for text in row):
            _refuse_entry(path, line, names, place, row)
        flat += numbers
        if len(flat) >= BLOCK:
            room.add(np.array(flat).reshape(-1, len(row)))
            flat = list[float]()
    if flat:
        room.add(np.array(flat).reshape(-1, len(names) - (place is not None)))
    return room.blocks, classes.words


def _rows(path: Path, reader: _Reader) -> Iterator[tuple[int, list[str]]]:
    """Every row with the number of its last line; empty lines at the end are ignored."""
    empty = 0
    try:
        for row in reader:
            if not row:
                empty = empty or reader.line_num
            elif empty:
                raise DataError(f"{path} has an empty line.", got=f"line {empty}", remedy="Delete the line.")
            else:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read beyond line {reader.line_num}.",
            got=error,
            expected="fields with closed quotes",
            remedy="Close the quote, or export the table again.",
        ) from error


class _Room:
    """The blocks read so far, within the memory limit.

    Args:
        path: The table.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.blocks = path, list[Block]()

    def add(self, block: Block) -> None:
        self.blocks.append(block)
        size, limit = sum(block.nbytes for block in self.blocks), memory_limit()
        if 2 * size > limit:  # they are concatenated at the end
            raise DataError(
                f"{self.path} is too large for a table.",
                got=f"more than {size:,} bytes of numbers",
                expected=f"at most half of {limit:,}, which one array may take",
                remedy="Save it as an .npy, which is memory-mapped; or set TIGHTBOUND_MEMORY_LIMIT.",
            )


class _Classes:
    """The labels read so far, each word stored once.

    Args:
        path: The table.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.words, self.found = path, list[str](), dict[str, str]()

    def add(self, text: str, column: str, where: str) -> None:
        word = text.strip()
        self.words.append(self.found.setdefault(word, word))
        problem = "lacks a label" if word.lower() in MISSING else ""
        problem = "has a label that is too long for a class" if len(word) > MOST_CHARACTERS else problem
        problem = f"has more than {MOST_CLASSES:,} classes" if len(self.found) > MOST_CLASSES else problem
        if problem:
            got = f"{_short(word) if word else 'nothing'} in {where}, column {column!r}"
            raise DataError(
                f"{self.path} {problem}.",
                got=got,
                expected="a class in every row",
                remedy="Correct or drop the row, or leave --label out.",
            )


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    number = 0
    while line := file.readline(MOST_LINE):
        number += 1
        if len(line) == MOST_LINE:
            raise DataError(
                f"{path} has a line that is too long.",
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
        problem, got, remedy = (
            "has two columns with the same name",
            f"{_short(repeated[0])} in line 1",
            "Rename one of them.",
        )
    else:
        return names
    expected = f"a first line that names the columns, at most {MOST_COLUMNS:,}"
    raise DataError(f"{path} {problem}.", got=got, expected=expected, remedy=remedy)


def _place(path: Path, names: list[str], label: str) -> int | None:
    if not label:
        return None
    if label not in names:
        raise UnknownName(f"column of {path.name}", label, names[:50])
    return names.index(label)


def _refuse_ragged(path: Path, line: int, got: int, expected: int) -> NoReturn:
    raise DataError(
        f"{path} has rows of different lengths.",
        got=f"{got} field{'s' * (got != 1)} in line {line}",
        expected=f"{expected}, as line 1 names",
        remedy="Quote texts that hold the separator, and give every row a field for every column.",
    )


def _refuse_entry(path: Path, line: int, names: list[str], place: int | None, row: list[str]) -> NoReturn:
    """Raises for the first field of a row that is not a number."""
    kept = [name for i, name in enumerate(names) if i != place]
    name, text = next((name, text) for name, text in zip(kept, row, strict=True) if _number(text) is None)
    problem, remedy = (
        "has a value that is not a number",
        f"Is it the class of each row? --label {_short(name)}. Else drop it.",
    )
    if text.strip().lower() in MISSING:
        problem, remedy = "has a missing value", GAPS
    elif _number(text.replace(",", ".")) is not None:
        remedy = "Write decimals with a point, and thousands without a comma."
    elif _is_infinite(text):
        problem, remedy = (
            "has a number beyond the range of float32",
            "Drop the row, or give the column in larger units.",
        )
    raise DataError(
        f"{path} {problem}.",
        got=f"{_short(text) if text.strip() else 'nothing'} in line {line}, column {name!r}",
        expected="finite numbers",
        remedy=remedy,
    )


def _number(text: str) -> float | None:
    """The finite number in a text, if float32 can represent it."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST and "_" not in text else None


def _is_infinite(text: str) -> bool:
    try:
        return abs(float(text)) > LARGEST and "_" not in text
    except ValueError:
        return False


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
            "Parquet tables need pyarrow, which is not installed.",
            got=path,
            remedy="pip install 'tightbound[tables]', or export the table as a .csv.",
        ) from None
    with parquet.ParquetFile(path) as table:
        names = [str(name) for name in table.schema_arrow.names]
        if len(names) > MOST_COLUMNS or len(set(names)) < len(names):
            _header(path, names, ",")
        place, room, classes, row = _place(path, names, label), _Room(path), _Classes(path), 1
        for batch in table.iter_batches(batch_size=max(1, BLOCK // max(1, len(names)))):
            columns = [_numbers(path, row, names[i], batch.column(i)) for i in range(len(names)) if i != place]
            if columns:
                room.add(np.stack(columns, 1))
            for i, value in enumerate([] if place is None else batch.column(place).to_pylist()):
                classes.add("" if value is None else str(value), label, f"row {row + i}")
            row += batch.num_rows
    return [name for i, name in enumerate(names) if i != place], room.blocks, classes.words


def _numbers(path: Path, row: int, name: str, column: Any) -> Block:
    """A chunk of rows of a column, starting at row ``row``."""
    values = np.asarray(column.to_numpy(zero_copy_only=False))
    numeric = values.dtype.kind in "buif"
    bad = ~(np.abs(values.astype(np.float64)) <= LARGEST) if numeric else np.ones(len(values), np.bool_)
    if bad.any():
        first = int(bad.argmax())
        missing = column.is_null()[first].as_py()
        raise DataError(
            f"{path} {'has a missing value' if missing else 'has a value that is not a number'}.",
            got=f"{'nothing' if missing else _short(str(values[first]))} in row {row + first}, column {name!r}",
            expected="finite numbers",
            remedy=GAPS if missing else f"Is it the class of each row? --label {_short(name)}. Else drop it.",
        )
    return values.astype(np.float64)
