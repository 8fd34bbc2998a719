"""Many small images on one sheet, for light and dark backgrounds.

Unlike :func:`tightbound.views.samples.grid`, which is for files, it is transparent between images, because a page
may be dark, and reduces large ones, because a page holds them all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

__all__ = ["opaque", "sheet", "to_bytes"]

GAP, LEAST, MOST = 4, 48, 96
"""Pixels between images, and of their longer side: small ones are enlarged, large ones reduced."""


def sheet(images: Tensor, columns: int) -> Image.Image:
    """Pictures row by row, transparent between them.

    Args:
        images: ``(n, 1 or 3, height, width)`` in [0, 1]; what lies outside is cut off.
        columns: Images per row.

    Example:
        >>> sheet(torch.rand(3, 1, 8, 8), columns=2).size
        (100, 100)
    """
    images = _sized(images.detach().float().cpu())
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    cells = torch.zeros(rows * columns, 4, height + GAP, width + GAP)
    cells[:n, :3, :height, :width] = images if channels == 3 else images.expand(n, 3, height, width)
    cells[:n, 3, :height, :width] = 1
    pixels = cells.reshape(rows, columns, 4, height + GAP, width + GAP).permute(0, 3, 1, 4, 2)
    pixels = pixels.reshape(rows * (height + GAP), columns * (width + GAP), 4)[:-GAP, :-GAP]
    return Image.fromarray(to_bytes(pixels))


def to_bytes(values: Tensor) -> npt.NDArray[np.uint8]:
    """Numbers in [0, 1] as bytes; what lies outside is cut off.

    Example:
        >>> to_bytes(torch.tensor([-1.0, 0.5, float("nan")])).tolist()
        [0, 128, 0]
    """
    return np.ascontiguousarray((values.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def _sized(images: Tensor) -> Tensor:
    longest = max(images.shape[-2:])
    if longest > MOST:
        return F.interpolate(images, size=[max(1, round(s * MOST / longest)) for s in images.shape[-2:]], mode="area")
    zoom = max(1, round(LEAST / longest))
    return images.repeat_interleave(zoom, dim=-2).repeat_interleave(zoom, dim=-1)


def opaque(image: Image.Image) -> Image.Image:
    """The same on grey, for formats without transparency."""
    ground = Image.new("RGB", image.size, (128, 128, 128))
    ground.paste(image, mask=image.getchannel("A"))
    return ground
