r"""The layers of a PixelCNN, and their caches for sampling.

The vertical stack of a row depends only on the rows above, so it is computed once per row, for all columns, with its
own and the conditions' contributions to the horizontal gates; r rows of every layer are kept. A pixel then costs, per
layer, one small product with the r + 1 pixels up to it, which are contiguous in memory.

Convention: tensors are ``(n, H, W, p)``, channels last: n examples, H rows, W columns, p features; r is half a kernel's
side. While codes are drawn, m is the rows of a batch: twice as many as samples under guidance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from ..networks.linear import Linear

__all__ = ["AttentionCache", "CausalAttention", "EarlierChannels", "GatedLayer", "LayerCache"]


class GatedLayer(nn.Module):
    r"""One layer of two stacks: the vertical sees complete rows above, the horizontal the row so far and the vertical.

    .. math::
        v' = v + g(W_\downarrow * v + V c), \qquad h' = h + W_1 g(W_\rightarrow * h + W_2 v' + V' c), \qquad
        g(a, b) = \tanh(a) \odot \sigma(b)

    A kernel has only the visible entries, :math:`(r + 1) \times (2r + 1)` and :math:`1 \times (r + 1)`, so no product
    with masked zeros is computed.

    References:
        Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016).

    Args:
        channels: Features p of both stacks.
        kernel: Odd side of the kernel.
        dropout: Probability with which a gate's output is dropped.
        condition_dim: Size of the condition; 0 for none.
        grid_channels: Channels of the conditioning map; 0 for none.

    Example:
        >>> v = h = torch.zeros(2, 8, 8, 16)
        >>> v, h = GatedLayer(16, 3)(v, h)
        >>> h.shape
        torch.Size([2, 8, 8, 16])
    """

    def __init__(
        self, channels: int, kernel: int, dropout: float = 0.0, condition_dim: int = 0, grid_channels: int = 0
    ) -> None:
        super().__init__()
        self.above = kernel // 2
        self.down = nn.Conv2d(channels, 2 * channels, (self.above + 1, kernel), padding=(0, self.above))
        self.right = nn.Conv2d(channels, 2 * channels, (1, self.above + 1), bias=False)
        self.link = Linear(channels, 2 * channels)
        self.out = Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.condition = nn.Linear(condition_dim, 4 * channels, bias=False) if condition_dim else None
        self.grid = nn.Linear(grid_channels, 4 * channels, bias=False) if grid_channels else None

    def forward(
        self, v: Tensor, h: Tensor, c: Tensor | None = None, grid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both stacks after this layer.

        Args:
            v: The vertical stack, ``(n, H, W, p)``.
            h: The horizontal stack, ``(n, H, W, p)``.
            c: Conditions, ``(n, condition_dim)``.
            grid: Conditioning maps, ``(n, H, W, grid_channels)``.
        """
        show_v, show_h = self.shown(c, grid)
        v = self.vertical(F.pad(v, (0, 0, 0, 0, self.above, 0)), show_v)
        a = _convolved(self.right, F.pad(h, (0, 0, self.above, 0))) + self.linked(v, show_h)
        return v, self.horizontal(h, a)

    def shown(self, c: Tensor | None, grid: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Contribution of the conditions to the gates of the vertical and of the horizontal stack."""
        shown = None
        if self.condition is not None and c is not None:
            shown = self.condition(c)[:, None, None]
        if self.grid is not None and grid is not None:
            shown = _plus(self.grid(grid), shown)
        if shown is None:
            return None, None
        show_v, show_h = shown.chunk(2, dim=-1)
        return show_v, show_h

    def vertical(self, v: Tensor, shown: Tensor | None) -> Tensor:
        """The vertical stack after this layer, ``(n, rows, W, p)``, from these rows and the r above them."""
        return v[:, self.above :] + self.gate(_plus(_convolved(self.down, v), shown))

    def linked(self, v: Tensor, shown: Tensor | None) -> Tensor:
        """Contribution of the vertical stack and the conditions to the gates of the horizontal stack."""
        return _plus(self.link(v), shown)

    def horizontal(self, h: Tensor, a: Tensor) -> Tensor:
        """The horizontal stack after this layer, from the inputs of its gates."""
        return h + self.out(self.gate(a))

    def gate(self, a: Tensor) -> Tensor:
        """:math:`g`, of the two halves of the last dimension."""
        left, right = a.chunk(2, dim=-1)
        return self.dropout(left.tanh() * right.sigmoid())


class CausalAttention(nn.Module):
    r"""Multi-head attention of every pixel to all pixels up to itself: :math:`h' = h + W\,\mathrm{softmax}(QK^\top) V`.

    Features of a pixel know only the codes before it, so a pixel may see its own. Their position comes from a vector
    per row and one per column; the previous pixel, which convolutions miss at the start of a row, is added.

    References:
        PixelSNAIL: An Improved Autoregressive Generative Model (Chen et al., 2018).

    Args:
        channels: Features p.
        heads: Number of heads, a divisor of p.
        shape: Rows and columns ``(H, W)`` of the grid.
        dropout: Probability with which a weight, and an output, is dropped.

    Raises:
        UsageError: If the heads do not divide the features.

    Example:
        >>> CausalAttention(16, heads=4, shape=(8, 8))(*torch.zeros(2, 2, 8, 8, 16)).shape
        torch.Size([2, 8, 8, 16])
    """

    def __init__(self, channels: int, heads: int, shape: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            got, expected = f"--heads {heads}", f"a divisor of --channels {channels}"
            fewer = next(n for n in range(min(max(heads, 1), channels), 0, -1) if channels % n == 0)
            raise UsageError("Heads share the features.", got=got, expected=expected, remedy=f"Try --heads {fewer}.")
        self.heads = heads
        self.rows = nn.Parameter(0.1 * torch.randn(shape[0], 1, channels))
        self.columns = nn.Parameter(0.1 * torch.randn(shape[1], channels))
        self.norm = nn.LayerNorm(channels)
        self.qkv = Linear(channels, 3 * channels)
        self.out = Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, before: Tensor) -> Tensor:
        """Features of the same shape.

        Args:
            h: Features, ``(n, H, W, p)``.
            before: The embedded previous pixel of each, across rows, ``(n, H, W, p)``.
        """
        q, k, v = self.asked((h + before).flatten(1, 2), self.places())
        p = self.dropout.p if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
        return h + self.told(seen).view_as(h)

    def places(self) -> Tensor:
        """A vector for each pixel, ``(H·W, p)``."""
        return (self.rows + self.columns).flatten(0, 1)

    def asked(self, h: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values ``(n, heads, T, p / heads)`` of features ``(n, T, p)`` at T places ``(T, p)``."""
        qkv = self.qkv(self.norm(h + places)).unflatten(-1, (3, self.heads, -1))
        return qkv.permute(2, 0, 3, 1, 4).unbind()

    def told(self, seen: Tensor) -> Tensor:
        """Outputs of the heads, ``(n, heads, T, p / heads)``, as features ``(n, T, p)``."""
        return self.dropout(self.out(seen.transpose(1, 2).flatten(2)))


class EarlierChannels(nn.Linear):
    r"""The contribution of a pixel's earlier channels to a channel, :math:`\sum_{l < k} U_{kl}\, e_l`.

    Args:
        planes: Channels C of a pixel.
        channels: Features p of each.

    Example:
        >>> (EarlierChannels(3, 1)(torch.tensor([1.0, 0.0, 0.0])) == 0).tolist()
        [True, False, False]
    """

    mask: Tensor

    def __init__(self, planes: int, channels: int) -> None:
        super().__init__(planes * channels, planes * channels, bias=False)
        blocks = torch.ones(planes, planes).tril(-1).kron(torch.ones(channels, channels))
        self.register_buffer("mask", blocks, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Of embedded channels ``(*, C·p)``, the same shape."""
        return F.linear(input, self.weight * self.mask)


class LayerCache:
    """Cache of one layer: the r rows above and the row so far.

    Args:
        layer: The layer.
        m: Rows of the batch.
        columns: Columns of the grid.
    """

    def __init__(self, layer: GatedLayer, m: int, columns: int) -> None:
        kernel = layer.right.weight.squeeze(2)
        self.layer, self.p = layer, kernel.shape[1]
        self.rows = kernel.new_zeros(m, layer.above + 1, columns, self.p)
        self.row = kernel.new_zeros(m, (layer.above + columns) * self.p)
        self.weight = kernel.permute(2, 1, 0).flatten(0, 1)
        self.gates = self.rows

    def go_down(self, v: Tensor, c: Tensor | None, grid: Tensor | None) -> Tensor:
        """The vertical stack of the next row after this layer, ``(m, 1, W, p)``."""
        show_v, show_h = self.layer.shown(c, grid)
        self.rows = torch.cat([self.rows[:, 1:], v], dim=1)
        v = self.layer.vertical(self.rows, show_v)
        self.gates = self.layer.linked(v, show_h).squeeze(1)
        return v

    def go_right(self, h: Tensor, j: int) -> Tensor:
        """The horizontal stack at column j after this layer, ``(m, p)``."""
        begin, end = j * self.p, (j + self.layer.above + 1) * self.p
        self.row[:, end - self.p : end] = h
        return self.layer.horizontal(h, torch.addmm(self.gates[:, j], self.row[:, begin:end], self.weight))


class AttentionCache:
    """The keys and values of the pixels so far.

    Args:
        attention: The attention.
        m: Rows of the batch.
    """

    def __init__(self, attention: CausalAttention, m: int) -> None:
        self.attention, self.places = attention, attention.places()
        pixels, p = self.places.shape
        self.keys = self.places.new_zeros(m, attention.heads, pixels, p // attention.heads)
        self.values = torch.zeros_like(self.keys)

    def go_on(self, h: Tensor, before: Tensor, t: int) -> Tensor:
        """Features of the pixel at position t, ``(m, p)``, given the embedded previous pixel, ``(m, p)``."""
        q, k, v = self.attention.asked((h + before)[:, None], self.places[t : t + 1])
        self.keys[:, :, t : t + 1], self.values[:, :, t : t + 1] = k, v
        seen = F.scaled_dot_product_attention(q, self.keys[:, :, : t + 1], self.values[:, :, : t + 1])
        return h + self.attention.told(seen).squeeze(1)


def _convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of channels-last features, ``(n, H, W, p)``."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _plus(a: Tensor, b: Tensor | None) -> Tensor:
    return a if b is None else a + b
