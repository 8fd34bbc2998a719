"""Tables of numbers: what is read, and what is refused by its line and column."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_helpers import refused
from tightbound.data import Data, load_data
from tightbound.errors import DataError, UnknownName, UsageError


def written(folder: Path, text: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def stored(data: Data) -> Any:
    """All examples as they are stored, in the order of their first column."""
    values = torch.cat([data.train.values, data.valid.values, data.test.values]).double().numpy()  # pyright: ignore
    return values[values[:, 0].argsort()]


ROWS = [(i, i / 8, i % 3) for i in range(40)]


@pytest.mark.parametrize(
    ("separator", "name", "form", "encoding", "end"),
    [
        (",", "a.csv", "{}", "utf-8", "\n"),
        (",", "a.CSV", '"{}"', "utf-8", "\n"),
        (";", "a.csv", "{}", "utf-8", "\n"),
        ("\t", "a.tsv", " {} ", "utf-8", "\n"),
        (",", "a.csv", "{}", "utf-8-sig", "\r\n"),
    ],
    ids=["plain", "quoted", "semicolons", "tabs", "byte order mark"],
)
def test_every_way_to_write_the_same_table(
    tmp_path: Path, separator: str, name: str, form: str, encoding: str, end: str
) -> None:
    lines = [separator.join(form.format(entry) for entry in row) for row in [("x", "y", "z"), *ROWS]]
    data = load_data(written(tmp_path, end.join([*lines, "", ""]), name, encoding))
    np.testing.assert_array_equal(stored(data), ROWS)
    assert data.spec.levels is None
    assert "A table of 40 rows and 3 columns" in data.said[0]


def test_a_column_of_words_is_the_label_and_no_feature(tmp_path: Path) -> None:
    text = "x,kind,size\n" + "\n".join(f"{i},{'cab'[i % 3]},{10 - i % 2}" for i in range(30))
    data = load_data(written(tmp_path, text), label="kind")
    assert data.spec.classes == ("a", "b", "c")
    assert data.spec.shape == (2,)
    for split in (data.train, data.valid, data.test):
        assert split.labels is not None
        numbers = torch.as_tensor(split.values)[:, 0].long()
        assert split.labels.tolist() == [(2, 0, 1)[i % 3] for i in numbers.tolist()]


def test_whole_numbers_as_labels_stand_in_their_order(tmp_path: Path) -> None:
    path = written(tmp_path, "x,y\n" + "\n".join(f"{i},{(2, 10, 1)[i % 3]}" for i in range(30)))
    assert load_data(path, label="y").spec.classes == ("1", "2", "10")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is empty"]),
        ("a,b\n", ["0 rows, 2 columns"]),
        ("1,2\n3,4\n", ["names its columns", "line 1", "'1,2'"]),
        (",a\n0,1\n", ["column 1 of line 1", "index=False"]),
        ("a,a\n0,1\n", ["'a' in line 1"]),
        ("a,b\n1,2\n3\n", ["1 field in line 3", "2, as line 1"]),
        ("a,b\n1,2\n3,4,5\n", ["3 fields in line 3"]),
        ("a,b\n1,2\n3,red\n", ["'red' in line 3, column 'b'", "--label 'b'"]),
        ("a,b\n1,2\n,3\n", ["nothing in line 3, column 'a'", "rows with missing values"]),
        ("a,b\n1,2\nNaN,3\n", ["'NaN' in line 3, column 'a'", "rows with missing values"]),
        ("a,b\n1,2\n3,inf\n", ["'inf' in line 3, column 'b'", "float32"]),
        ("a,b\n1,2\n3,1e39\n", ["'1e39' in line 3, column 'b'", "float32"]),
        ("a,b\n1," + "9" * 5000 + "\n", ["999...' in line 2, column 'b'", "float32"]),
        ("a,b\n1,1_000\n", ["'1_000' in line 2, column 'b'"]),
        ('a,b\n1,2\n"1,000",3\n', ["'1,000' in line 3, column 'a'", "thousands"]),
        ("a;b\n1,5;2\n", ["'1,5' in line 2, column 'a'", "point"]),
        ("a,b\n1,2\n\n3,4\n", ["empty line", "line 3"]),
        ('a,b\n1,"2\n3,4\n', ["beyond line 3", "quote"]),
        ('a,b\n1,"2\n' + "3,4\n" * 50_000, ["field limit", "quote"]),
        ("a,b\n1,\0\n", ["line 2, column 'b'"]),
    ],
)
def test_a_bad_table_is_refused_by_line_and_column(tmp_path: Path, text: str, parts: list[str]) -> None:
    with refused(DataError, "table.csv", *parts):
        load_data(written(tmp_path, text))


def test_other_encodings_and_binary_files_are_no_table(tmp_path: Path) -> None:
    with refused(DataError, "UTF-8"):
        load_data(written(tmp_path, "a,b\n1,2\n", encoding="utf-16"))
    (tmp_path / "image.csv").write_bytes(bytes(range(256)) * 10)
    with refused(DataError, "UTF-8"):
        load_data(tmp_path / "image.csv")


def test_too_wide_too_long_and_too_large_tables_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightbound.data.sources.tables.MOST_COLUMNS", 100)
    with refused(DataError, "101", "transpose"):
        load_data(written(tmp_path, ",".join(f"c{i}" for i in range(101)) + "\n"))
    monkeypatch.setattr("tightbound.data.sources.tables.MOST_LINE", 1000)
    with refused(DataError, "line 2, longer than 1,000 characters"):
        load_data(written(tmp_path, "a,b\n" + "1" * 2000))
    monkeypatch.setattr("tightbound.data.sources.tables.BLOCK", 10)
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "1000")
    with refused(DataError, "too large for a table", ".npy"):
        load_data(written(tmp_path, "a,b\n" + "1,2\n" * 100))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x,y\n1,0.5\n2,0.25\n", ["measurements", "2 different numbers", "Leave --label out"]),
        ("x,y\n1,a\n2,\n", ["lacks a label", "nothing in line 3, column 'y'"]),
        ("x,y\n1," + "a" * 300 + "\n", ["too long for a class", "line 2"]),
        ("y\na\nb\n", ["2 rows, 0 columns beside 'y'"]),
    ],
)
def test_a_bad_label_is_refused(tmp_path: Path, text: str, parts: list[str]) -> None:
    with refused(DataError, *parts):
        load_data(written(tmp_path, text), label="y")


def test_too_many_classes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightbound.data.sources.tables.MOST_CLASSES", 3)
    with refused(DataError, "more than 3 classes", "'d' in line 5"):
        load_data(written(tmp_path, "x,y\n1,a\n2,b\n3,c\n4,d\n"), label="y")


def test_a_label_must_be_a_column_of_a_table(tmp_path: Path) -> None:
    with refused(UnknownName, "kinds", "'kind'"):
        load_data(written(tmp_path, "x,kind\n1,2\n"), label="kinds")
    with refused(UsageError, "needs a table", "'digits'"):
        load_data("digits", label="kind")
    with refused(UsageError, "needs a table"):
        Data.from_arrays(np.zeros((20, 4)), label="kind")


def test_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with refused(UsageError, "pyarrow", "pip install 'tightbound[tables]'"):
        load_data(written(tmp_path, "PAR1", "table.parquet"))


def test_parquet_tables_are_read_and_refused_like_texts(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.parquet"

    def save(**columns: Any) -> None:
        parquet.write_table(arrow.table(columns), path)

    kinds = ["b", "a"] * 20
    save(x=[float(i) for i in range(40)], n=list(range(40)), kind=kinds)
    data = load_data(path, label="kind")
    assert data.spec.shape == (2,)
    assert data.spec.classes == ("a", "b")
    np.testing.assert_array_equal(stored(data), [(i, i) for i in range(40)])
    with refused(DataError, "'b' in row 1, column 'kind'", "--label 'kind'"):
        load_data(path)
    save(x=[1.0, None, 3.0], y=[1.0, 2.0, 3.0])
    with refused(DataError, "a missing value", "nothing in row 2, column 'x'"):
        load_data(path)
    save(x=[1.0, 2.0], y=["a", None])
    with refused(DataError, "lacks a label", "row 2, column 'y'"):
        load_data(path, label="y")
    path.write_bytes(path.read_bytes()[:-20])
    with refused(DataError, "cannot be read"):
        load_data(path)
