"""A lock that ends with its process, so that only one training writes to a run folder."""

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
        True; False if another process has locked it; None if files cannot be locked.

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
    """A held lock on a folder.

    Args:
        path: The file ``lock`` in it.
        handle: Its descriptor.
        sure: False if files cannot be locked, so another process may hold it too.
        made: Whether the folder was created for it.
    """

    path: Path
    handle: int
    sure: bool
    made: bool

    def check(self) -> None:
        """Checks that the folder is still in place.

        Raises:
            TrainingError: If the folder or the lock in it was moved or deleted.
        """
        if not self.here():
            raise TrainingError(
                f"The run folder {self.path.parent} was moved or deleted during training.",
                got=f"no file {self.path.name} of this process in it",
                expected="the folder in its place until the training ends",
                remedy="If it was moved, use --resume with its new path.",
            )

    def here(self) -> bool:
        """Whether the lock file and its folder are still in place."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.handle))
        except OSError:
            return False

    def release(self) -> None:
        """Releases the folder, and removes it if it was created and left empty."""
        if self.here():
            with suppress(OSError):
                self.path.unlink()
                if self.made:
                    self.path.parent.rmdir()  # fails if something was written
        os.close(self.handle)


@contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Locks a folder inside the block, and creates it if it does not exist.

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
        if lock.here():  # and not one just released by another process
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
    with suppress(OSError):  # no space left: the lock holds without a name
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
        f"{folder} is already being trained.",
        got=name or "an unnamed process",
        expected="one training of a run at a time",
        remedy="Wait until it has ended, stop it, or choose another --out.",
    )
