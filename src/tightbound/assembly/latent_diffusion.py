"""The autoencoders of latent diffusion, for the images of a data set and for images of other sizes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

from ..errors import UsageError
from ..likelihoods import DiscretizedLogisticLikelihood, EntryLikelihood, Gaussian, Laplace
from ..models.latent import LatentVariableModel, replaced
from ..networks import Architecture, KLDecoder, KLEncoder
from ..options.data_spec import DataSpec
from ..posteriors import GridGaussian, QuantizedPosterior
from ..priors import StandardNormal
from ..priors.uniform import UniformCodePrior
from ..quantizers import VectorQuantizer
from ..recipes import KLAutoencoder, VQAutoencoder
from ..recipes.kl_autoencoder import GridAutoencoder
from .base import assemble
from .parts import require_levels

__all__ = ["kl_autoencoder", "of_sides", "vq_autoencoder"]

M = TypeVar("M", bound=nn.Module)


@assemble.register(KLAutoencoder)
def kl_autoencoder(recipe: KLAutoencoder, data: DataSpec) -> LatentVariableModel:
    """A Gaussian posterior over a grid."""
    _require_images(recipe, data)
    sizes, (channels, *sides) = architecture(recipe), data.shape
    encoder = KLEncoder(channels, 2 * recipe.latent_channels, sizes, **_format(recipe, data))
    latent = (recipe.latent_channels, *sizes.grid(*sides))
    q = GridGaussian(encoder, data.shape, recipe.latent_channels, recipe.latent_noise)
    return LatentVariableModel(StandardNormal(latent), _likelihood(recipe, latent, data), q)


@assemble.register(VQAutoencoder)
def vq_autoencoder(recipe: VQAutoencoder, data: DataSpec) -> LatentVariableModel:
    """A grid of codes."""
    _require_images(recipe, data)
    sizes, (channels, *sides) = architecture(recipe), data.shape
    encoder = KLEncoder(channels, recipe.latent_channels, sizes, **_format(recipe, data))
    frozen, grid = recipe.freeze == "encoder", sizes.grid(*sides)
    ema = recipe.decay if recipe.quantizer == "ema" and not frozen else None
    quantizer = VectorQuantizer(recipe.codes, recipe.latent_channels, ema=ema, revive=0.0 if frozen else recipe.revive)
    q = QuantizedPosterior(encoder, quantizer, data.shape, grid)
    return LatentVariableModel(UniformCodePrior(q), _likelihood(recipe, (recipe.latent_channels, *grid), data), q)


def architecture(recipe: GridAutoencoder) -> Architecture:
    """The sizes of the networks.

    Raises:
        UsageError: If the groups do not divide the channels.
    """
    attention = tuple(each.bit_length() - 1 for each in recipe.attention)
    more = {"mid_attention": recipe.mid_attention, "checkpointing": recipe.checkpointing}
    return Architecture(recipe.widths, recipe.layers, recipe.groups, attention, **more)


def _likelihood(recipe: GridAutoencoder, latent: Sequence[int], data: DataSpec) -> EntryLikelihood:
    channels, *sides = data.shape
    decoder = KLDecoder(latent[0], channels, sides, architecture(recipe), **_format(recipe, data))
    if recipe.likelihood == "gaussian":
        return Gaussian(decoder, latent, data.shape, recipe.scale, recipe.spread**2)
    if recipe.likelihood == "laplace":
        return Laplace(decoder, latent, data.shape, recipe.scale, recipe.spread)
    levels = require_levels(recipe.likelihood, data)
    return DiscretizedLogisticLikelihood(decoder, latent, data.shape, levels, recipe.scale)


def _format(recipe: GridAutoencoder, data: DataSpec) -> dict[str, Any]:
    """Options of both networks; images with levels are in [0, 1], others as they are."""
    return {"embedded": None if recipe.pointwise else 0, "centred": data.levels is not None}


def _require_images(recipe: GridAutoencoder, data: DataSpec) -> None:
    if len(data.shape) != 3:
        raise UsageError(
            "This recipe models images.",
            got=f"examples of shape {data.shape}",
            expected="(channels, height, width)",
            remedy="Use recipe vae.",
        )
    if recipe.train_crop is not None and recipe.train_crop > min(data.shape[1:]):
        raise UsageError(
            "The crops for training must fit the images.",
            got=f"--train-crop {recipe.train_crop}, images of {data.shape[1]} x {data.shape[2]}",
            remedy="Lower --train-crop, or raise --image-size.",
        )


# -- other sizes ------------------------------------------------------------------------------------------------------


def of_sides(model: LatentVariableModel, sides: Sequence[int]) -> LatentVariableModel:
    """The same model for images of another height and width; it shares all parameters.

    Args:
        model: The model of a recipe kl-autoencoder or vq-autoencoder.
        sides: Height and width.

    Example:
        >>> import torch
        >>> recipe = KLAutoencoder(factor=2, channels=(8, 8))
        >>> model = recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> of_sides(model, (4, 6))().lower_bound(torch.zeros(5, 1, 4, 6)).shape
        torch.Size([5])
    """
    own: Any = model.likelihood
    q: Any = model.posterior
    shape, grid = (own.shape[0], *sides), q.network.sizes.grid(*sides)
    latent = (own.input_shape[0], *grid)
    decoder = {"network": own.network.of_sides(sides)}
    likelihood = _variant(own, decoder, shape=shape, input_shape=latent)
    if model.codes is None:
        posterior = _variant(q, input_shape=shape)
        prior: nn.Module = StandardNormal(latent).to(model.device, model.dtype)
    else:
        posterior = _variant(q, input_shape=shape, grids=(grid,))
        prior = UniformCodePrior(posterior)
    return replaced(model, likelihood=likelihood, posterior=posterior, prior=prior)


def _variant(module: M, parts: dict[str, nn.Module] | None = None, **attributes: Any) -> M:
    """A copy that shares parameters, with other parts and attributes."""
    other = copy.copy(module)
    vars(other).update(attributes, _modules={**module._modules, **(parts or {})})
    return other
