"""Images as networks of published weights see them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..options.data_spec import DataSpec

__all__ = ["Signed"]


class Signed(nn.Module):
    """Images as the other networks see them: from -1, black, to 1, white.

    Args:
        data: The data, whose scale is undone; None for images that are in [-1, 1] already.

    Attributes:
        width: Units of the result for one unit of the data, on average over the channels.

    Example:
        >>> Signed(DataSpec("digits", shape=(1, 8, 8), levels=17))(torch.tensor([0.0, 0.25, 1.0]))
        tensor([-1.0000, -0.5000,  1.0000])
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, data: DataSpec | None) -> None:
        super().__init__()
        factor, offset = ((1.0,), (0.0,)) if data is None else _to_signed(data)
        sides = [1] * (2 if len(factor) > 1 else 0)
        self.width = sum(factor) / len(factor)
        self.register_buffer("factor", torch.tensor(factor).view(-1, *sides), persistent=False)
        self.register_buffer("offset", torch.tensor(offset).view(-1, *sides), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


def _to_signed(data: DataSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if data.levels is not None or not data.scale:
        low, high = (0.0, 1.0) if data.levels is not None else (data.low, data.high)
        return (2 / (high - low),), (-1 - 2 * low / (high - low),)
    span = data.high - data.low
    return (
        tuple(2 * s / span for s in data.scale),
        tuple(2 * (m - data.low) / span - 1 for m in data.location),
    )
