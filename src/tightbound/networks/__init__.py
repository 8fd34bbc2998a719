"""Tensors to tensors."""

from .convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from .embeddings import ClassEmbedding, ImageEmbedding, Observed, TokenEmbedding
from .linear import Linear
from .masked import MaskedConv2d, PixelDecoder
from .mlp import ACTIVATIONS, MLP, LinearWithConstant
from .pixelcnn import PixelCNN
from .residual import GridDecoder, GridEncoder, ResidualBlock, grid_of
from .sampling import Sampling
from .text_embedding import TokenPrefix
from .transformer import CachedTransformer, Transformer
from .upsampling import UPSAMPLINGS, EdgeConvolution, ResizeConvolution, Upsampling

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "UPSAMPLINGS",
    "CachedTransformer",
    "ClassEmbedding",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "EdgeConvolution",
    "GridDecoder",
    "GridEncoder",
    "ImageEmbedding",
    "Linear",
    "LinearWithConstant",
    "MaskedConv2d",
    "Observed",
    "PixelCNN",
    "PixelDecoder",
    "ResidualBlock",
    "ResizeConvolution",
    "Sampling",
    "TokenEmbedding",
    "TokenPrefix",
    "Transformer",
    "Upsampling",
    "grid_of",
]
