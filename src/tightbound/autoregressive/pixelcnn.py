r"""A gated PixelCNN over a grid of codes: logits of every code given those before it, without blind spot.

.. math:: p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)

Convention: pixels are in reading order, row by row; the channels of a pixel follow each other. Internally, tensors are
``(n, H, W, p)``, channels last: n examples, H rows, W columns, p features; C channels of K levels in a pixel; and r is
half a kernel's side.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distributions import Sampling
from ..errors import DataError, ShapeError, UsageError
from ..networks.linear import Linear
from ..runtime.modes import evaluating
from ..runtime.progress import progress
from .pixelcnn_layers import AttentionCache, CausalAttention, EarlierChannels, GatedLayer, LayerCache

__all__ = ["PixelCNN", "PixelCache"]


class PixelCNN(nn.Module):
    r"""Logits of every code of a grid given the codes before it, and cached sampling from them.

    With :math:`e` the embedded codes, the vertical stack starts from :math:`e` one row down, the horizontal one from
    :math:`e` one pixel to the right; a channel of a pixel then sees the earlier channels of its pixel in the head,

    .. math:: \eta_k = W\,\phi\Bigl(W_k\,\phi(h) + \sum_{l < k} U_{kl}\, e_l\Bigr).

    Without attention a pixel sees the ``reach + 1`` rows above within ``reach`` columns to both sides, and ``reach +
    1`` pixels to its left, all of them. With attention it sees all previous pixels.

    References:
        Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016).
        PixelSNAIL: An Improved Autoregressive Generative Model (Chen et al., 2018).
        Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019).

    Args:
        levels: Number K of values of a code.
        shape: Shape of one grid, ``(H, W)`` or ``(C, H, W)``.
        channels: Features p of a pixel in every layer.
        layers: Gated layers.
        kernel: Odd side of their kernels, at least 3.
        attention_every: Attention after every ``attention_every`` layers; 0 for none.
        heads: Heads of an attention.
        dropout: Probability of dropout in the gates and attentions.
        condition_dim: Size of the condition c, an input of every gate; 0 for none.
        grid_channels: Channels of the conditioning map, an input of every layer; 0 for none.

    Raises:
        UsageError: If a number is out of range.
        ShapeError: If ``shape`` is not that of a grid.

    Example:
        >>> network = PixelCNN(10, (4, 4), channels=8, layers=2, kernel=3, attention_every=2, condition_dim=3)
        >>> codes = network.generate(5, c=torch.zeros(5, 3))
        >>> network(codes, torch.zeros(5, 3)).shape
        torch.Size([5, 4, 4, 10])
        >>> network.reach
        2
    """

    def __init__(
        self,
        levels: int,
        shape: Sequence[int],
        channels: int = 64,
        layers: int = 8,
        kernel: int = 5,
        attention_every: int = 0,
        heads: int = 4,
        dropout: float = 0.0,
        condition_dim: int = 0,
        grid_channels: int = 0,
    ) -> None:
        super().__init__()
        _check_options(levels, shape, layers, kernel, attention_every, dropout)
        self.levels, self.shape, self.reach = levels, tuple(shape), layers * (kernel // 2)
        self.condition_dim, self.grid_channels = condition_dim, grid_channels
        self.planes, self.size = (1, *shape)[-3], self.shape[-2:]
        self.embedding = nn.Embedding(self.planes * levels, channels)
        self.layers = nn.ModuleList(
            GatedLayer(channels, kernel, dropout, condition_dim, grid_channels) for _ in range(layers)
        )
        self.attentions = nn.ModuleDict(
            {
                str(i): CausalAttention(channels, heads, self.size, dropout)
                for i in range(layers)
                if attention_every and (i + 1) % attention_every == 0
            }
        )
        self.hidden = Linear(channels, self.planes * channels)
        self.earlier = EarlierChannels(self.planes, channels) if self.planes > 1 else None
        self.output_layer = Linear(channels, levels)

    def forward(self, codes: Tensor, c: Tensor | None = None, grid: Tensor | None = None) -> Tensor:
        """Logits ``(n, *shape, levels)`` of every code given those before it.

        Args:
            codes: Integers in 0 … levels - 1, ``(n, *shape)``.
            c: Conditions, ``(n, condition_dim)``.
            grid: Conditioning maps, ``(n, grid_channels, H, W)``.

        Raises:
            ShapeError: If a tensor does not fit the network, or each other.
            DataError: If a code is not one of the levels (checked on a CPU only, where it does not synchronise).
            UsageError: If a condition is missing, or the network takes none.
        """
        self._check_codes(codes)
        self.require_conditions(len(codes), c, grid)
        grid = None if grid is None else grid.permute(0, 2, 3, 1)
        e = self.embed(codes.reshape(len(codes), self.planes, *self.size))
        v, h, before = _shifted(e.sum(-2))
        for layer, attention in self.stack():
            v, h = layer(v, h, c, grid)
            h = h if attention is None else attention(h, before)
        return self.output_layer(self.head(h, e)).movedim(-2, 1).reshape(*codes.shape, self.levels)

    def stack(self) -> Iterator[tuple[GatedLayer, CausalAttention | None]]:
        """Every layer, and the attention after it, if any."""
        attentions = dict(self.attentions.items())
        for i, layer in enumerate(self.layers):
            yield cast("GatedLayer", layer), cast("CausalAttention | None", attentions.get(str(i)))

    def embed(self, codes: Tensor) -> Tensor:
        """Vectors ``(n, *rest, C, p)`` of codes ``(n, C, *rest)``."""
        offsets = self.levels * torch.arange(self.planes, device=codes.device)
        return self.embedding(codes.movedim(1, -1) + offsets)

    def head(self, h: Tensor, e: Tensor) -> Tensor:
        """Input of the last layer, ``(*, C, p)``: features ``(*, p)``, plus earlier channels of ``(*, C, p)``."""
        a = self.hidden(F.elu(h))
        if self.earlier is not None:
            a = a + self.earlier(e.flatten(-2))
        return F.elu(a).unflatten(-1, e.shape[-2:])

    @torch.no_grad()
    def generate(
        self,
        n: int,
        c: Tensor | None = None,
        null: Tensor | None = None,
        grid: Tensor | None = None,
        sampling: Sampling | None = None,
        *,
        cached: bool = True,
    ) -> Tensor:
        """Samples n grids of codes, ``(n, *shape)``, pixel by pixel.

        Args:
            n: Number of grids.
            c: Conditions, ``(n, condition_dim)``.
            null: Features of the missing condition, ``(n, condition_dim)`` or a single one, for guidance.
            grid: Conditioning maps, ``(n, grid_channels, H, W)``.
            sampling: Temperature, top-k, top-p and guidance; None for plain samples.
            cached: Whether to cache rows and pixels; without the cache every code costs a pass over the grid, with the
                same result (for tests).

        Raises:
            ShapeError: If a condition does not fit.
            UsageError: If a condition is missing, the network takes none, or n is below 1.
        """
        if n < 1:
            raise UsageError("The number of samples must be at least 1.", got=f"n = {n}", expected="n >= 1")
        sampling = sampling or Sampling()
        self.require_conditions(n, c, grid)
        if null is not None:
            c, grid = self._twice(n, c, null, grid)
        codes = torch.zeros(n, self.planes, *self.size, dtype=torch.long, device=self.embedding.weight.device)
        with evaluating(self), progress("drawing codes, row by row", self.size[0]) as advance:
            logits = self._step(n if null is None else 2 * n, c, grid, cached)
            for i in range(self.size[0]):
                for j, k in itertools.product(range(self.size[1]), range(self.planes)):
                    codes[:, k, i, j] = sampling.choose(*logits(codes, i, j, k).split(n))
                advance()
        return codes.view(n, *self.shape)

    def _step(
        self, rows: int, c: Tensor | None, grid: Tensor | None, cached: bool
    ) -> Callable[[Tensor, int, int, int], Tensor]:
        """A function for the logits ``(rows, levels)`` of the next code, at row i, column j, channel k."""
        if cached:
            return PixelCache(self, rows, c, grid).logits

        def passed(codes: Tensor, i: int, j: int, k: int) -> Tensor:
            codes = codes.repeat(rows // len(codes), 1, 1, 1).view(rows, *self.shape)
            return self(codes, c, grid).view(rows, *(1, *self.shape)[-3:], self.levels)[:, k, i, j]

        return passed

    def _twice(
        self, n: int, c: Tensor | None, null: Tensor, grid: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The conditions followed by the null conditions, as one batch of 2n."""
        if c is None:
            raise UsageError("Guidance needs a condition.", got="null without c", remedy="Pass c too.")
        null = null.expand(n, -1) if null.dim() == 2 and len(null) == 1 else null
        self.require_conditions(n, null, grid)
        return torch.cat([c, null]), None if grid is None else grid.repeat(2, 1, 1, 1)

    def require_conditions(self, n: int, c: Tensor | None, grid: Tensor | None) -> None:
        """Refuses conditions that are missing or that this network cannot take."""
        _check_shown("condition", "condition_dim", c, (n, self.condition_dim))
        _check_shown("conditioning map", "grid_channels", grid, (n, self.grid_channels, *self.size))

    def _check_codes(self, codes: Tensor) -> None:
        if tuple(codes.shape[1:]) != self.shape or codes.is_floating_point():
            raise ShapeError(
                "The codes do not fit the network.",
                got=f"{codes.dtype} of shape {tuple(codes.shape)}",
                expected=f"integers of shape (n, {', '.join(map(str, self.shape))})",
                remedy="Build the network for the grid of these codes.",
            )
        if codes.device.type != "cpu" or torch.compiler.is_compiling() or not codes.numel():
            return
        least, most = codes.aminmax()
        if least < 0 or most >= self.levels:
            raise DataError(
                "A code is not one of the levels.",
                got=f"codes from {int(least)} to {int(most)}",
                expected=f"0 to {self.levels - 1}",
                remedy="Build the network with the size of the codebook as its levels.",
            )


