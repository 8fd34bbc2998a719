"""Numbers that come with an example as a condition: a vector or an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DataError, UsageError
from .base import Examples, NamedCondition

__all__ = ["VectorCondition"]


class VectorCondition(NamedCondition):
    """Numbers that come with an example: a vector or an image.

    Args:
        shape: Shape of the numbers of one example.
        drop: Probability of dropping the condition in training.

    Example:
        >>> VectorCondition((3,)).read("0.5, 1, -2")["vector"]
        tensor([ 0.5000,  1.0000, -2.0000])
    """

    def __init__(self, shape: Sequence[int], drop: float = 0.0) -> None:
        super().__init__(math.prod(shape), drop)
        self.shape = tuple(shape)
        self.name = "vector" if len(self.shape) == 1 else "image"

    def of(self, batch: Examples) -> Tensor:
        if batch.conditions is None or tuple(batch.conditions.shape[1:]) != self.shape:
            raise DataError(
                "The model is conditioned on numbers, but this data has none of that shape.",
                got="none" if batch.conditions is None else f"shape {tuple(batch.conditions.shape[1:])}",
                expected=f"shape {self.shape}",
                remedy="Use an .npz with 'c', one entry for each example.",
            )
        return batch.conditions.flatten(1)

    def parse(self, words: str) -> Tensor:
        try:
            values = torch.tensor([float(word) for word in words.replace(",", " ").split()])
        except ValueError:
            values = torch.empty(0)
        if len(values) != self.size or values.isinf().any():
            raise UsageError("Not a valid vector.", got=words, expected=f"{self.size} finite numbers")
        return values

    @property
    def picture(self) -> tuple[int, ...] | None:
        return self.shape if len(self.shape) == 3 else None

    def describe_entry(self, entry: Tensor) -> str:
        shown = ", ".join(f"{value:.3g}" for value in entry[:6].tolist())
        return "no condition" if entry.isnan().all() else shown + (", …" if len(entry) > 6 else "")
