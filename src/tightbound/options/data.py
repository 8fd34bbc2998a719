"""Which data, and what happens to a batch before a model sees it."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import UnknownName, UsageError
from ..spec import flag, register

__all__ = ["DataOptions", "ends", "sides", "wider"]

Binarize = Literal["none", "dynamic", "threshold"]
Color = Literal["as-is", "grey", "rgb"]
Standardize = Literal["auto", "none", "per-entry"]
Size = int | tuple[int, int]
"""The side of a square in pixels, or height and width."""

MOST_LEVELS = 2**16
"""Levels that can be declared."""
MOST_PIXELS = 2**13
"""Of the side of an image: its pixels are kept for every example."""


@register("data-options")
@dataclass(frozen=True)
class DataOptions:
    """Everything that turns a source into the batches a model sees; kept in a run's ``config.json``.

    Raises:
        UnknownName: If ``binarize``, ``color`` or ``standardize`` is not one of its values.
        UsageError: If a number is out of range, the levels are none, or ``binarize`` and ``dequantize`` are asked for
            together.

    Example:
        >>> DataOptions("mnist", binarize="dynamic", validation=0.05).validation
        0.05
    """

    data: str = "digits"
    """A name (`tightbound data` lists them), a folder or tar of images, an .npz / .npy array, or a .csv / .parquet
    table; empty for arrays that were handed over in Python."""
    label: str = ""
    """Column of a table that holds the classes; all others are numbers that the model sees."""
    binarize: Literal["none", "dynamic", "threshold"] = "none"
    """Grey to black and white: drawn anew at every visit with the grey value as probability, or cut at one half."""
    dequantize: bool = False
    """Add uniform noise within a level, so that a density (Gaussian) is a bound on the likelihood of the levels."""
    flip: bool = False
    """Mirror training images left to right with probability one half."""
    image_size: int | tuple[int, int] | None = None
    """Size of all images in pixels, the side of a square (64) or height and width (48 64): they are resized until they
    just cover it, then the centre is cut out."""
    crop: int | tuple[int, int] | None = None
    """Train on parts of so many pixels (a side, or height and width), cut out of the images at a place drawn anew at
    every visit; validation and test see the centre. Give a larger --image-size with it."""
    color: Literal["as-is", "grey", "rgb"] = "as-is"
    """Convert images to grey or to RGB; transparent pixels are laid on white."""
    standardize: Literal["auto", "none", "per-entry"] = "auto"
    """Give continuous data mean 0 and standard deviation 1 on the training split: where it is far from that, a vector
    entry by entry and an image as a whole (auto); never; or always, each feature or channel by itself (per-entry).
    Log-densities and errors stay in the data's own units."""
    levels: int | str = "auto"
    """What the values of images and whole numbers mean. auto: 8 bits as they are, 16 bits scaled to 256 levels; a
    number N: values 0 to N - 1 (2 for masks of 0 and 1, 4096 for 12 bits); LOW:HIGH: these become black and white;
    stretch: the lowest and highest value in use become black and white."""
    validation: float = 0.1
    """Share of the training split held out to choose a model, at most 10,000 examples (0: none; official validation
    splits are kept)."""
    split_seed: int = 0
    """Seed of the splits that a data set does not fix itself."""

    def __post_init__(self) -> None:
        if self.binarize not in get_args(Binarize):
            raise UnknownName("way to binarize", self.binarize, get_args(Binarize))
        if self.color not in get_args(Color):
            raise UnknownName("color", self.color, get_args(Color))
        if self.standardize not in get_args(Standardize):
            raise UnknownName("way to standardize", self.standardize, get_args(Standardize))
        _check_levels(self.levels)
        if self.binarize != "none" and self.dequantize:
            raise UsageError(
                "Data is either binarized or dequantized.",
                got=f"binarize={self.binarize!r}, dequantize=True",
                remedy="Drop one of the two: binary values need a mass, dequantized ones a density.",
            )
        _check_size("image_size", self.image_size)
        _check_size("crop", self.crop)
        if not 0 <= self.validation < 1:
            raise UsageError(
                "The validation split is a share of the training split.",
                got=f"validation={self.validation}",
                expected="0 <= validation < 1",
                remedy="Give 0.1 for a tenth, or 0 for no validation split.",
            )
        if not 0 <= self.split_seed < 2**32:
            raise UsageError(
                "The seed of a split is out of range.", got=f"split_seed={self.split_seed}", expected="0 ... 2^32 - 1"
            )


def sides(size: Size | None) -> tuple[int, int] | None:
    """Height and width, if there is a size.

    Example:
        >>> sides(64), sides((48, 64))
        ((64, 64), (48, 64))
    """
    return (size, size) if isinstance(size, int) else size


def wider(crop: Size) -> str:
    """A size, in words of the command line, that leaves a part of that size some room to lie anywhere.

    Example:
        >>> wider(64), wider((32, 48))
        ('72', '36 54')
    """
    return " ".join(str(side + max(1, side // 8)) for side in (crop if isinstance(crop, tuple) else (crop,)))


def ends(levels: str) -> tuple[float, float]:
    """The two values of ``"LOW:HIGH"``.

    Raises:
        UsageError: If it is no such pair.

    Example:
        >>> ends("0:4095")
        (0.0, 4095.0)
    """
    low, _, high = levels.partition(":")
    with suppress(ValueError):
        if math.isfinite(float(high) - float(low)) and float(low) < float(high):
            return float(low), float(high)
    raise UsageError(
        "These are no levels.",
        got=f"levels={levels!r}",
        expected=f"auto, stretch, a number from 2 to {MOST_LEVELS}, or LOW:HIGH with LOW below HIGH",
        remedy="Try --levels stretch, or --levels 4096 for values of 12 bits.",
    )


def _check_size(name: str, size: object) -> None:
    numbers = size if isinstance(size, tuple) else (size, size)
    if size is not None and not (len(numbers) == 2 and all(type(n) is int and 1 <= n <= MOST_PIXELS for n in numbers)):
        option = flag(name)
        raise UsageError(
            f"{option} is a side in pixels, or height and width.",
            got=f"{name}={size}",
            expected=f"1 to {MOST_PIXELS} pixels",
            remedy=f"Give {option} 64 for a square, or {option} 48 64 for height and width "
            f"({name}=64 or {name}=(48, 64) in Python).",
        )


def _check_levels(levels: int | str) -> None:
    if isinstance(levels, int):
        if not 2 <= levels <= MOST_LEVELS:
            ends(str(levels))
    elif levels not in ("auto", "stretch"):
        ends(levels)
