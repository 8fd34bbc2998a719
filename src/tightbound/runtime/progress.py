"""Progress on standard error: a bar after two seconds in a terminal, else occasional lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Protocol

__all__ = ["Advance", "progress", "silent"]

PATIENCE = 2.0
"""Seconds before a bar appears."""
LINES = 20.0
"""Seconds between lines, if standard error is not a terminal."""


class Advance(Protocol):
    """Advances the progress by an amount."""

    def __call__(self, amount: int = 1) -> None: ...


@contextmanager
def progress(title: str, total: int, *, unit: str = "count") -> Iterator[Advance]:
    """Shows a bar after two seconds, unless one is shown already; without a terminal, a line every twenty seconds.

    Args:
        title: Description of the task.
        total: Final sum of all ``advance`` calls.
        unit: ``"count"`` or ``"bytes"``.

    Example:
        >>> with progress("decoding", total=3) as advance:
        ...     advance(3)
    """
    bar = _Bar(title, total, unit)
    try:
        yield bar.advance
    finally:
        bar.stop()


@contextmanager
def silent() -> Iterator[None]:
    """Disables progress inside the block.

    Example:
        >>> with silent(), progress("decoding", total=3) as advance:
        ...     advance(3)
    """
    before, _Bar.taken = _Bar.taken, True
    try:
        yield
    finally:
        _Bar.taken = before


class _Bar:
    taken: ClassVar[bool] = False
    """Whether a bar is shown; there is at most one."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, 0
        self.started, self.shown, self.task = time.monotonic(), None, None
        self.told = self.started
        self.wanted = sys.stderr.isatty()

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        if self.shown is not None and self.task is not None:
            self.shown.update(self.task, completed=self.done)
        elif self.wanted and not _Bar.taken and time.monotonic() - self.started > PATIENCE:
            self._show()
        elif not self.wanted and not _Bar.taken and time.monotonic() - self.told > LINES:
            self._tell()

    def _tell(self) -> None:
        self.told = time.monotonic()
        unit = " bytes" * (self.unit == "bytes")
        of = f" of {self.total:,}" if self.total else ""
        print(f"{self.title}: {self.done:,}{of}{unit}", file=sys.stderr)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        count = DownloadColumn() if self.unit == "bytes" else MofNCompleteColumn()
        columns = ("{task.description}", BarColumn(), count, TimeRemainingColumn())
        self.shown = Progress(*columns, console=Console(stderr=True), transient=True)
        self.shown.start()
        _Bar.taken = True
        self.task = self.shown.add_task(self.title, total=self.total or None, completed=self.done)

    def stop(self) -> None:
        if self.shown is not None:
            self.shown.stop()
            _Bar.taken = False
