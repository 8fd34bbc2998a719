"""Autoregressive models of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..options.direct import LogLikelihood
from ..options.parts import ConditionOptions, TextPositions, require_sizes
from ..spec import register
from .base import Recipe

__all__ = ["PixelCNNRecipe", "PixelRecipe", "TransformerRecipe"]


@dataclass(frozen=True)
class PixelRecipe(ConditionOptions, Recipe):
    """Abstract: a model of pixels without a latent, whose likelihood is exact."""

    first_options: ClassVar[tuple[str, ...]] = ("condition", "layers")

    layers: int = 8
    """Layers of the network."""
    dropout: float = 0.0
    """Dropout in the layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(layers=self.layers)

    @property
    def training_objective(self) -> LogLikelihood:
        return LogLikelihood()


@register("pixelcnn")
@dataclass(frozen=True)
class PixelCNNRecipe(PixelRecipe):
    r"""Gated PixelCNN on pixels: an exact likelihood, pixel by pixel, without a latent.

    .. math:: p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)

    References:
        Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016).
        PixelSNAIL: An Improved Autoregressive Generative Model (Chen, Mishra, Rohaninejad and Abbeel, 2018).

    Raises:
        UsageError: If an option is out of range, or the data are not images with levels.

    Example:
        >>> from tightbound.data import DataSpec
        >>> recipe = PixelCNNRecipe(channels=8, layers=2)
        >>> recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))().sample((3,)).shape
        torch.Size([3, 1, 8, 8])
    """

    channels: int = 64
    """Channels of each layer."""
    kernel: int = 5
    """Odd side of the kernels."""
    attention_every: int = 0
    """Attention after every N layers (0: none)."""


@register("transformer")
@dataclass(frozen=True)
class TransformerRecipe(PixelRecipe):
    r"""Transformer on pixels: an exact likelihood, pixel by pixel, without a latent.

    .. math:: p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)

    References:
        Generative Pretraining from Pixels (Chen et al., 2020).

    Raises:
        UsageError: If an option is out of range, or the data are not images with levels.

    Example:
        >>> from tightbound.data import DataSpec
        >>> recipe = TransformerRecipe(width=16, heads=2, layers=2)
        >>> recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))().sample((3,)).shape
        torch.Size([3, 1, 8, 8])
    """

    width: int = 128
    """Size of the vector at each position."""
    heads: int = 4
    """Number of attention heads; must divide the width."""
    text_positions: TextPositions = "learned"
    """Positions in a text prefix: learned embeddings, or rotary (rotated queries and keys)."""
