"""Options of the data source and its preprocessing."""

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
"""Maximum number of levels."""
MOST_PIXELS = 2**13
"""Maximum side of an image; all pixels are kept in memory."""


@register("data-options")
@dataclass(frozen=True)
class DataOptions:
    """Options that turn a source into the batches a model sees; stored in a run's ``config.json``.

    Raises:
        UnknownName: If ``binarize``, ``color`` or ``standardize`` is not one of its values.
        UsageError: If a number is out of range, the levels are invalid, or ``binarize`` and ``dequantize`` are
            combined.

    Example:
        >>> DataOptions("mnist", binarize="dynamic", validation=0.05).validation
        0.05
    """

    data: str = "digits"
    """A name (`tightbound data` lists them), a folder or tar of images, an .npz / .npy array, or a .csv / .parquet
    table; empty for arrays passed in Python."""
    label: str = ""
    """Column of a table that holds the classes; all other columns are the numbers to model."""
    binarize: Literal["none", "dynamic", "threshold"] = "none"
    """Convert grey to black and white: dynamic samples each pixel at every visit with its grey value as probability;
    threshold cuts at one half."""
    dequantize: bool = False
    """Add uniform noise within each level, so that a density (gaussian) bounds the likelihood of the levels."""
    flip: bool = False
    """Flip training images left to right with probability one half."""
    image_size: int | tuple[int, int] | None = None
    """Size of all images in pixels, the side of a square (64) or height and width (48 64): they are resized to cover
    it, then center-cropped."""
    crop: int | tuple[int, int] | None = None
    """Train on random crops of this size (a side, or height and width); validation and test use center crops. Use with
    a larger --image-size."""
    color: Literal["as-is", "grey", "rgb"] = "as-is"
    """Convert images to grey or to RGB; transparent pixels are blended with white."""
    standardize: Literal["auto", "none", "per-entry"] = "auto"
    """Standardise continuous data to mean 0 and standard deviation 1 on the training split: auto (only if far from
    that; vectors per entry, images as a whole), none, or per-entry (always; per feature or channel). Log-densities and
    errors stay in the data's own units."""
    levels: int | str = "auto"
    """Levels of image and integer values. auto: 8 bits unchanged, 16 bits scaled to 256 levels; a number N: values 0 to
    N - 1 (2 for masks of 0 and 1, 4096 for 12 bits); LOW:HIGH: these become black and white; stretch: the lowest and
    highest value in the data become black and white."""
    validation: float = 0.1
    """Share of the training split held out for validation, at most 10,000 examples (0: none; official validation splits
    are kept)."""
    split_seed: int = 0
    """Seed of random splits, for data without official splits."""

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
                "Data cannot be both binarized and dequantized.",
                got=f"binarize={self.binarize!r}, dequantize=True",
                remedy="Drop one of the two: binary values need a mass, dequantized ones a density.",
            )
        _check_size("image_size", self.image_size)
        _check_size("crop", self.crop)
        if not 0 <= self.validation < 1:
            raise UsageError(
                "The validation share is out of range.",
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
    """A larger image size, as typed on the command line, that leaves room for crops of that size.

    Example:
        >>> wider(64), wider((32, 48))
        ('72', '36 54')
    """
    return " ".join(str(side + max(1, side // 8)) for side in (crop if isinstance(crop, tuple) else (crop,)))


def ends(levels: str) -> tuple[float, float]:
    """The two values of ``"LOW:HIGH"``.

    Raises:
        UsageError: If it is not such a pair.

    Example:
        >>> ends("0:4095")
        (0.0, 4095.0)
    """
    low, _, high = levels.partition(":")
    with suppress(ValueError):
        if math.isfinite(float(high) - float(low)) and float(low) < float(high):
            return float(low), float(high)
    raise UsageError(
        "These levels are invalid.",
        got=f"levels={levels!r}",
        expected=f"auto, stretch, a number from 2 to {MOST_LEVELS}, or LOW:HIGH with LOW below HIGH",
        remedy="Try --levels stretch, or --levels 4096 for values of 12 bits.",
    )


def _check_size(name: str, size: object) -> None:
    numbers = size if isinstance(size, tuple) else (size, size)
    if size is not None and not (len(numbers) == 2 and all(type(n) is int and 1 <= n <= MOST_PIXELS for n in numbers)):
        option = flag(name)
        raise UsageError(
            f"{option} must be a side in pixels, or height and width.",
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
