"""The figures of a report, drawn without matplotlib's global state.

Convention: figures have a transparent background and dark ink, which a page replaces by its own; the ink of a PNG is
grey, visible on light and dark.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .colors import color_of, mark_of
from .inline import inlined

__all__ = [
    "BLUE",
    "ORANGE",
    "WIDTH",
    "blank",
    "curve",
    "density",
    "dimension_bars",
    "empty",
    "histogram",
    "layer_bars",
    "layer_panels",
    "png",
    "scatter",
    "settled_limits",
    "stacked",
    "styled",
    "svg",
]

Array = npt.NDArray[np.float64]
Line = tuple[str, Array, Array]

_INK, _GREY, _PALE = "#333333", "#808080", "#b8b8b8"
BLUE, ORANGE, _GREEN = "#0072b2", "#d55e00", "#009e73"
WIDTH = 5.4
"""Size in inches of a figure of one column, readable on phones and desktops."""
MOST_BARS = 500
"""Maximum number of bars in a figure."""
_LINES = {"train": (BLUE, "-", 1.4), "validation": (ORANGE, "-", 1.8), "objective": (_GREEN, ":", 1.4)}


def curve(lines: Sequence[Line], ylabel: str, limits: tuple[float, float] | None = None) -> Figure:
    """Values against the training step.

    Args:
        lines: Name (``"train"``, ``"validation"`` or ``"objective"``), steps and values of each.
        ylabel: Label of the values, with unit.
        limits: Limits of the value axis; default: all values.

    Example:
        >>> steps = np.arange(1.0, 9.0)
        >>> curve([("train", steps, -100 / steps)], "bound [nats]").axes[0].get_xlabel()
        'step'
    """
    figure, axes = empty(4.3, 2.9)
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
    """Limits that fit the lines after the first fifth of their steps, or None to show everything.

    Example:
        >>> steps = np.arange(1.0, 101.0)
        >>> low, high = settled_limits([("train", steps, -1000 / steps)])
        >>> -70 < low < -50 and high > -10
        True
    """
    values = np.concatenate([y for _, _, y in lines])
    late = np.concatenate([y[x > x.max(initial=0.0) / 5] for _, x, y in lines])
    values, late = values[np.isfinite(values)], late[np.isfinite(late)]
    if len(late) < 3:
        return None
    low, high = late.min(), late.max()
    if np.ptp(values) <= 3 * (high - low) or high == low:
        return None
    margin = 0.15 * (high - low)
    return float(low - margin), float(high + margin)


def dimension_bars(
    values: Sequence[float],
    active: Sequence[bool],
    ylabel: str,
    what: str = "latent dimension",
    names: Sequence[str] = (),
) -> Figure:
    """One bar for each latent dimension, the highest first; active ones stand out.

    Args:
        values: One for each dimension.
        active: Whether a dimension is used.
        ylabel: Label of the values, with unit.
        what: Name of a bar.
        names: Of each bar; default: z0, z1, ...
    """
    names = names or [f"z{i}" for i in range(len(values))]
    order = np.argsort(-np.asarray(values), kind="stable")[:MOST_BARS]
    figure, axes = empty(WIDTH, 2.9)
    places = np.arange(len(order))
    used = np.asarray(active)[order]
    heights = np.asarray(values)[order]
    total = sum(active)
    for mask, color, name in ((used, BLUE, f"active ({total})"), (~used, _PALE, f"not active ({len(active) - total})")):
        if mask.any():
            axes.bar(places[mask], heights[mask], width=0.8, color=color, label=name)
    margin = 0.8 + max(0, 4 - len(order)) / 2  # few bars are centred and not too wide
    axes.set_xlim(-margin, len(order) - 1 + margin)
    axes.set_ylabel(ylabel)
    rest = f", the first {len(order)} of {len(values):,}" if len(values) > len(order) else ""
    axes.set_xlabel(f"{what}, sorted{rest}")
    if len(order) <= 40:
        upright = len(order) > 12 or max(map(len, names)) > 4
        axes.set_xticks(places, [names[int(d)] for d in order], rotation=90 if upright else 0)
    axes.legend(frameon=False, fontsize=9.5, labelcolor=_INK)
    return figure


def layer_bars(rows: Sequence[tuple[str, float, str]], xlabel: str) -> Figure:
    """One horizontal bar for each layer, from the top of the figure down.

    Args:
        rows: Name of each, its value, and the text beside it.
        xlabel: Label of the values, with unit.

    Example:
        >>> layer_bars([("z2", 1.5, "1.50 nats"), ("z1", 4.0, "4.00 nats")], "KL [nats]").axes[0].get_xlabel()
        'KL [nats]'
    """
    figure, axes = empty(WIDTH, 0.75 + 0.3 * len(rows))
    values = [value for _, value, _ in rows]
    axes.barh(range(len(rows)), values, height=0.65, color=BLUE)
    for place, (_, value, told) in enumerate(rows):
        axes.annotate(
            told, (max(value, 0.0), place), (4, 0), textcoords="offset points", va="center", fontsize=9.5, color=_INK
        )
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(min(0.0, *values), 1.6 * max(0.001, *values))  # room for the text beside the longest bar
    axes.grid(False, axis="y")
    axes.set_xlabel(xlabel)
    return figure


def stacked(bars: Sequence[tuple[str, Sequence[tuple[str, float]]]], xlabel: str) -> Figure:
    """Horizontal stacked bars.

    Args:
        bars: Name of each, and the names and values of its parts.
        xlabel: Label of the values, with unit.
    """
    figure, axes = empty(WIDTH, 0.8 + 1.15 * len(bars))
    for place, (_, parts) in enumerate(bars):
        left = 0.0
        for i, ((name, value), color) in enumerate(zip(parts, (BLUE, ORANGE, _GREEN), strict=False)):
            width = max(value, 0.0)
            axes.barh(place, width, left=left, height=0.5, color=color)
            where = axes.get_yaxis_transform()  # x in shares of the width, y in bars
            above = place - 0.31 - 0.21 * (len(parts) - 1 - i)
            axes.text(0, above, "■", fontsize=9.5, color=color, transform=where)
            told = f"{name} {value:.2f}"
            axes.text(0.035, above, told, fontsize=9.5, color=_INK, transform=where, parse_math=False)
            left += width
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.set_ylim(len(bars) - 0.7, -0.8)
    axes.set_xlabel(xlabel)
    return figure


def layer_panels(names: Sequence[str], measures: Mapping[str, Sequence[float]], dead: Sequence[bool]) -> Figure:
    """Panels of horizontal bars, one bar for each layer, the top layer above; dead ones are named so.

    Args:
        names: Of the layers, from the data up.
        measures: Values of every layer by their label, with unit.
        dead: Whether a layer is dead.

    Example:
        >>> [axes.get_xlabel() for axes in layer_panels(["z1", "z2"], {"KL [nats]": [3.0, 0.0]}, [False, True]).axes]
        ['KL [nats]']
    """
    figure, places = blank(WIDTH, 0.9 + 0.26 * len(names)), np.arange(len(names))
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, (label, values) in zip(panels, measures.items(), strict=True):
        styled(axes, 9.5, _INK)
        axes.barh(places, np.maximum(values, 0.0), height=0.7, color=BLUE)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(label)
    panels[0].set_yticks(places, [f"{name} (dead)" if each else name for name, each in zip(names, dead, strict=True)])
    return figure


def density(values: Array, reference: Array, limits: tuple[float, float]) -> Figure:
    """The values of one dimension as a histogram over the outline of its reference.

    Args:
        values: ``(n,)``.
        reference: ``(m,)``.
        limits: Range of both.
    """
    figure, axes = empty(1.9, 1.5)
    edges = np.linspace(*limits, 41).tolist()
    axes.hist(reference, edges, density=True, histtype="step", color=_INK, lw=1.2)
    axes.hist(values, edges, density=True, color=BLUE, alpha=0.7)
    axes.grid(False)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.spines["left"].set_visible(False)
    return figure


def histogram(values: Array, mean: str, label: str, other: tuple[str, float] | None = None) -> Figure:
    """A histogram of the values of examples, with their mean.

    Args:
        values: ``(n,)``.
        mean: The mean as text.
        label: Label of the values, with unit.
        other: Another unit and its factor, for a second axis.
    """
    figure, axes = empty(WIDTH, 2.9)
    axes.hist(values, int(np.clip(2 * len(values) ** (1 / 3), 8, 60)), color=BLUE, alpha=0.8)
    axes.axvline(values.mean(), color=ORANGE, lw=1.6)
    axes.set_title(mean, fontsize=10, color=_INK)
    axes.set_xlabel(label)
    axes.set_ylabel("examples")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if other is not None:
        name, factor = other
        there, back = (lambda x: np.multiply(x, factor)), (lambda x: np.divide(x, factor))
        second = axes.secondary_xaxis("top", functions=(there, back))
        second.set_xlabel(name, fontsize=10, color=_GREY)
        second.tick_params(labelsize=9.5, colors=_GREY)
        second.spines["top"].set_color(_PALE)
        axes.title.set_y(1.0)
    return figure


def scatter(points: Array, labels: Array | None, names: Sequence[str], axis_names: tuple[str, str] | None) -> Figure:
    """Points of a plane, coloured by label, with the names of labels at their points.

    Args:
        points: ``(n, 2)``.
        labels: Class indices ``(n,)``; -1 is drawn pale.
        names: Names of the classes; short names are written into the figure.
        axis_names: Names of the axes; None for axes without meaning.
    """
    figure, axes = empty(4.3, 4.1, ink=_GREY)
    size = float(np.clip(6000 / max(len(points), 1), 5, 28))
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=size, color=BLUE, alpha=0.6, lw=0)
    else:
        _classes(axes, points, labels, names, size)
    if axis_names is None:
        axes.set_axis_off()
    else:
        axes.set_xlabel(axis_names[0])
        axes.set_ylabel(axis_names[1])
    return figure


def _classes(axes: Axes, points: Array, labels: Array, names: Sequence[str], size: float) -> None:
    for label in np.unique(labels).astype(int):
        own = points[labels == label]
        axes.scatter(own[:, 0], own[:, 1], s=size, color=color_of(label), marker=mark_of(label), alpha=0.9, lw=0)
    if len(names) <= 20 and all(name.isascii() and len(name) <= 12 for name in names):
        for label in np.unique(labels[labels >= 0]).astype(int).tolist():
            own = points[labels == label]
            inmost = np.square(own - np.median(own, axis=0)).sum(1).argmin()
            _name(axes, own[inmost], names[int(label)])


def _name(axes: Axes, place: Array, name: str) -> None:
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    axes.text(place[0], place[1], name, ha="center", va="center", fontsize=9, color="black", bbox=box, parse_math=False)


def empty(width: float, height: float, ink: str = _INK) -> tuple[Figure, Axes]:
    """A figure of that size in inches, with axes."""
    figure = blank(width, height)
    axes = figure.add_subplot()
    styled(axes, 9.5 if width == WIDTH else 8, ink)
    return figure, axes


def blank(width: float, height: float) -> Figure:
    """A figure of that size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    return figure


def styled(axes: Axes, small: float = 8, ink: str = _INK) -> None:
    """Axes in the style of all figures."""
    axes.patch.set_alpha(0)
    axes.tick_params(labelsize=small, colors=ink)
    axes.xaxis.label.set(fontsize=small + 1, color=ink)
    axes.yaxis.label.set(fontsize=small + 1, color=ink)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_PALE if ink == _INK else ink)
    axes.grid(True, color="#80808038", lw=0.7)
    axes.set_axisbelow(True)


def svg(figure: Figure) -> str:
    """A figure as an element of a page: with text as text, in the page's font and colour."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tightbound"}):
        return inlined(_printed(figure, "svg"))


def png(figure: Figure) -> bytes:
    """A figure as PNG with twice the pixels of a screen: for many points."""
    return _printed(figure, "png", 200)


def _printed(figure: Figure, form: Literal["svg", "png"], dpi: float | Literal["figure"] = "figure") -> bytes:
    buffer, undated = io.BytesIO(), {"Date": None} if form == "svg" else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a class name in a script that the font lacks
        figure.savefig(buffer, format=form, dpi=dpi, metadata=undated)
    return buffer.getvalue()
