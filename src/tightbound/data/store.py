"""Where decoded values live: in memory when they fit, else in a memory-mapped file of the cache folder."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pooch

from ..errors import DataError, UsageError, reading
from .sources.raw import Array

__all__ = ["cache_folder", "check_unpacked", "fingerprint", "memory_limit", "stored"]

MEMORY_LIMIT = 4 * 2**30
"""Bytes that one array may take in memory, unless TIGHTBOUND_MEMORY_LIMIT says otherwise."""
MOST_UNPACKED, MOST_RATIO = 2**29, 200
"""An archive whose members hold more bytes than the first, and more than the second times its own, is a bomb."""
VERSION = 1
"""Raised when decoding changes, so that arrays of older versions are not taken from the cache."""


def cache_folder() -> Path:
    """Where downloads and decoded arrays are kept: ``$TIGHTBOUND_CACHE``, else the user's cache folder."""
    given = os.environ.get("TIGHTBOUND_CACHE")
    return Path(given).expanduser() if given else Path(pooch.os_cache("tightbound"))


def memory_limit() -> int:
    """Bytes that one array may take in memory: ``$TIGHTBOUND_MEMORY_LIMIT``, else 4 GiB.

    Raises:
        UsageError: If the variable is no number.
    """
    given = os.environ.get("TIGHTBOUND_MEMORY_LIMIT", str(MEMORY_LIMIT))
    if not given.strip().isdecimal():
        raise UsageError("TIGHTBOUND_MEMORY_LIMIT is no number.", got=given, expected="a number of bytes")
    return int(given)


def fingerprint(path: Path, *what: object) -> str:
    """A key of what is decoded: its source, and everything that the result depends on."""
    return hashlib.sha256(repr((VERSION, str(path.resolve()), *what)).encode()).hexdigest()[:32]


def stored(shape: tuple[int, ...], dtype: npt.DTypeLike, fill: Callable[[Array], None], *, key: str | None) -> Array:
    """An array that ``fill`` has filled; read-only from a file when it is larger than the limit.

    Args:
        shape: Its shape.
        dtype: Its type.
        fill: Writes every entry of the empty array that it is given.
        key: Fingerprint of the content, under which a file is found again; None: a file of this process only.

    Raises:
        DataError: If the disk has no room for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= memory_limit():
        array: Array = np.empty(shape, dtype)
        fill(array)
        return array
    folder = cache_folder() / "decoded"
    path = None if key is None else folder / f"{key}.npy"
    if path is not None and (found := _kept(path, shape, np.dtype(dtype))) is not None:
        return found
    _check_room(folder, size)
    return _written(folder, path, shape, dtype, fill)


def _kept(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    """The array in a file of the cache; None if there is none, it is damaged, or another than it should be."""
    with suppress(DataError), reading(path):
        found = np.lib.format.open_memmap(path, mode="r")
        return found if (found.shape, found.dtype) == (shape, dtype) and found.flags.c_contiguous else None
    return None


def check_unpacked(path: Path, size: int) -> None:
    """Refuses an archive that says it holds far more than its own bytes could tell.

    Args:
        path: The archive.
        size: Bytes of all its members together.

    Raises:
        DataError: If it is one.
    """
    packed = path.stat().st_size
    if size > max(MOST_UNPACKED, MOST_RATIO * packed):
        raise DataError(
            f"{path} holds too much to be unpacked safely (a decompression bomb?).",
            got=f"{size:,} bytes in {packed:,}",
            expected=f"at most {MOST_RATIO} times its own size, or {MOST_UNPACKED:,}",
            remedy="Unpack it yourself, where you trust it, and name the folder.",
        )


def _check_room(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DataError(
            "The decoded data does not fit in the cache folder.",
            got=f"{free / 2**30:.1f} GiB free in {folder}",
            expected=f"{size / 2**30:.1f} GiB",
            remedy="Free some space, set TIGHTBOUND_CACHE to a larger disk, or give a smaller --image-size.",
        )


def _written(
    folder: Path, path: Path | None, shape: tuple[int, ...], dtype: npt.DTypeLike, fill: Callable[[Array], None]
) -> Array:
    """Fills a temporary file and, if it has a name, gives it that only when it is complete."""
    handle, name = tempfile.mkstemp(dir=folder, suffix=".tmp")
    os.close(handle)
    try:
        array = np.lib.format.open_memmap(name, mode="w+", dtype=np.dtype(dtype), shape=shape)
        fill(array)
        array.flush()
        del array
        if path is not None:
            Path(name).replace(path)
        # A file without a name is opened before the `finally` unlinks it: it lives as long as its map.
        return np.load(path or name, mmap_mode="r", allow_pickle=False)
    finally:
        with suppress(OSError):  # it has its name by now; or (Windows) is mapped and cannot be removed
            Path(name).unlink()
