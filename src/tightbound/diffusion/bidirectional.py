r"""A transformer over all codes of all grids at once: logits of every code given the visible ones.

Convention: as in :mod:`tightbound.diffusion.masked`; the prefix of a condition comes before the codes, and every
position attends to all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..autoregressive.transformer import Block, initialise, require_heads
from ..conditions import Given
from ..distributions import embedded
from ..networks.linear import Linear
from .masked import CodeDenoiser, Logits

__all__ = ["MaskedTransformer"]


class MaskedTransformer(CodeDenoiser):
    r"""Logits of :math:`p(x_i \mid x_v, c)` for every code, from the visible ones and a condition.

    A hidden code is replaced by a learned vector of its level. Before each attention a convolution shows every position
    its neighbours, since attention alone needs many steps to find them. How many are hidden can be seen from the codes,
    so that the network needs no time.

    References:
        Attention Is All You Need (Vaswani et al., 2017).
        MaskGIT: Masked Generative Image Transformer (Chang, Zhang, Jiang, Liu and Freeman, 2022).

    Args:
        levels: Number of codes of each level.
        grids: Shape of each level's grid.
        width: Size of the vector at each position.
        layers: Number of blocks.
        heads: Attention heads, which share the width.
        dropout: Dropout of the embeddings and of each residual branch.
        embedding: From conditions to vectors ``(n, length, width)``, or one of them, ``(n, width)``; or None.

    Raises:
        ShapeError: If the heads do not divide the width.

    Example:
        >>> network = MaskedTransformer([5, 7], [(2, 2), (4, 4)], width=16, layers=2, heads=2)
        >>> codes = torch.zeros(3, 20, dtype=torch.int64)
        >>> [logits.shape for logits in network(codes, torch.ones(3, 20, dtype=torch.bool))]
        [torch.Size([3, 4, 5]), torch.Size([3, 16, 7])]
    """

    blocks: Sequence[Block]

    def __init__(
        self,
        levels: Sequence[int],
        grids: Sequence[Sequence[int]],
        width: int = 128,
        layers: int = 6,
        heads: int = 4,
        dropout: float = 0.0,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        require_heads(width, heads)
        self.levels, self.sizes = tuple(levels), [math.prod(grid) for grid in grids]
        self.tables = nn.ModuleList(nn.Embedding(k + 1, width) for k in levels)
        self.places = nn.Parameter(torch.empty(sum(self.sizes), width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))  # pyright: ignore
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(Linear(width, k) for k in levels)
        initialise(self, len(self.blocks))
        self.near = nn.ModuleList(_Neighbours(width, grids) for _ in range(layers))
        self.embedding = embedding

    def forward(self, codes: Tensor, hidden: Tensor, c: Given | None = None) -> Logits:
        parts = zip(self.tables, self.levels, codes.split(self.sizes, 1), hidden.split(self.sizes, 1), strict=True)
        x = torch.cat([table(level.masked_fill(mask, k)) for table, k, level, mask in parts], dim=1) + self.places
        prefix = embedded(self.embedding, c)
        if prefix is not None:
            x = torch.cat([prefix.unsqueeze(1) if prefix.dim() == 2 else prefix, x], dim=1)
        x, first = self.dropout(x), x.shape[1] - len(self.places)
        for near, block in zip(self.near, self.blocks, strict=True):
            x = block(x + F.pad(near(x[:, first:]), (0, 0, first, 0)), _to_all)
        out = self.norm(x[:, first:]).split(self.sizes, 1)
        return tuple(head(level) for head, level in zip(self.heads, out, strict=True))


class _Neighbours(nn.Module):
    """What lies next to every code on its grid: a convolution of each channel by itself."""

    def __init__(self, width: int, grids: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.norm, self.grids = nn.LayerNorm(width), [(1, 1, *grid)[-2:] for grid in grids]
        self.each = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in grids)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.norm(x).mT.split([math.prod(grid) for grid in self.grids], dim=2)
        found = [conv(part.unflatten(2, grid)) for conv, part, grid in zip(self.each, parts, self.grids, strict=True)]
        return torch.cat([part.flatten(2) for part in found], dim=2).mT


def _to_all(qkv: Tensor) -> Tensor:
    """Attention of every position to all."""
    q, k, v = qkv.unbind(0)
    return F.scaled_dot_product_attention(q, k, v)
