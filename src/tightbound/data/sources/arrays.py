"""Arrays, of this process or of an ``.npz`` / ``.npy``: interpretation and validation of shapes and types.

Convention: ``[N, F]`` are vectors and ``[N, H, W]`` grey images. Of four dimensions, the second is the channels if it
is 1 or 3; else the last, if that is 1 or 3; else the second if it is 2 or 4; else the last if it is. Any other number
of channels is that beside two equal sides, or before two sides of which the last is not the smallest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...errors import DataError, UnknownName
from .labels import as_labels
from .raw import Array, Part, Raw

__all__ = ["ArrayLike", "Levels", "as_examples", "checked_values", "from_arrays"]

ArrayLike = Array | Tensor
Levels = int | Literal["auto"] | None

WIDE = 2**16
"""Levels of 16 bits; more than 256 levels are scaled to 256 later."""
CHUNK_BYTES = 2**26
"""Bytes per chunk, so that checking a memory map does not fill the memory."""
FINE = 2.0**-10
"""Maximum rounding error of float32, as a share of a column's range."""


def from_arrays(
    name: str,
    values: Mapping[str, ArrayLike],
    *,
    labels: ArrayLike | Mapping[str, ArrayLike] | None = None,
    levels: Levels = "auto",
    classes: tuple[str, ...] = (),
    captions: Mapping[str, tuple[str, ...]] | None = None,
    conditions: ArrayLike | Mapping[str, ArrayLike] | None = None,
) -> Raw:
    """Checks and interprets arrays.

    Args:
        name: Title of the data.
        values: Examples of each split, by name; a lone ``"train"`` is divided later.
        labels: Class indices, words or one-hot rows of the training split, or of each split by name.
        levels: Number of values of an entry, None if continuous, ``"auto"`` to go by the type.
        classes: Names of the labels.
        captions: Texts of each split, by name.
        conditions: Conditions of the training split, or of each split by name.

    Raises:
        DataError: If shapes, types or values are invalid.
        UnknownName: If there are labels of a split without examples.
    """
    by_split = labels if isinstance(labels, Mapping) else {} if labels is None else {"train": labels}
    given = conditions if isinstance(conditions, Mapping) else {} if conditions is None else {"train": conditions}
    for split in (*by_split, *given):
        if split not in values:
            raise UnknownName("split with labels or conditions", split, values)
    arrays = {split: as_examples(_numpy(value), f"{name}: {split}") for split, value in values.items()}
    _check_one_shape(arrays)
    levels = _common_levels(arrays, levels)
    counts = {split: len(array) for split, array in arrays.items()}
    numbers, classes, notes = as_labels({split: _numpy(some) for split, some in by_split.items()}, counts, classes)
    parts: dict[str, Part] = {}
    for split, array in arrays.items():
        texts = None if captions is None else captions.get(split)
        vectors = None if split not in given else as_conditions(_numpy(given[split]), len(array), split)
        parts[split] = Part(checked_values(array, levels, f"{name}: {split}"), numbers.get(split), texts, vectors)
    return Raw(name, parts, levels, classes, notes)


def as_examples(array: Array, what: str) -> Array:
    """An array with its channels second, ``[N, *shape]``; a view, so a memory map stays one.

    Raises:
        DataError: If it is not an array of numbers with 2 to 4 dimensions, or holds nothing, or the position of its
            channels is ambiguous.

    Example:
        >>> as_examples(np.zeros((5, 32, 32, 3), dtype=np.uint8), "images").shape
        (5, 3, 32, 32)
    """
    if array.dtype.kind not in "buif":
        raise DataError(
            f"{what} does not hold numbers.",
            got=f"dtype {array.dtype}",
            expected="uint8 levels, booleans or floats",
            remedy="Save it as a plain array of numbers; objects (pickles) are never read.",
        )
    if array.ndim not in (2, 3, 4) or 0 in array.shape[1:]:
        raise DataError(
            f"{what} does not have the shape of examples.",
            got=f"shape {array.shape}",
            expected="[N, features], [N, H, W], [N, C, H, W] or [N, H, W, C]",
            remedy=_RESHAPED.get(array.ndim, "Reshape the array; the first dimension counts the examples."),
        )
    if array.ndim == 3:
        return array[:, None]
    return np.moveaxis(array, 3, 1) if array.ndim == 4 and _channels_last(array.shape, what) else array


_RESHAPED = {
    1: "If each number is an example: x[:, None]; the first dimension counts the examples.",
    5: "Volumes are read as vectors, x.reshape(len(x), -1), or as images of as many channels as there are layers.",
}


