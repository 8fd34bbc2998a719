r"""Rendered pictures with known factors: a shape of some size and turn at some place.

Convention: a picture is told by five whole numbers, its factors ``(shape, scale, orientation, x, y)``, each from 0; the
factors of the data set are independent, every combination occurs once.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ShapeError, UsageError

__all__ = ["FACTORS", "SHAPES", "SIDE", "factor_grid", "render"]

FACTORS = {"shape": 3, "scale": 5, "orientation": 12, "x": 10, "y": 10}
"""Number of values of each factor."""
SHAPES = ("square", "ellipse", "heart")
"""Names of the values of the first."""
SIDE = 32
"""Pixels on a side."""

Array = npt.NDArray[Any]
SMALLEST, LARGEST = 4.0, 8.0
"""Radius in pixels."""
MARGIN = 11.0
"""Pixels between the border and the nearest middle."""


def factor_grid() -> Array:
    """The factors of every picture of the data set, int64 ``[18000, 5]``.

    Example:
        >>> factor_grid().shape, factor_grid()[-1].tolist()
        ((18000, 5), [2, 4, 11, 9, 9])
    """
    return np.array(list(itertools.product(*map(range, FACTORS.values()))), np.int64)


def render(factors: Array) -> Array:
    """The pictures of any factors, bright on dark with soft edges.

    Orientations cover a quarter turn, after which a square looks the same, so that every factor can be told from the
    picture.

    Args:
        factors: Whole numbers ``[n, 5]``, or their fractions in between, in the order of :data:`FACTORS`.

    Returns:
        uint8 ``[n, 1, 32, 32]``.

    Raises:
        ShapeError: If there are not five for each picture.
        UsageError: If one is out of range.

    Example:
        >>> render(np.array([[0, 4, 0, 5, 5], [2, 0, 3, 0, 9]])).shape
        (2, 1, 32, 32)
    """
    factors = np.asarray(factors, np.float64)
    if factors.ndim != 2 or factors.shape[1] != len(FACTORS):
        raise ShapeError("A picture has five factors.", got=factors.shape, expected=f"[n, 5]: {', '.join(FACTORS)}")
    for (name, size), values in zip(FACTORS.items(), factors.T, strict=True):
        if len(values) and not (values.min() >= 0 and values.max() <= size - 1):
            raise UsageError(f"The factor {name} is out of range.", got=values.max(), expected=f"0 ... {size - 1}")
    pictures = np.empty((len(factors), 1, SIDE, SIDE), np.uint8)
    for kind, distance in enumerate((_square, _ellipse, _heart)):
        chosen = np.flatnonzero(factors[:, 0].round() == kind)
        for part in np.array_split(chosen, max(1, len(chosen) // 1000)):
            pictures[part, 0] = _drawn(distance, factors[part])
    return pictures


@functools.lru_cache(maxsize=1)
def rendered_grid() -> Array:
    """The pictures of :func:`factor_grid`."""
    return render(factor_grid())


def _drawn(distance: Any, factors: Array) -> Array:
    shares = (factors / (np.array(list(FACTORS.values())) - 1)).astype(np.float32)
    radius = (SMALLEST + (LARGEST - SMALLEST) * shares[:, 1])[:, None, None]
    turn = (0.5 * math.pi * factors[:, 2] / FACTORS["orientation"]).astype(np.float32)[:, None, None]
    middle = MARGIN + (SIDE - 2 * MARGIN) * shares[:, 3:]
    pixels = np.arange(SIDE, dtype=np.float32) + 0.5
    dx, dy = pixels - middle[:, 0, None, None], pixels[:, None] - middle[:, 1, None, None]
    u, v = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    inside = np.clip(0.5 - radius * distance(u / radius, v / radius), 0.0, 1.0)  # of a pixel, nearly
    return (255 * inside).round().astype(np.uint8)


def _square(u: Array, v: Array) -> Array:
    return np.maximum(abs(u), abs(v)) - 0.85


def _ellipse(u: Array, v: Array) -> Array:
    """The implicit form over the length of its gradient: a distance, near the edge."""
    long, short = 1.15, 0.65
    form = np.sqrt((u / long) ** 2 + (v / short) ** 2)
    slope = np.sqrt((u / long**2) ** 2 + (v / short**2) ** 2) / np.maximum(form, 1e-6)
    return (form - 1) / np.maximum(slope, 1e-6)


def _heart(u: Array, v: Array) -> Array:
    """A square on its corner with a half-circle on each of its upper sides."""
    h, up = 0.55, 0.08 - v
    a, b = (up + u) / math.sqrt(2), (up - u) / math.sqrt(2)
    lobes = np.minimum(np.hypot(a - h, b), np.hypot(a, b - h))
    return np.minimum(np.maximum(abs(a), abs(b)), lobes) - h
