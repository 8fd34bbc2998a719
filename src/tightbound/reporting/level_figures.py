"""Figures of diffusion models.

Convention: as in :mod:`tightbound.reporting.figures`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ..evaluation.levels import LevelDiagnosis
from .figures import BLUE, ORANGE, WIDTH, Array, blank, empty, styled

__all__ = ["field_figure", "level_figure"]


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


def field_figure(data: Array, grid: Array, arrows: Mapping[float, Array], ways: Array) -> Figure:
    """Data with the fields of several noise levels, and with the paths of samples.

    Args:
        data: Points, ``(n, 2)``.
        grid: Where the arrows start, ``(m, 2)``.
        arrows: For each ratio of noise to signal their lengths, ``(m, 2)``.
        ways: Paths, ``(steps, lines, 2)``.

    Example:
        >>> len(field_figure(np.zeros((5, 2)), np.zeros((4, 2)), {1.0: np.ones((4, 2))}, np.zeros((3, 2, 2))).axes)
        2
    """
    panels = len(arrows) + 1
    figure = blank(2.6 * panels, 2.8)
    for i, axes in enumerate(figure.subplots(1, panels, sharex=True, sharey=True)):
        axes.scatter(*data.T, s=2, color="#b8b8b8", linewidths=0)
        if i < len(arrows):
            sigma, lengths = list(arrows.items())[i]
            axes.quiver(*grid.T, *lengths.T, color=BLUE, angles="xy", width=0.005)
            axes.set_title(f"sigma {sigma:g}", fontsize=9)
        else:
            axes.plot(ways[..., 0], ways[..., 1], color=ORANGE, lw=0.6, alpha=0.7)
            axes.scatter(*ways[-1].T, s=6, color=BLUE, linewidths=0, zorder=3)
            axes.set_title("from noise to data", fontsize=9)
        axes.set_aspect("equal")
        styled(axes)
    return figure
