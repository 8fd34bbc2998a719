"""A folder of images, or an archive of one: splits and classes from its sub-folders, captions from its metadata.

Convention::

    [train/ valid/ test/]  [class/ ...]  image.png      splits and classes are optional
    [train/ valid/ test/]  metadata.jsonl               {"file_name": "image.png", "text": "a caption"} per line

Sub-folders of the top are splits if all are named so and one is ``train`` (``val`` and ``validation`` are ``valid``).
Below, the first sub-folder is the class, if every image is in one and there are two or more. Names are sorted, so the
order of the file system does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, reading
from .decode import decode_images
from .files import KEPT_TOPS, FileTree, open_tree
from .images import SUFFIXES
from .options import DataOptions
from .raw import Part, Raw

__all__ = ["read_folder"]

METADATA = "metadata.jsonl"
RECORD = 'an object such as {"file_name": "image.png", "text": "a caption"}'


def read_folder(path: Path, options: DataOptions) -> Raw:
    """The images under a folder or in a ``.tar`` or ``.zip``, at 256 levels.

    Args:
        path: The folder or archive.
        options: Size and colours of the images.

    Raises:
        DataError: If there are no images, one cannot be read, their sizes differ, or the metadata does not fit.
    """
    tree = open_tree(path)
    names = [name for name in tree.sizes if name.lower().endswith(SUFFIXES)]
    if not names:
        raise _no_images(tree)
    splits, depth = _by_split(names)
    captions = _captions(tree, splits)
    labels, classes = _labels(splits, depth)
    values = decode_images(tree, names, image_size=options.image_size, color=options.color)
    rows = {name: row for row, name in enumerate(names)}
    parts: dict[str, Part] = {}
    for split, files in splits.items():
        numbers = np.array([labels[name] for name in files]) if classes else None
        texts = tuple(captions[name] for name in files) if captions else None
        whole = len(splits) == 1
        mine = None if whole else np.array([rows[name] for name in files])
        parts[split] = Part(values, numbers, texts, rows=mine, names=tuple(tree.stem + name for name in files))
    return Raw(path.resolve().name.partition(".")[0] or str(path), parts, 256, classes)


def _no_images(tree: FileTree) -> DataError:
    others = [name for name in tree.sizes if not name.endswith(METADATA)]
    return DataError(
        f"{tree.path} holds no images.",
        got=f"{len(others)} other files, such as {others[0]}" if others else "no files",
        expected=f"files ending in {', '.join(SUFFIXES)}, in it or in its sub-folders",
        remedy="Check the path, or convert the images to one of these formats.",
    )


def _by_split(names: Sequence[str]) -> tuple[dict[str, list[str]], int]:
    """The images of each split, and how many leading folders of a name say so."""
    tops = {name.partition("/")[0] for name in names}
    if "train" not in tops or not tops <= KEPT_TOPS or not all("/" in name for name in names):
        return {"train": list(names)}, 0
    splits: dict[str, list[str]] = {}
    for name in names:
        top = name.partition("/")[0]
        splits.setdefault("valid" if top.startswith("val") else top, []).append(name)
    return splits, 1


def _labels(splits: Mapping[str, Sequence[str]], depth: int) -> tuple[dict[str, int], tuple[str, ...]]:
    """The class number of every image, and the names of the classes; both empty if there are none."""
    parts = {name: name.split("/")[depth:] for files in splits.values() for name in files}
    classes = tuple(sorted({path[0] for path in parts.values() if len(path) > 1}))
    if len(classes) < 2 or any(len(path) < 2 for path in parts.values()):
        return {}, ()
    numbers = {name: number for number, name in enumerate(classes)}
    return {name: numbers[path[0]] for name, path in parts.items()}, classes


def _captions(tree: FileTree, splits: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The text of every image; empty if no metadata has one."""
    captions: dict[str, str] = {}
    for name in tree.sizes:
        if name.rpartition("/")[2] == METADATA:
            captions |= _captions_of(tree, name)
    if captions:
        images = (image for files in splits.values() for image in files)
        if without := [image for image in images if image not in captions]:
            raise DataError(
                f"{tree.path}: {len(without)} images have no caption.",
                got=f"no line for {without[0]}",
                expected=f"a line in {METADATA} for every image",
                remedy="Add the lines, or remove the images.",
            )
    return captions


def _captions_of(tree: FileTree, metadata: str) -> dict[str, str]:
    folder = metadata.removesuffix(METADATA)
    captions: dict[str, str] = {}
    for number, line in enumerate(_text(tree, metadata).split("\n"), start=1):
        if not line.strip():
            continue
        record = _record(f"{tree.path / metadata}, line {number}", line)
        image = folder + record["file_name"].removeprefix("./")
        if image not in tree.sizes:
            raise DataError(
                f"{tree.path / metadata}, line {number}, names a file that is missing.",
                got=record["file_name"],
                expected="the path of an image, relative to the metadata",
                remedy="Add the file or remove the line.",
            )
        if "text" in record:
            captions[image] = record["text"]
    return captions


def _text(tree: FileTree, name: str) -> str:
    with reading(tree.path / name, expected="a text in UTF-8", remedy="Save it as UTF-8."):
        return tree.read(name).decode("utf-8-sig")


def _record(where: str, line: str) -> dict[str, Any]:
    with reading(where, expected=RECORD, remedy="Correct the line or remove it."):
        record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("file_name"), str):
        raise _malformed(where, line[:80])
    if not isinstance(record.get("text", ""), str):
        raise _malformed(where, line[:80])
    return record


def _malformed(where: str, got: str) -> DataError:
    return DataError(
        f"{where}, is malformed.",
        got=got,
        expected=RECORD,
        remedy="Correct the line or remove it.",
    )
