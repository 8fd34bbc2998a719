"""Two file formats of published data sets, read strictly: idx (MNIST) and amat (binarised MNIST)."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import DataError, reading

__all__ = ["read_amat", "read_content", "read_idx"]

MOST_BYTES = 2**28
"""Larger files, packed or unpacked, are refused: no published file is that large."""
AGAIN = "Delete the file and load again (it is then downloaded), or replace it by a complete copy."


def read_content(path: Path) -> bytes:
    """The content of a file, unpacked if its name ends in ``.gz``.

    Raises:
        DataError: If it cannot be read, or is truncated or corrupt.
    """
    with reading(path, expected="a complete file", remedy=AGAIN):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise DataError(f"{path} is too large.", got=f"more than {MOST_BYTES:,} bytes", remedy=AGAIN)
        return content


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array in an idx file of bytes: two zeros, 8 for bytes, the number of dimensions, each size, the bytes.

    Raises:
        DataError: If the magic number is wrong, or the length does not match the header.
    """
    content = read_content(path)
    dimensions = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if content[:3] != b"\x00\x00\x08" or not 1 <= dimensions <= 4 or len(content) < start:
        raise DataError(
            f"{path} is not an idx file.", got=f"it begins with {content[:4].hex(' ')}", expected="00 00 08 0n",
            remedy=AGAIN,
        )  # fmt: skip
    shape = tuple(np.frombuffer(content, ">u4", dimensions, 4).tolist())
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{path} does not have the length given in its header.",
            got=f"{len(content) - start} bytes",
            expected=f"{math.prod(shape)} bytes for shape {shape}",
            remedy=AGAIN,
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def read_amat(path: Path, columns: int) -> npt.NDArray[np.uint8]:
    """The binary matrix in a text of zeros and ones, one row per line.

    Args:
        path: The file, ``.amat`` or ``.amat.gz``.
        columns: Entries of a row.

    Raises:
        DataError: If it holds anything else, or a row is not complete.
    """
    digits = np.frombuffer(read_content(path).translate(None, b" \t\r\n"), np.uint8)
    wrong = (digits & 0xFE) != ord("0")
    if len(digits) == 0 or len(digits) % columns or wrong.any():
        got = f"the character {chr(digits[wrong][0])!r}" if wrong.any() else f"{len(digits)} entries"
        raise DataError(
            f"{path} is not a matrix of zeros and ones.", got=got, expected=f"rows of {columns} zeros and ones",
            remedy=AGAIN,
        )  # fmt: skip
    return (digits & np.uint8(1)).reshape(-1, columns)