class PixelCache:
    """Logits of one code after another, in reading order; what a row shares is computed once per row.

    Args:
        network: The network, in evaluation mode.
        m: Rows of the batch: the examples, twice under guidance.
        c: Conditions, ``(m, condition_dim)``.
        grid: Conditioning maps, ``(m, grid_channels, H, W)``.

    Example:
        >>> with torch.no_grad():
        ...     cache = PixelCache(PixelCNN(10, (4, 4), channels=8, layers=2).eval(), 5, None, None)
        ...     cache.logits(torch.zeros(5, 1, 4, 4, dtype=torch.long), 0, 0, 0).shape
        torch.Size([5, 10])
    """

    def __init__(self, network: PixelCNN, m: int, c: Tensor | None, grid: Tensor | None) -> None:
        self.network, self.m, self.c = network, m, c
        self.grid = None if grid is None else grid.permute(0, 2, 3, 1)
        self.columns = network.size[1]
        self.nothing = network.embedding.weight.new_zeros(m, network.embedding.embedding_dim)
        self.features = self.nothing
        self.layers = [
            (LayerCache(layer, m, self.columns), None if attention is None else AttentionCache(attention, m))
            for layer, attention in network.stack()
        ]

    def logits(self, codes: Tensor, i: int, j: int, k: int) -> Tensor:
        """Logits ``(m, levels)`` at row i, column j, channel k; must be called for every code, in reading order.

        Args:
            codes: The codes so far, ``(n, C, H, W)``; the others may be anything.
            i: Row.
            j: Column.
            k: Channel.
        """
        if j == k == 0:
            self._go_down(codes, i)
        if k == 0:
            self._go_right(codes, i, j)
        e = self._repeated(self.network.embed(codes[:, :, i, j]))
        return self.network.output_layer(self.network.head(self.features, e)[:, k])

    def _go_down(self, codes: Tensor, i: int) -> None:
        """The vertical stack of row i."""
        v = self._embedded(codes[:, :, i - 1]) if i else self.nothing[:, None].expand(-1, self.columns, -1)
        v, grid = v[:, None], None if self.grid is None else self.grid[:, i : i + 1]
        for layer, _ in self.layers:
            v = layer.go_down(v, self.c, grid)

    def _go_right(self, codes: Tensor, i: int, j: int) -> None:
        """The features of a pixel."""
        place = i * self.columns + j
        before = self._embedded(codes.flatten(2)[:, :, place - 1]) if place else self.nothing
        h = before if j else self.nothing
        for layer, attention in self.layers:
            h = layer.go_right(h, j)
            h = h if attention is None else attention.go_on(h, before, place)
        self.features = h

    def _embedded(self, codes: Tensor) -> Tensor:
        """Pixels ``(m, *rest, p)`` of codes ``(n, C, *rest)``."""
        return self._repeated(self.network.embed(codes).sum(-2))

    def _repeated(self, e: Tensor) -> Tensor:
        return e if len(e) == self.m else torch.cat([e, e])


