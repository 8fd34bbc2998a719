"""A small network whose features are trained on the data at hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from .convolutional import groups
from .perceptual import Taps

__all__ = ["OwnFeatures"]


class OwnFeatures(Taps):
    """Convolutions for images of any number of channels, tapped at every resolution, and a linear map of their mean.

    Args:
        inputs: Channels of an image.
        outputs: Outputs of the linear map: classes, or dimensions of an embedding.
        channels: Channels of each resolution, finest first; the first is that of the image.

    Example:
        >>> import torch
        >>> network = OwnFeatures(4, 10, (8, 16))
        >>> [features.shape[1:] for features in network(torch.zeros(5, 4, 28, 20))]
        [torch.Size([8, 28, 20]), torch.Size([16, 14, 10])]
        >>> network.told(torch.zeros(5, 4, 9, 9)).shape
        torch.Size([5, 10])
    """

    def __init__(self, inputs: int, outputs: int, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.from_file = False
        self.inputs, self.channels = inputs, tuple(channels)
        levels = [_level(n, m, stride=1 if i == 0 else 2) for i, (n, m) in enumerate(pairwise((inputs, *channels)))]
        self.levels, self.head = nn.ModuleList(levels), nn.Linear(channels[-1], outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found

    def told(self, x: Tensor) -> Tensor:
        """The linear map of the mean of the coarsest features, ``(n, outputs)``."""
        return self.head(self(x)[-1].mean((2, 3)))


def _level(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
    second = nn.Conv2d(outputs, outputs, 3, padding=1)
    norms = [nn.GroupNorm(groups(outputs), outputs) for _ in range(2)]
    return nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU())
