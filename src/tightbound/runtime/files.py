"""Files that are complete or not there: written beside their place, synced and renamed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from ..errors import CheckpointError
from .lock import try_lock

__all__ = ["clear_leftovers", "write_again", "write_atomically", "writing"]

_LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Names of the temporary files of :func:`write_atomically`."""


def write_atomically(path: Path, save: Callable[[str], object]) -> None:
    """Calls ``save`` on a temporary file beside ``path``, then renames it once it is synced to disk.

    Raises:
        CheckpointError: If that fails (no space, no permission); ``path`` is then unchanged.
    """
    temporary = handle = None
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = _temporary(path)
            save(temporary)
            with open(temporary, "rb") as file:  # noqa: PTH123
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # noqa: PTH101
            os.replace(temporary, path)  # noqa: PTH105
    finally:
        if temporary is not None and handle is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            os.close(handle)


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside ``path``, locked, which distinguishes it from one left by a dead process."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        if try_lock(handle) is not False and os.path.exists(name):  # noqa: PTH110
            return handle, name
        os.close(handle)  # another process took it for a leftover before it was locked
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108


def write_again(path: Path, source: Path) -> None:
    """Copies a file that was just written, which is faster than writing its content again.

    A copy, not a link: if one file is damaged on disk, the other survives.

    Args:
        path: The copy.
        source: What to copy.

    Raises:
        CheckpointError: As :func:`write_atomically`.
    """
    write_atomically(path, lambda temporary: shutil.copyfile(source, temporary))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors while writing a file into one error.

    Raises:
        CheckpointError: If there is no space or no permission.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written.",
            got=error,
            expected="a writable disk with space left",
            remedy="Free some space, or choose another place.",
        ) from None


def clear_leftovers(folder: Path) -> None:
    """Removes temporary files that killed processes left in a folder; files being written now stay."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDWR)
                try:
                    if try_lock(handle):
                        path.unlink()
                finally:
                    os.close(handle)
