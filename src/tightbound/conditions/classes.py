"""The class of an example as a condition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DataError, UnknownName, UsageError
from .base import Examples, NamedCondition

__all__ = ["ClassCondition"]


class ClassCondition(NamedCondition):
    """The class of an example.

    Args:
        classes: Names of the classes, ordered by index.
        drop: Probability of dropping the condition in training.
        absent: Indices of classes without training examples.

    Example:
        >>> ClassCondition(("cat", "dog")).read("dog")["class"]
        tensor([1])
    """

    name = "class"
    whole = verbal = True

    def __init__(self, classes: Sequence[str], drop: float = 0.0, absent: Sequence[int] = ()) -> None:
        super().__init__(1, drop)
        self.classes, self.absent = tuple(classes), tuple(absent)

    @property
    def learned(self) -> tuple[int, ...]:
        """Indices of the classes with training examples."""
        return tuple(number for number in range(len(self.classes)) if number not in self.absent)

    @property
    def limit(self) -> int:
        return len(self.classes)

    def of(self, batch: Examples) -> Tensor:
        if batch.labels is None:
            raise DataError(
                "The model is conditioned on classes, but this data has none.",
                expected=f"labels 0...{len(self.classes) - 1}",
                remedy="Use data with labels: class sub-folders, or an .npz with 'y'.",
            )
        if not self.training and len(batch.labels) and (top := int(batch.labels.max())) >= len(self.classes):
            raise DataError(
                "This data has classes that the model was not trained on.",
                got=f"class number {top}",
                expected=f"0 to {len(self.classes) - 1}: {_few(self.classes)}",
                remedy="Leave out the examples of other classes, or rename their folders to the model's classes.",
            )
        return batch.labels.unsqueeze(-1)

    def parse(self, words: str) -> Tensor:
        if words in self.classes:
            return torch.tensor([self.classes.index(words)])
        if not words.removeprefix("-").isdecimal():
            raise UnknownName("class", words, self.classes)
        if not 0 <= int(words) < len(self.classes):
            raise UsageError(
                "Unknown class.", got=words, expected=f"0 to {len(self.classes) - 1}: {_few(self.classes)}"
            )
        return torch.tensor([int(words)])

    def has(self, name: str) -> bool:
        return name in self.classes

    def listed(self) -> Tensor:
        return torch.tensor(self.learned).unsqueeze(-1)

    def check_shown(self, entry: Tensor) -> None:
        if asked := {*entry.flatten().tolist()} & {*self.absent}:
            raise UsageError(
                "This model was trained without examples of that class.",
                got=", ".join(self.classes[number] for number in sorted(asked)),
                expected="one of: " + ", ".join(self.classes[number] for number in self.learned),
                remedy="Choose another class, or train with examples of this one.",
            )

    def describe_entry(self, entry: Tensor) -> str:
        return "no class" if entry[0] < 0 else self.classes[int(entry[0])]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
