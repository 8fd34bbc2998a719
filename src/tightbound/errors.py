"""What can go wrong, as one small tree; every message states what it got, what it expected, and the remedy.

TightboundError
├── UsageError          the call itself is wrong (the command line exits with 2)
│   └── UnknownName     no such recipe, data set or part; names the nearest
├── ShapeError          tensors that do not fit the model
├── ObjectiveError      an objective or estimate that is not defined for this model
├── DataError           data that cannot be read, or is not what it claims to be
├── CheckpointError     a run folder or file that cannot be read or written
└── TrainingError       training cannot go on
"""

from __future__ import annotations

import difflib
from collections.abc import Generator, Iterable
from contextlib import contextmanager

__all__ = [
    "CheckpointError",
    "DataError",
    "ObjectiveError",
    "ShapeError",
    "TightboundError",
    "TrainingError",
    "UnknownName",
    "UsageError",
    "reading",
]


class TightboundError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        message: What happened, in one sentence.
        got: What was found.
        expected: What was needed instead.
        remedy: What the user can do.

    Example:
        >>> print(TightboundError("The batch does not fit.", got="(3, 4)", expected="(3, 5)", remedy="Pad it."))
        The batch does not fit.
          got:      (3, 4)
          expected: (3, 5)
          remedy:   Pad it.
    """

    def __init__(self, message: str, *, got: object = None, expected: object = None, remedy: object = None) -> None:
        self.message, self.got, self.expected, self.remedy = message, got, expected, remedy
        details = {"got:": got, "expected:": expected, "remedy:": remedy}
        lines = [f"  {name:<9} {_short(str(text))}" for name, text in details.items() if text is not None]
        super().__init__("\n".join([message, *lines]))


class UsageError(TightboundError):
    """The call itself is wrong: an invalid option, value or combination."""


class UnknownName(UsageError):
    """A name that is not on a closed list; the nearest known names are offered.

    Args:
        kind: What the name should have been, such as ``"recipe"``.
        name: The unknown name.
        known: Every known name.

    Example:
        >>> print(UnknownName("recipe", "vea", ["vae", "autoencoder"]))
        There is no recipe 'vea'.
          got:      vea
          expected: one of: autoencoder, vae
          remedy:   Did you mean 'vae'?
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        super().__init__(
            f"There is no {kind} {name!r}.",
            got=name,
            expected=f"one of: {', '.join(names)}",
            remedy=f"Did you mean {nearest[0]!r}?" if nearest else "Choose a name from that list.",
        )


class ShapeError(TightboundError):
    """Tensors whose shapes do not fit the model or each other."""


class ObjectiveError(TightboundError):
    """An objective or an estimate that is not defined for this model."""


class DataError(TightboundError):
    """Data that cannot be read, or that is not what it claims to be."""


class CheckpointError(TightboundError):
    """A run folder or a checkpoint that cannot be read or written."""


class TrainingError(TightboundError):
    """Training cannot go on; the last good state is on disk."""


def _short(text: str, most: int = 2000) -> str:
    """A damaged file may hold text of any length; an error message must not."""
    return text if len(text) <= most else f"{text[:most]}..."


@contextmanager
def reading(
    what: object, kind: type[TightboundError] = DataError, *, expected: object = None, remedy: object = None
) -> Generator[None]:
    """Turns whatever a reader raises on a damaged or hostile file into one error of this package.

    Args:
        what: What is being read, such as its path.
        kind: The error to raise.
        expected: What a valid file contains.
        remedy: What the user can do.

    Raises:
        DataError: Or ``kind``, for any exception inside the block; errors of this package pass unchanged.

    Example:
        >>> with reading("numbers.json", expected="a JSON object"):
        ...     {}["a"]
        Traceback (most recent call last):
        tightbound.errors.DataError: numbers.json cannot be read.
          got:      KeyError: 'a'
          expected: a JSON object
    """
    try:
        yield
    except TightboundError:
        raise
    except Exception as error:  # parsers raise nearly anything on a damaged file
        raise kind(f"{what} cannot be read.", got=_told(error), expected=expected, remedy=remedy) from error


def _told(error: Exception) -> str:
    """An exception in one line of bounded length."""
    first = str(error).strip().partition("\n")[0]
    return _short(
        first if isinstance(error, OSError | UnicodeError) else f"{type(error).__name__}: {first}".rstrip(": ")
    )
