"""Colours and marks of classes: the same in maps, legends and texts, on light and dark backgrounds."""

from __future__ import annotations

__all__ = ["CLASS_COLORS", "CLASS_MARKS", "PALE", "color_of", "mark_of"]

CLASS_COLORS = (
    "#598fff",
    "#cc0006",
    "#4d6867",
    "#90948f",
    "#0b4cff",
    "#ec5f01",
    "#a386ae",
    "#76694d",
    "#ba089b",
    "#729f64",
)
"""Colours of classes, in order, found by search: any two differ by at least 14 (CIEDE2000) for all kinds of colour
vision, and each has a contrast of 3:1 on light and dark backgrounds."""
CLASS_MARKS = {"o": "●", "^": "▲", "s": "■", "D": "◆"}
"""Markers of classes, one for each cycle of the colours, in matplotlib and in text."""
PALE = "#9a9a9a"
"""Colour of points without a class."""


def color_of(label: int) -> str:
    """The colour of a class, by its index; -1 means no class.

    Example:
        >>> color_of(3) == color_of(13) == CLASS_COLORS[3]
        True
    """
    return PALE if label < 0 else CLASS_COLORS[label % len(CLASS_COLORS)]


def mark_of(label: int) -> str:
    """The marker of a class, in matplotlib's notation.

    Example:
        >>> mark_of(3), mark_of(13)
        ('o', '^')
    """
    marks = list(CLASS_MARKS)
    return "o" if label < 0 else marks[label // len(CLASS_COLORS) % len(marks)]
