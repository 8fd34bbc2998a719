"""Colours and marks of classes: the same in maps, legends and texts, on light and on dark paper."""

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
"""Colours of classes, in turn. They were searched for: any two differ by at least 14 (CIEDE2000) to eyes that lack red,
green or blue cones as to those that lack none, and each stands out by 3 to 1 on light and on dark paper."""
CLASS_MARKS = {"o": "●", "^": "▲", "s": "■", "D": "◆"}
"""Markers of classes, one for each turn of the colours, as matplotlib and as a text writes them."""
PALE = "#9a9a9a"
"""What belongs to no class."""


def color_of(label: int) -> str:
    """The colour of a class, by its number; -1 is none.

    Example:
        >>> color_of(3) == color_of(13) == CLASS_COLORS[3]
        True
    """
    return PALE if label < 0 else CLASS_COLORS[label % len(CLASS_COLORS)]


def mark_of(label: int) -> str:
    """The marker of a class, as matplotlib names it.

    Example:
        >>> mark_of(3), mark_of(13)
        ('o', '^')
    """
    marks = list(CLASS_MARKS)
    return "o" if label < 0 else marks[label // len(CLASS_COLORS) % len(marks)]
