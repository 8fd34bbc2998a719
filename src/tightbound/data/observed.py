"""What can be seen of the examples that a model is about to learn from: a line that describes them, and notes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .raw import Array
from .spec import DataSpec
from .split import Split

__all__ = ["described", "few", "observed"]

MOST_BYTES = 2**30
"""Values that take more than this, all splits together, are not searched for duplicates."""
CHUNK_BYTES = 2**24
"""What is looked at in one go."""
NAMED = 5
"""Names that a note gives as examples."""


def described(spec: DataSpec, splits: Sequence[Split]) -> str:
    """Examples, shape, levels, classes and captions in one line."""
    train, valid, test = (f"{len(split):,}" for split in splits)
    shape = " x ".join(map(str, spec.shape))
    levels = "continuous" if spec.levels is None else f"{spec.levels} levels"
    parts = [f"{spec.name}: {train} training, {valid} validation and {test} test examples", f"shape {shape}", levels]
    parts += [f"{len(spec.classes)} classes"] if spec.classes else []
    parts += ["captions"] if spec.captioned else []
    parts += [f"conditions of shape {' x '.join(map(str, spec.condition_shape))}"] if spec.condition_shape else []
    return "; ".join(parts)


def observed(spec: DataSpec, splits: Sequence[Split]) -> Iterator[str]:
    """Notes on levels, classes and duplicates."""
    yield from _levels(splits)
    yield from _classes(spec, splits[0])
    yield from _duplicates(splits)


def few(names: Sequence[object]) -> str:
    """The first of some names, and how many more there are.

    Example:
        >>> few("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(str, names[:NAMED])) + more


def _levels(splits: Sequence[Split]) -> Iterator[str]:
    """That a large part of the levels is not used, as where 12 bits lie in 16, or a mask is 0 and 1 in 8."""
    levels = splits[0].transform.levels
    if levels is None or levels == 2:
        return
    used = np.flatnonzero(np.any([_in_use(split) for split in splits], axis=0))
    low, high = int(used[0]), int(used[-1])
    if len(used) == 1:
        yield f"All values are the same: level {low} of {levels}."
    elif high < (levels - 1) / 2:
        yield (
            f"Only levels {low} ... {high} of {levels} are in use, so the data is dark: --levels {high + 1} declares "
            "that there are no more, --levels stretch spreads them over the whole range."
        )
    elif len(used) == 2:
        yield f"Only two levels are in use, {low} and {high} of {levels}: --binarize threshold makes them 0 and 1."


def _in_use(split: Split) -> npt.NDArray[np.bool_]:
    found = np.zeros(256, np.bool_)
    for rows in _chunks(split):
        found[np.asarray(rows, np.uint8)] = True
    return found


def _classes(spec: DataSpec, train: Split) -> Iterator[str]:
    """That a class has no training example, as class 0 where labels count from 1."""
    if train.labels is None or not spec.classes:
        return
    counts = np.bincount(train.labels.cpu().numpy(), minlength=len(spec.classes))
    if without := [name for name, count in zip(spec.classes, counts, strict=True) if not count]:
        yield f"Without a training example: class {few(without)}."


def _duplicates(splits: Sequence[Split]) -> Iterator[str]:
    """That a held-out example is also in the training split, bit for bit."""
    train, *held_out = splits
    if sum(len(split) for split in splits) * _row_bytes(train) > MOST_BYTES:
        yield f"The splits take more than {MOST_BYTES / 2**30:g} GiB and are not searched for common examples."
        return
    seen = set(_digests(train)) if any(map(len, held_out)) else set[bytes]()
    for split in held_out:
        if count := sum(digest in seen for digest in _digests(split)):
            name = {"valid": "validation"}.get(split.name, split.name)
            yield f"{count:,} of {len(split):,} {name} examples are also in the training split, value for value."


def _digests(split: Split) -> Iterator[bytes]:
    for rows in _chunks(split):
        yield from (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in np.ascontiguousarray(rows))


def _row_bytes(split: Split) -> int:
    return split.spec.dimensions * _array(split).dtype.itemsize


def _array(split: Split) -> Array:
    return split.values.cpu().numpy() if isinstance(split.values, Tensor) else split.values


def _chunks(split: Split) -> Iterator[Array]:
    """The stored values of a split, a bounded number of bytes at a time."""
    values, rows = _array(split), max(1, CHUNK_BYTES // max(1, _row_bytes(split)))
    for start in range(0, len(split), rows):
        yield values[start : start + rows] if split.rows is None else values[split.rows[start : start + rows].numpy()]
