"""Tensors to tensors."""

from .convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from .linear import Linear
from .masked import MaskedConv2d, PixelDecoder
from .mlp import ACTIVATIONS, MLP, LinearWithConstant

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "Linear",
    "LinearWithConstant",
    "MaskedConv2d",
    "PixelDecoder",
]
