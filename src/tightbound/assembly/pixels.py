"""Models of pixels, without a latent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autoregressive import ConvolutionalGrid, PixelCNN, Transformer, TransformerGrid
from ..autoregressive.pixels import PixelLikelihood
from ..conditions import Condition
from ..errors import UsageError
from ..models import PixelModel
from ..options.data_spec import DataSpec
from ..recipes import PixelCNNRecipe, TransformerRecipe
from ..recipes.pixels import PixelRecipe
from .base import assemble
from .conditions import condition_of, embedding_of, prefix_of, rotary_places

__all__ = ["pixelcnn", "transformer"]


@assemble.register(PixelCNNRecipe)
def pixelcnn(recipe: PixelCNNRecipe, data: DataSpec) -> PixelModel:
    """Masked convolutions over the pixels."""

    def network(condition: Condition | None) -> ConvolutionalGrid:
        width = recipe.channels
        sizes = data.levels or 2, data.shape, width, recipe.layers, recipe.kernel, recipe.attention_every
        cnn = PixelCNN(*sizes, dropout=recipe.dropout, condition_dim=width if condition else 0)
        return ConvolutionalGrid(cnn, embedding_of(condition, width) if condition else None)

    return _over_pixels(recipe, data, network)


@assemble.register(TransformerRecipe)
def transformer(recipe: TransformerRecipe, data: DataSpec) -> PixelModel:
    """Attention over the pixels."""

    def network(condition: Condition | None) -> TransformerGrid:
        places = rotary_places(condition, recipe.text_positions)
        sizes = data.levels or 2, data.shape, recipe.width, recipe.layers, recipe.heads, recipe.dropout, places
        return TransformerGrid(Transformer(*sizes), prefix_of(condition, recipe.width, recipe.text_positions))

    return _over_pixels(recipe, data, network)


def _over_pixels(recipe: PixelRecipe, data: DataSpec, network: Callable[[Condition | None], Any]) -> PixelModel:
    """A model of images with levels; ``network`` builds the network over their grid."""
    if len(data.shape) != 3 or not data.discrete or data.levels is None:
        raise UsageError(
            "A model of pixels needs images with levels.",
            got=f"examples of shape {data.shape}, {'continuous' if not data.discrete else f'{data.levels} levels'}",
            remedy="Use images without --dequantize; or recipe 'vae'.",
        )
    condition = None if recipe.condition == "none" else condition_of(recipe, data)
    model = PixelModel(PixelLikelihood(network(condition), data.shape, data.levels))
    model.condition = condition
    return model
