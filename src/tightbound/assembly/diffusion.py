"""Diffusion models of data."""

from __future__ import annotations

import torch
from torch import nn

from ..conditions import ClassCondition, Condition
from ..diffusion import (
    Cosine,
    Diffusion,
    FlowTime,
    Learned,
    Linear,
    LogNormal,
    Preconditioned,
    ScaledLinear,
    Schedule,
)
from ..diffusion.classifier import NoisyClassifier
from ..diffusion.denoiser import LevelWaves, Moments
from ..diffusion.paths import find_path
from ..diffusion.times import Times
from ..errors import UsageError
from ..networks.denoising import LevelVariance, UNet, VectorDenoiser
from ..networks.dit import DiT
from ..networks.embeddings import ImageChannels
from ..networks.level_classifier import ImageLevelClassifier, VectorLevelClassifier
from ..options.data_spec import DataSpec
from ..recipes.diffusion import DiffusionRecipe, NoisyClassifierRecipe, least_gamma
from .base import assemble
from .conditions import condition_of, embedding_of

__all__ = ["backbone", "diffusion", "noisy_classifier", "schedule"]

FEATURES = 128
"""Size of the features of a condition."""
FEW = 4
"""Entries of a vector up to which its network also sees waves of them."""


@assemble.register(DiffusionRecipe)
def diffusion(recipe: DiffusionRecipe, data: DataSpec) -> Diffusion:
    """A preconditioned network, in units in which data with levels lie between -1 and 1."""
    shift, scale = _units(data)
    condition = None if recipe.condition == "none" else condition_of(recipe, data)
    moments = Moments(torch.zeros(data.shape), torch.ones(data.shape), shift=shift, scale=scale)
    path = find_path(recipe.path)
    waves = LevelWaves(2 / (data.levels - 1), shift=-1.0) if data.discrete and data.levels else None
    beside = _beside(condition, data)
    more = (waves.channels(data.shape[0]) if waves else 0) + (beside.channels if beside else 0)
    denoiser = Preconditioned(
        backbone(recipe, data, condition, more),
        predicts=recipe.predicts,
        path=path,
        moments=moments,
        embedding=None if condition is None else embedding_of(condition, FEATURES),
        waves=waves,
        beside=beside,
    )
    model = Diffusion(
        denoiser,
        schedule(recipe, data),
        data.shape,
        path=path,
        levels=data.levels if data.discrete else None,
        shift=shift,
        scale=scale,
        moments=moments,
        steps=None if recipe.timesteps == "continuous" else recipe.timesteps,
        times=Times(adaptive=recipe.adaptive_times),
        uncertainty=LevelVariance() if recipe.weight == "edm2" else None,
    )
    model.condition = condition
    return model


def _beside(condition: Condition | None, data: DataSpec) -> ImageChannels | None:
    """The channels of an image that conditions images."""
    image = condition.parts["image"].picture if condition and "image" in condition.parts else None
    return ImageChannels(image, data.shape[1:]) if image and len(data.shape) == 3 else None


def schedule(recipe: DiffusionRecipe, data: DataSpec) -> Schedule:
    """The schedule that the options name.

    Raises:
        UsageError: If its ends do not rise.
    """
    if recipe.schedule == "linear-beta":
        return ScaledLinear(1e-4, 0.02, power=1.0)
    if recipe.schedule in ("scaled-linear", "zero-terminal"):
        return ScaledLinear(zero_terminal=recipe.schedule == "zero-terminal")
    kinds = {"linear": Linear, "cosine": Cosine, "log-normal": LogNormal, "flow-time": FlowTime, "learned": Learned}
    return kinds[recipe.schedule](*recipe.ends(data))


def backbone(recipe: DiffusionRecipe, data: DataSpec, condition: Condition | None, more: int = 0) -> nn.Module:
    """The network for that data; ``more`` channels of its input are features of it.

    Raises:
        UsageError: If it does not fit the data.
    """
    name, dim = recipe.backbone(data), FEATURES if condition else 0
    if name == "mlp":
        blocks = 3 if recipe.blocks == "auto" else recipe.blocks
        entries = more * data.dimensions // data.shape[0]
        few = data.dimensions <= FEW
        return VectorDenoiser(data.dimensions, _width(recipe), blocks, condition_dim=dim, more=entries, waves=few)
    side = max(data.shape[1:])
    patch = (1 if side <= 16 else 2 if side <= 64 else 4) if recipe.patch == "auto" else recipe.patch
    if name == "dit":
        depth, patch = (
            8 if recipe.blocks == "auto" else recipe.blocks,
            max(patch, 2) if recipe.patch == "auto" else patch,
        )
        return DiT(data.shape, _width(recipe), depth, recipe.heads, patch=patch, condition_dim=dim, more=more)
    channels = ((32, 64) if side <= 16 else (64, 128)) if recipe.channels == "auto" else recipe.channels
    return UNet(
        data.shape,
        channels,
        2 if recipe.blocks == "auto" else recipe.blocks,
        patch=patch,
        heads=recipe.heads,
        dropout=recipe.dropout,
        condition_dim=dim,
        more=more,
    )


def _width(recipe: DiffusionRecipe) -> int:
    return 256 if recipe.channels == "auto" else recipe.channels[0]


@assemble.register(NoisyClassifierRecipe)
def noisy_classifier(recipe: NoisyClassifierRecipe, data: DataSpec) -> NoisyClassifier:
    """Convolutions for images, fully connected layers for vectors."""
    if len(data.classes) < 2:
        raise UsageError(
            "A classifier needs classes.",
            got=f"{data.name!r} with {len(data.classes)}",
            expected="labels of two classes or more",
            remedy="Use data with class sub-folders, or an .npz with 'y'.",
        )
    classes = len(data.classes)
    if len(data.shape) == 3:
        network = ImageLevelClassifier(data.shape, classes, recipe.channels, recipe.dropout)
    else:
        network = VectorLevelClassifier(data.dimensions, classes, recipe.channels[0])
    shift, scale = _units(data)
    condition = ClassCondition(data.classes, absent=data.absent)
    return NoisyClassifier(network, Linear(least_gamma(data), 10.0), condition, shift=shift, scale=scale)


def _units(data: DataSpec) -> tuple[float, float]:
    """Shift and scale of the units, in which data with levels lie between -1 and 1."""
    return (0.0, 1.0) if data.levels is None else (0.5, 0.5)
