"""Storage of decoded values: in memory if they fit, else in a memory-mapped file in the cache folder."""

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

__all__ = ["cache_folder", "fingerprint", "memory_limit", "require_unpacked_size", "stored"]

MEMORY_LIMIT = 4 * 2**30
"""Default maximum bytes of one array in memory; see TIGHTBOUND_MEMORY_LIMIT."""
MOST_UNPACKED, MOST_RATIO = 2**29, 200
"""Archives with more unpacked bytes than the first, and than the second times their size, are refused."""
VERSION = 1
"""Increased when decoding changes, so that arrays of older versions in the cache are not used."""


def cache_folder() -> Path:
    """The folder of downloads and decoded arrays: ``$TIGHTBOUND_CACHE``, else the user's cache folder."""
    given = os.environ.get("TIGHTBOUND_CACHE")
    return Path(given).expanduser() if given else Path(pooch.os_cache("tightbound"))


def memory_limit() -> int:
    """Maximum bytes of one array in memory: ``$TIGHTBOUND_MEMORY_LIMIT``, else 4 GiB.

    Raises:
        UsageError: If the variable is not a number.
    """
    given = os.environ.get("TIGHTBOUND_MEMORY_LIMIT", str(MEMORY_LIMIT))
    if not given.strip().isdecimal():
        raise UsageError("TIGHTBOUND_MEMORY_LIMIT is not a number.", got=given, expected="a number of bytes")
    return int(given)


def fingerprint(path: Path, *what: object) -> str:
    """A cache key of decoded data: its source and everything the result depends on."""
    return hashlib.sha256(repr((VERSION, str(path.resolve()), *what)).encode()).hexdigest()[:32]


def stored(shape: tuple[int, ...], dtype: npt.DTypeLike, fill: Callable[[Array], None], *, key: str | None) -> Array:
    """An array filled by ``fill``; read-only and memory-mapped if larger than the limit.

    Args:
        shape: Its shape.
        dtype: Its type.
        fill: Writes every entry of an empty array.
        key: Cache key of the content; None for a temporary file.

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
    """The array in a file of the cache; None if there is none, it is damaged, or of another shape or type."""
    with suppress(DataError), reading(path):
        found = np.lib.format.open_memmap(path, mode="r")
        return found if (found.shape, found.dtype) == (shape, dtype) and found.flags.c_contiguous else None
    return None


def require_unpacked_size(path: Path, size: int) -> None:
    """Refuses an archive with an implausible unpacked size.

    Args:
        path: The archive.
        size: Total bytes of its members.

    Raises:
        DataError: If it is one.
    """
    packed = path.stat().st_size
    if size > max(MOST_UNPACKED, MOST_RATIO * packed):
        raise DataError(
            f"{path} is too large to unpack safely (a decompression bomb?).",
            got=f"{size:,} bytes in {packed:,}",
            expected=f"at most {MOST_RATIO} times its own size, or {MOST_UNPACKED:,}",
            remedy="If you trust it, unpack it yourself and use the folder.",
        )


def _check_room(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DataError(
            "The decoded data does not fit in the cache folder.",
            got=f"{free / 2**30:.1f} GiB free in {folder}",
            expected=f"{size / 2**30:.1f} GiB",
            remedy="Free some space, set TIGHTBOUND_CACHE to a larger disk, or use a smaller --image-size.",
        )


def _written(
    folder: Path, path: Path | None, shape: tuple[int, ...], dtype: npt.DTypeLike, fill: Callable[[Array], None]
) -> Array:
    """Fills a temporary file, and renames it when it is complete."""
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
