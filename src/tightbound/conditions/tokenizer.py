"""Byte-pair encoding of texts, learned from captions.

Convention: tokens are int64 of shape ``(length,)``, numbered from 0 and padded with -1. The first 256 are the bytes of
UTF-8, so that no character is unknown; every other token merges two earlier ones. A text is normalised: composed
(Unicode NFC), in lower case, with single spaces, so that the few captions share more of their tokens.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import CheckpointError, DataError, UsageError, reading

if TYPE_CHECKING:
    from types import ModuleType

    import tokenizers
    import tokenizers.models

__all__ = ["Tokenizer", "normalise"]

BYTES = 256
MOST_LENGTH = 1 << 16
"""Maximum caption length in tokens: a row of that length is stored for each caption."""
MOST_BYTES = 1 << 24
"""Maximum total bytes of all tokens: each merge can double the longest one."""
REMEMBERED = 1 << 16
"""Maximum number of captions with cached tokens: they are needed again in every epoch."""


def normalise(caption: str) -> str:
    """A caption as it is tokenised: composed, in lower case, with single spaces.

    Raises:
        DataError: If it holds half a character (a lone surrogate).

    Example:
        >>> normalise("  Smiling  CAT ")
        'smiling cat'
    """
    text = " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", caption).lower()).split())
    try:
        text.encode("utf8")
    except UnicodeEncodeError as error:
        raise DataError(
            "A caption holds half a character.", got=f"{caption!r}, at {error.start}", expected="Unicode text"
        ) from None
    return text


class Tokenizer:
    """Byte-pair encoding: starts from the bytes of a text, and repeatedly merges the most frequent pair of tokens.

    Its merges determine it completely, so that it can be stored as integers.

    References:
        Neural Machine Translation of Rare Words with Subword Units (Sennrich, Haddow and Birch, 2016).
        Language Models are Unsupervised Multitask Learners (Radford et al., 2019), section 2.2 (on bytes).

    Args:
        joins: Merges: pairs of tokens that become one, in order.
        length: Maximum number of tokens in a text.

    Raises:
        UsageError: If a merge refers to a later token, or the length is out of range.

    Example:
        >>> tokenizer = Tokenizer([(99, 97), (256, 116)], length=6)
        >>> tokenizer.encode("cat hat")
        tensor([257,  32, 104,  97, 116,  -1])
        >>> tokenizer.decode(tokenizer.encode("cat hat"))
        'cat hat'
    """

    def __init__(self, joins: Iterable[Sequence[int]] = (), length: int = 32) -> None:
        if not 1 <= length <= MOST_LENGTH:
            raise UsageError("The text length is out of range.", got=f"length {length}", expected=f"1 to {MOST_LENGTH}")
        self.length = length
        self.joins = tuple((int(left), int(right)) for left, right in joins)
        self.pieces = _pieces(self.joins)
        self._known: dict[str, Tensor] = {}

    @classmethod
    def train(cls, captions: Iterable[str], vocabulary: int = 2048, length: int = 32) -> Tokenizer:
        """Learns the merges from captions; the same captions in the same order result in the same merges.

        Args:
            captions: The texts.
            vocabulary: Maximum size of the vocabulary, including the 256 bytes.
            length: Maximum number of tokens in a text.

        Raises:
            DataError: If there are no captions, or one is empty.
            UsageError: If a caption is too long, or the vocabulary is below 256.

        Example:
            >>> tokenizer = Tokenizer.train(["a red circle", "a red square"], vocabulary=300)
            >>> tokenizer.encode("a red circle")[:3].tolist() == tokenizer.encode("a red square")[:3].tolist()
            True
        """
        if vocabulary < BYTES:
            raise UsageError("The vocabulary is too small.", got=f"{vocabulary} tokens", expected=f"{BYTES} or more")
        every = list(captions)
        if not every:
            raise DataError(
                "A tokenizer is learned from captions, but there are none.", remedy="Use data with captions."
            )
        if blank := sum(not text.strip() for text in every):
            raise DataError(
                "A caption is empty.",
                got=f"{blank} of {len(every)} captions",
                expected="a text for each",
                remedy="Add the missing captions to the data, or leave these examples out.",
            )
        texts = list(dict.fromkeys(every))
        tokenizer = cls(_learned([_full(text) for text in texts], vocabulary)[: vocabulary - BYTES], length)
        tokenizer.encode(max(texts, key=tokenizer.count))
        return tokenizer

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return len(self.pieces)

    def count(self, caption: str) -> int:
        """Number of tokens of a caption, even if it is too long."""
        return len(self._engine.encode(normalise(caption)).ids)

    def encode(self, caption: str) -> Tensor:
        """The tokens of a caption, int64 ``(length,)``, padded with -1.

        Raises:
            DataError: If it is empty, or holds half a character.
            UsageError: If it is too long.
            CheckpointError: If the tokens do not decode to it.
        """
        if caption not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[caption] = self._encode(caption)
        return self._known[caption].clone()

    def encode_all(self, captions: Iterable[str]) -> Tensor:
        """The tokens of captions, int64 ``(n, length)``; errors as of :meth:`encode`."""
        rows = [self.encode(caption) for caption in captions]
        return torch.stack(rows) if rows else torch.empty(0, self.length, dtype=torch.int64)

    def _encode(self, caption: str) -> Tensor:
        text = _full(caption)
        tokens: list[int] = self._engine.encode(text).ids
        if self._told(tokens) != text.encode("utf8"):
            raise CheckpointError("The tokenizer lost a character.", got=repr(self.decode(tokens)), expected=repr(text))
        if len(tokens) > self.length:
            raise UsageError(
                "A caption is too long.",
                got=f"{len(tokens)} tokens: {_short(text)!r}",
                expected=f"at most {self.length}",
                remedy=f"Use fewer words, or train with --caption-length {len(tokens)}.",
            )
        return torch.tensor(tokens + [-1] * (self.length - len(tokens)))

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """The text up to the first -1; invalid UTF-8, which a model may generate, becomes the replacement character.

        Raises:
            UsageError: If a token is out of range.
        """
        numbers: list[int] = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        there = list(takewhile(lambda token: token != -1, numbers))
        if there and not 0 <= min(there) <= max(there) < self.vocabulary:
            raise UsageError("Unknown token.", got=there, expected=f"0 to {self.vocabulary - 1}, or -1 for padding")
        return self._told(there).decode("utf8", errors="replace")

    def json(self) -> str:
        """The tokenizer as a ``tokenizer.json`` of Hugging Face's libraries."""
        return self._engine.to_str()

    @classmethod
    def from_json(cls, text: str, length: int = 32) -> Tokenizer:
        """Reads the output of :meth:`json`, or the merges of another byte-level tokenizer, renumbering its tokens.

        Args:
            text: Content of a ``tokenizer.json``.
            length: Maximum number of tokens in a text, which such a file does not hold.

        Raises:
            CheckpointError: If it is not such a file, or lacks a byte.
        """
        with reading("Not a byte-pair tokenizer: it", CheckpointError, expected=_WRITTEN):
            model = json.loads(text)["model"]
            kind, known, written = model["type"], set(model["vocab"]), _pairs(model["merges"])
            written = [(str(left), str(right)) for left, right in written]
        if kind != "BPE":
            raise _no_tokenizer(f"a tokenizer of kind {kind!r}")
        if lost := [byte for byte, letter in enumerate(_LETTERS) if letter not in known]:
            raise CheckpointError(
                "The tokenizer lost a character.",
                got=f"no token for {len(lost)} bytes: {bytes(lost[:8])!r}",
                expected="one for each of the 256",
                remedy="Restore the original file, or train a byte-level tokenizer.",
            )
        return cls(_numbered(written), length)

    def _told(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self.pieces[token] for token in tokens)

    @cached_property
    def _engine(self) -> tokenizers.Tokenizer:
        library = _library()
        words = ["".join(_LETTERS[byte] for byte in piece) for piece in self.pieces]
        vocabulary = {word: token for token, word in enumerate(words)}
        model = library.models.BPE(vocab=vocabulary, merges=[(words[left], words[right]) for left, right in self.joins])
        return _of_bytes(library, model)


