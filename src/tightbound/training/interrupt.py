"""Graceful interruption: the first signal asks the loop to save and stop, another ends the program immediately."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stop", "stop_on_signals"]

ECHO = 1.0
"""Seconds in which a second signal is ignored: launchers forward signals that the terminal sent to all processes."""


class Stop:
    """The signal that asked the run to stop, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.asked = 0.0

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self.asked = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self.asked > ECHO:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Records SIGINT, SIGTERM and SIGHUP inside the block, instead of ending the program.

    In other threads it does nothing, and a SIGHUP ignored by nohup stays ignored.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.signal(number, stop.ask) for number in _asking()}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _asking() -> Iterator[signal.Signals]:
    yield from (signal.SIGINT, signal.SIGTERM)
    hangup = getattr(signal, "SIGHUP", None)  # which Windows lacks
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        yield hangup
