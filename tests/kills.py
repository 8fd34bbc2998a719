"""Kills trainings at one file event after the other, or lets their disk run full, and starts them again.

    python tests/kills.py FOLDER [--events 60 | --only 1 7 30] [--disks 500 20000] [--systems vae vq-vae fit-prior]

Each must then end byte for byte like one that nothing happened to. A file event is an opening, renaming, making or
removing below the folder of the run; it is killed before it, or in the middle of appending a line. Each training
is a fork of this process, which has imported everything by the training that nothing happens to.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tightbound.cli.main import main
from tightbound.runs import RunFolder

DISKS = (500, 20_000, 100_000)
"""Bytes that a file may have on a disk that runs full."""
_EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.chmod")
_SHORT = ["--data", "digits", "--steps", "12", "--evaluate-every", "5", "--log-every", "4", "--batch-size", "32"]
_SHORT += ["--device", "cpu", "--precision", "32-true"]
_SKIPPING = [*_SHORT, "--lr", "1e-5", "--skip-nonfinite", "--skip-norm"]
_LADDER = ["train", "ladder", "--grids", "1", "4", "--groups", "1", "--channels", "4", "--latent-channels", "2"]
_VQ = ["train", "vq-vae", "--codes", "16", "--code-dim", "8", "--channels", "8", "--blocks", "1", *_SHORT]


@dataclass(frozen=True)
class System:
    """A training to be killed.

    Args:
        words: Its command.
        first: That of the first stage that it goes on from, if there is one.
    """

    words: tuple[str, ...]
    first: tuple[str, ...] | None = None

    def command(self, place: Path) -> list[str]:
        """The command whose runs are in a folder."""
        return [*(word.replace("PLACE", str(place)) for word in self.words), "--out", str(place / "run")]


SYSTEMS = {
    "vae": System(("train", "vae", "--latent-dim", "4", "--hidden", "64", *_SHORT)),
    "vq-vae": System((*_VQ, "--no-pictures")),
    "fit-prior": System(
        ("fit-prior", "PLACE/first", "--prior", "pixelcnn", "--channels", "16", "--layers", "2", *_SHORT),
        (*_VQ, "--no-pictures"),
    ),
    "fit-prior-masked": System(
        ("fit-prior", "PLACE/first", "--prior", "masked", "--width", "16", "--layers", "2", *_SHORT),
        (*_VQ, "--no-pictures"),
    ),
    "hvae": System(("train", "hvae", "--layers", "4", "2", "--hidden", "16", *_SKIPPING, "41")),
    "ladder": System((*_LADDER, "--ema", "0.9", *_SKIPPING, "170")),  # about half of the steps are skipped
}


class Kill:
    """Ends the process at a file event below a folder.

    Args:
        folder: The folder.
        event: Which one, counted from 1.
    """

    def __init__(self, folder: Path, event: int) -> None:
        self.folder, self.event, self.seen = f"{folder}/", event, 0

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name not in _EVENTS or not str(arguments[0]).startswith(self.folder):
            return
        self.seen += 1
        if self.seen == self.event:
            if name == "open" and arguments[1] == "a":
                with Path(arguments[0]).open("ab", buffering=0) as file:
                    file.write(b'{"step": 4, "spl')
            os.kill(os.getpid(), signal.SIGKILL)


def fill(size: int) -> None:
    """Lets no file grow beyond a size."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def run(words: list[str], before: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """The exit code of a command in a process of its own, the negative signal that killed it, and what it said."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        os.close(reader)
        _become(words, before, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said


def _become(words: list[str], before: Callable[[], object], output: int) -> None:
    code = 99
    try:
        for number in (1, 2):
            os.dup2(output, number)
        # The streams of the parent know whether a file lay behind them, where a pipe is now.
        sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
        before()
        code = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def content(path: Path) -> dict[str, Any]:
    """The bytes of every file of a run, and its readings but for the times in them."""
    found: dict[str, Any] = {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "metrics.jsonl"
    }
    records = RunFolder(path).records()
    found["readings"] = [{k: v for k, v in record.items() if k != "examples_per_second"} for record in records]
    return found


class Trials:
    """What becomes of one system.

    Args:
        name: Its name.
        folder: Where it is tried.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.system, self.folder = SYSTEMS[name], folder / name
        if self.system.first is not None:
            require(main([*self.system.first, "--out", str(self.folder / "first")]) == 0, "the first stage failed")
        place = self._place("whole")
        require(main(self.system.command(place)) == 0, "the training failed")
        self.whole = content(place / "run")

    def _place(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir(parents=True)
        if self.system.first is not None:
            shutil.copytree(self.folder / "first", place / "first")
        return place

    def _done(self, words: list[str]) -> None:
        code, said = run(words)
        require(code == 0, f"exit code {code}", said)

    def kill(self, event: int) -> bool:
        """Kills it at an event and lets it end; False if there are not so many."""
        place = self._place(f"killed-{event}")
        code, said = run(self.system.command(place), lambda: sys.addaudithook(Kill(place, event)))
        require(code in (0, -signal.SIGKILL), f"exit code {code}", said)
        if event % 3 == 0:  # and once more while it goes on
            again = Kill(place, event // 3)
            run([*self.system.command(place), "--resume"], lambda: sys.addaudithook(again))
        self._ends_alike(place, new=event % 2 == 0)
        return code != 0

    def fill(self, size: int) -> bool:
        """Lets its disk run full and then lets it end; False if the disk was large enough."""
        place = self._place(f"full-{size}")
        code, said = run(self.system.command(place), lambda: fill(size))
        require(code in (0, 1) and "Traceback" not in said, f"exit code {code}", said)
        if code == 1:
            saved = RunFolder(place / "run").checkpoint("last").is_file()
            require("Free some space" in said and ("intact" in said) <= saved, "the wrong remedy", said)
        self._ends_alike(place, new=False)
        return code != 0

    def _ends_alike(self, place: Path, new: bool) -> None:
        """Of a new start and of going on, what is tried first works or names the other, which then works."""
        ways = [self.system.command(place), [*self.system.command(place), "--resume"]]
        first, other = ways if new else ways[::-1]
        code, said = run(first)
        if code != 0:
            require("Traceback" not in said, "a traceback", said)
            require(("--resume" in said) if new else ("There is no run" in said), "no way on is named", said)
            self._done(other)
        ended = content(place / "run")
        different = [name for name in {*ended, *self.whole} if ended.get(name) != self.whole.get(name)]
        require(not different, f"{place}: not as without an interruption: {different}")
        left = [str(path) for path in place.rglob(".*")]
        require(not left, f"{place}: left behind: {left}")
        shutil.rmtree(place)


def require(holds: bool, what: str, said: str = "") -> None:
    """Ends this process if something does not hold."""
    if not holds:
        raise SystemExit(f"{what}\n{said}")


def try_all(folder: Path, systems: Iterable[str], events: Iterable[int], disks: Iterable[int]) -> str:
    """Tries systems at events, as far as they have so many, and on disks; what was tried."""
    told = list[str]()
    for name in systems:
        trials = Trials(name, folder)
        killed = sum(trials.kill(event) for event in events)
        full = sum(trials.fill(size) for size in disks)
        told.append(f"{name}: killed {killed} times, disk full {full} times, always the same bytes in the end")
        print(told[-1], flush=True)
    return "\n".join(told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=60)
    parser.add_argument("--only", type=int, nargs="+")
    parser.add_argument("--disks", type=int, nargs="*", default=DISKS)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    try_all(asked.folder, asked.systems, asked.only or range(1, asked.events + 1), asked.disks)
