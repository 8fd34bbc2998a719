"""Many image files to one array, in a pool of threads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, starmap
from typing import TypeVar

from ..errors import DataError
from ..progress import progress
from .files import FileTree, Read
from .images import ImageSize, Mode, decoded, header, strict_pillow
from .options import Color
from .raw import Array
from .store import fingerprint, stored

__all__ = ["decode_images"]

BLOCK = 256
"""Files that are read before the first of them must be decoded."""
BLOCK_BYTES = 2**26
"""The same in bytes, so that large ones do not fill the memory."""
SMALL = 4096
"""Mean size in bytes below which threads only wait for each other (measured: PNG and JPEG of 64 to 512 pixels)."""
T = TypeVar("T")


def decode_images(tree: FileTree, names: Sequence[str], *, image_size: int | None, color: Color) -> Array:
    """The pixels of image files, uint8 ``[N, C, H, W]``, in the order of their names.

    Args:
        tree: Where they are.
        names: Which, in the order of the rows.
        image_size: Side of the square that is cut out of the middle; None: all images have one size.
        color: ``"grey"``, ``"rgb"``, or ``"as-is"``: grey if all are.

    Raises:
        DataError: If one cannot be read, or their sizes differ without an ``image_size``.
    """
    workers = min(16, os.cpu_count() or 1)
    with strict_pillow(), ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        mode, height, width = _format(tree, names, image_size, color, pool)
        rows = {name: row for row, name in enumerate(names)}

        def fill(out: Array) -> None:
            def place(name: str, read: Read) -> None:
                out[rows[name]] = decoded(str(tree.path / name), read(), mode, image_size)

            for _ in _each(tree, names, place, pool, "decoding images"):
                pass

        shape = (len(names), 3 if mode == "RGB" else 1, height, width)
        return stored(shape, "uint8", fill, key=fingerprint(tree.path, tree.state(), names, mode, image_size))


def _format(
    tree: FileTree, names: Sequence[str], image_size: int | None, color: Color, pool: ThreadPoolExecutor
) -> tuple[Mode, int, int]:
    """Channels, height and width of every row; the heads of all files are read only if they must agree."""
    if image_size is not None and color != "as-is":
        return ("L" if color == "grey" else "RGB"), image_size, image_size
    read_head = _each(
        tree, names, lambda name, read: (name, header(str(tree.path / name), read())), pool, "looking at images"
    )
    sizes: dict[str, ImageSize] = dict(read_head)
    grey = color == "grey" or (color == "as-is" and all(size.grey for size in sizes.values()))
    mode: Mode = "L" if grey else "RGB"
    if image_size is not None:
        return mode, image_size, image_size
    _check_one_size({name: str(sizes[name]) for name in names})
    first = sizes[names[0]]
    return mode, first.height, first.width


def _check_one_size(sizes: dict[str, str]) -> None:
    counts = Counter(sizes.values())
    if len(counts) == 1:
        return
    (usual, often), *others = counts.most_common()
    strangers = [f"{name} ({size})" for name, size in sizes.items() if size != usual]
    more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
    raise DataError(
        "The images have different sizes.",
        got=f"{often} of {usual}, but {', '.join(strangers[:3])}{more}; {1 + len(others)} sizes",
        expected="one size",
        remedy=f"Resize them while loading: --image-size {min(map(int, usual.split('x')))} (image_size=... in Python).",
    )


def _block(files: Iterator[tuple[str, Read]], tree: FileTree) -> Iterator[tuple[str, Read]]:
    """So many files as may wait in memory: by their number, and by their bytes."""
    size = 0
    for name, read in islice(files, BLOCK):
        yield name, read
        size += tree.sizes[name]
        if size > BLOCK_BYTES:
            return


def _each(
    tree: FileTree, names: Sequence[str], work: Callable[[str, Read], T], pool: ThreadPoolExecutor, title: str
) -> Iterator[T]:
    """The results of some work on every file, a bounded number of files at a time."""
    files = tree.read_all(names)
    in_threads = sum(tree.sizes[name] for name in names) > SMALL * len(names)
    with progress(title, len(names)) as advance:
        while block := list(_block(files, tree)):
            results = pool.map(work, *zip(*block, strict=True)) if in_threads else starmap(work, block)
            for result in results:
                advance()
                yield result
