"""Interprets folders of images: splits, classes, and images in neither.

Convention::

    [any/ ...]  [train/ valid/ test/]  [class/ ...]  image.png      splits and classes are optional
    [any/ ...]  [class/]  [train/ valid/ test/]  image.png          the same with the class first

Folders of one level are splits if they have such names, one is ``train``, and there is a second split or no other
folder; the first such level counts. Below the folders shared by all images, the first folder is the class, if there are
two or more. A few images outside are left out, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..observed import few

__all__ = ["Layout", "layout_of"]

SPLITS = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
"""The split that a folder's name means, in any capitals."""
STRAYS = 0.1
"""Maximum share of images outside class folders that is left out; with more, there are no classes."""

Folders = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """The splits and classes of images.

    Args:
        splits: The images of each split, in the order of their names.
        labels: The class index of every image; empty if there are no classes.
        classes: Names of the classes.
        notes: Notes on ignored images and ambiguities, a sentence each.
    """

    splits: dict[str, list[str]]
    labels: dict[str, int]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def images(self) -> list[str]:
        """All images read, sorted by name."""
        return sorted(name for names in self.splits.values() for name in names)


def layout_of(names: Sequence[str]) -> Layout:
    """The splits and classes of images, by their paths with ``/`` between the folders.

    Example:
        >>> found = layout_of(["birds/Train/a/1.png", "birds/Train/b/2.png", "birds/TEST/a/3.png", "birds/cover.png"])
        >>> {split: len(images) for split, images in found.splits.items()}, found.classes
        ({'test': 1, 'train': 2}, ('a', 'b'))
        >>> found.notes
        ('1 image beside the split folders is left out: birds/cover.png.',)
    """
    folders = {name: tuple(name.split("/")[:-1]) for name in sorted(names)}
    splits, rest, notes = _split(folders)
    rest = _below_the_common(rest)
    labels, classes, strays, more = _classified(rest, splits)
    splits = {split: [name for name in images if name not in strays] for split, images in splits.items()}
    return Layout(splits, labels, classes, (*notes, *more, *_look_alikes(rest)))


def _split(folders: Mapping[str, Folders]) -> tuple[dict[str, list[str]], dict[str, Folders], list[str]]:
    """The images of each split, and their folders without the split's."""
    depth = _split_depth(list(folders.values()))
    if depth is None:
        return {"train": list(folders)}, dict(folders), []
    splits: dict[str, list[str]] = {}
    rest: dict[str, Folders] = {}
    for name, path in folders.items():
        if split := _meant(path, depth):
            splits.setdefault(split, []).append(name)
            below = depth + 1
            while len(path) > below and path[below] == path[depth]:  # train/train/, as some archives unpack
                below += 1
            rest[name] = path[:depth] + path[below:]
    outside = [name for name in folders if name not in rest]
    return splits, rest, [_left_out(outside, "beside the split folders")] if outside else []


def _split_depth(paths: Sequence[Folders]) -> int | None:
    """The level of the split folders."""
    for depth in range(max(map(len, paths), default=0)):
        found = {_meant(path, depth) for path in paths if len(path) > depth}
        if "train" not in found or found == {"train", None}:
            continue
        outside = sum(_meant(path, depth) is None for path in paths)
        together = len({path[:depth] for path in paths if path}) == 1
        if (together and len(found) > 1) or outside <= _few_enough(len(paths)):
            return depth
    return None


def _few_enough(total: int) -> int:
    return max(1, int(STRAYS * total))


def _meant(path: Folders, depth: int) -> str | None:
    return SPLITS.get(path[depth].lower()) if len(path) > depth else None


def _below_the_common(folders: dict[str, Folders]) -> dict[str, Folders]:
    """Paths without the folders shared by all images."""
    while len({path[0] for path in folders.values() if path}) == 1:
        folders = {name: path[1:] for name, path in folders.items()}
    return folders


def _classified(
    rest: Mapping[str, Folders], splits: Mapping[str, Sequence[str]]
) -> tuple[dict[str, int], tuple[str, ...], set[str], list[str]]:
    """The class of every image, the names of all classes, and the ignored images outside classes."""
    classes = tuple(sorted({path[0] for path in rest.values() if path}))
    strays = {name for name, path in rest.items() if not path}
    if len(classes) < 2:
        return {}, (), set(), []
    if len(strays) > _few_enough(len(rest)) or any(strays.issuperset(images) for images in splits.values()):
        some = f"{len(strays)} of {len(rest)} images are outside class folders, such as {min(strays)}"
        return {}, (), set(), [f"The folders are not read as classes: {some}."]
    numbers = {name: number for number, name in enumerate(classes)}
    notes = [_left_out(sorted(strays), "beside the class folders")] if strays else []
    if deeper := {path[:2] for path in rest.values() if len(path) > 1}:
        notes += [f"The first folder is the class; {len(deeper)} sub-folders are ignored."]
    return {name: numbers[path[0]] for name, path in rest.items() if path}, classes, strays, notes


def _left_out(names: Sequence[str], where: str) -> str:
    one = len(names) == 1
    return f"{len(names)} image{'' if one else 's'} {where} {'is' if one else 'are'} left out: {few(names)}."


def _look_alikes(rest: Mapping[str, Folders]) -> Iterator[str]:
    """Notes on folders with names of splits that are not splits."""
    exact = {path[: i + 1] for path in rest.values() for i in range(len(path)) if _meant(path, i)}
    if exact:
        beside = [name for name, path in rest.items() if not any(path[: len(top)] == top for top in exact)]
        named, reason = (
            few(sorted("/".join(top) for top in exact)),
            f", because {beside[0]} is beside them" if beside else "",
        )
        yield f"Not read as splits: {named}{reason}."
        return
    tops = sorted({path[0] for path in rest.values() if path})
    alike = [top for top in tops if _words(top)]
    if len(found := set[str]().union(*map(_words, alike))) > 1 and "train" in found:
        yield f"Not read as splits: {few(alike)}. If they are, name them train, valid and test."


def _words(name: str) -> set[str]:
    """The splits that words in a name mean, as in ``seg_train`` or ``val2017``."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", name)
    return {SPLITS[word.lower()] for word in words if word.lower() in SPLITS}
