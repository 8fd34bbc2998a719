"""Many thumbnails in one image, from which a page's script shows single ones."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .sheet import to_bytes

__all__ = ["MOST", "Thumbnails", "encoded", "reduced", "thumbnails"]

Array = npt.NDArray[np.uint8]

MOST, BYTES = 400, 110_000
"""Pictures in one, and how large it may be: in a page it takes a third more."""
SIDES = (64, 48, 32, 24, 16)
"""Pixels of the longer side of each, the largest that is not too much."""


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of one size, row by row.

    Args:
        data: A PNG or a JPEG.
        kind: Which.
        width: Pixels of each.
        height: The same.
        columns: Images per row.
    """

    data: bytes
    kind: str
    width: int
    height: int
    columns: int


def thumbnails(images: Tensor) -> Thumbnails:
    """The smaller of PNG and JPEG, with the largest images that keep it small.

    Args:
        images: ``(n, 1 or 3, height, width)`` in [0, 1]; what lies outside is cut off.

    Example:
        >>> import torch
        >>> thumbnails(torch.rand(5, 1, 8, 8)).columns
        3
    """
    columns = math.ceil(math.sqrt(len(images)))
    images = images.detach().float().cpu()
    made = (_made(reduced(images, side), columns) for side in SIDES[:-1])
    small = next((each for each in made if len(each.data) <= BYTES), None)
    return small or _made(reduced(images, SIDES[-1]), columns)


def _made(images: Tensor, columns: int) -> Thumbnails:
    kind, data = encoded(_side_by_side(images, columns))
    return Thumbnails(data, kind, images.shape[-1], images.shape[-2], columns)


def encoded(pixels: Array) -> tuple[str, bytes]:
    """Pixels as a PNG, or as a JPEG where that is less than half as large: its kind and content.

    Args:
        pixels: Bytes, ``(height, width)``, or with 1 or 3 channels behind.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    return min((("png", _saved(image, "png")), ("jpeg", _saved(image, "jpeg"))), key=_length)


def _length(made: tuple[str, bytes]) -> int:
    """Small PNGs are exact, so a JPEG must spare much."""
    return len(made[1]) * (1 if made[0] == "png" else 2)


def _saved(sheet: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, format=kind, quality=70)
    return buffer.getvalue()


def reduced(images: Tensor, side: int) -> Tensor:
    """Images reduced to a maximum longer side in pixels."""
    longest = max(images.shape[-2:])
    if longest <= side:
        return images
    return F.interpolate(images, size=[max(1, round(s * side / longest)) for s in images.shape[-2:]], mode="area")


def _side_by_side(images: Tensor, columns: int) -> Array:
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    cells = images.new_zeros(rows * columns, channels, height, width)
    cells[:n] = images
    sheet = cells.reshape(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    return to_bytes(sheet.reshape(rows * height, columns * width, channels))
