"""Residual encoder and decoder between images and grids of features.

Convention: an image has shape ``(channels, H, W)``; its grid at L levels has ``H / 2^L`` rows and ``W / 2^L`` columns,
and positions are listed in row-major order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .convolutional import groups
from .mlp import ACTIVATIONS
from .output import EndsInLayer
from .upsampling import UPSAMPLINGS

__all__ = ["GridDecoder", "GridEncoder", "ResidualBlock", "grid_of"]


def grid_of(shape: Sequence[int], levels: int) -> tuple[int, int]:
    """Rows and columns of the grid after halving an image ``levels`` times.

    Args:
        shape: ``(channels, H, W)`` of one image.
        levels: Number of halvings of its sides, at least 1.

    Raises:
        UsageError: If the sides cannot be halved that often; the message lists the possible grids.

    Example:
        >>> grid_of((1, 28, 28), 2)
        (7, 7)
    """
    if len(shape) != 3 or levels < 1:
        raise UsageError(
            "A grid encoder needs images and at least one halving.",
            got=f"examples of shape {tuple(shape)} and {levels} levels",
            expected="(channels, height, width) and at least one level",
        )
    height, width = shape[1:]
    factor = 2**levels
    if height % factor or width % factor:
        raise UsageError(
            "The sides of the image cannot be halved that often.",
            got=f"{height} x {width} with {levels} levels",
            expected=f"sides divisible by {factor}",
            remedy=_remedy(height, width, factor),
        )
    return height // factor, width // factor


def _remedy(height: int, width: int, factor: int) -> str:
    grids, levels = [], 1
    while height % 2**levels == 0 and width % 2**levels == 0:
        entries = "1 entry" if levels == 1 else f"{levels} entries"
        grids.append(f"{entries} gives {height // 2**levels} x {width // 2**levels}")
        levels += 1
    larger = " x ".join(str(-(-side // factor) * factor) for side in (height, width))
    resize = f"resize or pad the images to {larger}"
    return f"--channels with {', with '.join(grids)}; or {resize}." if grids else f"{resize.capitalize()}."


class ResidualBlock(nn.Module):
    r"""Pre-activation residual block, :math:`x + W_{1 \times 1} \phi(W_{3 \times 3} \phi(x))`.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).
        Identity Mappings in Deep Residual Networks (He, Zhang, Ren and Sun, 2016).

    Args:
        channels: Channels of input and output.
        hidden: Channels between the two convolutions.
        activation: A name in :data:`~tightbound.networks.ACTIVATIONS`.
        norm: Whether group normalisation precedes each activation.

    Example:
        >>> ResidualBlock(8, 4)(torch.zeros(5, 8, 7, 7)).shape
        torch.Size([5, 8, 7, 7])
    """

    def __init__(self, channels: int, hidden: int, activation: str = "relu", norm: bool = False) -> None:
        super().__init__()
        phi = ACTIVATIONS[activation]
        self.layers = nn.Sequential(
            *([nn.GroupNorm(groups(channels), channels)] if norm else []),
            phi(),
            nn.Conv2d(channels, hidden, 3, padding=1),
            *([nn.GroupNorm(groups(hidden), hidden)] if norm else []),
            phi(),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class GridEncoder(EndsInLayer):
    """Maps an image to a grid of features: strided convolutions that halve its sides, then residual blocks.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).

    Args:
        shape: Shape ``(channels, H, W)`` of one image.
        outputs: Features of each position.
        channels: Channels of each level, finest first; one halving per entry.
        blocks: Residual blocks on the grid.
        hidden: Channels inside a block; None for the same as outside.
        activation: A name in :data:`~tightbound.networks.ACTIVATIONS`.
        norm: Whether the blocks use group normalisation.
        condition_dim: Size of the condition, an input at every position before the blocks; 0 for none.

    Raises:
        UsageError: If the sides cannot be halved that often.

    Example:
        >>> GridEncoder((1, 28, 28), 10)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10, 7, 7])
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        channels: Sequence[int] = (64, 128),
        blocks: int = 2,
        hidden: int | None = None,
        activation: str = "relu",
        norm: bool = False,
        condition_dim: int = 0,
    ) -> None:
        super().__init__()
        self.grid = grid_of(shape, len(channels))
        phi, width = ACTIVATIONS[activation], channels[-1]
        down: list[nn.Module] = []
        for finer, coarser in pairwise([shape[0], *channels]):
            down += [nn.Conv2d(finer, coarser, 4, stride=2, padding=1), phi()]
        self.down = nn.Sequential(*down)
        self.join = nn.Conv2d(width + condition_dim, width, 3, padding=1)
        self.blocks = _blocks(blocks, width, hidden, activation, norm)
        self.output_layer = nn.Conv2d(width, outputs, 1)

    @property
    def last_layer(self) -> nn.Module:
        return self.output_layer

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.output_layer(self.blocks(self.join(_shown(self.down(x), c))))


