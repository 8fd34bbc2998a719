"""Arrays in an ``.npy`` or an ``.npz`` file; pickles are never read.

An ``.npy`` holds the examples. An ``.npz`` holds, in capital or small letters,

- ``train``, and optionally ``valid`` (``val``) and ``test``; also as ``x_train`` or ``train_images``, with labels in
  ``y_train`` or ``train_labels``; or
- one array ``x``, ``images`` or ``data`` (or the only array), with labels in ``y`` or ``labels``;

and optionally

- ``c`` or ``conditions`` (``c_train`` and so on), the condition of each example; and
- ``levels``, the number of values of an entry (0: continuous), and ``classes``, the names of the labels.
"""

from __future__ import annotations

import math
import zipfile
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ...errors import DataError, reading
from ..observed import few
from ..store import fingerprint, memory_limit, require_unpacked_size, stored
from .arrays import CHUNK_BYTES, Levels, from_arrays
from .raw import Array, Raw

__all__ = ["read_array_file"]

SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
SINGLE = ("x", "images", "data", "arr_0")
SINGLE_LABELS = ("y", "labels", "targets")
SINGLE_CONDITIONS = ("c", "conditions")


class Header(NamedTuple):
    """The header of an ``.npy``."""

    shape: tuple[int, ...]
    column_major: bool
    dtype: np.dtype[np.generic]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_array_file(path: Path) -> Raw:
    """The examples in an ``.npy`` or ``.npz``, mapped from the file or the cache when they do not fit in memory.

    Raises:
        DataError: If it is damaged, holds objects, or its arrays are invalid.
    """
    if path.suffix.lower() == ".npy":
        return from_arrays(path.stem, {"train": _read_npy(path)})
    with _reading(path), zipfile.ZipFile(path) as archive:
        members = {Path(name).stem.lower(): name for name in archive.namelist() if name.endswith(".npy")}
        wanted = _wanted(path, members)
        require_unpacked_size(path, sum(archive.getinfo(members[key]).file_size for key in wanted if key in members))
        arrays = {key: _read_member(path, archive, members[key]) for key in wanted if key in members}
    values = {split: arrays[key] for key, split in wanted.items() if split in SPLITS}
    labels = {split.removeprefix("y:"): arrays[key] for key, split in wanted.items() if split.startswith("y:")}
    given = {split.removeprefix("c:"): arrays[key] for key, split in wanted.items() if split.startswith("c:")}
    with _reading(path):
        classes = tuple(map(str, arrays["classes"].tolist())) if "classes" in arrays else ()
    levels = _levels(path, arrays.get("levels"))
    raw = from_arrays(path.stem, values, labels=labels, levels=levels, classes=classes, conditions=given or None)
    left = sorted(members.keys() - wanted.keys())
    said = (f"Ignored arrays with unknown names: {few(left)}.",) if left else ()
    return replace(raw, notes=(*raw.notes, *said))


def _wanted(path: Path, members: dict[str, str]) -> dict[str, str]:
    """The role of each array of an .npz: a split, ``y:`` or ``c:`` and a split, or its own name."""
    found: dict[str, str] = {}
    for split, words in SPLITS.items():
        for word in words:
            for key in (word, f"x_{word}", f"{word}_x", f"{word}_images", f"{word}_data"):
                found |= {key: split} if key in members and split not in found.values() else {}
            for key in (f"y_{word}", f"{word}_y", f"{word}_labels"):
                found |= {key: f"y:{split}"} if key in members else {}
            for key in (f"c_{word}", f"{word}_c", f"{word}_conditions"):
                found |= {key: f"c:{split}"} if key in members else {}
    if "train" not in found.values():
        found = {_examples(path, members): "train"} | found
    for kind, single in (("y:train", SINGLE_LABELS), ("c:train", SINGLE_CONDITIONS)):
        keys = [key for key in single if key in members]
        found |= {keys[0]: kind} if keys and kind not in found.values() else {}
    return found | {key: key for key in ("levels", "classes") if key in members}


def _examples(path: Path, members: dict[str, str]) -> str:
    """The array of examples, if none is named after the training split."""
    images = [key for key in SINGLE if key in members] or [key for key in members if len(members) == 1]
    if not images:
        raise DataError(
            f"{path} holds no array with a known name.",
            got=f"arrays {', '.join(members) or 'none'}",
            expected="train (valid, test), x_train (y_train, x_test, y_test), or x, images or data (y or labels)",
            remedy="Save it again: np.savez(file, train=..., test=...).",
        )
    return images[0]


def _levels(path: Path, levels: Array | None) -> Levels:
    if levels is None:
        return "auto"
    if levels.size != 1 or levels.dtype.kind not in "iu":
        raise DataError(f"{path}: `levels` is not a number.", got=levels, expected="one integer, 0 if continuous")
    return int(levels.item()) or None


def _read_npy(path: Path) -> Array:
    with _reading(path):
        with path.open("rb") as file:
            header = _header(path, file)
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if header.nbytes <= memory_limit():
            return np.array(mapped)
    if not header.dtype.isnative:
        raise DataError(
            f"{path} is in the byte order of another machine, and too large to convert in memory.",
            got=header.dtype.str,
            expected=header.dtype.newbyteorder("=").str,
            remedy="Save it again with array.astype(array.dtype.newbyteorder('=')).",
        )
    return mapped


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as file:
        header = _header(path, file, name.removesuffix(".npy"))
        if header.column_major or header.dtype.kind == "U" or header.nbytes <= memory_limit():
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)

        def fill(out: Array) -> None:
            rows = max(1, CHUNK_BYTES // max(1, header.nbytes // max(1, len(out))))
            for start in range(0, len(out), rows):
                part = out[start : start + rows]
                part[...] = np.frombuffer(_exactly(file, part.nbytes), header.dtype).reshape(part.shape)

        status = path.stat()
        key = fingerprint(path, name, status.st_size, status.st_mtime_ns)
        return stored(header.shape, header.dtype.newbyteorder("="), fill, key=key)


def _header(path: Path, file: IO[bytes], member: str = "") -> Header:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header = Header(*reader(file))
    if header.dtype.hasobject:
        raise DataError(
            f"{path} holds Python objects (a pickle){f' in {member!r}' if member else ''}, which are never read.",
            got=f"dtype {header.dtype}",
            expected="an array of numbers",
            remedy="Save it again as one array of a plain type: np.stack(list_of_arrays).astype('uint8').",
        )
    return header


def _exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise EOFError(f"{count - len(content)} bytes are missing")
    return content


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(
        path,
        expected="a complete file of numpy.save or numpy.savez, without pickles",
        remedy="Save the array again with numpy.save or numpy.savez.",
    )
