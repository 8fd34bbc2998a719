"""Trainings for a number of minutes: how many steps fit in them is measured first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reproduce import tightbound

__all__ = ["seconds_of", "trained"]

PILOT = 40
"""Steps of the training that measures how long a step takes."""


def trained(folder: Path, words: str, minutes: float, again: bool, batch: int = 128) -> int:
    """Trains for as many steps as fit in the minutes, and returns their number.

    Args:
        folder: The run folder; what is there is kept.
        words: The command and its options, without the number of steps.
        minutes: Of training.
        again: Whether to train anew what is there.
        batch: Examples per step.
    """
    if again:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / "model.safetensors").is_file():
        pilot = folder.with_name(f"{folder.name}-pilot")
        shutil.rmtree(pilot, ignore_errors=True)
        tightbound(f"{words} --no-pictures --steps {PILOT} --evaluate-every {PILOT} --log-every 10 --out {pilot}")
        steps = max(PILOT, round(60 * minutes * _rate(pilot) / batch))
        shutil.rmtree(pilot)
        tightbound(f"{words} --no-pictures --steps {steps} --out {folder}")
    return json.loads((folder / "config.json").read_text(encoding="utf8"))["training"]["steps"]


def seconds_of(folder: Path, batch: int = 128) -> float:
    """Time in training steps.

    Args:
        folder: The run folder.
        batch: Examples per step.
    """
    records, found, before = _records(folder), 0.0, 0
    for record in records:
        found += (record["step"] - before) * batch / record["examples_per_second"]
        before = record["step"]
    return found


def _records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == "train"]


def _rate(folder: Path) -> float:
    """Examples per second after the first steps."""
    rates = [record["examples_per_second"] for record in _records(folder)[1:]]
    return sorted(rates)[len(rates) // 2]
