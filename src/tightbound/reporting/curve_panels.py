"""Panels of curves against the training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .figures import BLUE, ORANGE, Line, blank, styled

__all__ = ["Panel", "curve_panels"]

COLORS = (BLUE, ORANGE, "#009e73", "#808080")


@dataclass(frozen=True)
class Panel:
    """One panel of curves.

    Args:
        label: Label of the values, with unit.
        lines: Name, steps and values of each line.
        limits: Limits of the value axis; default: all values.
    """

    label: str
    lines: Sequence[Line]
    limits: tuple[float, float] | None = None

    @property
    def drawn(self) -> bool:
        """Whether it has a point."""
        return any(len(steps) for _, steps, _ in self.lines)


def curve_panels(panels: Sequence[Panel]) -> Figure:
    """Curves against the training step, two panels in a row.

    Example:
        >>> import numpy as np
        >>> steps = np.arange(1.0, 9.0)
        >>> figure = curve_panels([Panel("gap", [("", steps, 1 / steps)]), Panel("ramp", [("", steps, steps / 8)])])
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['gap', 'ramp']
    """
    rows = -(-len(panels) // 2)
    figure = blank(2 * 3.4, 2.2 * rows)
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(rows, 2, i + 1)
        styled(axes, 9)
        for color, (_, steps, values) in zip(cycle(COLORS), panel.lines, strict=False):
            axes.plot(steps, values, color=color, lw=1.4, marker="o" if len(steps) < 15 else None, ms=3)
        axes.set_ylabel(panel.label)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if panel.limits is not None:
            axes.set_ylim(*panel.limits)
        if i >= len(panels) - 2:
            axes.set_xlabel("step")
    return figure
