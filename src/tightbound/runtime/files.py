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
"""Names of the temporary folders of :func:`write_atomically`; of temporary files, in older versions."""


def write_atomically(path: Path, save: Callable[[str], object]) -> None:
    """Calls ``save`` on a temporary file, then renames it to ``path`` once it is synced to disk.

    The file lies in a temporary folder beside ``path``, since writers may replace it or write more files beside it.

    Raises:
        CheckpointError: If that fails (no space, no permission); ``path`` is then unchanged.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(path) as folder:
            temporary = folder / path.name
            save(str(temporary))
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)  # noqa: PTH105


@contextlib.contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path``, locked, which distinguishes it from one left by a dead process."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            with _held(folder) as sure:
                if sure is not False and folder.exists():
                    yield folder
                    return
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bool | None]:
    """Locks a file or a folder inside the block: what :func:`try_lock` returns, None where folders are not opened."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # no longer there, or Windows
        yield None
        return
    try:
        yield try_lock(handle)
    finally:
        os.close(handle)


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
    """Removes what killed processes left in a folder while they wrote to it; what is being written now stays."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER.fullmatch(path.name) and not path.is_symlink():
            with _held(path) as free, contextlib.suppress(OSError):
                if free:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
