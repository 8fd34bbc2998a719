"""A one-line description of the examples, and notes on their values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..options.data_spec import DataSpec
from .sources.raw import Array
from .split import Split

__all__ = ["dark_note", "described", "few", "levels_in_use", "observed", "one_binary_value"]

MOST_BYTES = 2**30
"""Larger data (all splits together) is not searched for duplicates."""
CHUNK_BYTES = 2**24
"""Bytes per chunk."""
NAMED = 5
"""Maximum number of names in a note."""


def described(spec: DataSpec, splits: Sequence[Split]) -> str:
    """Examples, shape, levels, classes and captions in one line."""
    train, valid, test = (f"{len(split):,}" for split in splits)
    shape = " x ".join(map(str, spec.shape))
    levels = "continuous" if spec.levels is None else f"{spec.levels} levels"
    whole = splits[0].values.shape[1:]
    cropped = f", cropped from {' x '.join(map(str, whole))}" if splits[0].transform.crop else ""
    counts = f"{spec.name}: {train} training, {valid} validation and {test} test examples"
    parts = [counts, f"shape {shape}{cropped}", levels]
    parts += [f"{len(spec.classes)} classes"] if spec.classes else []
    parts += ["captions"] if spec.captioned else []
    parts += [f"conditions of shape {' x '.join(map(str, spec.condition_shape))}"] if spec.condition_shape else []
    return "; ".join(parts)


def observed(spec: DataSpec, splits: Sequence[Split], *, declared: bool) -> Iterator[str]:
    """Notes on levels (on unused ones, unless declared), classes and duplicates."""
    yield from _levels(splits, declared)
    if spec.absent:  # such as class 0 if labels start at 1
        yield f"Classes without training examples: {few([spec.classes[number] for number in spec.absent])}."
    yield from _duplicates(splits)


def few(names: Sequence[object]) -> str:
    """The first few names, and the number of others.

    Example:
        >>> few("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(str, names[:NAMED])) + more


def dark_note(low: int, high: int, levels: int) -> str:
    """The note that only the lower levels are in use.

    Example:
        >>> dark_note(0, 4095, 65536)
        'Of values 0 ... 65535 only 0 ... 4095 are in use: --levels 4096 declares these, ...'
    """
    return (
        f"Of values 0 ... {levels - 1} only {low} ... {high} are in use: --levels {high + 1} declares these, "
        "--levels stretch scales them to the full range."
    )


def levels_in_use(splits: Sequence[Split]) -> dict[str, int] | None:
    """The lowest and the highest stored level and how many there are; None for continuous or empty data."""
    if splits[0].transform.levels is None or not any(map(len, splits)):
        return None
    used = np.flatnonzero(np.any([_in_use(split) for split in splits], axis=0))
    return {"lowest": int(used[0]), "highest": int(used[-1]), "count": len(used)}


def one_binary_value(split: Split) -> str:
    """The levels in use, if binarization makes them all the same; else empty."""
    binarize, levels = split.transform.binarize, split.transform.levels
    if binarize == "none" or levels is None or (used := levels_in_use((split,))) is None:
        return ""
    low, high = used["lowest"] / (levels - 1), used["highest"] / (levels - 1)
    one = high <= 0.5 or low > 0.5 if binarize == "threshold" else high == 0 or low == 1
    return f"levels {used['lowest']} ... {used['highest']} of {levels}" if one else ""


def _levels(splits: Sequence[Split], declared: bool) -> Iterator[str]:
    """Notes if most levels are unused, such as 12 bits stored in 16, or a mask of 0 and 1 in 8."""
    levels, used = splits[0].transform.levels, levels_in_use(splits)
    if levels is None or levels == 2 or used is None:
        return
    low, high = used["lowest"], used["highest"]
    if low == high:
        yield f"All values are the same: level {low} of {levels}."
    elif high < (levels - 1) / 2 and not declared:
        yield dark_note(low, high, levels)
    elif used["count"] == 2 and splits[0].transform.binarize == "none":
        yield f"Only two levels are in use, {low} and {high} of {levels}: --binarize threshold makes them 0 and 1."


def _in_use(split: Split) -> npt.NDArray[np.bool_]:
    found = np.zeros(256, np.bool_)
    for rows in _chunks(split):
        found[np.asarray(rows, np.uint8)] = True
    return found


def _duplicates(splits: Sequence[Split]) -> Iterator[str]:
    """Notes if held-out examples are also in the training split, bit for bit."""
    train, *held_out = splits
    if sum(len(split) for split in splits) * _row_bytes(train) > MOST_BYTES:
        yield f"The splits take more than {MOST_BYTES / 2**30:g} GiB and are not searched for duplicates."
        return
    seen = set(_digests(train)) if any(map(len, held_out)) else set[bytes]()
    for split in held_out:
        if count := sum(digest in seen for digest in _digests(split)):
            name = {"valid": "validation"}.get(split.name, split.name)
            yield f"Of {len(split):,} {name} examples, {count:,} are exact duplicates of training examples."


def _digests(split: Split) -> Iterator[bytes]:
    for rows in _chunks(split):
        yield from (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in np.ascontiguousarray(rows))


def _row_bytes(split: Split) -> int:
    return _array(split)[:1].nbytes if len(split) else 0


def _array(split: Split) -> Array:
    return split.values.cpu().numpy() if isinstance(split.values, Tensor) else split.values


def _chunks(split: Split) -> Iterator[Array]:
    """The stored values of a split, in chunks of bounded size."""
    values, rows = _array(split), max(1, CHUNK_BYTES // max(1, _row_bytes(split)))
    for start in range(0, len(split), rows):
        yield values[start : start + rows] if split.rows is None else values[split.rows[start : start + rows].numpy()]
