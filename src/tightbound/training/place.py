"""The run folder during training: locking, checks and resuming."""

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
from .state import require_same_run

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Place", "held", "require_place", "require_resumable", "require_unused", "said_of_place", "saying_way_on"]


@dataclass(frozen=True)
class Place:
    """A run folder in use by a training.

    Args:
        folder: The folder.
        lock: The lock; None in all processes but the first.
    """

    folder: RunFolder
    lock: Lock | None

    def require(self) -> None:
        """Ends the training if its folder was moved, since a new one would be created.

        Raises:
            TrainingError: If it was.
        """
        if self.lock is not None:
            self.lock.check()


@contextmanager
def held(fabric: Fabric, folder: RunFolder) -> Iterator[Place]:
    """Locks the folder inside the block; of several processes the first holds the lock.

    Raises:
        CheckpointError: In all processes, if another training holds the folder.
    """
    locks: list[Lock] = []
    with ExitStack() as stack:
        by_first(fabric, lambda: locks.append(stack.enter_context(locked(folder.path))))
        yield Place(folder, locks[0] if locks else None)


def require_place(folder: RunFolder, config: RunConfig) -> None:
    """Refuses a path for a run that cannot be a folder, or lies within the training data.

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
            f"{folder.path} lies inside the data folder, so its files would be read as data.",
            got=f"--out {folder.path}",
            expected=f"a place outside {data}",
            remedy="Choose another --out.",
        )


def require_unused(folder: RunFolder, new: RunConfig) -> bool:
    """A new run needs an unused folder, except for leftovers from before a first checkpoint.

    Returns:
        False: there is no state to resume.

    Raises:
        UsageError: If the folder holds a run, or files that look like one.
    """
    remedy = "Choose another --out."
    if folder.begun and folder.config_file.exists():
        raise UsageError(f"{folder.path} already holds a run.", remedy=f"Resume it with --resume. {remedy}")
    if folder.begun:
        raise UsageError(f"{folder.path} holds files of a run, though no config.json.", remedy=remedy)
    if folder.config_file.exists():
        try:
            folder.config()
        except CheckpointError as error:
            raise UsageError(f"{folder.path} holds something else. {error.message}", remedy=remedy) from None
    return False


def require_resumable(folder: RunFolder, new: RunConfig) -> bool:
    """A resumed run must exist and be the same run.

    Returns:
        Whether there is a state to resume; without one it starts at step 0.

    Raises:
        UsageError: If it differs, with the differences.
        CheckpointError: If there is none.
    """
    require_same_run(folder.config(), new)
    return folder.begun


def said_of_place(place: Place, restarted: bool) -> Iterator[str]:
    """Warnings about a folder: it cannot be locked, or its run has no checkpoint yet."""
    if place.lock is not None and not place.lock.sure:
        yield f"warning: {place.folder.path} cannot be locked: make sure that no other training uses it"
    if restarted:
        yield f"note: {place.folder.path} has no checkpoint yet: starting at step 0"


@contextmanager
def saying_way_on(folder: RunFolder) -> Iterator[None]:
    """Adds how to continue to errors while writing."""
    try:
        yield
    except CheckpointError as error:
        saved = folder.checkpoint("last").is_file()
        then = "continue with --resume: the last checkpoint is intact" if saved else "start again: nothing is lost"
        remedy = f"Free some space, or make the folder writable; then {then}."
        raise CheckpointError(error.message, got=error.got, expected=error.expected, remedy=remedy) from None
