"""The figures of a report, drawn without any global state of matplotlib.

Convention: a figure has a transparent ground; one of lines has dark ink, which a page inverts on dark paper, one of
many points grey ink and colours that are seen on either.
Colours are told apart with every common kind of colour blindness.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = [
    "CLASS_COLORS",
    "CLASS_MARKS",
    "curve",
    "densities",
    "dimension_bars",
    "png",
    "scatter",
    "settled_limits",
    "stacked",
    "svg",
]

Array = npt.NDArray[np.float64]
Line = tuple[str, Array, Array]

_INK, _GREY, _PALE = "#333333", "#808080", "#b8b8b8"
_BLUE, _ORANGE, _GREEN = "#0072b2", "#d55e00", "#009e73"
_LINES = {"train": (_BLUE, "-", 1.4), "validation": (_ORANGE, "-", 1.8), "objective": (_GREEN, ":", 1.4)}

# Ten colours in the order of Matthew Petroff, Accessible Color Sequences for Data Visualization (2021).
CLASS_COLORS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
"""Colours of classes, in turn."""
CLASS_MARKS = {"o": "●", "^": "▲", "s": "■", "D": "◆"}
"""Markers of classes, one for each turn of the colours, as matplotlib and as a text writes them."""


def curve(lines: Sequence[Line], ylabel: str, limits: tuple[float, float] | None = None) -> Figure:
    """Values against the training step.

    Args:
        lines: Name (``"train"``, ``"validation"`` or ``"objective"``), steps and values of each.
        ylabel: What the values are, with their unit.
        limits: What to show of the values; default: all.

    Example:
        >>> steps = np.arange(1.0, 9.0)
        >>> curve([("train", steps, -100 / steps)], "bound [nats]").axes[0].get_xlabel()
        'step'
    """
    figure, axes = _empty(4.3, 2.9)
    for name, steps, values in lines:
        color, style, width = _LINES[name]
        marker = "o" if len(steps) < 15 else None
        under = 1.5 if name == "objective" else 2
        axes.plot(steps, values, style, color=color, lw=width, label=name, marker=marker, ms=3.5, zorder=under)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if limits is not None:
        axes.set_ylim(*limits)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
    return figure


def settled_limits(lines: Sequence[Line]) -> tuple[float, float] | None:
    """Limits that show what the lines do after the first fifth of the steps, or None where they may show everything.

    Example:
        >>> steps = np.arange(1.0, 101.0)
        >>> low, high = settled_limits([("train", steps, -1000 / steps)])
        >>> -70 < low < -50 and high > -10
        True
    """
    values = np.concatenate([y for _, _, y in lines])
    last = max((x.max() for _, x, _ in lines if len(x)), default=0.0)
    late = np.concatenate([y[x > last / 5] for _, x, y in lines])
    values, late = values[np.isfinite(values)], late[np.isfinite(late)]
    if len(late) < 3:
        return None
    low, high = late.min(), late.max()
    if np.ptp(values) <= 3 * (high - low) or high == low:
        return None
    margin = 0.15 * (high - low)
    return float(low - margin), float(high + margin)


def dimension_bars(values: Sequence[float], active: Sequence[bool], ylabel: str) -> Figure:
    """One bar for each latent dimension, the highest first; active ones stand out.

    Args:
        values: One for each dimension.
        active: Whether a dimension is used.
        ylabel: What the values are, with their unit.
    """
    order = np.argsort(-np.asarray(values), kind="stable")
    figure, axes = _empty(8.6, 2.9)
    places = np.arange(len(order))
    used = np.asarray(active)[order]
    heights = np.asarray(values)[order]
    for mask, color, name in ((used, _BLUE, "active"), (~used, _PALE, "not active")):
        if mask.any():
            axes.bar(places[mask], heights[mask], width=0.8, color=color, label=f"{name} ({mask.sum()})")
    axes.set_xlim(-0.8, max(len(order), 6) - 0.2)
    axes.set_ylabel(ylabel)
    axes.set_xlabel("latent dimension, sorted")
    if len(order) <= 40:
        axes.set_xticks(places, [f"z{d}" for d in order], rotation=0 if len(order) <= 20 else 90)
    axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
    return figure


def stacked(bars: Sequence[tuple[str, Sequence[tuple[str, float]]]], xlabel: str) -> Figure:
    """Horizontal bars, each of parts that add up to it.

    Args:
        bars: Name of each, and the names and values of its parts.
        xlabel: What the values are, with their unit.
    """
    figure, axes = _empty(8.6, 0.7 + 0.75 * len(bars))
    for place, (_, parts) in enumerate(bars):
        left = 0.0
        for i, ((name, value), color) in enumerate(zip(parts, (_BLUE, _ORANGE, _GREEN), strict=False)):
            width = max(value, 0.0)
            axes.barh(place, width, left=left, height=0.5, color=color)
            where = axes.get_yaxis_transform()  # x in shares of the width, y in bars
            text = f"■ {name} {value:.2f}"
            axes.text(0.36 * i, place - 0.3, text, fontsize=8, color=color, transform=where, parse_math=False)
            left += width
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.set_ylim(len(bars) - 0.5, -0.65)
    axes.set_xlabel(xlabel)
    return figure


def densities(panels: Sequence[tuple[str, Array, Array]], limits: tuple[float, float]) -> Figure:
    """The values of several dimensions as histograms, each over its reference.

    Args:
        panels: Title, values and values of the reference of each.
        limits: Range of all.
    """
    figure = Figure(figsize=(8.6, 2.1), layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    edges = np.linspace(*limits, 41).tolist()
    for i, (title, values, reference) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        axes.patch.set_alpha(0)
        axes.hist(reference, edges, density=True, histtype="step", color=_INK, lw=1.2, label="prior")
        axes.hist(values, edges, density=True, color=_BLUE, alpha=0.7, label="codes")
        axes.set_title(title, fontsize=9, color=_INK)
        axes.set_yticks([])
        axes.tick_params(labelsize=7, colors=_INK)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(_PALE)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, labelcolor=_INK, loc="outside lower center", ncols=2)
    return figure


def scatter(points: Array, labels: Array | None, names: Sequence[str], axis_names: tuple[str, str] | None) -> Figure:
    """Points of a plane, coloured by their label, and the name of a label where its points lie.

    Args:
        points: ``(n, 2)``.
        labels: Class numbers ``(n,)``; -1 is drawn pale.
        names: Names of the classes; a name is written into the figure where it is short.
        axis_names: Names of the axes; None where the axes mean nothing.
    """
    figure, axes = _empty(4.3, 4.1, ink=_GREY)
    size = float(np.clip(4000 / max(len(points), 1), 4, 24))
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=size, color=_BLUE, alpha=0.6, lw=0)
    else:
        _classes(axes, points, labels, names, size)
    if axis_names is None:
        axes.set_axis_off()
    else:
        axes.set_xlabel(axis_names[0])
        axes.set_ylabel(axis_names[1])
    return figure


def _classes(axes: Axes, points: Array, labels: Array, names: Sequence[str], size: float) -> None:
    marks = list(CLASS_MARKS)
    for label in np.unique(labels).astype(int):
        own = points[labels == label]
        color = _PALE if label < 0 else CLASS_COLORS[label % len(CLASS_COLORS)]
        mark = "o" if label < 0 else marks[label // len(CLASS_COLORS) % len(marks)]
        axes.scatter(own[:, 0], own[:, 1], s=size, color=color, marker=mark, alpha=0.75, lw=0)
    if len(names) <= 20 and all(name.isascii() and len(name) <= 12 for name in names):
        for label in np.unique(labels[labels >= 0]).astype(int).tolist():
            own = points[labels == label]
            inmost = np.square(own - np.median(own, axis=0)).sum(1).argmin()
            _name(axes, own[inmost], names[int(label)])


def _name(axes: Axes, place: Array, name: str) -> None:
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    axes.text(place[0], place[1], name, ha="center", va="center", fontsize=9, color="black", bbox=box, parse_math=False)


def _empty(width: float, height: float, ink: str = _INK) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(labelsize=8, colors=ink)
    axes.xaxis.label.set(fontsize=9, color=ink)
    axes.yaxis.label.set(fontsize=9, color=ink)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_PALE if ink == _INK else ink)
    axes.grid(True, color="#80808038", lw=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def svg(figure: Figure) -> bytes:
    """A figure as SVG, its text as outlines, so that it looks the same everywhere."""
    return _printed(figure, format="svg", metadata={"Date": None})


def png(figure: Figure) -> bytes:
    """A figure as PNG with twice the pixels of a screen: for many points."""
    return _printed(figure, format="png", dpi=200)


def _printed(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a class name in a script that the font lacks
        figure.savefig(buffer, **options)
    return buffer.getvalue()
