"""Converts labels to class indices: integers, words, or one-hot rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from .raw import Array

__all__ = ["MOST_CLASSES", "as_labels", "told_classes"]

Numbers = npt.NDArray[np.int64]

MOST_CLASSES = 100_000
"""Larger labels are treated as mistakes."""
FROM_WORDS = "np.unique(labels, return_inverse=True)[1]"


def as_labels(
    labels: Mapping[str, Array], counts: Mapping[str, int], classes: tuple[str, ...] = ()
) -> tuple[dict[str, Numbers], tuple[str, ...], tuple[str, ...]]:
    """Class indices, int64 ``[N]``, by split; the names of the classes; and notes, as sentences.

    Args:
        labels: Labels by split: integers ``[N]`` or ``[N, 1]``, words, or one-hot rows ``[N, K]``.
        counts: Number of examples of each split.
        classes: Names of the classes; default: the sorted words, or the indices.

    Raises:
        DataError: If their number differs from that of the examples, or one is not a class.

    Example:
        >>> as_labels({"train": np.array(["dog", "cat", "dog"])}, {"train": 3})[:2]
        ({'train': array([1, 0, 1])}, ('cat', 'dog'))
    """
    flat = {split: some.reshape(-1) if some.size == len(some) else some for split, some in labels.items()}
    if flat and all(some.dtype.kind in "US" for some in flat.values()):
        for split, some in flat.items():
            _check_count(some, counts[split], split)
        return _of_words({split: _text(some) for split, some in flat.items()}, classes)
    hot = [split for split, some in flat.items() if _one_hot(some)]
    numbers = {split: some.argmax(1) if split in hot else some for split, some in flat.items()}
    found = {split: _class_numbers(some, counts[split], split) for split, some in numbers.items()}
    notes = (f"The one-hot labels of {', '.join(hot)} are read as class indices.",) if hot else ()
    return found, _named(found, classes), notes


def _of_words(
    words: Mapping[str, npt.NDArray[np.str_]], classes: tuple[str, ...] = ()
) -> tuple[dict[str, Numbers], tuple[str, ...], tuple[str, ...]]:
    """The index of each word among the given classes, or among the sorted words.

    Raises:
        DataError: If a word is not a class, or there are too many.
    """
    names = np.array(classes) if classes else np.unique(np.concatenate(list(words.values())))
    if len(names) > MOST_CLASSES:
        raise DataError("There are too many classes.", got=f"{len(names):,}", expected=f"at most {MOST_CLASSES:,}")
    order = names.argsort()
    found = dict[str, Numbers]()
    for split, some in words.items():
        places = np.searchsorted(names[order], some).clip(max=len(names) - 1)
        found[split] = order[places].astype(np.int64)
        if (strange := names[found[split]] != some).any():
            raise DataError(
                f"A label of {split} is not a class.",
                got=f"{str(some[strange][0])!r} at index {strange.argmax()}",
                expected=f"one of: {', '.join(map(str, names[:20].tolist()))}",
            )
    classes = tuple(map(str, names.tolist()))
    return found, classes, (f"The labels are words: {told_classes(classes)}.",)


def told_classes(names: Sequence[str]) -> str:
    """The number of classes, and the first few.

    Example:
        >>> told_classes(["cat", "dog"])
        '2 classes, cat, dog'
    """
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return f"{len(names):,} classes, {', '.join(names[:5])}{more}"


def _text(words: Array) -> npt.NDArray[np.str_]:
    return words if words.dtype.kind == "U" else np.char.decode(words, "utf8", "backslashreplace")


def _one_hot(labels: Array) -> bool:
    if labels.ndim != 2 or labels.dtype.kind not in "buif":
        return False
    return bool((((labels == 0) | (labels == 1)).all(1) & (labels.astype(np.float64).sum(1) == 1)).all())


def _check_count(labels: Array, count: int, what: str) -> None:
    if labels.shape == (count,):
        return
    many = labels.ndim == 2 and len(labels) == count
    raise DataError(
        f"The labels of {what} do not match its examples.",
        got=f"labels of shape {labels.shape}, {count} examples",
        expected=f"labels of shape ({count},), or ({count}, classes) of rows with a single 1",
        remedy="Rows of scores are labels as labels.argmax(1); several numbers of each example are conditions: save "
        "them as c."
        if many
        else "Save one label for each example.",
    )


def _class_numbers(labels: Array, count: int, what: str) -> Numbers:
    _check_count(labels, count, what)
    numbers = labels.dtype.kind in "buif"
    bad = ~((labels >= 0) & (labels < MOST_CLASSES) & (labels % 1 == 0)) if numbers else np.ones(count, np.bool_)
    if bad.any():
        raise DataError(
            f"The labels of {what} are not class indices.",
            got=f"{labels[bad][0]} at index {bad.argmax()}" if numbers else f"dtype {labels.dtype}",
            expected=f"integers 0 ... {MOST_CLASSES - 1}, words, or one-hot rows",
            remedy=f"Number the classes: {FROM_WORDS}.",
        )
    return labels.astype(np.int64)


def _named(found: Mapping[str, Numbers], classes: tuple[str, ...]) -> tuple[str, ...]:
    top = max((int(labels.max()) for labels in found.values() if len(labels)), default=-1)
    if classes and top >= len(classes):
        raise DataError(
            "A label is out of range.",
            got=f"label {top}, {len(classes)} classes",
            expected=f"labels 0 ... {len(classes) - 1}",
        )
    return classes or tuple(str(number) for number in range(top + 1))
