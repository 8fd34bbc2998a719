"""Captions beside images, and broken images among whole ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_helpers import grey, image_bytes, make_tar, make_zip, refused, write_files
from tightbound.data import Data, load_data
from tightbound.errors import DataError

N = 12


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGHTBOUND_CACHE", str(tmp_path / "cache"))


def lines(key: str, numbers: Sequence[int] = range(N)) -> bytes:
    return "".join(json.dumps({"file_name": f"{i}.png", key: f"grey, {i}"}) + "\n" for i in numbers).encode()


def table(key: str, numbers: Sequence[int] = range(N)) -> bytes:
    rows = [f'{i}.png,x,"grey, {i}"\r\n' for i in numbers]
    return ("\ufeff" + f"file_name,group,{key}\r\n" + "".join(rows)).encode()


def pictures(numbers: Sequence[int] = range(N), top: str = "") -> dict[str, bytes]:
    return {f"{top}{i}.png": grey(20 * i) for i in numbers}


def told(data: Data) -> bool:
    """Whether every picture has its own caption."""
    splits = (data.train, data.valid, data.test)
    return all(
        split.captions == tuple(f"grey, {int(value) // 20}" for value in split.values[:, 0, 0, 0]) for split in splits
    )


@pytest.mark.parametrize("key", ["text", "caption"])
@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
@pytest.mark.parametrize(("name", "content"), [("metadata.jsonl", lines), ("metadata.csv", table)])
@pytest.mark.parametrize("top", ["", "scans/"])
def test_captions_of_either_key_in_either_file(
    top: str, name: str, content: object, kind: str, key: str, tmp_path: Path
) -> None:
    metadata = lines(key) if name.endswith("jsonl") else table(key)
    files = pictures(top=top) | {f"{top}{name}": metadata}
    make = {"folder": write_files, "tar": make_tar, "zip": make_zip}[kind]
    data = load_data(make(tmp_path / f"f.{kind}", files))
    assert data.spec.captioned
    assert told(data)
    assert data.said == ()


def test_captions_of_splits_each_in_its_folder(tmp_path: Path) -> None:
    files = pictures(range(6), "train/") | {"train/metadata.jsonl": lines("caption", range(6))}
    files |= pictures(range(6, 9), "test/") | {"test/metadata.csv": table("text", range(6, 9))}
    data = load_data(write_files(tmp_path / "f", files))
    assert (len(data.train) + len(data.valid), len(data.test)) == (6, 3)
    assert told(data)


def test_the_keys_of_metadata_without_captions_are_told(tmp_path: Path) -> None:
    data = load_data(write_files(tmp_path / "f", pictures() | {"metadata.csv": table("prompt")}))
    assert not data.spec.captioned
    assert data.said == (
        "metadata.csv has no captions: its keys are file_name, group, prompt; a caption is under text or caption.",
    )


def test_what_is_chosen_among_captions_is_told(tmp_path: Path) -> None:
    both = b'{"file_name": "0.png", "text": "grey, 0", "caption": "other"}\n{"file_name": "1.png", "text": "x"}\n'
    files = pictures() | {"metadata.jsonl": both + lines("caption", range(1, N))}
    data = load_data(write_files(tmp_path / "f", files))
    assert told(data)
    assert data.said == (
        "metadata.jsonl has both text and caption: text is preferred.",
        "metadata.jsonl has several captions for some images; the last is used: 1.png.",
    )


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({"metadata.csv": b"name,text\n0.png,a\n"}, ["row 2", "has no file name", "keys name, text", "file_name"]),
        ({"metadata.csv": b"file_name;text\n0.png;a\n"}, ["row 2", "keys file_name;text"]),
        ({"metadata.csv": b'file_name,text\n0.png,"a'}, ["metadata.csv", "cannot be read", "separated by commas"]),
        ({"metadata.csv": b"file_name,text\n99.png,a\n"}, ["row 2", "missing", "99.png"]),
        ({"metadata.csv": b"file_name,text\n0.png,a\n"}, ["11 images have no caption", "1.png"]),
        ({"metadata.csv": table("text"), "metadata.jsonl": lines("text")}, ["of another file", "0.png"]),
        ({"metadata.jsonl": b'{"file_name": "0.png", "text": ' + b"1" * 5000 + b"}"}, ["line 1", "malformed"]),
        ({"metadata.jsonl": b"[" * 100_000}, ["line 1", "malformed"]),
    ],
)
def test_metadata_that_is_refused(files: dict[str, bytes], parts: list[str], tmp_path: Path) -> None:
    with refused(DataError, *parts):
        load_data(write_files(tmp_path / "f", pictures() | files))


def broken(kind: str) -> bytes:
    content = image_bytes(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8), kind)
    return content[: len(content) // 2]


@pytest.mark.parametrize("options", [{}, {"image_size": 8, "color": "rgb"}], ids=["as-is", "resized"])
@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_all_broken_files_are_named_at_once(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Those whose head is broken and those whose end is missing, without the objects of Python."""
    files = pictures() | {"h.jpg": b"<!DOCTYPE html><html>404</html>", "e.jpg": b"", "t.jpg": broken("jpeg")}
    files |= {"p.png": broken("png"), "b.gif": b"\x00\x01\x02", "c.png": grey(1).replace(b"IDAT", b"IDXT")}
    make = {"folder": write_files, "tar": make_tar, "zip": make_zip}[kind]
    names = [
        "b.gif: ",
        "e.jpg: an empty file",
        "h.jpg: not an image: it begins with <!DOCTYPE html>",
        "p.png: ",
        "t.jpg: ",
    ]
    with refused(DataError, "6 of 18 images cannot be read", *names, "Remove these files") as caught:
        load_data(make(tmp_path / f"f.{kind}", files), **options)
    for python in ("<_io", "object at", "0x", "\\x", "b'", "Syntax", "struct"):
        assert python not in str(caught.value)


def test_the_first_ten_of_many_broken_files(tmp_path: Path) -> None:
    files = pictures() | {f"x{i:02}.jpg": b"" for i in range(25)}
    with refused(DataError, "25 of 37 images", "x00.jpg", "x09.jpg", "and 15 more") as caught:
        load_data(write_files(tmp_path / "f", files))
    assert "x10.jpg" not in str(caught.value)


def test_one_broken_file_is_named_with_its_path(tmp_path: Path) -> None:
    with refused(DataError, str(tmp_path / "f" / "e.jpg"), "an empty file", "Remove the file"):
        load_data(write_files(tmp_path / "f", pictures() | {"e.jpg": b""}))
