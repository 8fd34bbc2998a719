"""Tensors to tensors."""

from .convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from .linear import Linear
from .mlp import ACTIVATIONS, MLP, LinearWithConstant

__all__ = ["ACTIVATIONS", "MLP", "ConvolutionalDecoder", "ConvolutionalEncoder", "Linear", "LinearWithConstant"]
