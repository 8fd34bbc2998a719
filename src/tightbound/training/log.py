"""Logging of a run: metrics.jsonl, TensorBoard and a progress bar."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ..errors import UsageError
from ..runs.readings import recorded
from ..runtime.files import write_atomically, writing

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["MetricsLog", "Pace", "ProgressBar", "count", "duration"]


class MetricsLog:
    """Appends records to ``metrics.jsonl``, and optionally to TensorBoard.

    Args:
        path: The file.
        step: Records after this step are dropped, since a resumed run writes them again.
        tensorboard: Folder of TensorBoard events, or None.
    """

    def __init__(self, path: Path, step: int, tensorboard: Path | None = None) -> None:
        lines = path.read_text(encoding="utf8", errors="replace").splitlines() if step and path.is_file() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_atomically(path, lambda temporary: Path(temporary).write_text("".join(f"{line}\n" for line in kept)))
        self.path, self.events = path, tensorboard or path
        with writing(self.events):
            self.writer = None if tensorboard is None else _summary_writer(tensorboard, step)

    def write(self, record: dict[str, Any]) -> None:
        """Writes one line; values that JSON cannot represent become null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        with writing(self.path), self.path.open("a", encoding="utf8") as file:
            file.write(json.dumps(clean) + "\n")
        if self.writer is not None:
            with writing(self.events):
                _draw(self.writer, record)

    def close(self) -> None:
        if self.writer is not None:
            with writing(self.events):
                self.writer.close()


def _draw(writer: SummaryWriter, record: dict[str, Any]) -> None:
    for name, value in record.items():
        if isinstance(value, float):
            writer.add_scalar(f"{record['split']}/{name}", value, record["step"])


def _step_of(line: str) -> float:
    found = recorded(line)
    return math.inf if found is None else found["step"]


def _summary_writer(folder: Path, step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise UsageError(
            "TensorBoard is not installed.", got="--tensorboard", remedy="pip install 'tightbound[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder), purge_step=step + 1)


class Pace:
    """Speed and remaining time of a run, measured since it started or resumed.

    The first step, which is slower, is ignored once there is another.

    Args:
        steps: Steps of the run.
        done: Steps done already.
    """

    def __init__(self, steps: int, done: int) -> None:
        self.steps, self.first, self.done = steps, done, done
        self.began = self.now = self.warm = time.monotonic()

    def advance(self, step: int) -> None:
        """Records that a step is done."""
        self.done, self.now = step, time.monotonic()
        if step == self.first + 1:
            self.warm = self.now

    @property
    def seconds(self) -> float:
        """Seconds of a step."""
        if self.done > self.first + 1:
            return (self.now - self.warm) / (self.done - self.first - 1)
        return (self.now - self.began) / max(1, self.done - self.first)

    @property
    def left(self) -> str:
        """The remaining time, as text."""
        return duration((self.steps - self.done) * self.seconds)


def duration(seconds: float) -> str:
    """A duration as text.

    Example:
        >>> duration(12.3), duration(340), duration(9000)
        ('12 s', '6 min', '2 h 30 min')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def count(number: float) -> str:
    """A number as text, without decimals if it is large.

    Example:
        >>> count(0.29268), count(1250.4)
        ('0.29', '1,250')
    """
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


FIRST, SOON, LATER, SOON_FOR = 2.0, 10.0, 30.0, 60.0
"""Without a bar: seconds to the first line and between evaluation lines, between lines early on, and later; and how
long early is."""
BAR = 12
"""Columns of the bar itself."""
_SPLITS = {"train": "training", "valid": "validation"}


class ProgressBar:
    """A bar in a terminal; elsewhere occasional lines: evaluations, and metrics between them if they are rare.

    Args:
        steps: Steps of the run.
        done: Steps done already.
        per_epoch: Steps of an epoch.
        examples: Average number of examples per step.
        show: False in all processes but the first.
    """

    def __init__(self, steps: int, done: int, *, per_epoch: int, examples: float, show: bool) -> None:
        self.console = Console(stderr=True, quiet=not show, highlight=False)
        self.per_epoch, self.examples, self.show = per_epoch, examples, show
        self.pace, self.split, self.texts = Pace(steps, done), "", tuple[str, ...]()
        self.told_at, self.valid_at = self.pace.began, -math.inf
        self.bar = Progress(
            BarColumn(bar_width=BAR),
            TextColumn("{task.completed:,}/{task.total:,}"),
            TextColumn("{task.fields[status]}", markup=False),
            console=self.console,
            disable=not (show and self.console.is_terminal),
        )
        self.task = self.bar.add_task("training", total=steps, completed=done, status="")
        self.bar.start()

    def advance(self, step: int) -> None:
        """Records that a step is done."""
        self.pace.advance(step)
        self.bar.update(self.task, completed=step, status=self._beside(f"{self.pace.left} left"))

    @property
    def due(self) -> bool:
        """Whether to show metrics between evaluations; with a bar only until the first evaluation."""
        wait = self.pace.now - self.told_at
        if not self.bar.disable:
            return wait >= FIRST and self.split != "valid"
        soon = self.pace.now - self.pace.began < SOON_FOR
        return self.show and wait >= (FIRST if self.told_at == self.pace.began else SOON if soon else LATER)

    def reading(self, split: Literal["train", "valid"], *texts: str, last: bool = False) -> None:
        """Shows metrics beside the bar, or as a line unless there was one recently.

        Args:
            split: The split.
            *texts: The full text, then shorter versions for narrow terminals.
            last: Whether it is the last, which is always shown.
        """
        self.split, self.texts = split, texts
        if self.bar.disable:
            if split == "valid" and self.pace.now - self.valid_at < FIRST and not last:
                return
            where = f"step {self.pace.done:,}/{self.pace.steps:,} (epoch {count(self.pace.done / self.per_epoch)})"
            left = "" if last else f", {self.pace.left} left"
            said = f"{where}: {_SPLITS[split]} {texts[0]}; {self._rate} examples/s{left}"
            self.console.print(said, soft_wrap=True, markup=False)
        self.told_at, self.valid_at = self.pace.now, self.pace.now if split == "valid" else self.valid_at

    @property
    def _rate(self) -> str:
        return count(self.examples / max(self.pace.seconds, 1e-9))

    def _beside(self, time: str) -> str:
        """The longest text that fits."""
        if self.pace.done == self.pace.first:
            return time
        rate, done = f"{self._rate} examples/s", f" {self.pace.steps:,}/{self.pace.steps:,} "
        texts = [f"{self.split} {text}" for text in self.texts]
        ways = [*(f"{text}, {rate}, {time}" for text in texts), *(f"{text}, {time}" for text in texts[-1:])]
        ways += [] if texts else [f"{rate}, {time}"]
        room = self.console.width - BAR - len(done)
        return next((way for way in ways if len(way) <= room), time)

    def close(self) -> None:
        """Ends the bar, with the time taken."""
        took = duration(self.pace.now - self.pace.began)
        self.bar.update(self.task, status=self._beside(f"took {took}"))
        self.bar.stop()
