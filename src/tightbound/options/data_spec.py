"""What a model must know of its data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..spec import register

__all__ = ["DataSpec"]


@register("data-spec")
@dataclass(frozen=True)
class DataSpec:
    r"""The shape and range of one example, as a model sees it: all that a recipe needs to build.

    A model sees floats. A pixel with :math:`L` levels holds :math:`\text{level} / (L - 1) \in [0, 1]`; dequantised, it
    holds :math:`(\text{level} + u) / L` with :math:`u \sim U[0, 1)`; continuous data holds :math:`(x - m) / s`, or
    stays as it is.

    Args:
        name: Where the data comes from, for titles and reports.
        shape: Shape of one example: ``(channels, height, width)`` of an image or ``(features,)`` of a vector.
        levels: Number of values that an entry can take (2 when binary, 256 for bytes), or None if continuous.
        dequantized: Whether uniform noise has made the levels continuous; ``levels`` then still tells how many there
            were, and the bits per dimension subtract what the noise adds.
        classes: Names of the labels in the order of their numbers; empty without labels.
        captioned: Whether every example has a text.
        condition_shape: Shape of the numbers that a model is given with each example; empty without them.
        location: What is subtracted from continuous data, m: one number for all entries, or one for each feature of a
            vector or channel of an image; empty where the data stays as it is.
        scale: What it is then divided by, s: as many numbers.
        low: In the data's own units, what a picture of it draws black.
        high: In the data's own units, what a picture of it draws white.
        absent: Numbers of the classes that no training example has.

    Example:
        >>> DataSpec("digits", shape=(1, 8, 8), levels=17).dimensions
        64
    """

    name: str
    shape: tuple[int, ...]
    levels: int | None
    dequantized: bool = False
    classes: tuple[str, ...] = ()
    captioned: bool = False
    condition_shape: tuple[int, ...] = ()
    location: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 1.0
    absent: tuple[int, ...] = ()

    @property
    def dimensions(self) -> int:
        """Number of entries of one example, D."""
        return math.prod(self.shape)

    @property
    def log_volume(self) -> float:
        r"""Nats from the density that a model sees to that of the data in its own units, :math:`\sum_i \log s_i`.

        .. math:: \log p(x) = \log p\!\left(\tfrac{x - m}{s}\right) - \sum_i \log s_i
        """
        return sum(map(math.log, self.scale)) * self.dimensions / max(1, len(self.scale))

    @property
    def discrete(self) -> bool:
        """Whether a probability mass over levels is what a likelihood must give."""
        return self.levels is not None and not self.dequantized

    @property
    def image(self) -> bool:
        """Whether an example can be drawn as a picture."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    @property
    def units(self) -> str:
        """What the numbers of an example are, in words.

        Example:
            >>> DataSpec("digits", shape=(1, 8, 8), levels=17).units
            'values from 0 (black) to 1 (white)'
        """
        if self.levels is not None or (self.image and not self.scale):
            black, white = (" (black)", " (white)") if self.image else ("", "")
            return f"values from {self.low:g}{black} to {self.high:g}{white}"
        return f"the units of its {'values' if len(self.shape) > 1 else 'columns'}"

    def scaled_as(self, other: DataSpec) -> DataSpec:
        """The same data, standardised by the numbers of other data; data with levels never is."""
        if self.levels is not None:
            return self
        return replace(self, location=other.location, scale=other.scale, low=other.low, high=other.high)
