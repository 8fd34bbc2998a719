"""Conditions: what ``c`` is, from the examples of a batch or from words.

Convention: ``c`` has shape ``(*batch, size)``. A class is one integer, a text its tokens; a vector or an image is its
numbers. What is missing is -1 among integers and NaN among numbers, so a part of a condition can be missing too: the
unobserved pixels of a picture, or all of it, which is how a condition is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ..errors import DataError, UnknownName, UsageError
from ..runtime.parts import LearnsFromCaptions
from .tokenizer import Tokenizer

__all__ = [
    "ClassCondition",
    "Condition",
    "Examples",
    "PartCondition",
    "TextCondition",
    "VectorCondition",
    "missing",
    "observed_part",
]


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


def missing(c: Tensor) -> Tensor:
    """The same conditions, all missing.

    Example:
        >>> missing(torch.tensor([[7], [3]]))
        tensor([[-1],
                [-1]])
    """
    return torch.full_like(c, math.nan if c.is_floating_point() else -1)


class Condition(nn.Module):
    """Abstract: the condition of every example of a batch, dropped now and then while a model learns.

    Args:
        size: Entries of one condition.
        drop: Probability with which training sees none.

    Raises:
        UsageError: If that is no probability.
    """

    whole: ClassVar[bool] = False
    """Whether its entries are integers."""

    @property
    def limit(self) -> int | None:
        """How many values a whole entry has, from 0 on; None for numbers."""
        return None

    @property
    def picture(self) -> tuple[int, ...] | None:
        """Shape ``(channels, height, width)`` of the picture that it is; None if it is none."""
        return None

    def of_picture(self, picture: Tensor) -> Tensor:
        """The condition ``(size,)`` that a picture is, or that is seen of it."""
        return picture.flatten()

    def __init__(self, size: int, drop: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop <= 1:
            raise UsageError("The share of dropped conditions is a probability.", got=drop, expected="0 to 1")
        self.size, self.drop = size, drop

    def forward(self, batch: Examples) -> Tensor:
        """The conditions ``(n, size)`` of a batch; in training some are missing."""
        c = self.of(batch)
        if not (self.training and self.drop):
            return c
        dropped = torch.rand(len(c), 1, device=c.device) < self.drop
        return torch.where(dropped, missing(c), c)

    def of(self, batch: Examples) -> Tensor:
        """The conditions of a batch, ``(n, size)``."""
        raise NotImplementedError

    def parse(self, words: str) -> Tensor:
        """The condition that words name, ``(size,)``.

        Raises:
            UsageError: If they name none.
        """
        raise UsageError(
            "This model's condition cannot be said in words.",
            got=words,
            remedy="Give a picture or an .npy: --condition-file FILE.",
        )

    def describe(self, c: Tensor) -> str:
        """A condition ``(size,)`` in words."""
        raise NotImplementedError


class ClassCondition(Condition):
    """The class of an example.

    Args:
        classes: Names of the classes in the order of their numbers.
        drop: Probability with which training sees none.
        absent: Numbers of the classes of which training sees no example.

    Example:
        >>> ClassCondition(("cat", "dog")).parse("dog")
        tensor([1])
    """

    whole = True

    def __init__(self, classes: Sequence[str], drop: float = 0.0, absent: Sequence[int] = ()) -> None:
        super().__init__(1, drop)
        self.classes, self.absent = tuple(classes), tuple(absent)

    @property
    def learned(self) -> tuple[int, ...]:
        """Numbers of the classes of which training sees an example."""
        return tuple(number for number in range(len(self.classes)) if number not in self.absent)

    @property
    def limit(self) -> int:
        return len(self.classes)

    def of(self, batch: Examples) -> Tensor:
        if batch.labels is None:
            raise DataError(
                "The model is given the class of an example, and this data has none.",
                expected=f"labels 0...{len(self.classes) - 1}",
                remedy="Use data with labels: class sub-folders, or an .npz with 'y'.",
            )
        if not self.training and len(batch.labels) and (top := int(batch.labels.max())) >= len(self.classes):
            raise DataError(
                "The model is given the class of an example, and has not learned all classes of this data.",
                got=f"class number {top}",
                expected=f"0 to {len(self.classes) - 1}: {_few(self.classes)}",
                remedy="Leave the examples of other classes out, or name their folders as the model's classes.",
            )
        return batch.labels.unsqueeze(-1)

    def parse(self, words: str) -> Tensor:
        if words in self.classes:
            return torch.tensor([self.classes.index(words)])
        if not words.removeprefix("-").isdecimal():
            raise UnknownName("class", words, self.classes)
        if not 0 <= int(words) < len(self.classes):
            raise UsageError(
                "There is no such class.", got=words, expected=f"0 to {len(self.classes) - 1}: {_few(self.classes)}"
            )
        return torch.tensor([int(words)])

    def describe(self, c: Tensor) -> str:
        return "no class" if c[0] < 0 else self.classes[int(c[0])]


class VectorCondition(Condition):
    """Numbers that come with an example: a vector or an image.

    Args:
        shape: Shape of one of them.
        drop: Probability with which training sees none.

    Example:
        >>> VectorCondition((3,)).parse("0.5, 1, -2")
        tensor([ 0.5000,  1.0000, -2.0000])
    """

    def __init__(self, shape: Sequence[int], drop: float = 0.0) -> None:
        super().__init__(math.prod(shape), drop)
        self.shape = tuple(shape)

    def of(self, batch: Examples) -> Tensor:
        if batch.conditions is None or tuple(batch.conditions.shape[1:]) != self.shape:
            raise DataError(
                "The model is given numbers with each example, and this data has none of that shape.",
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
            raise UsageError("That is not such a vector.", got=words, expected=f"{self.size} finite numbers")
        return values

    @property
    def picture(self) -> tuple[int, ...] | None:
        return self.shape if len(self.shape) == 3 else None

    def describe(self, c: Tensor) -> str:
        shown = ", ".join(f"{value:.3g}" for value in c[:6].tolist())
        return "no condition" if c.isnan().all() else shown + (", …" if len(c) > 6 else "")


def observed_part(quadrants: int, height: int, width: int) -> Tensor:
    """Which pixels are seen: the bottom left quadrant, the left half, or all but the bottom right quadrant.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Args:
        quadrants: 1, 2 or 3.
        height: Rows of a picture.
        width: Columns of a picture.

    Returns:
        ``(height, width)``, True where a pixel is seen.

    Raises:
        UsageError: If there are not so many quadrants.

    Example:
        >>> observed_part(1, 2, 2).int().tolist()
        [[0, 0], [1, 0]]
    """
    if quadrants not in (1, 2, 3):
        raise UsageError("One to three quadrants are observed.", got=quadrants, expected="1, 2 or 3")
    bottom, left = torch.arange(height) >= height // 2, torch.arange(width) < width // 2
    bottom, left = bottom.unsqueeze(1).expand(height, width), left.expand(height, width)
    return {1: bottom & left, 2: left, 3: ~(bottom & ~left)}[quadrants]


class PartCondition(Condition):
    """The part of a picture that is observed; the rest is to be completed.

    Args:
        shape: Shape ``(channels, height, width)`` of a picture.
        quadrants: How much of it, as :func:`observed_part` says.
        drop: Probability with which training sees none.

    Example:
        >>> condition = PartCondition((1, 2, 2), quadrants=1)
        >>> condition.seen(torch.ones(1, 1, 2, 2))
        tensor([[nan, nan, 1., nan]])
    """

    observed: Tensor

    def __init__(self, shape: Sequence[int], quadrants: int = 1, drop: float = 0.0) -> None:
        super().__init__(math.prod(shape), drop)
        self.shape = tuple(shape)
        self.register_buffer("observed", observed_part(quadrants, *shape[1:]), persistent=False)

    def of(self, batch: Examples) -> Tensor:
        return self.seen(batch.x)

    @property
    def picture(self) -> tuple[int, ...] | None:
        return self.shape

    def of_picture(self, picture: Tensor) -> Tensor:
        return self.seen(picture.unsqueeze(0))[0]

    def seen(self, x: Tensor) -> Tensor:
        """What is seen of pictures ``(n, *shape)``, ``(n, size)``."""
        return torch.where(self.observed, x, math.nan).flatten(1)

    def describe(self, c: Tensor) -> str:
        return f"{float((~c.isnan()).double().mean()):.0%} of the picture"


class TextCondition(Condition, LearnsFromCaptions):
    """The caption of an example, as tokens with -1 behind its end.

    Its tokenizer is learned from the captions that a new model starts from, and kept among the model's tensors, whose
    shapes are known before.

    Args:
        vocabulary: Most tokens that there shall be, the 256 bytes among them.
        length: Most tokens of a caption.
        drop: Probability with which training sees none.

    Raises:
        UsageError: If the vocabulary is smaller than the bytes, or a caption could have no token.

    Example:
        >>> condition = TextCondition(vocabulary=300, length=12)
        >>> condition.initialise_captions(["a red circle", "a red square"])
        >>> condition.describe(condition.parse("A red square"))
        'a red square'
    """

    whole = True
    joins: Tensor
    learned: Tensor

    def __init__(self, vocabulary: int = 2048, length: int = 32, drop: float = 0.0) -> None:
        super().__init__(length, drop)
        if vocabulary < 256 or length < 1:
            got = f"{vocabulary} tokens, captions of {length}"
            raise UsageError("Every byte is a token, and a caption has one.", got=got, expected="at least 256, and 1")
        self.vocabulary, self._tokenizer = vocabulary, None
        self.register_buffer("joins", torch.full((vocabulary - 256, 2), -1, dtype=torch.int32))
        self.register_buffer("learned", torch.tensor(False))

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns captions into tokens.

        Raises:
            UsageError: If it has not been learned yet.
        """
        if self._tokenizer is None:
            if not self.learned:
                raise UsageError(
                    "The model has not learned a tokenizer yet.",
                    remedy="Train it, or call `condition.initialise_captions(captions)`.",
                )
            there = (self.joins >= 0).any(1)
            if (there[1:] & ~there[:-1]).any():
                raise UsageError(
                    "The tokenizer is damaged: it lost a join.",
                    got=f"none at {int((~there).nonzero()[0])}, and others behind it",
                    expected="all of them in a row",
                    remedy="Use the run's file as it was written, or train again.",
                )
            self._tokenizer = Tokenizer(self.joins[there].tolist(), self.size)
        return self._tokenizer

    def initialise_captions(self, captions: Iterable[str]) -> None:
        """Learns the tokenizer from captions.

        Raises:
            DataError: If there is no caption, or one is empty.
            UsageError: If one is too long.
        """
        self._tokenizer = Tokenizer.train(captions, self.vocabulary, self.size)
        joins = torch.tensor(self._tokenizer.joins, dtype=torch.int32).view(-1, 2)
        self.joins.fill_(-1)[: len(joins)] = joins.to(self.joins.device)
        self.learned.fill_(True)

    @property
    def limit(self) -> int:
        return self.tokenizer.vocabulary

    def of(self, batch: Examples) -> Tensor:
        if batch.captions is None:
            raise DataError(
                "The model is given the caption of an example, and this data has none.",
                remedy="Use a folder of images with a metadata.jsonl of captions.",
            )
        return self.tokenizer.encode_all(batch.captions).to(batch.x.device)

    def parse(self, words: str) -> Tensor:
        try:
            return self.tokenizer.encode(words)
        except DataError as error:
            raise UsageError(error.message, got=error.got, expected=error.expected, remedy=error.remedy) from None

    def describe(self, c: Tensor) -> str:
        return "no text" if c[0] < 0 else self.tokenizer.decode(c)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._tokenizer = None


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
