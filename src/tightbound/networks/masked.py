r"""Masked convolutions: a network over the pixels of an image in which each sees only those before it.

Convention: pixels are in reading order, row by row; the channels of a pixel come together and do not see each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from .linear import Linear
from .mlp import ACTIVATIONS

__all__ = ["MaskedConv2d", "PixelDecoder"]


class MaskedConv2d(nn.Conv2d):
    """A convolution whose output at a pixel depends on the pixels before it, and optionally on that pixel itself.

    References:
        Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner and Kavukcuoglu, 2016).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Odd side of the kernel.
        itself: Whether a pixel sees itself (mask B), as in every layer but the first.

    Raises:
        ShapeError: If the side is not odd.

    Example:
        >>> layer = MaskedConv2d(1, 1, 3, itself=False)
        >>> (layer.weight * layer.mask).count_nonzero()
        tensor(4)
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, *, itself: bool) -> None:
        if kernel % 2 == 0:
            raise ShapeError("A masked kernel must have an odd side.", got=f"side {kernel}", expected="an odd side")
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        order = torch.arange(kernel * kernel).view(kernel, kernel)
        middle = kernel * kernel // 2
        self.register_buffer("mask", (order <= middle if itself else order < middle).float(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight * self.mask, self.bias)


class PixelDecoder(nn.Module):
    """A small PixelCNN with a map of z as input to every layer: parameters for each pixel, given those before it.

    Each layer sees ``kernel // 2`` pixels further, so ``layers`` sets how far the network can predict pixels from
    pixels and how much is left to z.

    References:
        Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016).
        PixelVAE: A Latent Variable Model for Natural Images (Gulrajani et al., 2017).

    Args:
        latent_dim: Size of one latent vector.
        shape: Shape ``(channels, height, width)`` of one image.
        parameters: Number of parameters for each entry of an image.
        channels: Channels of every layer.
        layers: Masked layers, the first of which does not see its own pixel.
        kernel: Odd side of their kernels.
        maps: Channels of the map of z.
        activation: A name in :data:`~tightbound.networks.ACTIVATIONS`.
        condition_dim: Size of the condition, concatenated to the latent; 0 for none.

    Example:
        >>> network = PixelDecoder(2, (1, 8, 8))
        >>> network(torch.zeros(5, 1, 8, 8), torch.zeros(5, 2)).shape
        torch.Size([5, 1, 8, 8])
        >>> network.reach
        6
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        parameters: int = 1,
        channels: int = 32,
        layers: int = 3,
        kernel: int = 5,
        maps: int = 8,
        activation: str = "relu",
        condition_dim: int = 0,
    ) -> None:
        super().__init__()
        self.reach = layers * (kernel // 2)
        self.map_shape = (maps, *shape[1:])
        self.map = nn.Sequential(
            Linear(latent_dim + condition_dim, 128),
            ACTIVATIONS[activation](),
            Linear(128, maps * shape[1] * shape[2]),
            ACTIVATIONS[activation](),
        )
        self.first = MaskedConv2d(shape[0], channels, kernel, itself=False)
        self.layers = nn.ModuleList(MaskedConv2d(channels, channels, kernel, itself=True) for _ in range(layers - 1))
        self.shown = nn.ModuleList(nn.Conv2d(maps, channels, 1) for _ in range(layers))
        self.output_layer = nn.Conv2d(channels, parameters * shape[0], 1)
        self.phi = ACTIVATIONS[activation]()

    def forward(self, x: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Parameters ``(n, parameters * channels, height, width)`` of images ``(n, *shape)``.

        Args:
            x: The images, or their first rows; each pixel's parameters depend only on earlier pixels.
            z: Latents, ``(n, latent_dim)``.
            c: Conditions, ``(n, condition_dim)``.
        """
        return self.rows(x, self.maps(z, c))

    def maps(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The map of z, an input to every layer, ``(n, maps, height, width)``."""
        return self.map(z if c is None else torch.cat([z, c], dim=1)).unflatten(1, self.map_shape)

    def rows(self, x: Tensor, maps: Tensor) -> Tensor:
        """Parameters of some rows only: exact for rows with ``reach`` rows, or the image's edge, above them."""
        h = self.first(2 * x - 1) + self.shown[0](maps)
        for layer, shown in zip(self.layers, self.shown[1:], strict=True):
            h = h + layer(self.phi(h)) + shown(maps)
        return self.output_layer(self.phi(h))
