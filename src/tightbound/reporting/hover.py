"""Maps of points as SVG; with scripts enabled, a point shows its image and data.

The script, ``map.js``, reads the places of the points from ``data-at`` of each map, the texts and the pictures of all
maps of a box from ``data-items`` and the box's hidden image. Without it the maps are static.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

from .colors import color_of, mark_of
from .thumbnails import Thumbnails

__all__ = ["Frame", "Points", "box", "framed", "limits_of", "picture_in", "plane"]

Array = npt.NDArray[np.float64]
Limits = tuple[tuple[float, float], tuple[float, float]]

SIDE, LEFT, BELOW, EDGE = 300.0, 46.0, 40.0, 8.0
"""Sizes of a map: side, margins on the left and below, and edge."""
_SHAPES = {
    "o": "m-{r} 0a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0-{d} 0",
    "^": "m0-{d}l{d} {t}h-{f}z",
    "s": "m-{r}-{r}h{d}v{d}h-{d}z",
}
_SHAPES["D"] = "m0-{d}l{d} {d}l-{d} {d}l-{d}-{d}z"


@dataclass(frozen=True)
class Points:
    """The points of a map.

    Args:
        at: ``(n, 2)``.
        labels: Class numbers ``(n,)``; -1 is drawn pale. None without classes.
        names: Names of the classes; few and short names are written into the map.
        targets: Indices of the interactive points.
    """

    at: Array
    labels: npt.NDArray[np.int64] | None
    names: Sequence[str]
    targets: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """The axes of a map.

    Args:
        limits: Limits of both axes.
        axes: Their names; None for axes without meaning.
    """

    limits: Limits
    axes: tuple[str, str] | None

    def place(self, points: Array) -> Array:
        """Coordinates of points in the drawing."""
        low, high = np.transpose(self.limits)
        share = (points - low) / (high - low)
        return np.column_stack([self.left + SIDE * share[:, 0], EDGE + SIDE * (1 - share[:, 1])])

    @property
    def left(self) -> float:
        return LEFT if self.axes else EDGE

    @property
    def size(self) -> tuple[float, float]:
        return self.left + SIDE + EDGE, EDGE + SIDE + (BELOW if self.axes else EDGE)


def limits_of(points: Array, margin: float = 0.04) -> Limits:
    """The range of points, with a margin.

    Example:
        >>> limits_of(np.array([[0.0, 1.0], [1.0, 3.0]]), margin=0.5)
        ((-0.5, 1.5), (0.0, 4.0))
    """
    low, high = points.min(0), points.max(0)
    wide = np.maximum(high - low, 1e-9)
    ends = np.column_stack([low - margin * wide, high + margin * wide]).tolist()
    return (ends[0][0], ends[0][1]), (ends[1][0], ends[1][1])


def plane(frame: Frame, points: Points, alt: str) -> str:
    """The points of a map, as an interactive SVG.

    Args:
        frame: Its axes.
        points: The points.
        alt: A text description.
    """
    at = frame.place(points.at)
    radius = round(float(np.clip(60 / max(len(at), 1) ** 0.5, 1.8, 4)), 1)  # so that two radii are a diameter
    drawn = "".join(_dots(at, points, radius))
    targets = " ".join(f"{_short(x)},{_short(y)}" for x, y in at[points.targets])
    extra = f' tabindex="0" data-at="{targets}"' if len(points.targets) else ""
    return framed(frame, f"{drawn}{_names(at, points)}", alt, extra)


def framed(frame: Frame, content: str, alt: str, extra: str = "") -> str:
    """SVG within axes.

    Args:
        frame: The axes.
        content: SVG.
        alt: A text description.
        extra: Attributes.
    """
    width, height = frame.size
    head = (
        f'<svg class="plot plane" role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {width:g} {height:g}"{extra}>'
    )
    return f"{head}{''.join(_axes(frame)) if frame.axes else ''}{content}</svg>"


def picture_in(frame: Frame, kind: str, data: bytes, tiles: int) -> str:
    """An image that fills a frame, as SVG.

    Args:
        frame: The axes.
        kind: ``"png"`` or ``"jpeg"``.
        data: Its content.
        tiles: Number of tiles per row, with lines between them.
    """
    place = f'x="{frame.left:g}" y="{EDGE:g}" width="{SIDE:g}" height="{SIDE:g}" preserveAspectRatio="none"'
    return f'<image {place} href="{_embedded(kind, data)}"/>{_between(frame, tiles)}'


def _between(frame: Frame, tiles: int) -> str:
    """Lines between the tiles of an image."""
    steps = [SIDE * i / tiles for i in range(1, tiles)]
    lines = "".join(
        f"M{_short(frame.left + s)} {EDGE:g}v{SIDE:g}M{frame.left:g} {_short(EDGE + s)}h{SIDE:g}" for s in steps
    )
    return f'<path class="between" d="{lines}"/>'


def _embedded(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _dots(at: Array, points: Points, radius: float) -> list[str]:
    """One path for each class."""
    labels = np.zeros(len(at), dtype=int) if points.labels is None else points.labels
    paths = []
    for label in np.unique(labels).tolist():
        size = {"r": radius, "d": 2 * radius, "f": 4 * radius, "t": 3.4 * radius}
        scale = {
            name: _short(value * (0.7 if name != "r" and mark_of(label) in "^D" else 1)) for name, value in size.items()
        }
        mark = _SHAPES[mark_of(label)].format(**scale)
        drawn = "".join(f"M{_short(x)} {_short(y)}{mark}" for x, y in at[labels == label])
        paths.append(f'<path class="dots" fill="{color_of(label)}" d="{drawn}"/>')
    return paths


def _names(at: Array, points: Points, most: int = 20, longest: int = 12) -> str:
    """The name of each class, at the point nearest to its median."""
    if points.labels is None or len(points.names) > most or any(len(name) > longest for name in points.names):
        return ""
    texts = []
    for label in range(len(points.names)):
        own = at[points.labels == label]
        x, y = own[np.square(own - np.median(own, axis=0)).sum(1).argmin()]
        texts.append(f'<text x="{_short(x)}" y="{_short(y + 4)}">{html.escape(points.names[label])}</text>')
    return f'<g class="names">{"".join(texts)}</g>'


def _axes(frame: Frame) -> list[str]:
    (x0, x1), (y0, y1) = frame.limits
    middle, bottom = frame.left + SIDE / 2, EDGE + SIDE
    lines, texts = [], []
    for value in _ticks(x0, x1):
        x = _short(frame.place(np.array([[value, y0]]))[0, 0])
        lines.append(f"M{x} {EDGE:g}V{bottom:g}")
        texts.append(f'<text x="{x}" y="{bottom + 14:g}" text-anchor="middle">{_told(value)}</text>')
    for value in _ticks(y0, y1):
        y = frame.place(np.array([[x0, value]]))[0, 1]
        lines.append(f"M{frame.left:g} {_short(y)}h{SIDE:g}")
        texts.append(f'<text x="{frame.left - 6:g}" y="{_short(y + 4)}" text-anchor="end">{_told(value)}</text>')
    first, second = frame.axes or ("", "")
    texts.append(f'<text x="{middle:g}" y="{bottom + 32:g}" text-anchor="middle">{html.escape(first)}</text>')
    turned = f"translate(12 {EDGE + SIDE / 2:g}) rotate(-90)"
    texts.append(f'<text transform="{turned}" text-anchor="middle">{html.escape(second)}</text>')
    return [f'<path class="grid" d="{"".join(lines)}"/>', *texts]


def _ticks(low: float, high: float) -> list[float]:
    return [value for value in map(float, MaxNLocator(5).tick_values(low, high)) if low <= value <= high]


def _told(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def box(content: str, items: Sequence[Sequence[str]], pictures: Thumbnails | None) -> str:
    """HTML with maps whose points have these texts and images.

    Args:
        content: HTML with maps of :func:`plane`.
        items: Lines of text for each target, in order.
        pictures: One for each target; None for no images.
    """
    told = html.escape(json.dumps(items, ensure_ascii=False, separators=(",", ":")))
    if pictures is None:
        return f'<div class="hover" data-items="{told}">{content}</div>'
    source = _embedded(pictures.kind, pictures.data)
    image = f'<img hidden class="pictures" alt="the pictures of the points" src="{source}">'
    cell = f"{pictures.width} {pictures.height} {pictures.columns}"
    return f'<div class="hover" data-items="{told}" data-cell="{cell}">{image}{content}</div>'
