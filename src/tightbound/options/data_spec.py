"""The description of data that a model is built for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..spec import register

__all__ = ["DataSpec"]


@register("data-spec")
@dataclass(frozen=True)
class DataSpec:
    r"""The shape and range of one example, as a model sees it: everything a recipe needs to build a model.

    A model sees floats. A pixel with :math:`L` levels holds :math:`\text{level} / (L - 1) \in [0, 1]`; dequantised, it
    holds :math:`(\text{level} + u) / L` with :math:`u \sim U[0, 1)`; continuous data holds :math:`(x - m) / s`, or is
    unchanged.

    Args:
        name: Where the data comes from, for titles and reports.
        shape: Shape of one example: ``(channels, height, width)`` of an image or ``(features,)`` of a vector.
        levels: Number of values that an entry can take (2 when binary, 256 for bytes), or None if continuous.
        dequantized: Whether uniform noise has made the levels continuous; ``levels`` is then still their number, and
            bits per dimension account for the noise.
        classes: Names of the labels in the order of their numbers; empty without labels.
        captioned: Whether every example has a text.
        condition_shape: Shape of the numbers given as the condition of each example; empty without them.
        location: m, subtracted from continuous data: one number for all entries, or one per feature of a vector or
            channel of an image; empty for unchanged data.
        scale: s, the divisor: as many numbers.
        low: Value drawn black, in the data's own units.
        high: Value drawn white, in the data's own units.
        absent: Indices of classes without training examples.

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
        r"""Nats from the density of the scaled data to that of the data in its own units, :math:`\sum_i \log s_i`.

        .. math:: \log p(x) = \log p\!\left(\tfrac{x - m}{s}\right) - \sum_i \log s_i
        """
        return sum(map(math.log, self.scale)) * self.dimensions / max(1, len(self.scale))

    @property
    def discrete(self) -> bool:
        """Whether a likelihood must be a probability mass over levels."""
        return self.levels is not None and not self.dequantized

    @property
    def image(self) -> bool:
        """Whether an example can be drawn as an image."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    @property
    def units(self) -> str:
        """The units of an example's values, as text.

        Example:
            >>> DataSpec("digits", shape=(1, 8, 8), levels=17).units
            'values from 0 (black) to 1 (white)'
        """
        if self.levels is not None or (self.image and not self.scale):
            black, white = (" (black)", " (white)") if self.image else ("", "")
            return f"values from {self.low:g}{black} to {self.high:g}{white}"
        return f"the units of its {'values' if len(self.shape) > 1 else 'columns'}"

    def scaled_as(self, other: DataSpec) -> DataSpec:
        """The same data, standardised by the location and scale of other data; data with levels is unchanged."""
        if self.levels is not None:
            return self
        return replace(self, location=other.location, scale=other.scale, low=other.low, high=other.high)
