"""Where conditions come from: the examples of a batch, or words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .given import Given, absent

__all__ = ["Condition", "Conditions", "Examples", "NamedCondition"]

NONE = "none"
"""The word for no condition."""


class Examples(Protocol):
    """Abstract: what a condition is made from, a batch of data."""

    @property
    def x(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def conditions(self) -> Tensor | None: ...
    @property
    def captions(self) -> Sequence[str] | None: ...


class Condition(nn.Module):
    """Abstract: what a model is given of every example, one named condition or several."""

    @property
    def parts(self) -> Mapping[str, NamedCondition]:
        """Its conditions by their names."""
        raise NotImplementedError

    def forward(self, batch: Examples) -> Given:
        """The conditions of a batch, of shape ``(n,)``; in training some are missing."""
        return Given({name: part.entry(batch) for name, part in self.parts.items()})

    def read(self, *words: str) -> Given:
        """The conditions of one example in words, of shape ``()``; "none" is what is missing.

        Args:
            *words: A single condition as it is; several as ``name=words``, and those that are left out are missing.

        Raises:
            UsageError: If they name none.
        """
        if len(self.parts) == 1:
            return Given({name: part.in_words(_one(words)) for name, part in self.parts.items()})
        said = dict(self._named(each) for each in words)
        return Given({name: part.in_words(said.get(name, NONE)) for name, part in self.parts.items()})

    def _named(self, words: str) -> tuple[str, str]:
        name, equals, rest = words.partition("=")
        if not equals or name not in self.parts:
            raise UsageError(
                "This model is given several conditions, and that does not tell which is meant.",
                got=words,
                expected=" ".join(f"{each}=..." for each in self.parts),
                remedy="Write the name in front of each; what is left out is missing.",
            )
        return name, rest

    def require_learned(self, c: Given) -> None:
        """Refuses conditions ``(n,)`` that training never showed, and their absence where it always showed one.

        Raises:
            UsageError: If there are some.
        """
        for name, part in self.parts.items():
            part.check_learned(c[name], c.is_missing(name))

    def describe(self, c: Given) -> str:
        """Conditions of shape ``()`` in words."""
        return ", ".join(part.describe_entry(c[name]) for name, part in self.parts.items())

    def captions(self, c: Given) -> list[str]:
        """The texts among conditions of shape ``(n,)``, where there are texts."""
        return [self.parts["text"].describe_entry(tokens) for tokens in c["text"]]

    def to_show(self) -> Given | None:
        """All that can be shown in turn, of shape ``(m,)``; None where only examples tell."""
        if len(self.parts) > 1:
            return None
        listed = {name: entry for name, part in self.parts.items() if (entry := part.listed()) is not None}
        return Given(listed) if listed else None

    @property
    def in_few_words(self) -> bool:
        """Whether a few words describe it, as they do a class or a text."""
        return all(part.verbal for part in self.parts.values())

    @property
    def to_complete(self) -> bool:
        """Whether it is the part of a picture that is seen, whose rest a model completes."""
        return any(part.partial for part in self.parts.values())

    @property
    def droppable(self) -> bool:
        """Whether a model learns to go without all of it."""
        return all(part.drop > 0 for part in self.parts.values())


def _one(words: Sequence[str]) -> str:
    if len(words) != 1:
        raise UsageError(
            "This model is given one condition.", got=" and ".join(words) or "none", expected="one of them"
        )
    return words[0]


class NamedCondition(Condition):
    """Abstract: one condition of every example of a batch, dropped now and then while a model learns.

    Args:
        size: Entries of one condition.
        drop: Probability with which training sees none.

    Raises:
        UsageError: If that is no probability.
    """

    name: str
    """Its name among what a model is given."""
    whole: bool = False
    """Whether its entries are integers."""
    verbal: bool = False
    """Whether a few words describe it."""
    partial: bool = False
    """Whether it is the part of a picture that is seen."""

    def __init__(self, size: int, drop: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop <= 1:
            raise UsageError("The share of dropped conditions is a probability.", got=drop, expected="0 to 1")
        self.size, self.drop = size, drop

    @property
    def parts(self) -> Mapping[str, NamedCondition]:
        return {self.name: self}

    @property
    def limit(self) -> int | None:
        """How many values a whole entry has, from 0 on; None for numbers."""
        return None

    @property
    def picture(self) -> tuple[int, ...] | None:
        """Shape ``(channels, height, width)`` of the picture that it is; None if it is none."""
        return None

    def of_picture(self, picture: Tensor) -> Tensor:
        """The entry ``(size,)`` that a picture is, or that is seen of it."""
        return picture.flatten()

    def entry(self, batch: Examples) -> Tensor:
        """The entry ``(n, size)`` of a batch; in training some are missing."""
        entry = self.of(batch)
        if not (self.training and self.drop):
            return entry
        dropped = torch.rand(len(entry), 1, device=entry.device) < self.drop
        return torch.where(dropped, torch.full_like(entry, absent(entry)), entry)

    def of(self, batch: Examples) -> Tensor:
        """The entry of a batch, ``(n, size)``."""
        raise NotImplementedError

    def in_words(self, words: str) -> Tensor:
        """The entry that words name, ``(size,)``; "none", where that names none of its own, is what is missing.

        Raises:
            UsageError: If they name none.
        """
        if words != NONE or self.has(NONE):
            return self.parse(words)
        blank = torch.zeros(self.size, dtype=torch.int64 if self.whole else torch.float32)
        return torch.full_like(blank, absent(blank))

    def parse(self, words: str) -> Tensor:
        """The entry that words name, ``(size,)``.

        Raises:
            UsageError: If they name none.
        """
        raise UsageError(
            "This model's condition cannot be said in words.",
            got=words,
            remedy="Give a picture or an .npy: --condition-file FILE.",
        )

    def has(self, name: str) -> bool:
        """Whether such a name is one of its values."""
        return False

    def describe_entry(self, entry: Tensor) -> str:
        """An entry ``(size,)`` in words."""
        raise NotImplementedError

    def listed(self) -> Tensor | None:
        """Its values that can be shown in turn, ``(m, size)``; None where only examples tell."""
        return None

    def check_shown(self, entry: Tensor) -> None:
        """Refuses entries ``(n, size)`` of which training sees no example.

        Raises:
            UsageError: If there are some.
        """

    def check_learned(self, entry: Tensor, gone: Tensor) -> None:
        """Refuses entries ``(n, size)`` that training never showed, and those that are gone where it dropped none.

        Raises:
            UsageError: If there are some.
        """
        self.check_shown(entry)
        if self.drop == 0 and gone.any():
            raise UsageError(
                "This model has not learned to go without its condition.",
                got=f"no {self.name} for {int(gone.sum())} of {len(gone)} samples",
                remedy="Train with --drop-condition 0.1, or give a condition.",
            )


class Conditions(Condition):
    """Several conditions of every example, each dropped by itself.

    Args:
        *parts: The conditions, each of another name.

    Raises:
        UsageError: If two have the same name.

    Example:
        >>> from tightbound.conditions import ClassCondition, VectorCondition
        >>> condition = Conditions(ClassCondition(("cat", "dog")), VectorCondition((2,), drop=0.1))
        >>> condition.read("class=dog")["class"], condition.describe(condition.read("class=cat", "vector=0.5 1"))
        (tensor([1]), 'cat, 0.5, 1')
    """

    def __init__(self, *parts: NamedCondition) -> None:
        super().__init__()
        self.each = nn.ModuleDict({part.name: part for part in parts})
        if len(self.each) < len(parts):
            raise UsageError("Two conditions have the same name.", got=", ".join(part.name for part in parts))

    @property
    def parts(self) -> Mapping[str, NamedCondition]:
        return dict(self.each.items())  # pyright: ignore[reportReturnType]
