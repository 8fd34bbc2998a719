"""Classifiers of noised data.

Convention: as in :mod:`tightbound.networks.denoising`; the output is ``(n, classes)`` logits.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .denoising import ImageBlock, LevelFeatures, zeroed
from .residual import groups

__all__ = ["ImageLevelClassifier", "VectorLevelClassifier"]


class ImageLevelClassifier(nn.Module):
    """Residual convolutions to ever coarser grids, each modulated by the noise level, and the mean over positions.

    Args:
        shape: Shape ``(channels, H, W)`` of one image.
        classes: Number of classes.
        channels: Channels of each level, the finest first; each level halves the sides, rounding up.
        dropout: Probability with which a channel's activation is dropped in training.

    Example:
        >>> import torch
        >>> ImageLevelClassifier((1, 28, 28), 10, (8, 16))(torch.zeros(5, 1, 28, 28), torch.zeros(5)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self, shape: Sequence[int], classes: int, channels: Sequence[int] = (32, 64, 64), dropout: float = 0.1
    ) -> None:
        super().__init__()
        dim = 4 * channels[0]
        self.level, self.enter = LevelFeatures(dim), nn.Conv2d(shape[0], channels[0], 3, padding=1)
        pairs = zip([channels[0], *channels], channels, strict=False)
        self.blocks = nn.ModuleList(ImageBlock(n, m, dim, dropout) for n, m in pairs)
        self.coarser = nn.ModuleList(nn.Conv2d(n, n, 3, stride=2, padding=1) for n in channels)
        self.norm, self.leave = (
            nn.GroupNorm(groups(channels[-1]), channels[-1]),
            zeroed(nn.Linear(channels[-1], classes)),
        )

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        level, h = self.level(gamma), self.enter(z)
        for block, coarser in zip(self.blocks, self.coarser, strict=True):
            h = coarser(block(h, level))
        return self.leave(F.silu(self.norm(h)).mean((2, 3)))


class VectorLevelClassifier(nn.Module):
    """Fully connected layers that see a vector and features of its noise level.

    Args:
        size: Entries of a vector.
        classes: Number of classes.
        hidden: Width.

    Example:
        >>> import torch
        >>> VectorLevelClassifier(2, 3, 32)(torch.zeros(5, 2), torch.zeros(5)).shape
        torch.Size([5, 3])
    """

    def __init__(self, size: int, classes: int, hidden: int = 128) -> None:
        super().__init__()
        self.level, self.enter = LevelFeatures(hidden), nn.Linear(size, hidden)
        self.layers = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.leave = zeroed(nn.Linear(hidden, classes))

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        return self.leave(self.layers(self.enter(z.flatten(1)) + self.level(gamma)))
