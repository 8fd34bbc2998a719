"""A lock that dies with its process, so that a run folder belongs to one training at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, TrainingError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["Lock", "locked", "try_lock"]


def try_lock(handle: int) -> bool | None:
    """Locks an open file until it is closed or the process ends.

    Args:
        handle: A file descriptor.

    Returns:
        True; False if somebody else has locked it; None where files cannot be locked.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryFile() as file:
        ...     try_lock(file.fileno())
        True
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks
        return None
    return True


@dataclass(frozen=True)
class Lock:
    """The lock on a folder, held.

    Args:
        path: The file ``lock`` in it.
        handle: Its descriptor.
        sure: False where files cannot be locked, so that another process may hold it too.
        made: Whether the folder was made for it.
    """

    path: Path
    handle: int
    sure: bool
    made: bool

    def check(self) -> None:
        """Makes sure that the folder is still where it was.

        Raises:
            TrainingError: If it was moved or deleted, or the lock in it.
        """
        if not self.here():
            raise TrainingError(
                f"The run folder {self.path.parent} was moved or deleted while it was trained.",
                got=f"no file {self.path.name} of this process in it",
                expected="the folder in its place until the training ends",
                remedy="If it was moved, go on where it is now, with --resume.",
            )

    def here(self) -> bool:
        """Whether the lock is still in its folder, and the folder in its place."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.handle))
        except OSError:
            return False

    def release(self) -> None:
        """Gives the folder free, and removes it if it was made for nothing."""
        if self.here():
            with suppress(OSError):
                self.path.unlink()
                if self.made:
                    self.path.parent.rmdir()  # which fails where something was written
        os.close(self.handle)


@contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Within it, the folder, which is made where there is none, is locked.

    Args:
        folder: The folder.

    Raises:
        CheckpointError: If another process, or another training in this one, has locked it, or it cannot be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with locked(folder) as lock:
        ...     lock.path.name, lock.here()
        ('lock', True)
    """
    lock = _take(folder)
    try:
        yield lock
    finally:
        lock.release()


def _take(folder: Path) -> Lock:
    made = not folder.exists()
    while True:
        handle = _opened(folder)
        taken = try_lock(handle)
        if taken is False:
            raise _held_by(_signature(handle), folder)
        lock = Lock(folder / "lock", handle, taken is True, made)
        if lock.here():  # and not the one that another has just given free
            _sign(handle)
            return lock
        os.close(handle)


def _opened(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written.",
            got=error,
            expected="a folder, or a place for one, on a writable disk with space left",
            remedy="Free some space, or choose another --out.",
        ) from None


def _sign(handle: int) -> None:
    with suppress(OSError):  # no space is left: the lock holds without a name
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())


def _signature(handle: int) -> str:
    try:
        return os.read(handle, 200).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(handle)


def _held_by(name: str, folder: Path) -> CheckpointError:
    return CheckpointError(
        f"{folder} is being trained already.",
        got=name or "a process that has not given its name",
        expected="one training of a run at a time",
        remedy="Wait until that has ended, stop it, or choose another --out.",
    )
