r"""Images of one white shape on black, drawn from known independent factors, to measure disentanglement.

Convention: a picture has sides of length 1, x from left to right and y from top to bottom; factors are ``(n, 5)`` with
the columns of :data:`FACTORS`. A pixel holds the share of it that the shape covers, from the signed distance of its
centre to the outline (negative inside), so edges are grey; ``binarize="threshold"`` makes them hard.

Orientations stay below a quarter turn, because of the square's symmetry: for every shape, different factors give
different images. The last orientation of a square is as close to its first as to the one before.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import ShapeError, UsageError
from ...options.data import DataOptions
from ..divide import divided
from .raw import Part

__all__ = ["FACTORS", "GRID", "SHAPES", "factors", "split_factors", "sprites"]

FACTORS = ("shape", "scale", "orientation", "x", "y")
"""The factors of an image: shape index, scale, clockwise rotation in radians, position of the centre."""
SHAPES = ("square", "ellipse", "heart")
GRID: dict[str, tuple[float, ...]] = {
    "shape": (0, 1, 2),
    "scale": (0.55, 0.7, 0.85, 1.0),
    "orientation": tuple(math.pi / 20 * i for i in range(10)),
    "x": tuple((i + 0.5) / 8 for i in range(8)),
    "y": tuple((i + 0.5) / 8 for i in range(8)),
}
"""The values of each factor; the data set ``"sprites"`` has every combination once, 3 x 4 x 10 x 8 x 8 = 7,680.

