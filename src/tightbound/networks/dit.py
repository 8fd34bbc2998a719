r"""A transformer of patches that sees noised images, how much noise they have, and a condition.

Convention: as in :mod:`tightbound.networks.denoising`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from .denoising import LevelFeatures, zeroed

__all__ = ["DiT", "positions"]


def positions(rows: int, columns: int, dim: int) -> Tensor:
    """Sines and cosines of the row and of the column of every position, ``(rows * columns, dim)``.

    Args:
        rows: Rows of the grid.
        columns: Its columns.
        dim: Number of features, divisible by 4.

    Example:
        >>> positions(2, 3, 8).shape
        torch.Size([6, 8])
    """
    rates = 10_000.0 ** -(torch.arange(dim // 4) / (dim // 4))
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    angles = (places.unsqueeze(-1) * rates).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class DiT(nn.Module):
    """A transformer over patches whose layers are scaled, shifted and gated by the noise level and the condition.

    References:
        Scalable Diffusion Models with Transformers (Peebles and Xie, 2023).

    Args:
        shape: Shape ``(channels, H, W)`` of one image.
        width: Width, divisible by the heads and by 4.
        depth: Number of layers.
        heads: Heads of the attention.
        patch: Side of a patch; it must divide the sides of the image.
        condition_dim: Size of the condition's features; 0 for none.
        more: Number of further channels of the input, which the output has not.

    Raises:
        UsageError: If the patch or the heads do not divide.

    Example:
        >>> DiT((4, 8, 8), width=16, depth=2, heads=2)(torch.zeros(5, 4, 8, 8), torch.zeros(5)).shape
        torch.Size([5, 4, 8, 8])
    """

    places: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        *,
        patch: int = 2,
        condition_dim: int = 0,
        more: int = 0,
    ) -> None:
        super().__init__()
        if len(shape) != 3 or any(side % patch for side in shape[1:]) or width % (4 * heads // math.gcd(4, heads)):
            raise UsageError(
                "The transformer does not fit the image.",
                got=f"examples of shape {tuple(shape)}, patch {patch}, width {width}, {heads} heads",
                expected="images with sides divisible by the patch; a width divisible by 4 and by the heads",
                remedy="Try patch 2, width 384 and 6 heads; or --image-size.",
            )
        self.shape, self.patch, entries = tuple(shape), patch, shape[0] * patch**2
        self.level = LevelFeatures(width, condition_dim)
        self.enter = nn.Linear(entries + more * patch**2, width)
        self.register_buffer("places", positions(shape[1] // patch, shape[2] // patch, width), persistent=False)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.norm, self.modulation = nn.LayerNorm(width, elementwise_affine=False), zeroed(nn.Linear(width, 2 * width))
        self.leave = zeroed(nn.Linear(width, entries))

    def forward(self, z: Tensor, gamma: Tensor, c: Tensor | None = None) -> Tensor:
        level = self.level(gamma, c)
        patches = F.pixel_unshuffle(z, self.patch)
        h = self.enter(patches.flatten(2).mT) + self.places
        for layer in self.layers:
            h = layer(h, level)
        scale, shift = self.modulation(level).unsqueeze(1).chunk(2, dim=-1)
        out = self.leave((1 + scale) * self.norm(h) + shift)
        return F.pixel_shuffle(out.mT.unflatten(2, patches.shape[2:]), self.patch)


class _Layer(nn.Module):
    """Attention and a perceptron, each scaled, shifted and gated; the gates start at zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        a, b, gate, more_a, more_b, more_gate = self.modulation(level).unsqueeze(1).chunk(6, dim=-1)
        h = h + gate * self._attended((1 + a) * self.norms[0](h) + b)
        return h + more_gate * self.perceptron((1 + more_a) * self.norms[1](h) + more_b)

    def _attended(self, h: Tensor) -> Tensor:
        q, k, v = self.inward(h).unflatten(-1, (3, self.heads, -1)).movedim(1, 3).unbind(1)
        return self.outward(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
