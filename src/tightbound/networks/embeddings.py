"""Embeddings of conditions: input features for a network, with one for a missing condition.

Convention: ``c`` has shape ``(n, size)``; missing values are -1 for integers and NaN for floats.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from .convolutional import ConvolutionalEncoder
from .linear import Linear

__all__ = ["ClassEmbedding", "ImageChannels", "ImageEmbedding", "Observed", "TokenEmbedding"]


class ClassEmbedding(nn.Module):
    """A learned vector for every class, and one for a missing class.

    Args:
        classes: Number of classes.
        dim: Size of a vector.

    Raises:
        UsageError: If a class is out of range.

    Example:
        >>> ClassEmbedding(10, 4)(torch.tensor([[7], [-1]])).shape
        torch.Size([2, 4])
    """

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.classes, self.table = classes, nn.Embedding(classes + 1, dim)

    def forward(self, c: Tensor) -> Tensor:
        label = c.squeeze(-1)
        checked = label.is_cpu and len(label) and not torch.compiler.is_compiling()
        if checked and not -1 <= int(label.min()) <= int(label.max()) < self.classes:
            raise UsageError(
                "A label is out of range.",
                got=f"{int(label.min())} to {int(label.max())}",
                expected=f"0 to {self.classes - 1}, or -1 for none",
                remedy="Check the labels of the data, or build the model from its spec.",
            )
        return self.table(self.row_of(label))

    def row_of(self, label: Tensor) -> Tensor:
        """The last row for a missing class; an out-of-range row for an invalid one, so that a GPU fails too."""
        return torch.where(label < 0, self.classes, label + (label >= self.classes))


class Observed(nn.Module):
    """Numbers, some of which may be missing: zero-filled, with a mask of the missing ones.

    Args:
        size: Number of values.
        dim: Size of a learned linear map of both; None for no map.

    Example:
        >>> Observed(2)(torch.tensor([[0.5, torch.nan]]))
        tensor([[0.5000, 0.0000, 0.0000, 1.0000]])
    """

    def __init__(self, size: int, dim: int | None = None) -> None:
        super().__init__()
        self.map = nn.Identity() if dim is None else Linear(2 * size, dim)

    def forward(self, c: Tensor) -> Tensor:
        return self.map(torch.cat([c.nan_to_num(0.0), c.isnan().to(c.dtype)], dim=1))


class ImageEmbedding(nn.Module):
    """Convolutional features of an image, some pixels of which may be missing.

    Args:
        shape: Shape ``(channels, height, width)`` of the image.
        dim: Size of the features.
        channels: Channels of each level.

    Example:
        >>> ImageEmbedding((1, 8, 8), 4)(torch.full((2, 64), torch.nan)).shape
        torch.Size([2, 4])
    """

    def __init__(self, shape: Sequence[int], dim: int, channels: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.network = ConvolutionalEncoder((2 * shape[0], *shape[1:]), dim, channels)

    def forward(self, c: Tensor) -> Tensor:
        image = c.unflatten(1, self.shape)
        return self.network(torch.cat([image.nan_to_num(0.0), image.isnan().to(c.dtype)], dim=1))


class ImageChannels(nn.Module):
    """An image, some pixels of which may be missing, as channels of another grid.

    Args:
        shape: Shape ``(channels, height, width)`` of the image.
        grid: Height and width of the grid; pixels are averaged, or repeated, to fit it.

    Example:
        >>> ImageChannels((1, 2, 2), (4, 4))(torch.tensor([[1.0, 2.0, 3.0, torch.nan]]))[0, :, 3]
        tensor([[3., 3., 0., 0.],
                [0., 0., 1., 1.]])
    """

    def __init__(self, shape: Sequence[int], grid: Sequence[int]) -> None:
        super().__init__()
        self.shape, self.grid, self.channels = tuple(shape), tuple(grid), 2 * shape[0]

    def forward(self, c: Tensor) -> Tensor:
        """The pixels and where they are missing, ``(n, channels, *grid)``, of ``(n, size)``."""
        image = c.unflatten(1, self.shape)
        both = torch.cat([image.nan_to_num(0.0), image.isnan().to(c.dtype)], dim=1)
        return functional.interpolate(both, self.grid, mode="area")


class TokenEmbedding(nn.Module):
    """Features of a text: token and position embeddings, mapped by a small network and averaged.

    Args:
        vocabulary: Number of tokens.
        length: Maximum number of tokens; those after the end are missing.
        dim: Size of the features.

    Example:
        >>> TokenEmbedding(100, 5, 4)(torch.tensor([[7, 8, -1, -1, -1]])).shape
        torch.Size([1, 4])
    """

    def __init__(self, vocabulary: int, length: int, dim: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, dim), nn.Parameter(torch.randn(length, dim) / 10)
        self.none = nn.Parameter(torch.randn(dim))
        self.mix = nn.Sequential(Linear(dim, 4 * dim), nn.GELU(), Linear(4 * dim, dim))

    def forward(self, c: Tensor) -> Tensor:
        there = (c >= 0).unsqueeze(-1)
        each = self.tokens(c.clamp(min=0)) + self.places
        count = there.sum(1)
        mean = (self.mix(each) * there).sum(1) / count.clamp(min=1)
        return torch.where(count > 0, mean, self.none)
