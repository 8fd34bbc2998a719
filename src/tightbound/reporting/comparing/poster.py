"""A poster of runs: a column for each, with numbers above images, and curves below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from .. import figures
from ..words import signed
from .comparison import Comparison
from .table import about, differences, numbers

__all__ = ["Curves", "Row", "drawn", "poster"]

Row = tuple[str, list[Image.Image | str]]
"""A title, and an image for each run, or a sentence with the reason if there is none."""
Curve = tuple[int, str, figures.Array, figures.Array]
"""The place of a run, what its line is, steps and values."""
Curves = dict[str, list[Curve]]
"""The lines of each kind of bound."""

WIDTH, LINE, HEAD, CURVES = 4.6, 0.21, 0.45, 3.0
"""Inches: the width of a run, the height of a line of text, that of a title, and that of curves."""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
STYLES = ("-", "--", "-.", ":")
_INK, _SOFT = "#222222", "#666666"
_TITLE: dict[str, Any] = {"color": _SOFT, "fontsize": 9.5, "weight": "bold", "va": "center", "parse_math": False}
_SPLIT = 0.5
"""Share of a column at which the numbers begin."""


def poster(found: Comparison, pictures: Sequence[Row], curves: Curves) -> Figure:
    """The complete comparison as one figure.

    Args:
        found: The runs.
        pictures: Rows with one image per run.
        curves: The bounds against the step.
    """
    lines, below = _lines(found), _below(found)
    shown = [("", 1.2 * HEAD + LINE * len(lines)), *((title, _height(cells)) for title, cells in pictures)]
    heights = [height + HEAD for _, height in shown] + [CURVES] * bool(curves) + [LINE * len(below) + HEAD]
    figure = Figure(figsize=(WIDTH * len(found.runs), sum(heights)), facecolor="white")
    FigureCanvasAgg(figure)
    bands = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _columns(bands[0], found, lines)
    for band, (title, cells) in zip(bands[1:], pictures, strict=False):
        _pictures(band, title, cells)
    if curves:
        _beside(bands[-2], curves)
    _text(bands[-1], below)
    return figure


def drawn(title: str, lines: Sequence[Curve]) -> Figure:
    """Curves of one kind as a figure of their own."""
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    _curves(figure.add_subplot(), title, lines)
    return figure


# -- text -----------------------------------------------------------------------------------------------------------


def _lines(found: Comparison) -> list[tuple[str, list[str]]]:
    return [*about(found), *((name, [signed(cell) for cell in cells]) for name, cells in numbers(found))]


def _below(found: Comparison) -> list[str]:
    """The differences, as lines of text."""
    head, *lines = differences(found)
    told = ["Paired differences"]
    for pair, *values, remark in lines:
        cells = [f"{name}: {signed(value)}" for name, value in zip(head[1:-1], values, strict=True)]
        told += textwrap.wrap("  ·  ".join(filter(None, [pair, *cells, remark])), 62 * len(found.runs))
    return told


def _columns(band: SubFigure, found: Comparison, lines: list[tuple[str, list[str]]]) -> None:
    """Name and description of each run, in aligned lines."""
    step = 1 / (len(lines) + 3)
    for place, (axes, run) in enumerate(zip(_cells(band, len(found.runs)), found.runs, strict=True)):
        label, color = textwrap.shorten(run.label, 36, placeholder="…"), COLORS[place % len(COLORS)]
        axes.text(0, 1 - step, label, color=color, fontsize=13, weight="bold", parse_math=False)
        for row, (name, cells) in enumerate(lines, start=3):
            for left, text, ink in ((0, name, _SOFT), (_SPLIT, cells[place], _INK)):
                short = textwrap.shorten(text, 34, placeholder="…")
                axes.text(left, 1 - step * row, short, color=ink, fontsize=8.5, parse_math=False)


def _text(band: SubFigure, lines: list[str]) -> None:
    for row, (axes, text) in enumerate((axes, text) for axes in _cells(band, 1) for text in lines):
        axes.text(0, 1 - (row + 1) / (len(lines) + 1), text, color=_SOFT, fontsize=8.5, parse_math=False)


# -- pictures -------------------------------------------------------------------------------------------------------


def _height(cells: Sequence[Image.Image | str]) -> float:
    """Height in inches of the tallest image of a row."""
    shapes = [(1, 0.2) if isinstance(cell, str) else cell.size for cell in cells]
    return max(0.9 * WIDTH * height / width for width, height in shapes)


def _pictures(band: SubFigure, title: str, cells: Sequence[Image.Image | str]) -> None:
    top = 1 - HEAD / (HEAD + _height(cells))
    band.text(0.05 / len(cells), 0.6 * top + 0.4, title, **_TITLE)
    for axes, cell in zip(_cells(band, len(cells), top), cells, strict=True):
        if isinstance(cell, str):
            axes.text(0, 1, textwrap.fill(cell, 52), color=_SOFT, fontsize=8.5, va="top", parse_math=False)
        else:
            axes.imshow(np.asarray(cell), interpolation="antialiased")
            axes.set_anchor("NW")


def _cells(band: SubFigure, count: int, top: float = 1.0) -> list[Axes]:
    """An empty field for each run."""
    cells = [band.add_axes((place / count + 0.05 / count, 0, 0.9 / count, top)) for place in range(count)]
    for axes in cells:
        axes.set_axis_off()
    return cells


# -- curves ---------------------------------------------------------------------------------------------------------


def _beside(band: SubFigure, curves: Curves) -> None:
    count = len(curves)
    for place, (title, lines) in enumerate(curves.items()):
        axes = band.add_axes(((place + 0.15) / count, 0.2, 0.8 / count, 0.7))
        _curves(axes, title, lines)


def _curves(axes: Axes, title: str, lines: Sequence[Curve]) -> None:
    for place, label, steps, values in lines:
        color, style = COLORS[place % len(COLORS)], STYLES[place // len(COLORS) % len(STYLES)]
        point = "o" if len(steps) == 1 else None
        axes.plot(steps, values, style, color=color, lw=1.6, marker=point, label=label)
    limits = figures.settled_limits([(label, steps, values) for _, label, steps, values in lines])
    axes.set_ylim(*limits if limits else (None, None))
    axes.set_xlabel("step")
    axes.set_ylabel(title)
    axes.grid(True, color="#80808038", lw=0.7)
    axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
