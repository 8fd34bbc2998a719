"""The image of a decoder, cut from its graph: losses are differentiated there, and carried back later in one pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...runtime.modes import at_least_float32

__all__ = ["Cut", "latent_moments"]


class Cut:
    """The output h of a decoder, and the image that follows from it, without their graph.

    Args:
        output: h, ``(n, ...)``.
        image_of: The image ``(n, channels, H, W)`` in [-1, 1] that an output stands for.
        learning: Whether gradients are wanted.

    Example:
        >>> layer, features = nn.Linear(2, 3, bias=False), torch.ones(4, 2)
        >>> cut = Cut(layer(features), lambda h: 2 * h - 1)
        >>> slope = torch.autograd.grad(cut.shown.sum(), cut.shown)[0]
        >>> torch.equal(cut.at_weight(layer, cut.back(slope)), torch.full((3, 2), 8.0))
        True
    """

    def __init__(self, output: Tensor, image_of: Callable[[Tensor], Tensor], learning: bool = True) -> None:
        self.output = output
        self._leaf = at_least_float32(output.detach()).requires_grad_(learning)
        self._image = image_of(self._leaf)
        self.shown = self._image.detach().requires_grad_(learning)

    def back(self, slope: Tensor) -> Tensor:
        """The gradient at h of a loss with the gradient ``slope`` at the image."""
        return torch.autograd.grad(self._image, self._leaf, slope, retain_graph=True)[0]

    def slope_of(self, loss: Tensor) -> Tensor:
        """The gradient at h of a loss that was computed from it directly; its graph is kept."""
        return at_least_float32(torch.autograd.grad(loss, self.output, retain_graph=True)[0])

    def at_weight(self, layer: nn.Module, slope: Tensor) -> Tensor:
        """The gradient at the last layer's weight of a loss with the gradient ``slope`` at h: one convolution."""
        weight = layer.get_parameter("weight")
        return torch.autograd.grad(self.output, weight, slope.to(self.output.dtype), retain_graph=True)[0]

    def pulled(self, slope: Tensor) -> Tensor:
        """The inner product with h, ``(n,)``, whose gradient is that of a loss with the gradient ``slope`` at h."""
        return (at_least_float32(self.output) * slope).flatten(1).sum(1)


def latent_moments(z: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sums over examples of the mean and mean square of every channel of a latent, ``(2, channels)``.

    Args:
        z: ``(..., *shape)``.
        shape: ``(channels, h, w)``, ``(positions, channels)`` or ``(channels,)``.

    Example:
        >>> latent_moments(torch.full((5, 2, 3, 4), 2.0), (2, 3, 4))
        tensor([[10., 10.],
                [20., 20.]])
    """
    z = at_least_float32(z).reshape(-1, *shape)
    z = z.flatten(2).mT if len(shape) == 3 else z.reshape(len(z), -1, shape[-1])
    return torch.stack([z.mean(1).sum(0), z.square().mean(1).sum(0)])
