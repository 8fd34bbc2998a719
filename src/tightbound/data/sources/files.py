"""A common interface to folders, tars and zips: names and bytes of files, in order. Nothing is extracted to disk."""

from __future__ import annotations

import os
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from ...errors import DataError, reading
from ..observed import few
from ..store import require_unpacked_size
from .images import SUFFIXES

__all__ = ["FileTree", "Folder", "OneFile", "Read", "Tar", "Zip", "open_tree"]

Read = Callable[[], bytes]
"""Reads the bytes of one file."""
MOST_BYTES = 2**28
"""Larger files are refused: no image is that large."""
SYSTEM = {"__macosx", "thumbs.db", "desktop.ini"}
"""Metadata files of operating systems, hidden or not."""
MOST_NAME = 2**20
"""Maximum bytes of a name or other header of a tar member."""


class FileTree(ABC):
    """Regular files under one root, by their names relative to it, with ``/`` between the parts.

    ``sizes`` has the bytes of each in the order of their names, ``folders`` the names of all folders, and ``notes``
    lists links that were not followed.

    Args:
        path: The folder or the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: tuple[str, ...] = ()
        found = {name: size for name, size in self._sizes().items() if _visible(name)}
        self.sizes = {name: found[name] for name in sorted(found) if not name.endswith("/")}
        self.folders = sorted({name.rstrip("/") for name in found if name.endswith("/")} | _above(self.sizes))

    @abstractmethod
    def _sizes(self) -> dict[str, int]:
        """Bytes of every file, by name; the name of a folder ends in ``/``."""

    @abstractmethod
    def _read_all(self, names: Collection[str]) -> Iterator[tuple[str, Read]]:
        """Readers of some files, in the most efficient order."""

    @abstractmethod
    def state(self) -> str:
        """A key that changes with the content: sizes and times."""

    def read_all(self, names: Collection[str]) -> Iterator[tuple[str, Read]]:
        """Readers of some files, in the most efficient order.

        Raises:
            DataError: If the archive is damaged, or a file larger than an image can be.
        """
        for name in names:
            if self.sizes[name] > MOST_BYTES:
                raise DataError(
                    f"{self.path / name} is too large to be an image.",
                    got=f"{self.sizes[name]:,} bytes",
                    expected=f"at most {MOST_BYTES:,}",
                )
        with _reading(self.path):
            yield from self._read_all(set(names))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        for _, read in self.read_all([name]):
            return read()
        raise DataError(f"{self.path / name} no longer exists.", remedy="Load the data again.")


class Folder(FileTree):
    """A folder and all its sub-folders, without hidden files.

    Links are followed, and each folder is visited once, under its own name if possible.
    """

    def _sizes(self) -> dict[str, int]:
        walk = _Walk(self.path)
        with _reading(self.path):
            walk.visit(self.path)
            for link in walk.links:  # grows while links lead to more folders
                walk.visit(link)
        self.notes = tuple(walk.notes())
        return walk.sizes

    def _read_all(self, names: Collection[str]) -> Iterator[tuple[str, Read]]:
        return ((name, partial(self._bytes, name)) for name in sorted(names))

    def _bytes(self, name: str) -> bytes:
        with _reading(self.path / name):
            return (self.path / name).read_bytes()

    def state(self) -> str:
        """Names, sizes and times of all files."""
        return repr([(name, size, (self.path / name).stat().st_mtime_ns) for name, size in self.sizes.items()])


class OneFile(Folder):
    """A single file, like a folder with one file."""

    def __init__(self, path: Path) -> None:
        self.only = path.name
        super().__init__(path.parent)

    def _sizes(self) -> dict[str, int]:
        return {self.only: (self.path / self.only).stat().st_size}


class Archive(FileTree):
    """One file that holds a folder."""

    def state(self) -> str:
        """Size and time of the archive."""
        status = self.path.stat()
        return repr((str(self.path.resolve()), status.st_size, status.st_mtime_ns))


class Tar(Archive):
    """A tar, compressed or not, read sequentially; links and devices are ignored."""

    def _sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        links: list[str] = []
        together = 0
        with _reading(self.path), tarfile.open(self.path, tarinfo=_Member) as tar:
            for member in tar:
                if not (member.isreg() or member.isdir()):
                    links.append(member.name)
                    continue
                sizes[_cleaned(member.name) + "/" * member.isdir()] = member.size if member.isreg() else 0
                together += member.size if member.isreg() else 0
                require_unpacked_size(self.path, together)
            _check_end(tar)
        self.notes = _not_followed(links)
        return sizes

    def _read_all(self, names: Collection[str]) -> Iterator[tuple[str, Read]]:
        with tarfile.open(self.path, tarinfo=_Member) as tar:
            for member in tar:
                if member.isreg() and _cleaned(member.name) in names and (file := tar.extractfile(member)):
                    content = _whole(file, member.size)
                    yield _cleaned(member.name), partial(bytes, content)


class Zip(Archive):
    """A zip file."""

    def _sizes(self) -> dict[str, int]:
        with _reading(self.path), zipfile.ZipFile(self.path) as archive:
            sizes = {_zipped(info.filename): info.file_size for info in archive.infolist()}
            require_unpacked_size(self.path, sum(sizes.values()))
            return sizes

    def _read_all(self, names: Collection[str]) -> Iterator[tuple[str, Read]]:
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                if _zipped(info.filename) in names:
                    content = archive.read(info)
                    yield _zipped(info.filename), partial(bytes, content)


def open_tree(path: Path) -> FileTree:
    """The files in a folder, a tar or a zip, or a single image.

    Raises:
        DataError: If it is none of these, or damaged.
    """
    if path.is_dir():
        return Folder(path)
    if path.name.lower().endswith(SUFFIXES):
        return OneFile(path)
    with _reading(path):
        if zipfile.is_zipfile(path):
            return Zip(path)
        if _is_tar(path) or path.suffix == ".tar":
            return Tar(path)
    raise DataError(
        f"{path} is not a supported kind of data.",
        got=f"a file ending in {path.suffix!r}",
        expected="a folder of images, a .tar, .tar.gz or .zip of one, an .npz or .npy, a .csv or .parquet",
        remedy="If it should be an archive, it is damaged: replace it by a complete copy.",
    )


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(
        path,
        expected="a complete, readable file",
        remedy="Replace it by a complete copy, or correct its permissions.",
    )


class _Member(tarfile.TarInfo):
    """A member of a tar; long-name headers are read into memory, and must be short."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size > MOST_NAME and not self.isreg():
            raise tarfile.ReadError(f"a name of {self.size:,} bytes")
        return super()._proc_member(tar)  # pyright: ignore[reportAttributeAccessIssue]


