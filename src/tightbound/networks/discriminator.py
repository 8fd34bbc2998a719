"""A discriminator of patches: a logit for every patch of an image, positive where it looks real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from .convolutional import groups

__all__ = ["Normalisation", "PatchDiscriminator", "layers_that_fit", "receptive_field"]

Normalisation = Literal["group", "none", "stored"]
WIDEST = 8
"""The most channels of a layer, in multiples of the first's."""
SLOPE = 0.2
MOST_LAYERS = 3
"""Halvings of the published discriminator."""


def receptive_field(layers: int) -> int:
    """Side of the patch that one logit depends on.

    Args:
        layers: Number of halvings.

    Example:
        >>> [receptive_field(layers) for layers in (1, 2, 3)]
        [16, 34, 70]
    """
    return 2 * receptive_field(layers - 1) + 2 if layers else 7


def layers_that_fit(shape: Sequence[int]) -> int:
    """The number of halvings, at most that of the published discriminator, whose patch is no larger than an image.

    Args:
        shape: Shape ``(channels, H, W)`` of an image.

    Raises:
        UsageError: If the smallest patch is larger.

    Example:
        >>> layers_that_fit((3, 64, 64)), layers_that_fit((3, 256, 128))
        (2, 3)
    """
    fits = [n for n in range(1, MOST_LAYERS + 1) if receptive_field(n) <= min(shape[1:])]
    if not fits:
        raise _too_large(1, shape)
    return fits[-1]


def _too_large(layers: int, shape: Sequence[int]) -> UsageError:
    side = receptive_field(layers)
    fewer = [n for n in range(1, layers) if receptive_field(n) <= min(shape[1:])]
    other = f"Use --discriminator-layers {fewer[-1]}, or larger images or crops." if fewer else ""
    return UsageError(
        "The discriminator is larger than the image: one of its patches does not fit into it.",
        got=f"patches of {side} x {side} in images of {shape[1]} x {shape[2]}",
        expected=f"sides of at least {side}",
        remedy=other or "Use larger images or crops, or --adversarial none.",
    )


class PatchDiscriminator(nn.Module):
    """Strided convolutions to a grid of logits, each of which sees a patch of the image.

    References:
        Image-to-Image Translation with Conditional Adversarial Networks (Isola, Zhu, Zhou and Efros, 2017).

    Args:
        channels: Channels of an image.
        width: Channels of the first layer, doubled by each of the next.
        layers: Number of halvings, at least 1; a patch is of side :func:`receptive_field`.
        norm: Normalisation of the layers between first and last: ``"group"``; ``"none"``; or ``"stored"``, batch
            normalisation with statistics that stay as they were loaded.

    Example:
        >>> PatchDiscriminator(3, width=8, layers=2)(torch.zeros(5, 3, 64, 48)).shape
        torch.Size([5, 1, 14, 10])
    """

    def __init__(self, channels: int, width: int = 64, layers: int = 3, norm: Normalisation = "group") -> None:
        super().__init__()
        self.layers = layers
        widths = [width * min(2**i, WIDEST) for i in range(layers + 1)]
        main: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for i in range(1, layers + 1):
            stride, bias = 2 if i < layers else 1, norm == "none"
            main.append(nn.Conv2d(widths[i - 1], widths[i], 4, stride=stride, padding=1, bias=bias))
            main += [_normalisation(norm, widths[i]), nn.LeakyReLU(SLOPE)]
        self.main = nn.Sequential(*main, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(_start)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the patches, ``(n, 1, h, w)``, of images in [-1, 1].

        Raises:
            UsageError: If a patch is larger than an image.
        """
        self.require_fits(x.shape[1:])
        return self.main(x)

    def require_fits(self, shape: Sequence[int]) -> None:
        """Refuses images ``(channels, H, W)`` that are smaller than a patch.

        Raises:
            UsageError: If they are.
        """
        if receptive_field(self.layers) > min(shape[1:]):
            raise _too_large(self.layers, shape)


class StoredNorm(nn.Module):
    """Batch normalisation with statistics that stay as they were loaded, in training too.

    Args:
        channels: Channels.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


def _normalisation(norm: Normalisation, channels: int) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return nn.GroupNorm(groups(channels), channels) if norm == "group" else StoredNorm(channels)


def _start(layer: nn.Module) -> None:
    """The published initial weights of a convolution."""
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
