"""Which data, and what happens to a batch before a model sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import UnknownName, UsageError
from ..spec import register

__all__ = ["DataOptions"]

Binarize = Literal["none", "dynamic", "threshold"]
Color = Literal["as-is", "grey", "rgb"]
Standardize = Literal["auto", "none", "per-entry"]


@register("data-options")
@dataclass(frozen=True)
class DataOptions:
    """Everything that turns a source into the batches a model sees; kept in a run's ``config.json``.

    Raises:
        UnknownName: If ``binarize``, ``color`` or ``standardize`` is not one of its values.
        UsageError: If a number is out of range, or ``binarize`` and ``dequantize`` are asked for together.

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
    image_size: int | None = None
    """Side length in pixels: the shorter side is resized to it, then the centre is cut out."""
    color: Literal["as-is", "grey", "rgb"] = "as-is"
    """Convert images to grey or to RGB; transparent pixels are laid on white."""
    standardize: Literal["auto", "none", "per-entry"] = "auto"
    """Give continuous data mean 0 and standard deviation 1 on the training split: where it is far from that, a vector
    entry by entry and an image as a whole (auto); never; or always, each feature or channel by itself (per-entry).
    Log-densities and errors stay in the data's own units."""
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
        if self.binarize != "none" and self.dequantize:
            raise UsageError(
                "Data is either binarized or dequantized.",
                got=f"binarize={self.binarize!r}, dequantize=True",
                remedy="Drop one of the two: binary values need a mass, dequantized ones a density.",
            )
        if self.image_size is not None and self.image_size < 1:
            raise UsageError("An image needs a side.", got=f"image_size={self.image_size}", expected="1 pixel or more")
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