def _pieces(joins: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes of every token; merges that result in the same bytes share a token."""
    pieces = [bytes([byte]) for byte in range(BYTES)]
    known, size = set(pieces), BYTES
    for left, right in joins:
        if not (0 <= left < len(pieces) and 0 <= right < len(pieces)):
            raise UsageError(
                "The tokenizer is damaged: a merge must be of two earlier tokens.",
                got=(left, right),
                expected=f"two of 0 to {len(pieces) - 1}",
                remedy="Restore the original file, or train again.",
            )
        size += len(pieces[left]) + len(pieces[right])
        if size > MOST_BYTES:
            raise UsageError(
                "The tokenizer is damaged: its tokens are too long.",
                got=f"{size:,} bytes in total",
                expected=f"at most {MOST_BYTES:,}",
                remedy="Restore the original file, or train again.",
            )
        if (joined := pieces[left] + pieces[right]) not in known:
            pieces.append(joined)
            known.add(joined)
    return pieces


def _learned(texts: Sequence[str], vocabulary: int) -> list[tuple[int, int]]:
    library = _library()
    engine = _of_bytes(library, library.models.BPE())
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    engine.train_from_iterator(texts, trainer)
    return _numbered(_pairs(json.loads(engine.to_str())["model"]["merges"]))


def _of_bytes(library: ModuleType, model: tokenizers.models.Model) -> tokenizers.Tokenizer:
    engine = library.Tokenizer(model)
    engine.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = library.decoders.ByteLevel()
    return engine


def _pairs(written: Sequence[str | Sequence[str]]) -> list[tuple[str, str]]:
    """Merges of a file: pairs, or in older files two words separated by a space."""
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in written]
    return [(left, right) for left, right in pairs]


def _numbered(written: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    numbers = {letter: byte for byte, letter in enumerate(_LETTERS)}
    joins: list[tuple[int, int]] = []
    for left, right in written:
        if left not in numbers or right not in numbers:
            raise _no_tokenizer(f"a merge of {left!r} and {right!r}, which are not tokens")
        joins.append((numbers[left], numbers[right]))
        numbers.setdefault(left + right, len(numbers))
    return joins


def _full(caption: str) -> str:
    if text := normalise(caption):
        return text
    raise DataError("A caption is empty.", got=repr(caption), expected="a word", remedy="Give a text, or leave it out.")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _no_tokenizer(got: str) -> CheckpointError:
    return CheckpointError("Not a byte-pair tokenizer.", got=got, expected=_WRITTEN)


_WRITTEN = "the JSON that Tokenizer.json or tokenizers wrote"


def _library() -> ModuleType:
    try:
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ModuleNotFoundError as error:
        raise UsageError(
            "Captions need the tokenizers library.", got=error, remedy="Install it: pip install 'tightbound[text]'"
        ) from None
    return tokenizers


def _letters() -> list[str]:
    """The letter of each byte in a ``tokenizer.json``: itself if visible, else the next free one from 256."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(BYTES) if byte not in visible]
    return [chr(byte) if byte in visible else chr(BYTES + hidden.index(byte)) for byte in range(BYTES)]


_LETTERS = _letters()
