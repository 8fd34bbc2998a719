"""Decoded images over the plane of a latent map."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..runtime.randomness import fixed_noise
from ..views import samples as pictures
from . import page
from .hover import Frame, framed, picture_in
from .maps import View
from .material import Material
from .sheet import to_bytes
from .thumbnails import encoded, reduced

__all__ = ["tile_map"]

TILES, SIDE = 12, 48
"""Tiles per row, and maximum pixels of each."""
AT_ONCE = 36
"""Tiles that are decoded at once."""


def tile_map(m: Material, view: View, frame: Frame) -> str:
    """A figure of what is decoded at the middle of every tile, on the axes of a map; empty if there is none.

    Args:
        m: The run.
        view: The map.
        frame: Its axes.
    """
    if view.plane is None or not m.spec.image or m.model.codes is not None or not _vectors(m):
        return ""
    z = torch.from_numpy(_places(frame) @ view.plane[1] + view.plane[0])
    images, given = _decoded(m, z)
    drawn = framed(frame, picture_in(frame, *encoded(_mosaic(images)), TILES), f"decoded images on this plane{given}")
    return page.figure(drawn, f"The mean of p(x|z) at the same places{given}")


def _vectors(m: Material) -> bool:
    """Whether a latent is a vector, one for each example."""
    x, c = m.examples(torch.arange(1))
    with torch.no_grad(), fixed_noise(m.seed):
        return m.model(c).representative(x).dim() == 2


def _places(frame: Frame) -> np.ndarray:
    """The middles of the tiles, row by row from the top left."""
    (x0, x1), (y0, y1) = frame.limits
    shares = (np.arange(TILES) + 0.5) / TILES
    x, y = np.meshgrid(x0 + (x1 - x0) * shares, y1 - (y1 - y0) * shares)
    return np.column_stack([x.ravel(), y.ravel()])


@torch.no_grad()
def _decoded(m: Material, z: Tensor) -> tuple[Tensor, str]:
    """Images of latents, and their condition as text."""
    _, c = m.examples(m.representative(1))
    z = z.to(m.model.device, m.model.dtype)
    with fixed_noise(m.seed):
        px = m.model(None if c is None else c.expand(AT_ONCE))
        means = [reduced(px.likelihood(part).mean.float().cpu(), SIDE) for part in z.split(AT_ONCE)]
        images = pictures.drawable(torch.cat(means), m.spec)
    if not m.model.decodes_conditions:
        return images, ""
    told = pictures.described(m.model, c)
    return images, f", given {told[0]}" if told else ", given the condition of one example"


def _mosaic(images: Tensor) -> np.ndarray:
    """The tiles as one image without gaps, ``(height, width, 1 or 3)`` bytes."""
    _, channels, height, width = images.shape
    whole = images.reshape(TILES, TILES, channels, height, width).permute(0, 3, 1, 4, 2)
    return to_bytes(whole.reshape(TILES * height, TILES * width, channels))
