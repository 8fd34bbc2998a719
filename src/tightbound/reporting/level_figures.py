"""Figures of diffusion models.

Convention: as in :mod:`tightbound.reporting.figures`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation.levels import LevelDiagnosis
from ..views.diffusion import Field
from .figures import BLUE, ORANGE, WIDTH, Array, blank, empty, styled

__all__ = ["field_figure", "level_figure"]

_DOTS = "#a8a8a8"
"""Colour of data."""
TINY = 1e-6
"""A length that is no longer seen, added where all might be 0."""


def level_figure(found: LevelDiagnosis) -> Figure:
    """The cost of each interval of noise levels, per unit of gamma, of a split and of training examples.

    Example:
        >>> found = LevelDiagnosis((-8.0, 0.0, 8.0), (1.0, 3.0), (1.0, 2.0), 0.0, -0.1, 4, 10, "test", ())
        >>> level_figure(found).axes[0].get_xlabel()
        'gamma (minus the log signal-to-noise ratio)'
    """
    figure, axes = empty(WIDTH, 2.9)
    edges = np.asarray(found.edges)
    for name, nats, color in (("training", found.train_nats, ORANGE), (found.split, found.nats, BLUE)):
        axes.stairs(np.asarray(nats) / np.diff(edges), edges, color=color, lw=1.8, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("gamma (minus the log signal-to-noise ratio)")
    axes.set_ylabel("nats per unit of gamma")
    axes.legend(frameon=False, fontsize=8)
    return figure


def field_figure(data: Array, fields: Sequence[Field], samples: Array) -> Figure:
    """Fields of several noise levels, each with the ways of samples from there on; then samples beside data.

    Args:
        data: Points, ``(n, 2)``.
        fields: What is drawn for each noise level.
        samples: Samples, ``(m, 2)``.

    Example:
        >>> import torch
        >>> field = Field(1.0, torch.rand(4, 2), torch.ones(4, 2), torch.zeros(3, 2, 2))
        >>> [axes.get_title() for axes in field_figure(np.eye(2), [field], np.eye(2)).axes]
        ['sigma 1', 'data', 'samples']
    """
    panels = len(fields) + 2
    figure = blank(2.7 * panels, 2.9)
    *shown, of_data, of_samples = figure.subplots(1, panels)
    for axes, field in zip(shown, fields, strict=True):
        axes.scatter(*data.T, s=2, color=_DOTS, linewidths=0)
        _draw_field(axes, field)
    middle, reach = data.mean(0), 1.15 * np.abs(data - data.mean(0)).max()
    for axes, name, points, color in ((of_data, "data", data, _DOTS), (of_samples, "samples", samples, BLUE)):
        axes.scatter(*points.T, s=3, color=color, linewidths=0)
        axes.set_title(name, fontsize=9)
        axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
    for axes in figure.axes:
        axes.set_aspect("equal")
        styled(axes)
    return figure


def _draw_field(axes: Axes, field: Field) -> None:
    """Arrows towards what is expected of the data; the longer half of them as long as a cell of their grid."""
    starts, aims, ways = (np.asarray(values) for values in (field.points, field.aims, field.ways))
    axes.plot(ways[..., 0], ways[..., 1], color=ORANGE, lw=0.7, alpha=0.8)
    axes.scatter(*ways[-1].T, s=7, color=ORANGE, linewidths=0, zorder=3)
    lengths, low, high = np.linalg.norm(aims - starts, axis=1, keepdims=True), starts.min(0), starts.max(0)
    cell = (high - low) / max(1, round(len(starts) ** 0.5) - 1)
    shown = 0.9 * cell.min() * (aims - starts) / np.maximum(lengths, max(np.median(lengths), TINY))
    axes.quiver(*starts.T, *shown.T, color=BLUE, angles="xy", scale_units="xy", scale=1, width=0.006)
    axes.set(xlim=(low[0] - TINY, high[0] + TINY), ylim=(low[1] - TINY, high[1] + TINY))
    axes.set_title(f"sigma {field.sigma:g}", fontsize=9)
