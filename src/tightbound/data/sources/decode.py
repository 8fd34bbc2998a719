"""Decodes image files to one array, in a thread pool."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, starmap
from typing import TypeVar

import numpy as np

from ...errors import DataError
from ...options.data import Color
from ...runtime.progress import progress
from ..store import fingerprint, stored
from .arrays import WIDE, checked_values, chunks
from .files import FileTree, Read
from .images import DTYPES, Head, Mode, decoded, header, require_whole, strict_pillow
from .raw import Array

__all__ = ["Decoded", "decode_images"]

BLOCK = 256
"""Maximum number of files read ahead."""
BLOCK_BYTES = 2**26
"""Maximum bytes of files read ahead."""
SMALL = 4096
"""Mean size in bytes below which threads do not help (measured: PNG and JPEG of 64 to 512 pixels)."""
NAMED = 10
"""Maximum number of broken files named in an error."""
GREY = "All images are grey, some of them stored in colour: they are read with one channel (--color rgb: three)."
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Decoded:
    """The pixels of image files.

    Args:
        values: ``[N, C, H, W]``, in the order of their names.
        levels: Number of values of an entry: 256, or 65,536 for 16 bits; None for floats.
        notes: Notes, a sentence each.
    """

    values: Array
    levels: int | None
    notes: tuple[str, ...]


def decode_images(
    tree: FileTree,
    names: Sequence[str],
    *,
    image_size: tuple[int, int] | None,
    color: Color,
    mode: Mode | None = None,
    size: str = "",
) -> Decoded:
    """The pixels of image files.

    Args:
        tree: The folder or archive.
        names: Their names, in the order of the rows.
        image_size: Height and width to resize and center-crop to; None if all have one size.
        color: ``"grey"``, ``"rgb"``, or ``"as-is"``: grey if all are.
        mode: The mode to decode to, if known and there is an ``image_size``; None to read the headers of all files.
        size: The ``image_size`` to propose if sizes differ; default: the most common shorter side.

    Raises:
        DataError: If some cannot be read, or their sizes differ without an ``image_size``.
    """
    workers = min(16, os.cpu_count() or 1)
    with strict_pillow(), ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        heads = {} if mode and image_size else _heads(tree, names, pool)
        mode = mode or _common_mode(heads, color)
        height, width = image_size or _one_size(heads, size)
        rows = {name: row for row, name in enumerate(names)}

        def fill(out: Array) -> None:
            def place(name: str, read: Read) -> None:
                out[rows[name]] = decoded(str(tree.path / name), read(), mode, image_size)

            _, broken = _tried(tree, names, place, pool, "decoding images")
            _refuse_broken(broken, len(names))

        shape, key = (len(names), 3 if mode == "RGB" else 1, height, width), (tree.state(), names, mode, image_size)
        values = stored(shape, DTYPES[mode], fill, key=fingerprint(tree.path, *key))
    if mode == "F":
        values = checked_values(values, None, str(tree.path))
    notes = list(_notes(heads, mode))
    if mode == "RGB" and color == "as-is" and _all_grey(values):
        values, notes = np.ascontiguousarray(values[:, :1]), [*notes, GREY]
    return Decoded(values, {"I": WIDE, "F": None}.get(mode, 256), tuple(notes))


def _heads(tree: FileTree, names: Sequence[str], pool: ThreadPoolExecutor) -> dict[str, Head]:
    """The headers of all files, in the order of their names."""

    def head(name: str, read: Read) -> Head:
        return header(str(tree.path / name), read())

    def whole(name: str, read: Read) -> None:
        require_whole(str(tree.path / name), read())

    heads, broken = _tried(tree, names, head, pool, "looking at images")
    if broken:  # name all broken files at once
        broken |= _tried(tree, list(heads), whole, pool, "looking for broken images")[1]
    _refuse_broken(broken, len(names))
    return {name: heads[name] for name in names}


def _common_mode(heads: Mapping[str, Head], color: Color) -> Mode:
    """The mode that keeps the most information: floats if all are, 16 bits if any has them, grey if all are."""
    modes = {head.mode for head in heads.values()}
    if modes == {"F"}:
        return "RGB" if color == "rgb" else "F"
    grey = color == "grey" or (color == "as-is" and "RGB" not in modes)
    return "RGB" if not grey else "I" if "I" in modes else "L"


def _notes(heads: Mapping[str, Head], mode: Mode) -> Iterator[str]:
    """Notes on information that is not kept."""
    colours = sum(head.mode == "RGB" and head.bits > 8 for head in heads.values())
    if colours:
        yield f"{colours} images have more than 8 bits per colour; the upper 8 are read."
    grey = sum(head.mode == "I" for head in heads.values())
    if grey and mode == "RGB":
        yield f"{grey} grey images of 16 bits are read as 8 bits, since other images are in colour."
    if mode == "F":
        yield "The images hold floats: these are continuous, unless --levels stretch or LOW:HIGH converts them."


def _all_grey(values: Array) -> bool:
    """Whether all three channels are equal, everywhere."""
    return all((part == part[:, :1]).all() for _, part in chunks(values))


def _one_size(heads: Mapping[str, Head], proposed: str) -> tuple[int, int]:
    """Height and width of every image."""
    _check_one_size({name: head.size for name, head in heads.items()}, proposed)
    first = next(iter(heads.values()))
    return first.height, first.width


def _tried(
    tree: FileTree, names: Sequence[str], work: Callable[[str, Read], T], pool: ThreadPoolExecutor, title: str
) -> tuple[dict[str, T], dict[str, DataError]]:
    """The results for every file, and the errors of those that failed."""

    def trial(name: str, read: Read) -> tuple[str, T | DataError]:
        try:
            return name, work(name, read)
        except DataError as error:
            return name, error

    results = dict(_each(tree, names, trial, pool, title))
    broken = {name: found for name in names if isinstance(found := results[name], DataError)}
    return {name: found for name, found in results.items() if not isinstance(found, DataError)}, broken


def _refuse_broken(broken: Mapping[str, DataError], total: int) -> None:
    """One error for all broken files, naming the first ten."""
    if not broken:
        return
    if len(broken) == 1:
        raise next(iter(broken.values()))
    lines = [f"{name}: {error.got}" for name, error in list(broken.items())[:NAMED]]
    lines += [f"and {len(broken) - NAMED} more"] if len(broken) > NAMED else []
    raise DataError(
        f"{len(broken)} of {total} images cannot be read.",
        got="\n            ".join(lines),
        expected=next(iter(broken.values())).expected,
        remedy="Remove these files or replace them by undamaged copies.",
    )


def _check_one_size(sizes: dict[str, str], proposed: str) -> None:
    counts = Counter(sizes.values())
    if len(counts) == 1:
        return
    (usual, often), *others = counts.most_common()
    strangers = [f"{name} ({size})" for name, size in sizes.items() if size != usual]
    proposed = proposed or str(min(map(int, usual.split("x"))))
    more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
    raise DataError(
        "The images have different sizes.",
        got=f"{often} of {usual}, but {', '.join(strangers[:3])}{more}; {1 + len(others)} sizes (width x height)",
        expected="one size",
        remedy=f"Resize them while loading: --image-size {proposed} (image_size=... in Python), or height and width.",
    )


def _block(files: Iterator[tuple[str, Read]], tree: FileTree) -> Iterator[tuple[str, Read]]:
    """Limits the files waiting in memory, by number and bytes."""
    size = 0
    for name, read in islice(files, BLOCK):
        yield name, read
        size += tree.sizes[name]
        if size > BLOCK_BYTES:
            return


def _each(
    tree: FileTree, names: Sequence[str], work: Callable[[str, Read], T], pool: ThreadPoolExecutor, title: str
) -> Iterator[T]:
    """The results for every file, with a bounded number of files at a time."""
    files = tree.read_all(names)
    in_threads = sum(tree.sizes[name] for name in names) > SMALL * len(names)
    with progress(title, len(names)) as advance:
        while block := list(_block(files, tree)):
            results = pool.map(work, *zip(*block, strict=True)) if in_threads else starmap(work, block)
            for result in results:
                advance()
                yield result
