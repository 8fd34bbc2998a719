"""A training that is killed, or whose disk is full, at any moment starts again and ends like one that never was.

`make kills` tries sixty events of every system; here are a few.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "kills.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each training is a fork of one process")
@pytest.mark.parametrize(
    ("system", "events", "disks"),
    [
        ("vae", (2, 3, 7, 14), (500, 100_000)),
        ("fit-prior", (1, 6, 11), (20_000,)),
        ("fit-prior-masked", (9,), ()),
        ("hvae", (9,), ()),
        ("ladder", (16,), ()),
    ],
    ids=["vae", "fit-prior", "fit-prior-masked", "hvae", "ladder"],
)
def test_a_killed_training_starts_again(
    system: str, events: tuple[int, ...], disks: tuple[int, ...], tmp_path: Path
) -> None:
    words = [SCRIPT, tmp_path, "--systems", system, "--only", *events, "--disks", *disks]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{system}: killed {len(events)} times, disk full {len(disks)} times" in done.stdout
