"""What a run says while it goes: metrics.jsonl, TensorBoard, and a progress bar."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..checkpoint import write_atomically, writing
from ..errors import UsageError
from ..readings import recorded

__all__ = ["MetricsLog", "ProgressBar"]


class MetricsLog:
    """Appends readings to ``metrics.jsonl``, and to TensorBoard where asked.

    Args:
        path: The file.
        step: Readings after this step are dropped: a resumed run writes them again.
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
        """One line; a value that JSON cannot hold becomes null."""
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


def _draw(writer: Any, record: dict[str, Any]) -> None:
    for name, value in record.items():
        if isinstance(value, float):
            writer.add_scalar(f"{record['split']}/{name}", value, record["step"])


def _step_of(line: str) -> float:
    found = recorded(line)
    return math.inf if found is None else found["step"]


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise UsageError(
            "TensorBoard is not installed.", got="--tensorboard", remedy="pip install 'tightbound[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder), purge_step=step + 1)


class ProgressBar:
    """A bar on a terminal; elsewhere one line per evaluation.

    Args:
        steps: Steps of the whole run.
        done: Steps done already.
        show: False on all processes but the first.
    """

    def __init__(self, steps: int, done: int, show: bool) -> None:
        self.console = Console(stderr=True, quiet=not show, highlight=False)
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (show and self.console.is_terminal),
        )
        self.task = self.bar.add_task("training", total=steps, completed=done, status="")
        self.bar.start()

    def advance(self, step: int) -> None:
        self.bar.update(self.task, completed=step)

    def reading(self, step: int, steps: int, text: str) -> None:
        """A short text beside the bar, or a line where there is none."""
        self.bar.update(self.task, status=text)
        if self.bar.disable:
            self.say(f"step {step}/{steps}: {text}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, soft_wrap=True, markup=False)

    def close(self) -> None:
        self.bar.stop()
