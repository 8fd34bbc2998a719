"""Published files: found locally, or downloaded and verified by checksum.

Files are searched in ``$TIGHTBOUND_DATA/<data set>/``, then in the cache folder, then downloaded into it, from
``$TIGHTBOUND_MIRROR/<data set>/`` if set. A file gets its final name only when it is complete and its checksum is
correct.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

import pooch
from pooch.downloaders import HTTPDownloader

from ...errors import DataError
from ...runtime.progress import progress
from ..store import cache_folder
from .catalogue import DATASETS, RemoteFile

__all__ = ["Mirror", "fetched"]

Mirror = str | None
"""Address of a mirror with a folder per data set."""
TIMEOUT = 30.0
"""Timeout of a download, in seconds."""


def fetched(name: str, mirror: Mirror = None) -> list[Path]:
    """Paths of the files of a named data set, in the order of the catalogue.

    Raises:
        DataError: If a file can be neither found nor downloaded, or its checksum is wrong.
    """
    mirror = mirror or os.environ.get("TIGHTBOUND_MIRROR") or None
    url = DATASETS[name].url if mirror is None else f"{mirror.rstrip('/')}/{name}/"
    return [_present(name, file) or _downloaded(name, file, url) for file in DATASETS[name].files]


def _present(name: str, file: RemoteFile) -> Path | None:
    """The file in the user's data folder, which is not verified."""
    given = os.environ.get("TIGHTBOUND_DATA")
    if not given:
        return None
    return next((p for n in file.names if (p := Path(given).expanduser() / name / n).is_file()), None)


def _downloaded(name: str, file: RemoteFile, url: str) -> Path:
    folder = cache_folder() / name
    for candidate in file.names:
        if (folder / candidate).is_file():
            return folder / candidate
    for candidate in file.names[:-1]:
        if path := _retrieved(url, candidate, folder, file.checksum, optional=True):
            return path
    return cast(Path, _retrieved(url, file.names[-1], folder, file.checksum))


def _retrieved(url: str, file_name: str, folder: Path, checksum: str, *, optional: bool = False) -> Path | None:
    """The file, downloaded; None if it is optional and the server does not have it."""
    import requests  # slow to import

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        checked = cast(Any, _Checked(checksum))
        return Path(pooch.retrieve(url + file_name, None, file_name, folder, downloader=checked))
    except (requests.RequestException, OSError) as error:
        if optional and isinstance(error, requests.HTTPError):
            return None
        raise _unreachable(folder.name, url + file_name, error) from error


def _unreachable(name: str, url: str, error: Exception) -> DataError:
    return DataError(
        f"{name!r} cannot be downloaded.",
        got=f"{url}: {error}",
        expected="a connection",
        remedy=f"Try again; or put its files in a folder {name!r} and set TIGHTBOUND_DATA to the folder above; "
        "or set TIGHTBOUND_MIRROR to an address that has them.",
    )


class _Checked:
    """A pooch downloader that verifies the checksum before the file gets its name."""

    def __init__(self, checksum: str) -> None:
        self.checksum = checksum

    def __call__(self, url: str, output_file: str, pooch_: pooch.Pooch) -> None:
        bar = _PoochBar(f"downloading {url.rsplit('/', 1)[-1]}")
        HTTPDownloader(progressbar=cast(Any, bar), timeout=TIMEOUT)(url, output_file, pooch_)
        got = _checksum(Path(output_file), packed=url.endswith(".gz"), algorithm=self.checksum.partition(":")[0])
        if got != self.checksum:
            raise DataError(
                f"{url} is not the published file.",
                got=got,
                expected=self.checksum,
                remedy="The download was damaged or the address serves something else: try again or another mirror.",
            )


class _PoochBar:
    """A progress bar with pooch's interface."""

    def __init__(self, title: str) -> None:
        self.title, self.total = title, 0
        self._context = ExitStack()
        self._advance: Callable[[int], object] | None = None

    def update(self, amount: int) -> None:
        if self._advance is None:
            self._advance = self._context.enter_context(progress(self.title, self.total, unit="bytes"))
        self._advance(amount)

    def reset(self) -> None:
        """Does nothing: pooch resets the bar before it completes it."""

    def close(self) -> None:
        self._context.close()


def _checksum(path: Path, *, packed: bool, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with cast(BinaryIO, gzip.open(path) if packed else path.open("rb")) as file:
            while block := file.read(2**20):
                digest.update(block)
    except (OSError, EOFError, zlib.error) as error:
        return f"no complete .gz file ({error})"
    return f"{algorithm}:{digest.hexdigest()}"
