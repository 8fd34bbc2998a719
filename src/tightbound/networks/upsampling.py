r"""Layers that double the sides of a grid.

A transposed convolution weighs the four outputs above each input by four sets of weights, which nothing ties together:
what it makes of an even surface is a checkerboard until it has learned otherwise (Odena, Dumoulin and Olah, 2016). A
resize-convolution gives all four the same sum of weights, so an even surface stays even.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["UPSAMPLINGS", "ResizeConvolution"]


class ResizeConvolution(nn.Conv2d):
    r"""Each pixel four times, then a convolution of 3 x 3, computed as one transposed convolution of 4 x 4.

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
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        turned = F.pad(self.weight.flip(2, 3), (1, 1, 1, 1))  # of both, the last row and column are zeros
        tied = F.avg_pool2d(turned, 2, stride=1, divisor_override=1)
        return F.conv_transpose2d(input, tied.transpose(0, 1), self.bias, stride=2, padding=1)


def _transposed(inputs: int, outputs: int) -> nn.Module:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


UPSAMPLINGS: dict[str, Callable[[int, int], nn.Module]] = {"resize": ResizeConvolution, "transposed": _transposed}
"""From the channels of a grid and of its double to the layer between them, by the name of an option."""
