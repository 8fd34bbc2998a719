"""The caption of an example as a condition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DataError, UsageError
from ..runtime.parts import LearnsFromCaptions
from .base import Examples, NamedCondition
from .tokenizer import Tokenizer

__all__ = ["TextCondition"]


class TextCondition(NamedCondition, LearnsFromCaptions):
    """The caption of an example as tokens, padded with -1.

    Its tokenizer is learned from the training captions when a new model is initialised, and stored with the weights, in
    tensors of fixed shape.

    Args:
        vocabulary: Maximum size of the vocabulary, including the 256 bytes.
        length: Maximum number of tokens in a caption.
        drop: Probability of dropping the condition in training.

    Raises:
        UsageError: If the vocabulary is below 256, or the length below 1.

    Example:
        >>> condition = TextCondition(vocabulary=300, length=12)
        >>> condition.initialise_captions(["a red circle", "a red square"])
        >>> condition.describe(condition.read("A red square"))
        'a red square'
    """

    name = "text"
    whole = verbal = True
    joins: Tensor
    learned: Tensor

    def __init__(self, vocabulary: int = 2048, length: int = 32, drop: float = 0.0) -> None:
        super().__init__(length, drop)
        if vocabulary < 256 or length < 1:
            got = f"{vocabulary} tokens, captions of {length}"
            raise UsageError(
                "The vocabulary or the caption length is too small.", got=got, expected="at least 256, and 1"
            )
        self.vocabulary, self._tokenizer = vocabulary, None
        self.register_buffer("joins", torch.full((vocabulary - 256, 2), -1, dtype=torch.int32))
        self.register_buffer("learned", torch.tensor(False))
        self.register_load_state_dict_post_hook(_read_anew)

    @property
    def tokenizer(self) -> Tokenizer:
        """Converts captions to tokens.

        Raises:
            UsageError: If it has not been trained yet.
        """
        if self._tokenizer is None:
            if not self.learned:
                raise UsageError(
                    "The model's tokenizer is not trained yet.",
                    remedy="Train it, or call `condition.initialise_captions(captions)`.",
                )
            there = (self.joins >= 0).any(1)
            if (there[1:] & ~there[:-1]).any():
                raise UsageError(
                    "The tokenizer is damaged: a merge is missing.",
                    got=f"no merge at {int((~there).nonzero()[0])}, but later ones",
                    expected="merges without gaps",
                    remedy="Restore the original file of the run, or train again.",
                )
            self._tokenizer = Tokenizer(self.joins[there].tolist(), self.size)
        return self._tokenizer

    def initialise_captions(self, captions: Iterable[str]) -> None:
        """Learns the tokenizer from captions.

        Raises:
            DataError: If there are no captions, or one is empty.
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
                "The model is conditioned on captions, but this data has none.",
                remedy="Use a folder of images with a metadata.jsonl of captions.",
            )
        return self.tokenizer.encode_all(batch.captions).to(batch.x.device)

    def parse(self, words: str) -> Tensor:
        try:
            return self.tokenizer.encode(words)
        except DataError as error:
            raise UsageError(error.message, got=error.got, expected=error.expected, remedy=error.remedy) from None

    def has(self, name: str) -> bool:
        return True

    def describe_entry(self, entry: Tensor) -> str:
        return "no text" if entry[0] < 0 else self.tokenizer.decode(entry)


def _read_anew(condition: TextCondition, keys: NamedTuple) -> None:
    """Forgets the tokenizer, after other joins were loaded."""
    condition._tokenizer = None
