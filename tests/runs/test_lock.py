"""One training at a time in a folder, whose lock dies with its process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_helpers import refused
from tightbound import checkpoint
from tightbound.errors import CheckpointError, TrainingError
from tightbound.runtime.files import clear_leftovers, write_atomically
from tightbound.runtime.lock import Lock, locked, try_lock

HOLD = (
    "import sys, time, pathlib; from tightbound.runtime.lock import locked\nwith locked(pathlib.Path(sys.argv[1])):\n"
)
HOLD += "    print('held', flush=True); time.sleep(600)"


def test_a_folder_is_locked_once(tmp_path: Path) -> None:
    with locked(tmp_path):
        for _ in range(2):
            with refused(CheckpointError, "already being trained", f"process {os.getpid()}"), locked(tmp_path):
                pass
        assert (tmp_path / "lock").is_file()
    assert not (tmp_path / "lock").exists()
    with locked(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with refused(CheckpointError, f"process {holder.pid}"), locked(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert (tmp_path / "lock").is_file()
    with locked(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()
    assert not (tmp_path / "lock").exists()


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, stays in {"there": True, "new": False}.items():
        with locked(tmp_path / name):
            pass
        assert (tmp_path / name).exists() == stays
    with locked(tmp_path / "new"):
        (tmp_path / "new" / "config.json").touch()
    assert (tmp_path / "new" / "config.json").exists()


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def moved_and_made_again(folder: Path) -> None:
    moved(folder)
    folder.mkdir()
    (folder / "lock").touch()


@pytest.mark.parametrize("change", [moved, moved_and_made_again, shutil.rmtree])
def test_a_folder_that_is_moved_is_noticed(change, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with locked(folder) as lock:
        lock.check()
        change(folder)
        with refused(TrainingError, "was moved or deleted"):
            lock.check()
    assert (folder / "lock").exists() == (change is moved_and_made_again)


def test_a_link_to_a_folder_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with locked(tmp_path / "link") as lock:
        lock.check()
        with refused(CheckpointError, "already being trained"), locked(tmp_path / "run"):
            pass


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused(CheckpointError, "cannot be written", "--out"), locked(tmp_path / "file"):
        pass


def test_where_nothing_can_be_locked_nothing_is_sure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightbound.runtime.lock.fcntl", None)
    with locked(tmp_path) as lock:
        assert isinstance(lock, Lock)
        assert not lock.sure
        lock.check()


def test_what_dead_processes_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    dead, hidden, own = tmp_path / ".config.json.abcdefgh", tmp_path / ".hidden", tmp_path / "model.safetensors"
    for path in (dead, hidden, own):
        path.touch()
    folder = tmp_path / ".best.safetensors.a_c0efgh"
    folder.mkdir()
    (folder / ".tmpAbCdEf").touch()  # by safetensors, which replaces the file that it writes

    def save(temporary: str) -> None:
        checkpoint.write(Path(temporary), {"step": 1})
        clear_leftovers(tmp_path)
        assert Path(temporary).exists(), "what is being written was cleared"

    write_atomically(tmp_path / "metrics.jsonl", save)
    assert {path.name for path in tmp_path.iterdir()} == {".hidden", "model.safetensors", "metrics.jsonl"}
    clear_leftovers(tmp_path / "no such folder")


def test_a_handle_tells_whether_it_is_locked(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as one, (tmp_path / "a").open("w") as other:
        assert try_lock(one.fileno())
        assert try_lock(other.fileno()) is False
