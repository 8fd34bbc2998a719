"""The run folder while it is trained: whose it is, what it may hold, and how to go on in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, UsageError
from ..runs import RunConfig, RunFolder
from ..runtime.lock import Lock, locked
from .device import by_first
from .state import check_same_run

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Place", "check_free", "check_place", "check_resumable", "held", "said_of_place", "saying_way_on"]


@dataclass(frozen=True)
class Place:
    """A run folder that a training writes.

    Args:
        folder: The folder.
        lock: That which keeps others out; None in all processes but the first.
    """

    folder: RunFolder
    lock: Lock | None

    def require(self) -> None:
        """Ends the training if its folder was moved away, in whose place another would be made.

        Raises:
            TrainingError: If it was.
        """
        if self.lock is not None:
            self.lock.check()


@contextmanager
def held(fabric: Fabric, folder: RunFolder) -> Iterator[Place]:
    """Within it, no other training writes the folder; of several processes the first holds the lock.

    Raises:
        CheckpointError: In all processes, if another training holds the folder.
    """
    locks: list[Lock] = []
    with ExitStack() as stack:
        by_first(fabric, lambda: locks.append(stack.enter_context(locked(folder.path))))
        yield Place(folder, locks[0] if locks else None)


def check_place(folder: RunFolder, config: RunConfig) -> None:
    """Refuses a place for a run where no folder can be, or within the data that it learns from.

    Raises:
        UsageError: If it is one.
    """
    path = folder.path.absolute()
    if files := [place for place in (path, *path.parents) if place.exists() and not place.is_dir()]:
        raise UsageError(
            f"{folder.path} cannot be a run folder.", got=f"{files[0]}, which is a file", remedy="Choose another --out."
        )
    data = Path(config.data.data).expanduser() if config.data and config.data.data else None
    if data is not None and data.exists() and data.resolve() in (path.resolve(), *path.resolve().parents):
        raise UsageError(
            f"{folder.path} lies in the data, and what is written there would be read as data.",
            got=f"--out {folder.path}",
            expected=f"a place outside {data}",
            remedy="Choose another --out.",
        )


def check_free(folder: RunFolder, new: RunConfig) -> bool:
    """A new run needs a folder without one; what a killed training left there before its first checkpoint may be.

    Returns:
        False: there is no state to go on from.

    Raises:
        UsageError: If the folder holds a run, or files that look like one.
    """
    remedy = "Choose another --out."
    if folder.begun and folder.config_file.exists():
        raise UsageError(f"{folder.path} holds a run already.", remedy=f"Go on with it by --resume. {remedy}")
    if folder.begun:
        raise UsageError(f"{folder.path} holds files of a run, though no config.json.", remedy=remedy)
    if folder.config_file.exists():
        try:
            folder.config()
        except CheckpointError as error:
            raise UsageError(f"{folder.path} holds something else. {error.message}", remedy=remedy) from None
    return False


def check_resumable(folder: RunFolder, new: RunConfig) -> bool:
    """A resumed run must be there, and be the same run.

    Returns:
        Whether there is a state to go on from; without one it starts at step 0.

    Raises:
        UsageError: If it is another, with what differs.
        CheckpointError: If there is none.
    """
    check_same_run(folder.config(), new)
    return folder.begun


def said_of_place(place: Place, restarted: bool) -> Iterator[str]:
    """What is odd about a folder: that it cannot be locked, or that a run to resume in it has not begun."""
    if place.lock is not None and not place.lock.sure:
        yield f"warning: {place.folder.path} cannot be locked: see that nothing else trains in it"
    if restarted:
        yield f"note: {place.folder.path} has no checkpoint yet: it starts at step 0"


@contextmanager
def saying_way_on(folder: RunFolder) -> Iterator[None]:
    """Within it, what cannot be written is told with how to go on from there."""
    try:
        yield
    except CheckpointError as error:
        saved = folder.checkpoint("last").is_file()
        then = "go on with --resume: the last checkpoint is unharmed" if saved else "start again: nothing is lost"
        remedy = f"Free some space, or see that the folder can be written; then {then}."
        raise CheckpointError(error.message, got=error.got, expected=error.expected, remedy=remedy) from None
