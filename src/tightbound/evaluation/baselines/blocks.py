r"""Principal components of blocks: the best linear code of an image with the latents of a convolutional autoencoder.

Convention: an image is ``(channels, height, width)`` as a model sees it; a block is ``side × side`` pixels of all
channels, and blocks do not overlap. Everything is float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data import Split
from ...errors import UsageError
from .components import PrincipalComponents
from .rows import chunks, undequantized, within_limit

__all__ = ["BlockComponents", "fit_block_pca"]


@dataclass(frozen=True)
class BlockComponents:
    """Principal components of the blocks of images.

    Args:
        pca: Mean and components of one block.
        side: Side of a block, pixels.
    """

    pca: PrincipalComponents
    side: int

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images from the coordinates of their blocks, of the shape given, float64.

        Args:
            images: ``(n, channels, height, width)``.

        Raises:
            UsageError: If a side is not a multiple of the blocks'.
        """
        blocks = _blocks(images.double(), self.side)
        centred = blocks - self.pca.mean
        rebuilt = self.pca.mean + (centred @ self.pca.components) @ self.pca.components.T
        return _images(rebuilt, images.shape, self.side)


def fit_block_pca(train: Split, factor: int, channels: int, blocks: int = 1) -> BlockComponents:
    r"""The components of blocks with as many coordinates as latents of a grid.

    An autoencoder of factor f with d latent channels has :math:`d H W / f^2` latents; blocks of :math:`b f` pixels with
    :math:`b^2 d` components have as many, and no linear code of such blocks has a smaller squared error.

    Args:
        train: The images to fit on, without random crops and flips.
        factor: f, side of the pixels behind one place of the grid.
        channels: d, latents of one place.
        blocks: b, places of the grid along the side of one block; larger blocks have a smaller error.

    Raises:
        UsageError: If the images do not divide into such blocks, or have fewer entries than components.

    Example:
        >>> from tightbound.data import load_data
        >>> found = fit_block_pca(load_data("digits").train, factor=4, channels=3)
        >>> found.pca.components.shape, found.reconstruct(torch.rand(5, 1, 8, 8)).shape
        (torch.Size([16, 3]), torch.Size([5, 1, 8, 8]))
    """
    side, k = factor * blocks, channels * blocks**2
    split = undequantized(within_limit(train))
    n, first, second = 0, torch.zeros(1).double(), torch.zeros(1).double()
    for rows in _parts(split, side):
        n, first, second = n + len(rows), first + rows.sum(0), second + rows.T @ rows
    if not 1 <= k <= len(first):
        raise UsageError(
            "A block has fewer entries than components.",
            got=f"{k} components of {len(first)} entries",
            expected=f"1 to {len(first)} components",
            remedy="Use fewer channels, or a larger factor.",
        )
    mean = first / n
    variances, vectors = torch.linalg.eigh(second / n - torch.outer(mean, mean))
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    noise = variances[k:].mean().item() if k < len(mean) else 0.0
    return BlockComponents(PrincipalComponents(mean, vectors[:, :k], variances[:k], noise, len(split)), side)


def _parts(split: Split, side: int) -> Iterator[Tensor]:
    """The blocks of all images, ``(m, entries)``, some images at a time."""
    return (_blocks(rows.unflatten(1, split.spec.shape), side).flatten(0, 1) for rows in chunks(split))


def _blocks(images: Tensor, side: int) -> Tensor:
    """``(n, channels, height, width)`` to ``(n, blocks, entries)``."""
    if images.dim() != 4 or images.shape[2] % side or images.shape[3] % side:
        raise UsageError(
            "These examples do not divide into blocks.",
            got=f"shape {tuple(images.shape[1:])}",
            expected=f"(channels, height, width), sides that are multiples of {side}",
        )
    cut = images.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # n, channels, down, side, across, side
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _images(blocks: Tensor, shape: torch.Size, side: int) -> Tensor:
    """The inverse of :func:`_blocks`."""
    n, channels, height, width = shape
    cut = blocks.view(n, height // side, width // side, channels, side, side)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(shape)