Positions are relative to the range in which the largest shape stays inside the image."""

RADIUS = 0.25
"""Maximum radius of a shape of scale 1 around its centre of mass, which is its position; each shape has twice its
square as area."""
CHUNK = 2**20
"""Pixels drawn at once."""


def factors() -> Tensor:
    """The factors of every image of the data set, in order: the last varies fastest.

    Returns:
        Float64, ``(7680, 5)``.

    Example:
        >>> factors()[[0, -1]].round(decimals=2).tolist()
        [[0.0, 0.55, 0.0, 0.06, 0.06], [2.0, 1.0, 1.41, 0.94, 0.94]]
    """
    return torch.cartesian_prod(*(torch.tensor(values, dtype=torch.float64) for values in GRID.values()))


def split_factors(options: DataOptions) -> dict[str, Tensor]:
    """The factors of every image of each split, in order.

    Args:
        options: The options of the data, ``data.options``, which determine the splits.

    Returns:
        ``{"train": (n, 5), "valid": ..., "test": ...}``, float64.

    Raises:
        UsageError: If the data is not ``"sprites"``.

    Example:
        >>> {name: tuple(found.shape) for name, found in split_factors(DataOptions("sprites")).items()}
        {'train': (6221, 5), 'test': (768, 5), 'valid': (691, 5)}
    """
    if options.data != "sprites":
        raise UsageError("Only sprites have known factors.", got=f"data={options.data!r}", expected="data='sprites'")
    parts = divided({"train": Part(factors().numpy())}, options)
    return {name: torch.from_numpy(part.dense()) for name, part in parts.items()}


def sprites(factors: Tensor, size: int = 32) -> Tensor:
    r"""Draws any factors, :math:`x_{ij} = \mathrm{clip}(\tfrac{1}{2} - d(i, j), 0, 1)` with the distance d in pixels.

    References:
        dSprites: Disentanglement testing Sprites dataset (Matthey, Higgins, Hassabis and Lerchner, 2017), which has the
        same factors but different images.

    Args:
        factors: ``(n, 5)``: shape 0, 1 or 2; scale in (0, 1]; orientation in radians; x and y in [0, 1].
        size: Pixels of a side.

    Returns:
        ``(n, 1, size, size)`` in [0, 1], in the precision of the factors.

    Raises:
        ShapeError: If there are not five factors.
        UsageError: If a factor or the size is out of range.

    Example:
        >>> square = torch.tensor([[0.0, 1.0, 0.0, 0.5, 0.5]])
        >>> sprites(square, size=8)[0, 0, :, 3].round(decimals=2)
        tensor([0.0000, 0.0000, 0.4100, 1.0000, 1.0000, 0.4100, 0.0000, 0.0000])
    """
    _check(factors, size)
    parts = [_drawn(part, size) for part in factors.split(max(1, CHUNK // size**2))]
    return torch.cat(parts) if parts else factors.new_zeros(0, 1, size, size)


def _drawn(factors: Tensor, size: int) -> Tensor:
    shape, scale, angle, x, y = factors.reshape(-1, 5, 1, 1).unbind(1)
    pixel = (torch.arange(size, dtype=factors.dtype, device=factors.device) + 0.5) / size
    right, down = pixel - _place(x), pixel[:, None] - _place(y)
    cos, sin, radius = angle.cos(), angle.sin(), RADIUS * scale
    u, v = (cos * right + sin * down) / radius, (cos * down - sin * right) / radius
    distance = torch.empty_like(u)
    for number, outline in enumerate((_square, _ellipse, _heart)):
        chosen = (shape == number).flatten()
        distance[chosen] = outline(u[chosen], v[chosen])
    return (0.5 - distance * radius * size).clamp(0, 1).unsqueeze(1)


def _place(share: Tensor) -> Tensor:
    """The position of the centre, such that the largest shape stays inside."""
    return RADIUS + share * (1 - 2 * RADIUS)


def _square(u: Tensor, v: Tensor) -> Tensor:
    return _box(u, v, math.sqrt(0.5))


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    """To first order: the function whose zero is the outline by the length of its gradient."""
    wide, high = 1.0, 2 / math.pi
    level, slope = torch.hypot(u / wide, v / high), torch.hypot(u / wide**2, v / high**2)
    return (level - 1) * (level + 1e-9) / (slope + 1e-9)  # the centre, where both are zero, is inside


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """A square on its corner, and a disc round the middle of each of its upper sides."""
    half = math.sqrt(2 / (4 + math.pi))
    middle = half / math.sqrt(2)
    v = v - middle * (math.pi + 4 / 3) / (4 + math.pi)  # from the centre of mass to that of the square
    square = _box((u + v) / math.sqrt(2), (u - v) / math.sqrt(2), half)
    discs = torch.hypot(u.abs() - middle, v + middle) - half
    return torch.minimum(square, discs)


def _box(u: Tensor, v: Tensor, half: float) -> Tensor:
    beside, above = u.abs() - half, v.abs() - half
    return torch.hypot(beside.clamp(min=0), above.clamp(min=0)) + torch.maximum(beside, above).clamp(max=0)


def _check(factors: Tensor, size: int) -> None:
    if factors.dim() != 2 or factors.shape[1] != len(FACTORS):
        raise ShapeError("A sprite must have five factors.", got=tuple(factors.shape), expected=f"(n, 5): {FACTORS}")
    if not factors.is_floating_point():
        raise UsageError("Factors must be floats.", got=factors.dtype, remedy="Call .float() on them.")
    if size < 1:
        raise UsageError("The size of an image must be at least 1.", got=f"size={size}", expected="1 or more")
    shape, scale, angle, x, y = factors.unbind(1)
    place = torch.stack([x, y])
    ranges = {
        "shape": (shape == 0) | (shape == 1) | (shape == 2),
        "scale": (scale > 0) & (scale <= 1),
        "orientation": angle.isfinite(),
        "x or y": ((place >= 0) & (place <= 1)).all(0),
    }
    for name, fits in ranges.items():
        if not fits.all():
            raise UsageError(
                f"The {name} of a sprite is out of range.",
                got=factors[~fits][0].tolist(),
                expected="shape 0, 1 or 2; scale in (0, 1]; orientation in radians; x and y in [0, 1]",
            )
