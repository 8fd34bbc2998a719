r"""From stored levels to what a model sees, on a whole batch at once and on its device.

Convention: a stored entry is a level :math:`l \in \{0, \dots, L - 1\}`. Scaled, it is :math:`l / (L - 1)`;
dequantised, :math:`(l + u) / L` with :math:`u \sim U(0, 1)`. Draws come from torch's global generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .options import Binarize

__all__ = ["Transform"]


@dataclass(frozen=True)
class Transform:
    """Turns gathered values into a batch.

    Args:
        levels: Number L of stored levels, or None if the values are continuous and stay as they are.
        binarize: ``"dynamic"`` draws from a Bernoulli with the grey value as probability, ``"threshold"`` cuts at 1/2.
        dequantize: Whether to add uniform noise within a level.
        flip: Whether to mirror the last dimension of each example with probability one half.

    Example:
        >>> Transform(levels=5)(torch.tensor([[0, 1, 4]], dtype=torch.uint8))
        tensor([[0.0000, 0.2500, 1.0000]])
        >>> Transform(levels=5, binarize="threshold")(torch.tensor([[0, 2, 3]], dtype=torch.uint8))
        tensor([[0., 0., 1.]])
    """

    levels: int | None
    binarize: Binarize = "none"
    dequantize: bool = False
    flip: bool = False

    def __call__(self, values: Tensor) -> Tensor:
        """The batch, float32 of the shape of ``values``."""
        if self.flip:
            values = _mirror_half(values)
        x = values.to(torch.float32)
        if self.levels is None:
            return x
        if self.dequantize:
            return _within_level(x).add_(x).div_(self.levels)
        x = x / (self.levels - 1)
        if self.binarize == "dynamic":
            return torch.rand_like(x).lt_(x)  # a Bernoulli draw, at a third of the time of torch.bernoulli
        return (x > 0.5).to(torch.float32) if self.binarize == "threshold" else x


def _mirror_half(values: Tensor) -> Tensor:
    coins = torch.rand(len(values), device=values.device) < 0.5
    return torch.where(coins.view(-1, *[1] * (values.dim() - 1)), values.flip(-1), values)


def _within_level(x: Tensor) -> Tensor:
    # Midpoints of 2^15 cells: a level below 256 plus such a number is exact in float32, so a sum never rounds up into
    # the next level (plain torch.rand does, about once in 10^5 entries of level 255).
    return torch.rand_like(x).mul_(2**15).floor_().add_(0.5).div_(2**15)
