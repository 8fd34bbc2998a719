"""Captions of images from ``metadata.jsonl`` or ``metadata.csv``, in the format of the Hugging Face Hub.

Convention: a line or row names an image in ``file_name``, relative to the folder of the metadata, with its caption in
``text`` or ``caption``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...errors import DataError, reading
from ..observed import few
from .files import FileTree

__all__ = ["METADATA", "captions_of"]

METADATA = ("metadata.jsonl", "metadata.csv")
KEYS = ("text", "caption")
"""Keys of a caption, in order of preference."""
SOUND = 'lines such as {"file_name": "image.png", "text": "a caption"}, or a .csv with the columns file_name and text'

Record = Mapping[str, Any]


def captions_of(tree: FileTree, images: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The caption of every image, empty if there is no metadata; and notes.

    Raises:
        DataError: If the metadata cannot be read, names files that are missing, or leaves images without a caption.
    """
    found: dict[str, str] = {}
    notes: list[str] = []
    for name in tree.sizes:
        if name.rpartition("/")[2] in METADATA:
            captions, more = _read(tree, name)
            twice = [image for image in captions if image in found]
            _one_caption(tree, name, twice)
            found |= captions
            notes += more
    if found and (without := [image for image in images if image not in found]):
        raise DataError(
            f"{tree.path}: {len(without)} images have no caption.",
            got=f"no caption of {few(without)}",
            expected=f"a caption of every image in {METADATA[0]} or {METADATA[1]}",
            remedy="Add the captions, or remove the images.",
        )
    return found, notes


def _one_caption(tree: FileTree, metadata: str, twice: list[str]) -> None:
    if twice:
        raise DataError(
            f"{tree.path / metadata} repeats captions of another file.",
            got=few(twice),
            expected="one caption of every image",
            remedy="Remove one of the files.",
        )


def _read(tree: FileTree, metadata: str) -> tuple[dict[str, str], list[str]]:
    """The captions in one file, and notes on problems."""
    folder, path = metadata.rpartition("/")[0], tree.path / metadata
    with reading(path, expected="UTF-8 text", remedy="Save it as UTF-8."):
        text = tree.read(metadata).decode("utf-8-sig")
    records = _rows(path, text) if metadata.endswith(".csv") else _lines(path, text)
    captions: dict[str, str] = {}
    keys: dict[str, None] = {}
    again: list[str] = []
    for where, record in records:
        image = _image(tree, where, folder, record)
        keys |= dict.fromkeys(record)
        if (caption := _caption(where, record)) is not None:
            again += [image] if image in captions else []
            captions[image] = caption
    return captions, list(_notes(metadata, list(keys), captions, again))


def _notes(metadata: str, keys: list[str], captions: Mapping[str, str], again: list[str]) -> Iterator[str]:
    if keys and not captions:
        yield f"{metadata} has no captions: its keys are {', '.join(keys)}; a caption is under {' or '.join(KEYS)}."
    if captions and set(KEYS) <= set(keys):
        yield f"{metadata} has both {' and '.join(KEYS)}: {KEYS[0]} is preferred."
    if again:
        yield f"{metadata} has several captions for some images; the last is used: {few(again)}."


def _image(tree: FileTree, where: str, folder: str, record: Record) -> str:
    """The file name in a record."""
    name = record.get("file_name")
    if not isinstance(name, str):
        raise DataError(
            f"{where}, is malformed: it has no file name.", got=f"keys {', '.join(record)}", expected=SOUND,
            remedy="Put the name of the image under file_name.",
        )  # fmt: skip
    image = "/".join(part for part in (folder, name.removeprefix("./")) if part)
    if image not in tree.sizes:
        raise DataError(
            f"{where}, names a file that is missing.",
            got=name,
            expected="the path of an image, relative to the metadata",
            remedy="Add the file or remove the line.",
        )
    return image


def _caption(where: str, record: Record) -> str | None:
    caption = next((record[key] for key in KEYS if record.get(key) is not None), None)
    if caption is not None and not isinstance(caption, str):
        raise DataError(f"{where}, is malformed: its caption is not a text.", got=caption, expected=SOUND)
    return caption


def _lines(path: object, text: str) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            with reading(f"{where}, is malformed:", expected=SOUND, remedy="Correct the line or remove it."):
                record = json.loads(line)
            if not isinstance(record, dict):
                raise DataError(f"{where}, is malformed: it is not an object.", got=line[:80], expected=SOUND)
            yield where, record


def _rows(path: object, text: str) -> Iterator[tuple[str, Record]]:
    with reading(path, expected=SOUND, remedy="Save the table again as .csv, separated by commas."):
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    for number, row in enumerate(rows, start=2):
        yield f"{path}, row {number}", {key: value for key, value in row.items() if isinstance(key, str)}