class GridDecoder(EndsInLayer):
    """Maps a grid of features to an image: the mirror image of :class:`GridEncoder`.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).

    Args:
        inputs: Features of each position.
        shape: Shape ``(channels, H, W)`` of one image.
        channels: Channels of each level, finest first, as in the encoder.
        blocks: Residual blocks on the grid.
        hidden: Channels inside a block; None for the same as outside.
        parameters: Number of parameters for each entry of an image.
        activation: A name in :data:`~tightbound.networks.ACTIVATIONS`.
        norm: Whether the blocks use group normalisation.
        condition_dim: Size of the condition, an input at every position of the first layer; 0 for none.
        upsampling: How a level doubles its grid: a name in :data:`~tightbound.networks.UPSAMPLINGS`.

    Raises:
        UsageError: If the sides cannot be halved that often.

    Example:
        >>> decoder = GridDecoder(10, (1, 28, 28), parameters=2)
        >>> decoder(torch.zeros(5, 10, 7, 7)).shape
        torch.Size([5, 2, 28, 28])
        >>> decoder(torch.zeros(5, 7 * 7, 10)).shape  # flattened positions, as in a categorical latent
        torch.Size([5, 2, 28, 28])
    """

    def __init__(
        self,
        inputs: int,
        shape: Sequence[int],
        channels: Sequence[int] = (64, 128),
        blocks: int = 2,
        hidden: int | None = None,
        parameters: int = 1,
        activation: str = "relu",
        norm: bool = False,
        condition_dim: int = 0,
        upsampling: str = "resize",
    ) -> None:
        super().__init__()
        self.grid = grid_of(shape, len(channels))
        phi, width = ACTIVATIONS[activation], channels[-1]
        self.join = nn.Conv2d(inputs + condition_dim, width, 1)
        self.blocks = _blocks(blocks, width, hidden, activation, norm)
        up: list[nn.Module] = []
        for coarser, finer in pairwise(reversed(channels)):
            up += [UPSAMPLINGS[upsampling].double(coarser, finer), phi()]
        self.up = nn.Sequential(*up)
        self.output_layer = UPSAMPLINGS[upsampling].double(channels[0], parameters * shape[0])

    @property
    def last_layer(self) -> nn.Module:
        return self.output_layer

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Parameters ``(n, parameters * channels, H, W)``.

        Args:
            z: ``(n, inputs, h, w)``, or ``(n, h * w, inputs)`` row by row.
            c: Conditions, ``(n, condition_dim)``.
        """
        if z.dim() == 3:
            z = z.mT.unflatten(2, self.grid)
        return self.output_layer(self.up(self.blocks(self.join(_shown(z, c)))))


def _blocks(number: int, channels: int, hidden: int | None, activation: str, norm: bool) -> nn.Sequential:
    """The blocks, followed by an activation."""
    blocks = [ResidualBlock(channels, hidden or channels, activation, norm) for _ in range(number)]
    return nn.Sequential(*blocks, ACTIVATIONS[activation]())


def _shown(grid: Tensor, c: Tensor | None) -> Tensor:
    """The grid, with the condition as further, constant channels."""
    return grid if c is None else torch.cat([grid, c[..., None, None].expand(-1, -1, *grid.shape[2:])], dim=1)
