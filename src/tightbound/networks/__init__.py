"""Tensors to tensors."""

from .convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from .mlp import ACTIVATIONS, MLP, LinearWithConstant

__all__ = ["ACTIVATIONS", "MLP", "ConvolutionalDecoder", "ConvolutionalEncoder", "LinearWithConstant"]
