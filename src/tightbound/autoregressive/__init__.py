"""Autoregressive models: networks, priors over codes, and models of pixels."""

from .pixelcnn import PixelCNN
from .prior import AutoregressiveCodes, AutoregressivePrior, ConvolutionalGrid, TransformerGrid
from .text_prefix import TokenPrefix
from .transformer import CachedTransformer, Transformer

__all__ = [
    "AutoregressiveCodes",
    "AutoregressivePrior",
    "CachedTransformer",
    "ConvolutionalGrid",
    "PixelCNN",
    "TokenPrefix",
    "Transformer",
    "TransformerGrid",
]
