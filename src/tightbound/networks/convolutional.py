"""Convolutional encoder and decoder for images of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .linear import Linear
from .mlp import ACTIVATIONS
from .output import EndsInLayer
from .upsampling import UPSAMPLINGS

__all__ = ["ConvolutionalDecoder", "ConvolutionalEncoder", "groups"]


LAYERS = 6
"""Modules of one level of the encoder."""


def _sides(shape: Sequence[int], levels: int) -> list[tuple[int, int]]:
    """Sides of the grids from full size down, halved (rounded up) at every level while both are at least 4."""
    sides = [(shape[1], shape[2])]
    while len(sides) <= levels and min(sides[-1]) >= 4:
        height, width = sides[-1]
        sides.append(((height + 1) // 2, (width + 1) // 2))
    return sides


def groups(channels: int) -> int:
    """Number of groups of at least two channels: a single value normalises to 0."""
    return next(g for g in (8, 4, 2, 1) if channels % g == 0 and (channels >= 2 * g or g == 1))


class ConvolutionalEncoder(nn.Module):
    """Maps an image to a feature vector: two convolutions per level, the first of which halves the grid.

    Args:
        shape: Shape ``(channels, height, width)`` of one image.
        outputs: Size of one output.
        channels: Channels of each level, finest first; levels below a side of 4 are left out.
        hidden: Size of the fully connected layer after the coarsest grid.
        activation: A name in :data:`~tightbound.networks.ACTIVATIONS`.
        condition_dim: Size of the condition, concatenated to the features; 0 for none.

    Example:
        >>> ConvolutionalEncoder((1, 28, 28), 10)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        channels: Sequence[int] = (32, 64, 128),
        hidden: int = 256,
        activation: str = "silu",
        condition_dim: int = 0,
    ) -> None:
        super().__init__()
        phi = ACTIVATIONS[activation]
        sides, layers, previous = _sides(shape, len(channels)), [], shape[0]
        for width in channels[: len(sides) - 1]:
            layers += [nn.Conv2d(previous, width, 3, stride=2, padding=1), nn.GroupNorm(groups(width), width), phi()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(groups(width), width), phi()]
            previous = width
        self.grid = nn.Sequential(*layers)
        size = previous * sides[-1][0] * sides[-1][1]
        self.head = nn.Sequential(Linear(size + condition_dim, hidden), phi(), Linear(hidden, outputs))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        features = self.grid(x).flatten(1)
        return self.head(features if c is None else torch.cat([features, c], dim=1))

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """The features of each level, ``(n, channels, height, width)``, finest first.

        Example:
            >>> [tuple(each.shape) for each in ConvolutionalEncoder((1, 28, 28), 10).maps(torch.zeros(5, 1, 28, 28))]
            [(5, 32, 14, 14), (5, 64, 7, 7), (5, 128, 4, 4)]
        """
        found = list[Tensor]()
        for place, layer in enumerate(self.grid, start=1):
            x = layer(x)
            if place % LAYERS == 0:
                found.append(x)
        return tuple(found)


class ConvolutionalDecoder(EndsInLayer):
    """Maps a latent vector to a grid of parameters: the mirror image of :class:`ConvolutionalEncoder`.

    Args:
        latent_dim: Size of one latent vector.
        shape: Shape ``(channels, height, width)`` of one output.
        channels: Channels of each level, finest first, as in the encoder.
        hidden: Size of the fully connected layer before the coarsest grid.
        activation: A name in :data:`~tightbound.networks.ACTIVATIONS`.
        condition_dim: Size of the condition, concatenated to the latent; 0 for none.
        upsampling: How a level doubles its grid: a name in :data:`~tightbound.networks.UPSAMPLINGS`.

    Example:
        >>> ConvolutionalDecoder(10, (2, 28, 28))(torch.zeros(5, 10)).shape
        torch.Size([5, 2, 28, 28])
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        channels: Sequence[int] = (32, 64, 128),
        hidden: int = 256,
        activation: str = "silu",
        condition_dim: int = 0,
        upsampling: str = "resize",
    ) -> None:
        super().__init__()
        phi = ACTIVATIONS[activation]
        self.sides = _sides(shape, len(channels))
        widths = list(channels[: len(self.sides) - 1])[::-1]
        coarse = (widths or [*channels] or [shape[0]])[0]
        self.start = (coarse, *self.sides[-1])
        size = coarse * self.sides[-1][0] * self.sides[-1][1]
        self.head = nn.Sequential(Linear(latent_dim + condition_dim, hidden), phi(), Linear(hidden, size))
        self.levels = nn.ModuleList()
        for width, finer in zip(widths, [*widths[1:], *widths[-1:]], strict=True):
            up = UPSAMPLINGS[upsampling].double(width, finer)
            self.levels.append(nn.Sequential(nn.GroupNorm(groups(width), width), phi(), up))
        last = widths[-1] if widths else coarse
        self.output = nn.Sequential(
            nn.GroupNorm(groups(last), last), phi(), UPSAMPLINGS[upsampling].keep(last, shape[0])
        )

    @property
    def last_layer(self) -> nn.Module:
        return self.output[-1]

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        z = z.flatten(1)
        h = self.head(z if c is None else torch.cat([z, c], dim=1)).unflatten(1, self.start)
        for level, (height, width) in zip(self.levels, self.sides[-2::-1], strict=True):
            h = level(h)[..., :height, :width]
        return self.output(h)
