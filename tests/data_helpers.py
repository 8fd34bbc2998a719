"""Small files in the formats of real data sets, and a server on loopback."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tightbound.errors import TightboundError

Bytes = npt.NDArray[np.uint8]


def idx(array: Bytes) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist_files(train: int = 30, test: int = 10) -> dict[str, bytes]:
    random = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for prefix, count in (("train", train), ("t10k", test)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        files[f"{prefix}-images-idx3-ubyte"] = idx(images)
        files[f"{prefix}-labels-idx1-ubyte"] = idx((np.arange(count) % 10).astype(np.uint8))
    return files


def amat(rows: Bytes) -> bytes:
    return "".join(" ".join(map(str, row)) + "\n" for row in rows.tolist()).encode()


def write_files(folder: Path, files: Mapping[str, bytes], *, packed: bool = False) -> Path:
    for name, content in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def image_bytes(pixels: npt.NDArray[Any] | Image.Image, kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def grey(value: int, size: int = 8) -> bytes:
    """A PNG of one grey value."""
    return image_bytes(np.full((size, size), value, np.uint8))


def make_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def flat(lists: Iterable[Iterable[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server on loopback that gives the files of a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def refused(kind: type[TightboundError], *parts: str) -> Iterator[pytest.ExceptionInfo[TightboundError]]:
    """Expects an error of a kind whose message has every part, with something got and something to do or expected."""
    with pytest.raises(kind) as caught:
        yield caught
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert caught.value.got is not None
    assert caught.value.expected is not None or caught.value.remedy is not None


def real_data(name: str) -> Path:
    """The folder of a real data set; skips the test by name where there is none."""
    folder = Path(os.environ.get("TIGHTBOUND_DATA", "")) / name
    if not os.environ.get("TIGHTBOUND_DATA") or not folder.is_dir():
        pytest.skip(f"needs {name} in TIGHTBOUND_DATA")
    return folder
