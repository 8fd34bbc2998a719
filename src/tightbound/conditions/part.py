"""The observed part of an image as a condition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UsageError
from .base import Examples, NamedCondition

__all__ = ["PartCondition", "observed_part"]


def observed_part(quadrants: int, height: int, width: int) -> Tensor:
    """Mask of the observed pixels: the bottom left quadrant, the left half, or all but the bottom right quadrant.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Args:
        quadrants: 1, 2 or 3.
        height: Rows of an image.
        width: Columns of an image.

    Returns:
        ``(height, width)``, True for observed pixels.

    Raises:
        UsageError: If ``quadrants`` is not 1, 2 or 3.

    Example:
        >>> observed_part(1, 2, 2).int().tolist()
        [[0, 0], [1, 0]]
    """
    if quadrants not in (1, 2, 3):
        raise UsageError("quadrants must be 1, 2 or 3.", got=quadrants, expected="1, 2 or 3")
    bottom, left = torch.arange(height) >= height // 2, torch.arange(width) < width // 2
    bottom, left = bottom.unsqueeze(1).expand(height, width), left.expand(height, width)
    return {1: bottom & left, 2: left, 3: ~(bottom & ~left)}[quadrants]


class PartCondition(NamedCondition):
    """The observed part of an image; the model completes the rest.

    Args:
        shape: Shape ``(channels, height, width)`` of an image.
        quadrants: Number of observed quadrants, as for :func:`observed_part`.
        drop: Probability of dropping the condition in training.

    Example:
        >>> condition = PartCondition((1, 2, 2), quadrants=1)
        >>> condition.seen(torch.ones(1, 1, 2, 2))
        tensor([[nan, nan, 1., nan]])
    """

    name = "part"
    partial = True
    observed: Tensor

    def __init__(self, shape: Sequence[int], quadrants: int = 1, drop: float = 0.0) -> None:
        super().__init__(math.prod(shape), drop)
        self.shape = tuple(shape)
        self.register_buffer("observed", observed_part(quadrants, *shape[1:]), persistent=False)

    def of(self, batch: Examples) -> Tensor:
        return self.seen(batch.x)

    @property
    def picture(self) -> tuple[int, ...] | None:
        return self.shape

    def of_picture(self, picture: Tensor) -> Tensor:
        return self.seen(picture.unsqueeze(0))[0]

    def seen(self, x: Tensor) -> Tensor:
        """The observed part of images ``(n, *shape)``, ``(n, size)``; other pixels are NaN."""
        return torch.where(self.observed, x, math.nan).flatten(1)

    def describe_entry(self, entry: Tensor) -> str:
        return f"{float((~entry.isnan()).double().mean()):.0%} of the image"
