"""Folders, tars and zips as one thing: names of files, in order, and their bytes. Nothing is ever extracted."""

from __future__ import annotations

import os
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO, cast

from ..errors import DataError, reading
from .store import check_unpacked

__all__ = ["FileTree", "Folder", "Read", "Tar", "Zip", "open_tree"]

Read = Callable[[], bytes]
"""Gives the bytes of one file."""
MOST_BYTES = 2**28
"""A larger file is refused: no image is that large."""
KEPT_TOPS = {"train", "valid", "val", "validation", "test"}
"""A top-level folder of an archive that means something."""
MOST_NAME = 2**20
"""Bytes of a name, or of what else a tar notes of a file."""


class FileTree(ABC):
    """Regular files under one root, by their names relative to it, with ``/`` between the parts.

    Args:
        path: The folder or the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        sizes = {name: size for name, size in self._sizes().items() if _visible(name)}
        self.stem = self._common_top(sizes)
        self.sizes = {name.removeprefix(self.stem): sizes[name] for name in sorted(sizes)}

    def _common_top(self, names: Collection[str]) -> str:
        """What is left out at the beginning of all names."""
        return ""

    @abstractmethod
    def _sizes(self) -> dict[str, int]:
        """Bytes of every file, by name."""

    @abstractmethod
    def _read_all(self, names: Collection[str]) -> Iterator[tuple[str, Read]]:
        """What reads each of some files, in the order that suits the tree."""

    @abstractmethod
    def state(self) -> str:
        """What changes when the content does: sizes and times."""

    def read_all(self, names: Collection[str]) -> Iterator[tuple[str, Read]]:
        """What reads each of some files, in the order that suits the tree.

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
            for name, read in self._read_all({self.stem + name for name in names}):
                yield name.removeprefix(self.stem), read

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        for _, read in self.read_all([name]):
            return read()
        raise DataError(f"{self.path / name} is not there any more.", remedy="Load the data again.")


class Folder(FileTree):
    """A folder and all folders in it; links are followed, hidden files are not seen."""

    def _sizes(self) -> dict[str, int]:
        with _reading(self.path):
            return {_relative(path, self.path): path.stat().st_size for path in _files(self.path)}

    def _read_all(self, names: Collection[str]) -> Iterator[tuple[str, Read]]:
        return ((name, partial(self._bytes, name)) for name in sorted(names))

    def _bytes(self, name: str) -> bytes:
        with _reading(self.path / name):
            return (self.path / name).read_bytes()

    def state(self) -> str:
        """Names, sizes and times of all files."""
        return repr([(name, size, (self.path / name).stat().st_mtime_ns) for name, size in self.sizes.items()])


class Archive(FileTree):
    """One file that holds a folder; a single top-level folder in it is left out of the names."""

    def _common_top(self, names: Collection[str]) -> str:
        tops = {name.partition("/")[0] for name in names}
        single = len(tops) == 1 and all("/" in name for name in names) and not tops & KEPT_TOPS
        return f"{tops.pop()}/" if single else ""

    def state(self) -> str:
        """Size and time of the archive."""
        status = self.path.stat()
        return repr((str(self.path.resolve()), status.st_size, status.st_mtime_ns))


class Tar(Archive):
    """A tar, packed or not, read from front to back; links and devices in it are not seen."""

    def _sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        together = 0
        with _reading(self.path), tarfile.open(self.path, tarinfo=_Member) as tar:
            for member in filter(tarfile.TarInfo.isreg, tar):
                sizes[_cleaned(member.name)] = member.size
                together += member.size
                check_unpacked(self.path, together)
            _check_end(tar)
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
            sizes = {_cleaned(info.filename): info.file_size for info in archive.infolist() if not info.is_dir()}
            check_unpacked(self.path, sum(sizes.values()))
            return sizes

    def _read_all(self, names: Collection[str]) -> Iterator[tuple[str, Read]]:
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                if not info.is_dir() and _cleaned(info.filename) in names:
                    content = archive.read(info)
                    yield _cleaned(info.filename), partial(bytes, content)


def open_tree(path: Path) -> FileTree:
    """The files in a folder, a tar or a zip.

    Raises:
        DataError: If it is none of them, or damaged.
    """
    if path.is_dir():
        return Folder(path)
    with _reading(path):
        if zipfile.is_zipfile(path):
            return Zip(path)
        if _is_tar(path) or path.suffix == ".tar":
            return Tar(path)
    raise DataError(
        f"{path} is nothing that data can be read from.",
        got=f"a file ending in {path.suffix!r}",
        expected="a folder of images, a .tar, .tar.gz or .zip of one, an .npz or an .npy",
        remedy="If it should be an archive, it is damaged: replace it by a complete copy.",
    )


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(
        path,
        expected="a complete file that this user may read",
        remedy="Replace it by a complete copy, or correct its permissions.",
    )


class _Member(tarfile.TarInfo):
    """A member of a tar; one that only tells the name of the next is read into memory, and must be short."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size > MOST_NAME and not self.isreg():
            raise tarfile.ReadError(f"a name of {self.size:,} bytes")
        return super()._proc_member(tar)  # pyright: ignore[reportAttributeAccessIssue]


def _is_tar(path: Path) -> bool:
    """As tarfile says, but with names of a bounded length."""
    try:
        tarfile.open(path, tarinfo=_Member).close()
    except tarfile.TarError:
        return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for name in names if (path := Path(root, name)).is_file())


def _raise(error: OSError) -> None:
    raise error


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _cleaned(name: str) -> str:
    return name.removeprefix("./").lstrip("/")


def _visible(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _check_end(tar: tarfile.TarFile) -> None:
    """A tar ends in zeros; one that was cut between two files does not, and tarfile does not mind."""
    file = cast("IO[bytes]", tar.fileobj)
    file.seek(tar.offset)
    if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise EOFError("the end of the archive is missing")


def _whole(file: IO[bytes], size: int) -> bytes:
    content = file.read()
    if len(content) != size:
        raise EOFError(f"{len(content)} of {size} bytes")
    return content
