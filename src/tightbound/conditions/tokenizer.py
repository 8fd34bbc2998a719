"""Texts to tokens and back: byte pairs learned from captions.

Convention: tokens are int64 of shape ``(length,)``, numbered from 0, with -1 behind the end of the text. The first 256
are the bytes of UTF-8, so that no character is unknown; each other joins two before it. A text is composed (Unicode
NFC), in lower case, with single spaces: captions are few, and what they share shall look the same.
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
"""Tokens that a caption may be long: a row of that length is kept for each."""
MOST_BYTES = 1 << 24
"""What all tokens together may stand for: each join can double the longest of them."""
REMEMBERED = 1 << 16
"""Captions of which the tokens are kept: they come again in every epoch."""


def normalise(caption: str) -> str:
    """A caption as its tokens tell it: composed, in lower case, with single spaces.

    Raises:
        DataError: If it holds half a character, which no file could.

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
    """Byte pairs: a text's bytes, the most common neighbours joined, and of those again the most common.

    It is told whole by its joins, so that it can be kept as numbers, and no two of them read a text differently.

    References:
        Neural Machine Translation of Rare Words with Subword Units (Sennrich, Haddow and Birch, 2016).
        Language Models are Unsupervised Multitask Learners (Radford et al., 2019), section 2.2: of bytes.

    Args:
        joins: Pairs of tokens that become one, in the order in which they are joined.
        length: Most tokens of a text.

    Raises:
        UsageError: If a join is of tokens that there are not yet, or a text could have no token.

    Example:
        >>> tokenizer = Tokenizer([(99, 97), (256, 116)], length=6)
        >>> tokenizer.encode("cat hat")
        tensor([257,  32, 104,  97, 116,  -1])
        >>> tokenizer.decode(tokenizer.encode("cat hat"))
        'cat hat'
    """

    def __init__(self, joins: Iterable[Sequence[int]] = (), length: int = 32) -> None:
        if not 1 <= length <= MOST_LENGTH:
            raise UsageError("A text has a token.", got=f"length {length}", expected=f"1 to {MOST_LENGTH}")
        self.length = length
        self.joins = tuple((int(left), int(right)) for left, right in joins)
        self.pieces = _pieces(self.joins)
        self._known: dict[str, Tensor] = {}

    @classmethod
    def train(cls, captions: Iterable[str], vocabulary: int = 2048, length: int = 32) -> Tokenizer:
        """Learns the joins from captions; the same captions in the same order give the same joins.

        Args:
            captions: The texts.
            vocabulary: Most tokens that there shall be, the 256 bytes among them.
            length: Most tokens of a text.

        Raises:
            DataError: If there is no caption, or one is empty.
            UsageError: If a caption is too long, or the vocabulary is smaller than the bytes.

        Example:
            >>> tokenizer = Tokenizer.train(["a red circle", "a red square"], vocabulary=300)
            >>> tokenizer.encode("a red circle")[:3].tolist() == tokenizer.encode("a red square")[:3].tolist()
            True
        """
        if vocabulary < BYTES:
            raise UsageError("Every byte is a token.", got=f"{vocabulary} tokens", expected=f"{BYTES} or more")
        every = list(captions)
        if not every:
            raise DataError("A tokenizer learns from captions, and there are none.", remedy="Use data with captions.")
        if blank := sum(not text.strip() for text in every):
            raise DataError(
                "A caption is empty.",
                got=f"{blank} of {len(every)} captions",
                expected="words for each",
                remedy="Say in the data what is to be seen there, or leave these examples out.",
            )
        texts = list(dict.fromkeys(every))
        tokenizer = cls(_learned([_full(text) for text in texts], vocabulary)[: vocabulary - BYTES], length)
        tokenizer.encode(max(texts, key=tokenizer.count))
        return tokenizer

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self.pieces)

    def count(self, caption: str) -> int:
        """How many tokens a caption has, were it too long or not."""
        return len(self._engine.encode(normalise(caption)).ids)

    def encode(self, caption: str) -> Tensor:
        """The tokens of a caption, int64 ``(length,)``, -1 behind its end.

        Raises:
            DataError: If it is empty, or holds half a character.
            UsageError: If it is too long.
            CheckpointError: If the tokens do not tell it.
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
                remedy=f"Say it in fewer words, or train with --caption-length {len(tokens)}.",
            )
        return torch.tensor(tokens + [-1] * (self.length - len(tokens)))

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """The text up to the first -1; what is no UTF-8, as a model may write, becomes the replacement character.

        Raises:
            UsageError: If there is no such token.
        """
        numbers: list[int] = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        there = list(takewhile(lambda token: token != -1, numbers))
        if there and not 0 <= min(there) <= max(there) < self.vocabulary:
            raise UsageError("There is no such token.", got=there, expected=f"0 to {self.vocabulary - 1}, -1 for none")
        return self._told(there).decode("utf8", errors="replace")

    def json(self) -> str:
        """It as the ``tokenizer.json`` that Hugging Face's libraries read."""
        return self._engine.to_str()

    @classmethod
    def from_json(cls, text: str, length: int = 32) -> Tokenizer:
        """What :meth:`json` wrote, or the joins of another tokenizer of bytes, its tokens numbered as here.

        Args:
            text: Content of a ``tokenizer.json``.
            length: Most tokens of a text, which such a file does not tell.

        Raises:
            CheckpointError: If it is no such file, or it has lost a character.
        """
        with reading("That is no tokenizer of byte pairs: it", CheckpointError, expected=_WRITTEN):
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
                remedy="Use the file as it was written, or train a tokenizer of bytes.",
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
    """The bytes of every token; two joins to the same bytes are one token."""
    pieces = [bytes([byte]) for byte in range(BYTES)]
    known, size = set(pieces), BYTES
    for left, right in joins:
        if not (0 <= left < len(pieces) and 0 <= right < len(pieces)):
            raise UsageError(
                "The tokenizer is damaged: a join is of tokens before it.",
                got=(left, right),
                expected=f"two of 0 to {len(pieces) - 1}",
                remedy="Use it as it was written, or train again.",
            )
        size += len(pieces[left]) + len(pieces[right])
        if size > MOST_BYTES:
            raise UsageError(
                "The tokenizer is damaged: its joins grow without end.",
                got=f"tokens of {size:,} bytes together",
                expected=f"at most {MOST_BYTES:,}",
                remedy="Use it as it was written, or train again.",
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
    """Joins as a file has them: a pair, or, in old ones, two words with a space between."""
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in written]
    return [(left, right) for left, right in pairs]


def _numbered(written: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    numbers = {letter: byte for byte, letter in enumerate(_LETTERS)}
    joins: list[tuple[int, int]] = []
    for left, right in written:
        if left not in numbers or right not in numbers:
            raise _no_tokenizer(f"a join of {left!r} and {right!r}, which are no tokens")
        joins.append((numbers[left], numbers[right]))
        numbers.setdefault(left + right, len(numbers))
    return joins


def _full(caption: str) -> str:
    if text := normalise(caption):
        return text
    raise DataError(
        "A caption is empty.", got=repr(caption), expected="a word", remedy="Say something, or leave the text out."
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _no_tokenizer(got: str) -> CheckpointError:
    return CheckpointError("That is no tokenizer of byte pairs.", got=got, expected=_WRITTEN)


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
    """For each byte its letter in a ``tokenizer.json``: itself where visible, else the next free one from 256 on."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(BYTES) if byte not in visible]
    return [chr(byte) if byte in visible else chr(BYTES + hidden.index(byte)) for byte in range(BYTES)]


_LETTERS = _letters()
