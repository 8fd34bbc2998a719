"""Which data, and what happens to a batch before a model sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import UnknownName, UsageError
from ..spec import register

__all__ = ["DataOptions"]

Binarize = Literal["none", "dynamic", "threshold"]
Color = Literal["as-is", "grey", "rgb"]
MOST_PIXELS = 2**13
"""Of the side of an image: its pixels are kept for every example."""


@register("data-options")
@dataclass(frozen=True)
class DataOptions:
    """Everything that turns a source into the batches a model sees; kept in a run's ``config.json``.

    Raises:
        UnknownName: If ``binarize`` or ``color`` is not one of its values.
        UsageError: If a number is out of range, or ``binarize`` and ``dequantize`` are asked for together.

    Example:
        >>> DataOptions("mnist", binarize="dynamic", validation=0.05).validation
        0.05
    """

    data: str = "digits"
    """A name (`tightbound data` lists them), a folder or tar of images, or an .npz / .npy array; empty for arrays that
    were handed over in Python."""
    binarize: Literal["none", "dynamic", "threshold"] = "none"
    """Grey to black and white: drawn anew at every visit with the grey value as probability, or cut at one half."""
    dequantize: bool = False
    """Add uniform noise within a level, so that a density (Gaussian) is a bound on the likelihood of the levels."""
    flip: bool = False
    """Mirror training images left to right with probability one half."""
    image_size: int | None = None
    """Side length in pixels: the shorter side is resized to it, then the centre is cut out."""
    color: Literal["as-is", "grey", "rgb"] = "as-is"
    """Convert images to grey or to RGB; transparent pixels are laid on white."""
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
        if self.binarize != "none" and self.dequantize:
            raise UsageError(
                "Data is either binarized or dequantized.",
                got=f"binarize={self.binarize!r}, dequantize=True",
                remedy="Drop one of the two: binary values need a mass, dequantized ones a density.",
            )
        if self.image_size is not None and not 1 <= self.image_size <= MOST_PIXELS:
            expected = f"1 to {MOST_PIXELS} pixels"
            raise UsageError("An image needs a side.", got=f"image_size={self.image_size}", expected=expected)
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