def _shifted(e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features ``(n, H, W, p)`` shifted one row down; one pixel right; and one pixel on, across rows."""
    on = F.pad(e.flatten(1, 2)[:, :-1], (0, 0, 1, 0)).view_as(e)
    return F.pad(e[:, :-1], (0, 0, 0, 0, 1, 0)), F.pad(e[:, :, :-1], (0, 0, 1, 0)), on


def _check_options(
    levels: int, shape: Sequence[int], layers: int, kernel: int, attention_every: int, dropout: float
) -> None:
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ShapeError("Codes must lie on a grid.", got=tuple(shape), expected="(H, W) or (C, H, W)")
    if kernel < 3 or kernel % 2 == 0:
        raise UsageError(
            "A causal kernel must have an odd side of at least 3.", got=f"side {kernel}", expected="3, 5, 7, …"
        )
    if levels < 2 or layers < 1 or attention_every < 0:
        got = f"levels {levels}, layers {layers}, attention every {attention_every}"
        raise UsageError("The network is too small.", got=got, expected="2 levels, 1 layer, 0 for no attention")
    if not 0 <= dropout < 1:
        raise UsageError("Dropout must be a probability.", got=dropout, expected="0 <= dropout < 1")


def _check_shown(name: str, option: str, given: Tensor | None, shape: tuple[int, ...]) -> None:
    if not shape[1]:
        if given is not None:
            remedy = f"Build it with {option}={given.shape[1:2].numel()}."
            raise UsageError(f"The network takes no {name}.", got=tuple(given.shape), expected="None", remedy=remedy)
    elif given is None:
        raise UsageError(f"The network needs a {name}.", got="None", expected=shape, remedy="Pass one per example.")
    elif tuple(given.shape) != shape:
        raise ShapeError(f"The {name} does not fit the network.", got=tuple(given.shape), expected=shape)
