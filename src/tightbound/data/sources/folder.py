"""A folder of images, or an archive of one: splits and classes from its sub-folders, captions from its metadata.

:mod:`~tightbound.data.sources.layout` interprets the folders, :mod:`~tightbound.data.sources.captions` reads captions.
Names are sorted, so the order of the file system does not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ...errors import DataError
from ...options.data import DataOptions, sides, wider
from ..observed import few
from .captions import METADATA, captions_of
from .decode import decode_images
from .files import FileTree, open_tree
from .images import SUFFIXES
from .layout import layout_of
from .raw import Part, Raw

__all__ = ["read_folder"]


def read_folder(path: Path, options: DataOptions) -> Raw:
    """The images in a folder, ``.tar`` or ``.zip``, with the levels of the files.

    Args:
        path: The folder or archive.
        options: Size and colours of the images.

    Raises:
        DataError: If there are no images, some cannot be read, their sizes differ, or the metadata does not fit.
    """
    tree = open_tree(path)
    found = [name for name in tree.sizes if name.lower().endswith(SUFFIXES)]
    if not found:
        raise _no_images(tree)
    layout = layout_of(found)
    names = layout.images
    captions, notes = captions_of(tree, names)
    size = "" if options.crop is None else wider(options.crop)
    decoded = decode_images(tree, names, image_size=sides(options.image_size), color=options.color, size=size)
    rows = {name: row for row, name in enumerate(names)}
    parts: dict[str, Part] = {}
    for split, files in layout.splits.items():
        numbers = np.array([layout.labels[name] for name in files]) if layout.classes else None
        texts = tuple(captions[name] for name in files) if captions else None
        mine = None if len(layout.splits) == 1 else np.array([rows[name] for name in files])
        parts[split] = Part(decoded.values, numbers, texts, rows=mine, names=tuple(files))
    title = path.resolve().name.partition(".")[0] or str(path)
    said = (*tree.notes, *layout.notes, *_unread(tree, found), *notes, *decoded.notes)
    return Raw(title, parts, decoded.levels, layout.classes, said)


def _unread(tree: FileTree, images: Sequence[str]) -> Iterator[str]:
    """Notes on files that are not images, by extension, and on folders without images."""
    others = [name for name in tree.sizes if not name.lower().endswith(SUFFIXES) and not _is_metadata(name)]
    if others:
        yield f"Ignored files that are not images: {_kinds(others)}."
    full = {str(folder) for name in images for folder in PurePosixPath(name).parents}
    empty = {name for name in tree.folders if name not in full}
    if tops := sorted(name for name in empty if str(PurePosixPath(name).parent) not in empty):
        yield f"Folders without readable images: {few(tops)}."


def _kinds(names: Sequence[str]) -> str:
    """The number of files of each kind."""
    counts = Counter(PurePosixPath(name).suffix.lower() or "without a suffix" for name in names)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _is_metadata(name: str) -> bool:
    return name.rpartition("/")[2] in METADATA


def _no_images(tree: FileTree) -> DataError:
    others = [name for name in tree.sizes if not _is_metadata(name)]
    return DataError(
        f"{tree.path} holds no images.",
        got=" ".join([f"{_kinds(others)}, such as {others[0]}" if others else "no files", *tree.notes]),
        expected=f"files ending in {', '.join(SUFFIXES)}, in it or in its sub-folders",
        remedy="Check the path, or convert the images to one of these formats.",
    )
