"""A split: stored values, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..options.data_spec import DataSpec
from .sources.raw import Array
from .spacing import evenly_spaced
from .store import stored
from .transform import Transform

__all__ = ["Batch", "Split", "joined"]

CHUNK = 1000
"""Number of examples copied at once between files."""


class Batch(NamedTuple):
    """Examples as a model sees them.

    Args:
        x: Float32, ``[n, *shape]``.
        labels: Class indices, int64 ``[n]``, or None.
        captions: Their texts, or None.
        conditions: The condition of each, float32 ``[n, *condition_shape]``, or None.
    """

    x: Tensor
    labels: Tensor | None
    captions: tuple[str, ...] | None = None
    conditions: Tensor | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Examples of one split, stored unscaled (as bytes if possible) and scaled per batch.

    Args:
        name: ``"train"``, ``"valid"`` or ``"test"``; ``"all"`` for undivided data, or all three together.
        spec: Shape and range of examples in a batch.
        values: Levels (uint8) or floats, ``[N, *shape]``, of the full image if it is cropped; or a memory map with
            ``rows`` as the examples.
        transform: Turns values into a batch.
        labels: Class numbers, int64 ``[N]``.
        captions: One text per example.
        conditions: The condition of each example, float32 ``[N, *condition_shape]``.
        rows: Rows of ``values`` that are the examples, int64 ``[N]``; None: all of them.
        files: The file of each example, relative to its folder or archive; None if they are not files.
        numbers: The row of each example in its source array, int64 ``[N]``; None if in order.

    Example:
        >>> from tightbound.data import load_data
        >>> test = load_data("digits").test
        >>> test
        Split('test', 360 examples of 'digits', shape (1, 8, 8))
        >>> len(test), test.batch(torch.tensor([4, 2])).x.shape
        (360, torch.Size([2, 1, 8, 8]))
    """

    name: str
    spec: DataSpec
    values: Tensor | Array
    transform: Transform
    labels: Tensor | None = None
    captions: tuple[str, ...] | None = None
    conditions: Tensor | None = None
    rows: Tensor | None = None
    files: tuple[str, ...] | None = None
    numbers: Tensor | None = None

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self):,} examples of {self.spec.name!r}, shape {self.spec.shape})"

    def __len__(self) -> int:
        return len(self.values) if self.rows is None else len(self.rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each example in its source: its file, or its row number.

        Example:
            >>> from tightbound.data import load_data
            >>> load_data("digits").test.subset(3).names
            ('4', '5', '6')
        """
        if self.files is not None:
            return self.files
        return tuple(map(str, range(len(self)) if self.numbers is None else self.numbers.tolist()))

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Batch:
        """The examples at ``indices``; random transforms are sampled again.

        Args:
            indices: Which examples, int64 ``[n]``.
            device: Device of the batch; it is gathered on the device of the values and scaled on this one.
        """
        labels = None if self.labels is None else _rows(self.labels, indices).to(device, non_blocking=True)
        captions = None if self.captions is None else tuple(self.captions[i] for i in indices.tolist())
        given = None if self.conditions is None else _rows(self.conditions, indices).to(device, non_blocking=True)
        values = self._gather(indices)
        if values.dtype == torch.float64:  # which not every device supports
            x = self.transform(values).to(device, non_blocking=True)
        else:
            x = self.transform(values.to(device, non_blocking=True))
        return Batch(x, labels, captions, given)

    def batches(self, batch_size: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Every example once, in order; the last batch may be smaller.

        Args:
            batch_size: Examples per batch, at least 1.
            device: Device of the batches.

        Raises:
            UsageError: If ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise UsageError("The batch size must be at least 1.", got=f"batch_size={batch_size}", expected="1 or more")
        indices = torch.arange(len(self)).split(batch_size) if len(self) else ()
        return (self.batch(part, device) for part in indices)

    def representative(self, n: int) -> Tensor:
        """Indices of n representative examples in a fixed order, cycling through the classes.

        Classes are in the order of their indices, with evenly spaced examples of each; without labels, n evenly spaced
        examples are used. A small class may run out of examples.

        Args:
            n: Number of examples, at most all.

        Raises:
            UsageError: If there are fewer examples.

        Example:
            >>> from tightbound.data import load_data
            >>> test = load_data("digits").test
            >>> test.labels[test.representative(12)].tolist()
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
        """
        self._check_count(n)
        if n == 0:
            return torch.arange(0)
        labels = torch.zeros(len(self), dtype=torch.int64) if self.labels is None else self.labels.cpu()
        order = labels.argsort(stable=True)
        _, which, counts = labels[order].unique_consecutive(return_inverse=True, return_counts=True)
        starts = counts.cumsum(0) - counts
        turn = torch.arange(len(self)) - starts[which]
        taken = (turn * len(counts) + which).argsort()[:n]
        which, turn = which[taken], turn[taken]
        return order[starts[which] + turn * counts[which] // which.bincount()[which]]

    def evenly_spaced(self, n: int) -> Split:
        """At most n evenly spaced examples, since files in a folder are sorted by class.

        Example:
            >>> from tightbound.data import load_data
            >>> len(load_data("digits").test.evenly_spaced(7))
            7
        """
        return self if len(self) <= n else self.subset(evenly_spaced(len(self), n))

    def pairs(self, n: int) -> Tensor:
        """Indices of at most n pairs of examples, of different classes if there are classes, ``(n, 2)``."""
        chosen = self.representative(min(2 * n, len(self)))
        return chosen[: len(chosen) // 2 * 2].reshape(-1, 2)

    def _check_count(self, n: int) -> None:
        if not 0 <= n <= len(self):
            raise UsageError(
                f"The split {self.name!r} has fewer examples than requested.", got=n, expected=f"0...{len(self)}"
            )

    def subset(self, indices: Tensor | int) -> Split:
        """A subset: the examples at ``indices``, or the first ``indices``.

        Raises:
            UsageError: If there are fewer examples.
        """
        if isinstance(indices, int):
            self._check_count(indices)
            indices = torch.arange(indices)
        mapped = not isinstance(self.values, Tensor)
        return replace(
            self,
            values=self.values if mapped else self._gather(indices),
            rows=(indices if self.rows is None else self.rows[indices]) if mapped else None,
            labels=None if self.labels is None else _rows(self.labels, indices),
            captions=None if self.captions is None else tuple(self.captions[i] for i in indices.tolist()),
            conditions=None if self.conditions is None else _rows(self.conditions, indices),
            files=None if self.files is None else tuple(self.files[i] for i in indices.tolist()),
            numbers=indices.cpu() if self.numbers is None else self.numbers[indices.cpu()],
        )

    def scaled_as(self, spec: DataSpec) -> Split:
        """The same examples, standardised like other data."""
        transform = replace(self.transform, location=spec.location, scale=spec.scale)
        return replace(self, spec=self.spec.scaled_as(spec), transform=transform)

    @property
    def still(self) -> Split:
        """The same examples as in evaluation: without flips, and with center crops."""
        return replace(self, transform=self.transform.still)

    def to(self, device: torch.device | str) -> Split:
        """The split with its values on a device, so batches are gathered there.

        Memory maps, float64, and values above half of the device's free memory are not moved.
        """
        device = torch.device(device)
        if not isinstance(self.values, Tensor) or self.values.dtype == torch.float64 or not _fits(self.values, device):
            return self
        return replace(
            self, values=self.values.to(device), labels=None if self.labels is None else self.labels.to(device)
        )

    def _gather(self, indices: Tensor) -> Tensor:
        if isinstance(self.values, Tensor):
            return _rows(self.values, indices)
        rows = (indices.cpu() if self.rows is None else self.rows[indices.cpu()]).numpy()
        return torch.from_numpy(np.ascontiguousarray(self.values[rows]))


def joined(name: str, splits: Sequence[Split]) -> Split:
    """Concatenates splits of one kind, without flips and random crops; information missing in some of them is left out.

    Args:
        name: Its name.
        splits: At least one.

    Example:
        >>> from tightbound.data import load_data
        >>> data = load_data("digits")
        >>> joined("all", (data.train, data.test))
        Split('all', 1,653 examples of 'digits', shape (1, 8, 8))
    """
    one = splits[0]
    values, rows = _joined_values(splits)
    numbers = [torch.arange(len(each)) if each.numbers is None else each.numbers for each in splits]
    return replace(
        one,
        name=name,
        values=values,
        rows=rows,
        transform=one.transform.still,
        labels=_all_of([each.labels for each in splits]),
        captions=_texts([each.captions for each in splits]),
        conditions=_all_of([each.conditions for each in splits]),
        files=_texts([each.files for each in splits]),
        numbers=torch.cat(numbers),
    )


def _joined_values(splits: Sequence[Split]) -> tuple[Tensor | Array, Tensor | None]:
    """The values of all, in memory or memory-mapped, and the rows used."""
    first = splits[0].values
    if isinstance(first, Tensor):
        return torch.cat([torch.as_tensor(each.values) for each in splits]), None
    rows = [torch.arange(len(each)) if each.rows is None else each.rows for each in splits]
    if all(each.values is first for each in splits):
        return first, torch.cat(rows)
    ends = np.cumsum([len(each) for each in splits]).tolist()

    def fill(out: Array) -> None:
        for each, end, picked in zip(splits, ends, rows, strict=True):
            start = end - len(each)
            for part in torch.arange(len(each)).split(CHUNK):
                out[start + part.numpy()] = np.asarray(each.values)[picked[part].numpy()]

    return stored((ends[-1], *first.shape[1:]), first.dtype, fill, key=None), None


def _all_of(values: Sequence[Tensor | None]) -> Tensor | None:
    known = [value for value in values if value is not None]
    return torch.cat(known) if len(known) == len(values) else None


def _texts(values: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    known = [value for value in values if value is not None]
    return tuple(chain(*known)) if len(known) == len(values) else None


def _rows(values: Tensor, indices: Tensor) -> Tensor:
    return values.index_select(0, indices.to(values.device))


def _fits(values: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return values.nbytes < free / 2
