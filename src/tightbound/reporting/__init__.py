"""Figures and the HTML report of a run. Importing it does not import torch or matplotlib: names are loaded lazily."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .command import reproduction_command
    from .comparing.comparison import Comparison, compare
    from .comparing.side_by_side import draw_comparison
    from .report import write_report

__all__ = ["Comparison", "compare", "draw_comparison", "reproduction_command", "write_report"]

_LAZY = {
    "Comparison": "comparing.comparison",
    "compare": "comparing.comparison",
    "draw_comparison": "comparing.side_by_side",
    "reproduction_command": "command",
    "write_report": "report",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
