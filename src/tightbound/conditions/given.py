"""Named conditions of a batch of examples.

Convention: an entry has shape ``(*batch, size)``. A class is one integer, a text its tokens; a vector or an image is
its numbers. Missing values are -1 for integers and NaN for floats. A condition may be missing in part, like the
unobserved pixels of an image, or completely, which is how it is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import final, overload

import torch
from torch import Tensor

from ..errors import ShapeError, UnknownName, UsageError

__all__ = ["Given", "Index", "absent", "require_given"]

Index = int | slice | Tensor | list[int] | tuple[int | slice | Tensor | None, ...] | None
"""An index of the batch, as for a tensor."""


@final
class Given(Mapping[str, Tensor]):
    """Named conditions of a batch of examples, indexed, expanded and moved together; immutable.

    A string selects an entry by name; anything else indexes the batch of all entries.

    Args:
        entries: Tensors ``(*batch, size)`` by name; missing values are -1 for integers and NaN for floats.

    Raises:
        ShapeError: If there is no entry, or their batch shapes differ.

    Example:
        >>> c = Given({"class": torch.tensor([[7], [3]]), "vector": torch.tensor([[0.5, 1.0], [0.0, 2.0]])})
        >>> c.shape, c["class"].shape, c[0].shape
        (torch.Size([2]), torch.Size([2, 1]), torch.Size([]))
        >>> c.missing("class")[1]["class"]
        tensor([-1])
    """

    def __init__(self, entries: Mapping[str, Tensor]) -> None:
        self._entries = dict(entries)
        shapes = {entry.shape[:-1] for entry in self._entries.values()}
        if len(shapes) != 1 or not all(entry.dim() for entry in self._entries.values()):
            raise ShapeError(
                "The conditions do not have the same batch shape.",
                got={name: tuple(entry.shape) for name, entry in self._entries.items()} or "none",
                expected="at least one, each (*batch, size) with the same batch",
                remedy="Give every example one entry of each; use -1 (integers) or NaN (floats) if missing.",
            )
        self._shape = shapes.pop()

    @property
    def shape(self) -> torch.Size:
        """The shape of the batch."""
        return self._shape

    @property
    def only(self) -> Tensor:
        """The only entry.

        Raises:
            UsageError: If there are several.
        """
        if len(self._entries) > 1:
            raise UsageError(
                "This needs a single condition, but there are several.",
                got=", ".join(self),
                remedy="Embed each by name: tightbound.distributions.Embeddings.",
            )
        return next(iter(self._entries.values()))

    @overload
    def __getitem__(self, index: str) -> Tensor: ...
    @overload
    def __getitem__(self, index: Index) -> Given: ...
    def __getitem__(self, index: str | Index) -> Tensor | Given:
        if not isinstance(index, str):
            of_batch = index if isinstance(index, tuple) else (index,)
            return self._each(lambda entry: entry[(*of_batch, slice(None))])
        if index not in self._entries:
            raise UnknownName("condition", index, self._entries)
        return self._entries[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        """Number of entries, as for any mapping; ``shape`` is that of the examples."""
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Given({', '.join(f'{name}: {tuple(entry.shape)}' for name, entry in self.items())})"

    def expand(self, *batch: int) -> Given:
        """The conditions, broadcast to a larger batch.

        Raises:
            ShapeError: If they do not fit.

        Example:
            >>> Given({"class": torch.tensor([[7], [3]])}).expand(5, 2)
            Given(class: (5, 2, 1))
        """
        try:
            return self._each(lambda entry: entry.expand(*batch, entry.shape[-1]))
        except RuntimeError:
            raise ShapeError(
                "The condition does not fit the batch.",
                got=tuple(self.shape),
                expected=f"a batch that ends {batch}",
                remedy="Give one condition per example, or none.",
            ) from None

    def flatten(self) -> Given:
        """The conditions with all batch dimensions flattened, ``(n,)``.

        Example:
            >>> Given({"vector": torch.zeros(3, 5, 2)}).flatten()
            Given(vector: (15, 2))
        """
        return self._each(lambda entry: entry.reshape(-1, entry.shape[-1]))

    def split(self, n: int) -> list[Given]:
        """Splits a batch ``(N,)`` into parts of at most n examples."""
        return [self[start : start + n] for start in range(0, self.shape[0], n)]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Given:
        """The conditions on another device, or with floats of another type; integers stay integers.

        Example:
            >>> c = Given({"class": torch.tensor([[7]]), "vector": torch.zeros(1, 2)}).to(dtype=torch.float64)
            >>> c["class"].dtype, c["vector"].dtype
            (torch.int64, torch.float64)
        """
        return self._each(lambda entry: entry.to(device=device, dtype=dtype if entry.is_floating_point() else None))

    def missing(self, *names: str) -> Given:
        """The conditions with these entries set to missing; without names, all of them.

        Raises:
            UnknownName: If an entry does not exist.

        Example:
            >>> Given({"class": torch.tensor([[7], [3]])}).missing()["class"]
            tensor([[-1],
                    [-1]])
        """
        gone = {name: torch.full_like(self[name], absent(self[name])) for name in names or self}
        return Given({**self._entries, **gone})

    def is_missing(self, name: str) -> Tensor:
        """Whether an entry is completely missing, ``(*batch)``.

        Example:
            >>> Given({"vector": torch.tensor([[0.5, torch.nan], [torch.nan, torch.nan]])}).is_missing("vector")
            tensor([False,  True])
        """
        entry = self[name]
        return (entry.isnan() if entry.is_floating_point() else entry < 0).all(-1)

    @staticmethod
    def cat(parts: Sequence[Given]) -> Given:
        """Concatenates batches along the first dimension."""
        return _joined(parts, lambda entries: torch.cat(entries))

    @staticmethod
    def stack(parts: Sequence[Given], dim: int = 0) -> Given:
        """Stacks batches of the same shape along a new batch dimension.

        Args:
            parts: The batches.
            dim: Index of the new dimension.

        Example:
            >>> Given.stack([Given({"class": torch.tensor([[7], [3]])})] * 5, dim=1)
            Given(class: (2, 5, 1))
        """
        return _joined(parts, lambda entries: torch.stack(entries, dim))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Given:
        return Given({name: change(entry) for name, entry in self._entries.items()})


def require_given(c: object) -> None:
    """Refuses a bare tensor where conditions are expected.

    Raises:
        UsageError: If it is not a :class:`Given`.

    Example:
        >>> require_given(Given({"class": torch.tensor([[7]])}))
    """
    if not isinstance(c, Given):
        raise UsageError(
            "A condition must be a Given.",
            got=type(c).__name__,
            expected="a Given, such as tightbound.conditions.Given({'class': torch.tensor([[7]])})",
            remedy="Use x, c = model.see(batch) for data, or model.condition.read(words) for text.",
        )


def absent(entry: Tensor) -> float:
    """The value that marks a missing one in an entry."""
    return math.nan if entry.is_floating_point() else -1


def _joined(parts: Sequence[Given], join: Callable[[list[Tensor]], Tensor]) -> Given:
    names = {tuple(sorted(part)) for part in parts}
    if len(names) != 1:
        raise UsageError(
            "Only conditions with the same names can be joined.",
            got="; ".join(", ".join(each) for each in names) or "none",
        )
    return Given({name: join([part[name] for part in parts]) for name in parts[0]})
