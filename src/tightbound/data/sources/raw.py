"""The output of readers, before splitting and scaling: arrays in memory or memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Part", "Raw"]

Array = npt.NDArray[Any]
"""Values of any type; a memory map is one too."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some examples with their metadata.

    Args:
        values: Levels or floats, ``[M, *shape]``; a ``np.memmap`` when they do not fit in memory.
        labels: Class indices, ``[N]``.
        captions: A text for each of the N examples.
        conditions: The condition of each, float32 ``[N, *condition_shape]``.
        rows: The rows of ``values`` that are the N examples; None for all, in order (N = M).
        names: The name of each example in its source: a file, relative to its folder or archive. None for row numbers.

    Example:
        >>> part = Part(np.arange(12).reshape(4, 3)).take(np.array([3, 1]))
        >>> len(part), part.dense().tolist()
        (2, [[9, 10, 11], [3, 4, 5]])
    """

    values: Array
    labels: npt.NDArray[np.int64] | None = None
    captions: tuple[str, ...] | None = None
    conditions: npt.NDArray[np.float32] | None = None
    rows: npt.NDArray[np.int64] | None = None
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.values) if self.rows is None else len(self.rows)

    def take(self, index: npt.NDArray[np.int64]) -> Part:
        """The examples of an index, without copying their values."""
        return replace(
            self,
            rows=index if self.rows is None else self.rows[index],
            labels=None if self.labels is None else self.labels[index],
            captions=None if self.captions is None else tuple(self.captions[i] for i in index.tolist()),
            conditions=None if self.conditions is None else self.conditions[index],
            names=None if self.names is None else tuple(self.names[i] for i in index.tolist()),
        )

    def dense(self) -> Array:
        """The values of these examples, ``[N, *shape]``."""
        return self.values if self.rows is None else self.values[self.rows]


@dataclass(frozen=True, eq=False)
class Raw:
    """The complete output of a reader.

    Args:
        name: Title of the data.
        parts: ``"train"``, and ``"valid"`` and ``"test"`` if the source has them.
        levels: Number of values of an entry, or None if continuous.
        classes: Names of the labels.
        notes: Notes on what the reader left out, scaled or chosen, a sentence each.
    """

    name: str
    parts: dict[str, Part]
    levels: int | None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Replaces undecodable characters in file names."""
        vars(self).update(name=_as_text(self.name), classes=tuple(map(_as_text, self.classes)))


def _as_text(name: str) -> str:
    return name.encode("utf8", "replace").decode("utf8")
