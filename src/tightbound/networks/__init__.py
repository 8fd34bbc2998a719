"""Tensors to tensors."""

from .convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from .embeddings import ClassEmbedding, ImageEmbedding, Observed, TokenEmbedding
from .kl_autoencoder import Architecture, KLDecoder, KLEncoder
from .linear import Linear
from .masked import MaskedConv2d, PixelDecoder
from .mlp import ACTIVATIONS, MLP, LinearWithConstant
from .output import EndsInLayer, last_layer
from .residual import GridDecoder, GridEncoder, ResidualBlock, grid_of
from .upsampling import UPSAMPLINGS, EdgeConvolution, ResizeConvolution, Upsampling

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "UPSAMPLINGS",
    "Architecture",
    "ClassEmbedding",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "EdgeConvolution",
    "EndsInLayer",
    "GridDecoder",
    "GridEncoder",
    "ImageEmbedding",
    "KLDecoder",
    "KLEncoder",
    "Linear",
    "LinearWithConstant",
    "MaskedConv2d",
    "Observed",
    "PixelDecoder",
    "ResidualBlock",
    "ResizeConvolution",
    "TokenEmbedding",
    "Upsampling",
    "grid_of",
    "last_layer",
]
