"""Conditions of a model, made from the examples of a batch or from text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .given import Given, absent

__all__ = ["Condition", "Conditions", "Examples", "NamedCondition"]

NONE = "none"
"""The word for a missing condition."""


class Examples(Protocol):
    """Abstract: a batch of data, from which conditions are made."""

    @property
    def x(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def conditions(self) -> Tensor | None: ...
    @property
    def captions(self) -> Sequence[str] | None: ...


class Condition(nn.Module):
    """Abstract: the condition of a model, made of one or several named conditions of each example."""

    @property
    def parts(self) -> Mapping[str, NamedCondition]:
        """Its named conditions, by name."""
        raise NotImplementedError

    def forward(self, batch: Examples) -> Given:
        """The conditions of a batch, of shape ``(n,)``; in training some are dropped."""
        return Given({name: part.entry(batch) for name, part in self.parts.items()})

    def read(self, *words: str) -> Given:
        """Reads the conditions of one example from text, of shape ``()``; "none" means a missing condition.

        Args:
            *words: The text of a single condition, or ``name=words`` for each of several; those left out are missing.

        Raises:
            UsageError: If a condition is invalid.
        """
        if len(self.parts) == 1:
            return Given({name: part.in_words(_one(words)) for name, part in self.parts.items()})
        said: dict[str, str] = {}
        for name, rest in map(self._named, words):
            if name in said:
                raise UsageError(
                    "A condition was given twice.", got=f"{name}={said[name]} and {name}={rest}", remedy="Give it once."
                )
            said[name] = rest
        return Given(
            {name: part.in_words(said[name]) if name in said else part.blank() for name, part in self.parts.items()}
        )

    def _named(self, words: str) -> tuple[str, str]:
        name, equals, rest = words.partition("=")
        if not equals or name not in self.parts:
            raise UsageError(
                "This model has several conditions, and the text does not name one of them.",
                got=words,
                expected=" ".join(f"{each}=..." for each in self.parts),
                remedy="Write the name in front of each, and NAME=none for a missing one; those left out are missing.",
            )
        return name, rest

    def require_learned(self, c: Given) -> None:
        """Refuses conditions ``(n,)`` without training examples, and missing ones if training dropped none.

        Raises:
            UsageError: If there are any.
        """
        for name, part in self.parts.items():
            part.check_learned(c[name], c.is_missing(name))

    def describe(self, c: Given) -> str:
        """Conditions of shape ``()`` as text."""
        return ", ".join(part.describe_entry(c[name]) for name, part in self.parts.items())

    def captions(self, c: Given) -> list[str]:
        """The texts of conditions of shape ``(n,)``, which must include a text condition."""
        return [self.parts["text"].describe_entry(tokens) for tokens in c["text"]]

    def to_show(self) -> Given | None:
        """All values of the condition, to show in turn, ``(m,)``; None if they cannot be listed."""
        if len(self.parts) > 1:
            return None
        listed = {name: entry for name, part in self.parts.items() if (entry := part.listed()) is not None}
        return Given(listed) if listed else None

    @property
    def in_few_words(self) -> bool:
        """Whether it can be described in a few words, like a class or a text."""
        return all(part.verbal for part in self.parts.values())

    @property
    def to_complete(self) -> bool:
        """Whether it is the observed part of an image that the model completes."""
        return any(part.partial for part in self.parts.values())

    @property
    def droppable(self) -> bool:
        """Whether training sometimes drops all of it, so that the model also learns p(x)."""
        return all(part.drop > 0 for part in self.parts.values())


def _one(words: Sequence[str]) -> str:
    if len(words) != 1:
        raise UsageError("This model has one condition.", got=" and ".join(words) or "none", expected="exactly one")
    return words[0]


class NamedCondition(Condition):
    """Abstract: one condition of each example, dropped at random in training.

    Args:
        size: Number of values of one condition.
        drop: Probability of dropping the condition in training.

    Raises:
        UsageError: If ``drop`` is not a probability.
    """

    name: str
    """Its name among the conditions of a model."""
    whole: bool = False
    """Whether its values are integers."""
    verbal: bool = False
    """Whether it can be described in a few words."""
    partial: bool = False
    """Whether it is the observed part of an image."""

    def __init__(self, size: int, drop: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop <= 1:
            raise UsageError("The probability of dropping a condition is out of range.", got=drop, expected="0 to 1")
        self.size, self.drop = size, drop

    @property
    def parts(self) -> Mapping[str, NamedCondition]:
        return {self.name: self}

    @property
    def limit(self) -> int | None:
        """Number of values of an integer, which start from 0; None for real numbers."""
        return None

    @property
    def picture(self) -> tuple[int, ...] | None:
        """Shape ``(channels, height, width)`` if it is an image, else None."""
        return None

    def of_picture(self, picture: Tensor) -> Tensor:
        """The entry ``(size,)`` for an image, or for its observed part."""
        return picture.flatten()

    def entry(self, batch: Examples) -> Tensor:
        """The entry ``(n, size)`` of a batch; in training some are dropped."""
        entry = self.of(batch)
        if not (self.training and self.drop):
            return entry
        dropped = torch.rand(len(entry), 1, device=entry.device) < self.drop
        return torch.where(dropped, torch.full_like(entry, absent(entry)), entry)

    def of(self, batch: Examples) -> Tensor:
        """The entry of a batch, ``(n, size)``."""
        raise NotImplementedError

    def in_words(self, words: str) -> Tensor:
        """The entry for a text, ``(size,)``; "none" means missing, unless it is one of its own values.

        Raises:
            UsageError: If the text is not a valid condition.
        """
        return self.blank() if words == NONE and not self.has(NONE) else self.parse(words)

    def blank(self) -> Tensor:
        """The entry ``(size,)`` that stands for a missing condition."""
        blank = torch.zeros(self.size, dtype=torch.int64 if self.whole else torch.float32)
        return torch.full_like(blank, absent(blank))

    def parse(self, words: str) -> Tensor:
        """The entry for a text, ``(size,)``.

        Raises:
            UsageError: If the text is not a valid condition.
        """
        raise UsageError(
            "This model's condition cannot be given as text.",
            got=words,
            remedy="Give an image or an .npy: --condition-file FILE.",
        )

    def has(self, name: str) -> bool:
        """Whether a name is one of its values."""
        return False

    def describe_entry(self, entry: Tensor) -> str:
        """An entry ``(size,)`` as text."""
        raise NotImplementedError

    def listed(self) -> Tensor | None:
        """All its values, to show in turn, ``(m, size)``; None if they cannot be listed."""
        return None

    def check_shown(self, entry: Tensor) -> None:
        """Refuses entries ``(n, size)`` without training examples.

        Raises:
            UsageError: If there are any.
        """

    def check_learned(self, entry: Tensor, gone: Tensor) -> None:
        """Refuses entries ``(n, size)`` without training examples, and missing ones if training dropped none.

        Raises:
            UsageError: If there are any.
        """
        self.check_shown(entry)
        if self.drop == 0 and gone.any():
            raise UsageError(
                "This model was never trained without a condition.",
                got=f"no {self.name} for {int(gone.sum())} of {len(gone)} samples",
                remedy=f"Give a {self.name} too, or train with --drop-condition 0.1.",
            )


class Conditions(Condition):
    """Several conditions of each example, dropped independently.

    Args:
        *parts: The conditions, with unique names.

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
