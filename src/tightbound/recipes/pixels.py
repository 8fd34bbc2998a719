"""Autoregressive models of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UsageError
from ..options.data_spec import DataSpec
from ..spec import register
from .base import Recipe, check_sizes
from .cvae import TextPositions, condition_of, embedding_of, prefix_of, rotary_places

if TYPE_CHECKING:
    from torch import Tensor

    from ..conditions import Condition
    from ..models import PixelModel, Terms

__all__ = ["PixelCNNRecipe", "TransformerRecipe"]


@dataclass(frozen=True)
class _Pixels(Recipe):
    """Abstract: a model of pixels without a latent, whose likelihood is exact."""

    first_options: ClassVar[tuple[str, ...]] = ("condition", "layers")

    condition: Literal["none", "auto", "class", "vector", "image", "text"] = "none"
    """What the model is given."""
    drop_condition: float = 0.1
    """Probability with which training shows no condition: what guidance needs."""
    vocabulary: int = 2048
    """Tokens of a text at most; 256 of them are the bytes."""
    caption_length: int = 32
    """Tokens of the longest text."""
    layers: int = 8
    """Layers of the network."""
    dropout: float = 0.0
    """Dropout within them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(layers=self.layers)

    def network(self, data: DataSpec, condition: Condition | None) -> Any:
        """The network over the grid of an image, given a condition."""
        raise NotImplementedError

    def assemble(self, data: DataSpec) -> PixelModel:
        from ..autoregressive.pixels import PixelLikelihood
        from ..models import PixelModel

        if len(data.shape) != 3 or not data.discrete or data.levels is None:
            raise UsageError(
                "A model of pixels is over images with levels.",
                got=f"examples of shape {data.shape}, {'continuous' if not data.discrete else f'{data.levels} levels'}",
                remedy="Use images without --dequantize; or recipe 'vae'.",
            )
        condition = None if self.condition == "none" else condition_of(self, data)
        grid = self.network(data, condition)
        model = PixelModel(PixelLikelihood(grid, data.shape, data.levels))
        model.condition = condition
        return model

    def training_objective(self, terms: Terms, beta: float | Tensor, examples: int) -> Tensor:
        return self.bound(terms)

    @property
    def warming(self) -> str:
        return ""

    def bound(self, terms: Terms) -> Tensor:
        from ..objectives import reconstruction

        return reconstruction(terms)


@register("pixelcnn")
@dataclass(frozen=True)
class PixelCNNRecipe(_Pixels):
    r"""Gated PixelCNN on pixels: an exact likelihood, pixel after pixel, without a latent.

    .. math:: p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)

    References:
        Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016).
        PixelSNAIL: An Improved Autoregressive Generative Model (Chen, Mishra, Rohaninejad and Abbeel, 2018).

    Raises:
        UsageError: If an option is out of range, or the data are no images with levels.

    Example:
        >>> recipe = PixelCNNRecipe(channels=8, layers=2)
        >>> recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))().sample((3,)).shape
        torch.Size([3, 1, 8, 8])
    """

    channels: int = 64
    """Channels of every layer."""
    kernel: int = 5
    """Odd side of its kernels."""
    attention_every: int = 0
    """Attention behind every so many layers (0: none)."""

    def network(self, data: DataSpec, condition: Condition | None) -> Any:
        from ..autoregressive import ConvolutionalGrid, PixelCNN

        network = PixelCNN(
            data.levels or 2,
            data.shape,
            self.channels,
            self.layers,
            self.kernel,
            self.attention_every,
            dropout=self.dropout,
            condition_dim=self.channels if condition else 0,
        )
        return ConvolutionalGrid(network, embedding_of(condition, self.channels) if condition else None)


@register("transformer")
@dataclass(frozen=True)
class TransformerRecipe(_Pixels):
    r"""Transformer on pixels: an exact likelihood, pixel after pixel, without a latent.

    .. math:: p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)

    References:
        Generative Pretraining from Pixels (Chen et al., 2020).

    Raises:
        UsageError: If an option is out of range, or the data are no images with levels.

    Example:
        >>> recipe = TransformerRecipe(width=16, heads=2, layers=2)
        >>> recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))().sample((3,)).shape
        torch.Size([3, 1, 8, 8])
    """

    width: int = 128
    """Size of the vector at each place."""
    heads: int = 4
    """Attention heads, which share it."""
    text_positions: TextPositions = "learned"
    """Places of a text in front of the pixels: a learned vector for each, or queries and keys turned by them."""

    def network(self, data: DataSpec, condition: Condition | None) -> Any:
        from ..autoregressive import Transformer, TransformerGrid

        rotary = rotary_places(condition, self.text_positions)
        network = Transformer(data.levels or 2, data.shape, self.width, self.layers, self.heads, self.dropout, rotary)
        return TransformerGrid(network, prefix_of(condition, self.width, self.text_positions))