def checked_values(array: Array, levels: int | None, what: str) -> Array:
    """The values in their storage type: uint8 or uint16 with levels, float32 without; a memory map is unchanged.

    If float32 would lose the differences in a column (such as Unix times), values stay float64 until standardised.

    Raises:
        DataError: If an entry is NaN, infinite, or not a level.
    """
    if levels is not None and not 2 <= levels <= WIDE:
        raise DataError(
            f"{what} has an invalid number of levels.",
            got=levels,
            expected=f"2 ... {WIDE}, or None if continuous",
            remedy="Store them as floats: those are continuous values, or levels with --levels LOW:HIGH.",
        )
    if levels is None:
        _refuse(array, _not_finite, what, "NaN, infinite or too large for float32", "finite floats")
        if isinstance(array, np.memmap):
            return array
        return array.astype(np.float64 if _blurred(array) else np.float32, copy=False)
    top = levels - 1
    expected = f"integers 0 ... {top} ({levels} levels)"
    _refuse(array, lambda part: ~((part >= 0) & (part <= top) & (part % 1 == 0)), what, "not a level", expected)
    return array if isinstance(array, np.memmap) else array.astype(np.uint8 if top < 256 else np.uint16, copy=False)


def as_conditions(values: Array, count: int, what: str) -> npt.NDArray[np.float32]:
    """The condition of each example, float32 ``[N, *condition_shape]``; NaN if missing.

    Bytes are images or shares of 255, and scaled to [0, 1]; ``[N, height, width]`` has one channel, ``[N]`` one entry.

    Raises:
        DataError: If their number differs from that of the examples, or they are not finite.
    """
    if values.dtype.kind not in "buif" or values.ndim < 1 or len(values) != count or values.size == 0:
        raise DataError(
            f"The conditions of {what} do not match its examples.",
            got=f"{values.dtype} of shape {values.shape}, {count} examples",
            expected=f"numbers of shape ({count},) or ({count}, ...)",
        )
    if np.isinf(values).any():
        raise DataError(f"The conditions of {what} are infinite.", expected="finite numbers, or NaN if missing")
    shape = {1: (count, 1), 3: (count, 1, *values.shape[1:])}.get(values.ndim, values.shape)
    numbers = np.ascontiguousarray(values, np.float32).reshape(shape)
    return numbers / np.float32(255) if values.dtype == np.uint8 else numbers


def chunks(array: Array) -> Iterator[tuple[int, Array]]:
    """Chunks of rows of a bounded size, each with the index of its first row."""
    rows = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _numpy(value: ArrayLike) -> Array:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asanyarray(value)


def _channels_last(shape: tuple[int, ...], what: str) -> bool:
    _, second, third, last = shape
    for sizes in ((1, 3), (2, 4)):
        if second in sizes or last in sizes:
            return second not in sizes
    if second == third or third == last or last > min(second, third):
        return second == third != last
    raise DataError(
        f"The position of the channels of {what} is ambiguous.",
        got=f"shape {shape}",
        expected=f"[N, C, H, W]; or [N, H, W, C] with equal sides, or with 1 to 4 channels (here {last})",
        remedy=f"If the last dimension counts {last} channels, save x.transpose(0, 3, 1, 2); if the second counts "
        f"{second}, save x.transpose(0, 1, 3, 2), which transposes the images.",
    )


def _check_one_shape(arrays: Mapping[str, Array]) -> None:
    shapes = {split: array.shape[1:] for split, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(
            "The splits have examples of different shapes.",
            got=", ".join(f"{split} {shape}" for split, shape in shapes.items()),
            expected="one shape",
        )


def _common_levels(arrays: Mapping[str, Array], levels: Levels) -> int | None:
    if levels != "auto":
        return levels
    kinds = {array.dtype.kind for array in arrays.values()}
    if "f" in kinds:
        return None
    if kinds == {"b"}:
        return 2
    wide = [array for array in arrays.values() if array.dtype.itemsize > 1]
    top = max((int(part.max()) for array in wide for _, part in chunks(array) if part.size), default=0)
    if top < 256:
        return 256
    return WIDE if {array.dtype.str[1:] for array in wide} == {"u2"} else top + 1


def _refuse(
    array: Array, wrong: Callable[[Array], npt.NDArray[np.bool_]], what: str, complaint: str, expected: str
) -> None:
    count, first = 0, None
    for start, part in chunks(array):
        bad = wrong(part)
        count += int(bad.sum())
        if first is None and bad.any():
            inside = np.unravel_index(int(bad.argmax()), bad.shape)
            first = (start + int(inside[0]), *map(int, inside[1:]))
    if first is not None:
        raise DataError(
            f"{what} has invalid values.",
            got=f"{count} of {array.size} entries {complaint}, first {array[first]} at index {first}",
            expected=expected,
            remedy="Correct or drop these entries; set `levels`, or store floats if continuous.",
        )


def _blurred(array: Array) -> bool:
    """Whether rounding to float32 changes the values of a column by more than a small share of their range."""
    if array.dtype.itemsize < 8 or len(array) == 0:
        return False
    low, high, error = array[0].astype(np.float64), array[0].astype(np.float64), np.zeros(array.shape[1:])
    for _, part in chunks(array):
        low, high = np.minimum(low, part.min(0)), np.maximum(high, part.max(0))
        error = np.maximum(error, np.abs(part - part.astype(np.float32)).max(0))
    return bool((error > FINE * (high - low)).any())


def _not_finite(part: Array) -> npt.NDArray[np.bool_]:
    with np.errstate(over="ignore"):
        return ~np.isfinite(part.astype(np.float32))
