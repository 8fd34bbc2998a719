r"""Layers that double the sides of a grid.

A transposed convolution computes the four outputs of each input with four independent sets of weights, so at first it
turns a flat area into a checkerboard (Odena, Dumoulin and Olah, 2016). In a resize-convolution all four have the same
sum of weights, so a flat area stays flat. Zero padding would leave a visible frame; here the border is replicated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["UPSAMPLINGS", "EdgeConvolution", "ResizeConvolution", "Upsampling"]


def _bordered(x: Tensor) -> Tensor:
    """A grid padded by replicating its border; by copies, whose gradients are summed in a fixed order."""
    x = torch.cat([x[..., :1, :], x, x[..., -1:, :]], dim=-2)
    return torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)


class EdgeConvolution(nn.Conv2d):
    """A 3 x 3 convolution with replicate padding.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.

    Example:
        >>> layer = EdgeConvolution(1, 1)
        >>> layer(torch.ones(1, 1, 4, 4)).std() < 1e-6
        tensor(True)
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(_bordered(input), self.weight, self.bias)


class ResizeConvolution(nn.Conv2d):
    r"""Nearest-neighbour upsampling, then a 3 x 3 convolution, computed as one 4 x 4 transposed convolution.

    With kernel :math:`w_0, w_1, w_2` of the convolution, along each side that of the transposed one is
    :math:`w_2, w_1 + w_2, w_0 + w_1, w_0`: the same result, from a grid of a quarter of the size.

    References:
        Deconvolution and Checkerboard Artifacts (Odena, Dumoulin and Olah, 2016).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output, whose sides are twice those of the input.

    Example:
        >>> ResizeConvolution(3, 5)(torch.zeros(2, 3, 7, 4)).shape
        torch.Size([2, 5, 14, 8])
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)

    def forward(self, input: Tensor) -> Tensor:
        turned = F.pad(self.weight.flip(2, 3), (1, 1, 1, 1))
        tied = F.avg_pool2d(turned, 2, stride=1, divisor_override=1)
        return F.conv_transpose2d(_bordered(input), tied.transpose(0, 1), self.bias, stride=2, padding=3)


class Upsampling(NamedTuple):
    """Constructors of upsampling layers, from the channels of input and output.

    Args:
        double: A layer that doubles the sides.
        keep: A 3 x 3 convolution that keeps the sides.

    Example:
        >>> UPSAMPLINGS["transposed"].double(3, 5)(torch.zeros(2, 3, 7, 4)).shape
        torch.Size([2, 5, 14, 8])
    """

    double: Callable[[int, int], nn.Module]
    keep: Callable[[int, int], nn.Module]


def _transposed(inputs: int, outputs: int) -> nn.Module:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


def _with_zeros(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


UPSAMPLINGS = {
    "resize": Upsampling(ResizeConvolution, EdgeConvolution),
    "transposed": Upsampling(_transposed, _with_zeros),
}
"""How a decoder doubles its grids, by the name of an option."""