class _Walk:
    """The content of a folder, each real folder visited once."""

    def __init__(self, root: Path) -> None:
        self.root, self.seen = root, set[tuple[int, int]]()
        self.sizes: dict[str, int] = {}
        self.links: list[Path] = []
        self.again: list[str] = []
        self.unread: list[str] = []

    def visit(self, top: Path) -> None:
        """Adds a folder with its sub-folders, and their links to other folders."""
        for root, folders, names in os.walk(top, onerror=_raise):
            status = os.stat(root)  # noqa: PTH116
            if (key := (status.st_dev, status.st_ino)) in self.seen:
                self.again += [self._name(Path(root))] if Path(root) == top else []
                folders.clear()
                continue
            self.seen.add(key)
            self.sizes[f"{self._name(Path(root))}/"] = 0
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            self.links += [path for name in folders if (path := Path(root, name)).is_symlink()]
            for name in names:
                self._add(Path(root, name))

    def _add(self, path: Path) -> None:
        if path.is_file():
            self.sizes[self._name(path)] = path.stat().st_size
        elif _visible(path.name):
            self.unread.append(self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def notes(self) -> Iterator[str]:
        """Notes on redundant links, and on entries that are neither files nor folders."""
        if self.again:
            yield f"Ignored links to folders that are already read: {few(sorted(self.again))}."
        if self.unread:
            yield f"Ignored broken links and special files: {few(sorted(self.unread))}."


def _not_followed(links: Sequence[str]) -> tuple[str, ...]:
    return (f"Ignored links and devices in the archive: {few(links)}.",) if links else ()


def _is_tar(path: Path) -> bool:
    """As in tarfile, but with names of bounded length."""
    try:
        tarfile.open(path, tarinfo=_Member).close()
    except tarfile.TarError:
        return False
    return True


def _raise(error: OSError) -> None:
    raise error


def _cleaned(name: str) -> str:
    return name.removeprefix("./").lstrip("/")


def _above(names: Iterable[str]) -> set[str]:
    """The parent folders of some files."""
    return {str(folder) for name in names for folder in PurePosixPath(name).parents} - {"."}


def _zipped(name: str) -> str:
    """A name in a zip, some of which use Windows separators."""
    return _cleaned(name.replace("\\", "/"))


def _visible(name: str) -> bool:
    return not any(part.startswith(".") or part.lower() in SYSTEM for part in name.split("/"))


def _check_end(tar: tarfile.TarFile) -> None:
    """Checks the zeros at the end of a tar, which a truncated one lacks; tarfile does not."""
    file = cast("IO[bytes]", tar.fileobj)
    file.seek(tar.offset)
    if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise EOFError("the end of the archive is missing")


def _whole(file: IO[bytes], size: int) -> bytes:
    content = file.read()
    if len(content) != size:
        raise EOFError(f"{len(content)} of {size} bytes")
    return content
