r"""A decoder-only transformer over the codes of a grid: logits for each code, given a prefix and the codes before it.

Convention: the codes of a grid are in reading order, row by row, the channels of a pixel following each other; after
the prefix comes a learned start token, whose output gives the first code's logits. Masks are True where entries are
visible.
Shapes: n examples, L entries of the prefix, N codes of the grid, T = L + N positions (prefix, start, all codes but the
last), h heads of size d.
"""

from __future__ import annotations

import copy
import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distributions import Sampling
from ..errors import ShapeError, UsageError
from ..networks.linear import Linear, packed
from ..runtime.modes import evaluating
from ..runtime.progress import progress
from .text_prefix import rotary_angles, rotate

__all__ = ["Block", "CachedTransformer", "Transformer", "require_heads"]


class Transformer(nn.Module):
    r"""Logits of :math:`p(s \mid c) = \prod_i p(s_i \mid s_{<i}, c)` for a grid of codes s, with a prefix c.

    Blocks are pre-norm. A code's position is the sum of a learned vector for its row and one for its column. The prefix
    has position embeddings of its own, or rotary positions (``rotary_prefix``), which the grid does not use.

    References:
        Attention Is All You Need (Vaswani et al., 2017).
        Language Models are Unsupervised Multitask Learners (Radford et al., 2019).
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).
        RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021).

    Args:
        levels: Number of codes.
        shape: Shape of the grid, ``(channels, height, width)``, ``(height, width)`` or ``(length,)``.
        width: Size of the vector at each position.
        layers: Number of blocks.
        heads: Attention heads, which share the width.
        dropout: Dropout of the embeddings and of each residual branch.
        rotary_prefix: The longest prefix with rotary positions; 0 for a prefix with embedded positions.

    Raises:
        ShapeError: If the heads do not divide the width, or rotary positions have an odd head size.

    Example:
        >>> network = Transformer(levels=5, shape=(3, 4), width=16, layers=2, heads=2)
        >>> network(torch.zeros(2, 3, 4, dtype=torch.int64), prefix=torch.zeros(2, 1, 16)).shape
        torch.Size([2, 3, 4, 5])
        >>> network.generate(2, prefix=torch.zeros(2, 1, 16)).shape
        torch.Size([2, 3, 4])
    """

    blocks: Sequence[Block]

    def __init__(
        self,
        levels: int,
        shape: Sequence[int],
        width: int = 256,
        layers: int = 6,
        heads: int = 8,
        dropout: float = 0.0,
        rotary_prefix: int = 0,
    ) -> None:
        super().__init__()
        require_heads(width, heads, rotary_prefix)
        self.levels, self.shape, self.width, self.heads = levels, tuple(shape), width, heads
        self.length, self.rotary_prefix = math.prod(shape), rotary_prefix
        self.codes = nn.Embedding(levels, width)
        sizes = [(1,) * i + (size,) + (1,) * (len(shape) - i - 1) for i, size in enumerate(shape)]
        self.axes = nn.ParameterList(nn.Parameter(torch.empty(*size, width)) for size in sizes)
        self.start = nn.Parameter(torch.empty(width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))  # pyright: ignore
        self.norm = nn.LayerNorm(width)
        self.head = Linear(width, levels)
        initialise(self, len(self.blocks))

    def forward(self, codes: Tensor, prefix: Tensor | None = None, prefix_mask: Tensor | None = None) -> Tensor:
        """Logits ``(n, *shape, levels)``; each depends on the prefix and on the codes before it.

        Args:
            codes: int64, ``(n, *shape)``.
            prefix: Embedded condition, ``(n, L, width)``, or None.
            prefix_mask: Which entries of the prefix are present, bool, ``(n, L)``; None for all.

        Raises:
            ShapeError: If the codes are not of the grid's shape, or the prefix or its mask does not fit.
        """
        remedy = "Fit the prior to codes of this grid, or build it for the grid of these."
        _check("codes", codes, [(*codes.shape[:1], *self.shape)], remedy)
        front, seen = self._front(len(codes), prefix, prefix_mask)
        before = self.codes(self._in_a_row(codes)[:, :-1]) + self.places()[:-1]
        x = torch.cat([front, before], dim=1)
        attend = self._causal(x.shape[1], front.shape[1] - 1, seen)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, attend)
        return self._on_grid(self.head(self.norm(x[:, front.shape[1] - 1 :])))

    @torch.no_grad()
    def generate(
        self,
        n: int,
        prefix: Tensor | None = None,
        null: Tensor | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        prefix_mask: Tensor | None = None,
        null_mask: Tensor | None = None,
    ) -> Tensor:
        """Samples codes ``(n, *shape)`` one after the other, with cached keys and values.

        Args:
            n: Number of grids.
            prefix: Embedded condition, ``(n, L, width)`` or ``(1, L, width)``, or None.
            null: The same for the missing condition; used only if guidance is not 1.
            sampling: How a code is drawn from its logits.
            prefix_mask: Which entries of the prefix are present, bool, ``(n, L)`` or ``(1, L)``; None for all.
            null_mask: The same for ``null``.

        Raises:
            UsageError: If guidance is used without both prefixes.
            ShapeError: If a prefix or its mask does not fit.
        """
        guided = sampling.guidance != 1
        if guided:
            prefix, prefix_mask = self._joined(n, prefix, null, prefix_mask, null_mask)
        codes = torch.empty(n, self.length, dtype=torch.int64, device=self.start.device)
        with evaluating(self), progress("drawing codes", self.length) as advance:
            cached = CachedTransformer(self, 2 * n if guided else n, prefix, prefix_mask)
            for i in range(self.length):
                before = codes[:, i - 1]
                logits = cached.step(before.repeat(2) if guided else before) if i else cached.first
                codes[:, i] = sampling.choose(logits[:n], logits[n:] if guided else None)
                advance()
        return self._on_grid(codes)

    def places(self) -> Tensor:
        """The learned position of every code of the grid, in order, ``(N, width)``."""
        return self._in_a_row(functools.reduce(operator.add, self.axes).unsqueeze(0))[0]

    def _in_a_row(self, grids: Tensor) -> Tensor:
        """Flattens grids ``(n, *shape, *rest)`` in the order of the codes, ``(n, N, *rest)``."""
        return (grids.movedim(1, 3) if len(self.shape) == 3 else grids).flatten(1, len(self.shape))

    def _on_grid(self, row: Tensor) -> Tensor:
        """The inverse of :meth:`_in_a_row`."""
        if len(self.shape) < 3:
            return row.unflatten(1, self.shape)
        return row.unflatten(1, (*self.shape[1:], self.shape[0])).movedim(3, 1)

    def _front(self, n: int, prefix: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The prefix and start token, ``(n, L + 1, width)``, and which of them are visible, ``(n, L + 1)``."""
        start = self.start.expand(n, 1, self.width)
        if prefix is None:
            return start, None
        self._check_prefix(n, prefix, mask)
        if mask is not None:
            mask = mask.bool()
            prefix = prefix.masked_fill(~mask.unsqueeze(-1), 0)
            mask = F.pad(mask.expand(n, -1), (0, 1), value=True)
        return torch.cat([prefix.expand(n, -1, -1), start], dim=1), mask

    def _joined(
        self, n: int, prefix: Tensor | None, null: Tensor | None, mask: Tensor | None, null_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """A prefix followed by that of the missing condition, as one batch of 2 n."""
        if prefix is None or null is None:
            raise UsageError(
                "Guidance needs the prefix of the condition and that of the missing condition.",
                got=f"prefix {'missing' if prefix is None else 'given'}, null {'missing' if null is None else 'given'}",
                remedy="Pass both, or leave the guidance at 1.",
            )
        self._check_prefix(n, prefix, mask)
        self._check_prefix(n, null, null_mask)
        if prefix.shape[1] != null.shape[1]:
            raise ShapeError("The two prefixes differ in length.", got=null.shape[1], expected=prefix.shape[1])
        both = torch.cat([part.expand(n, -1, -1) for part in (prefix, null)])
        if mask is None and null_mask is None:
            return both, None
        whole = torch.ones(1, both.shape[1], dtype=torch.bool, device=both.device)
        masks = [whole if given is None else given for given in (mask, null_mask)]
        return both, torch.cat([given.expand(n, -1) for given in masks])

    def _causal(self, length: int, prefix: int, seen: Tensor | None) -> Causal:
        mask = None if seen is None else _causal_mask(length, seen)
        rotary = self.rotary_prefix and prefix
        return Causal(mask, rotary_angles(prefix, self.width // self.heads, self.start) if rotary else None)

    def _check_prefix(self, n: int, prefix: Tensor, mask: Tensor | None) -> None:
        length = prefix.shape[1] if prefix.dim() == 3 else 1
        if self.rotary_prefix and length > self.rotary_prefix:
            limit = f"at most {self.rotary_prefix}"
            raise ShapeError("The prefix is longer than the rotary positions.", got=length, expected=limit)
        remedy = "Embed conditions with the transformer's width, one row for each example."
        _check("prefix", prefix, [(n, length, self.width), (1, length, self.width)], remedy)
        if mask is not None:
            _check("mask", mask, [(n, length), (1, length)], "Give one boolean for each entry of the prefix.")


class Block(nn.Module):
    """A pre-norm residual block: attention, then a network at each position.

    Args:
        width: Size of the vector at each position.
        heads: Attention heads.
        dropout: Dropout of the residual branches.

    Example:
        >>> block = Block(16, heads=2, dropout=0.0)
        >>> block(torch.zeros(3, 5, 16), lambda qkv: F.scaled_dot_product_attention(*qkv)).shape
        torch.Size([3, 5, 16])
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.split = Linear(width, 3 * width)
        self.join = Linear(width, width)
        self.up, self.down = Linear(width, 4 * width), Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """The block's output ``(n, T, width)``; ``attend`` maps queries, keys, values ``(3, n, h, T, d)`` to it."""
        qkv = self.split(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.dropout(self.join(attend(qkv).transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))

    def packed(self, rows: int) -> Block:
        """The same block with weights packed once for many products with that many rows."""
        twin = copy.copy(self)
        twin._modules = {name: packed(layer, rows) for name, layer in self.named_children()}
        return twin


@dataclass(frozen=True)
class Causal:
    """Causal attention.

    Args:
        mask: Visible keys of each query, bool, ``(n, 1, T, T)``; None for all before it.
        rotation: Cosines and sines for queries and keys of the first positions.
    """

    mask: Tensor | None
    rotation: tuple[Tensor, Tensor] | None

    def __call__(self, qkv: Tensor) -> Tensor:
        return self.attend(self.rotated(qkv))

    def rotated(self, qkv: Tensor) -> Tensor:
        """The same, with the prefix's queries and keys rotated."""
        if self.rotation is None:
            return qkv
        turned = len(self.rotation[0])
        qk = torch.cat([rotate(qkv[:2, ..., :turned, :], *self.rotation), qkv[:2, ..., turned:, :]], dim=-2)
        return torch.cat([qk, qkv[2:]])

    def attend(self, qkv: Tensor) -> Tensor:
        """Attended values, ``(n, h, T, d)``."""
        return F.scaled_dot_product_attention(*qkv, attn_mask=self.mask, is_causal=self.mask is None)


class Cache:
    """The keys and values of one block so far, in one preallocated tensor.

    Args:
        length: T, the final number of positions.
        seen: Which of them are visible, bool, ``(n, 1, 1, T)``; None for all.
    """

    def __init__(self, length: int, seen: Tensor | None) -> None:
        self.length, self.seen, self.filled = length, seen, 0

    def begin(self, qkv: Tensor, causal: Causal) -> Tensor:
        """Attention within the first positions, which are cached."""
        qkv = causal.rotated(qkv)
        _, n, heads, self.filled, size = qkv.shape
        self.kv = qkv.new_empty(2, n, heads, self.length, size)
        self.kv[:, :, :, : self.filled] = qkv[1:]
        return causal.attend(qkv)

    def step(self, qkv: Tensor) -> Tensor:
        """Attention of one more position to all cached ones and itself."""
        self.kv[:, :, :, self.filled] = qkv[1:, :, :, 0]
        self.filled += 1
        keys, values = self.kv[:, :, :, : self.filled]
        mask = None if self.seen is None else self.seen[..., : self.filled]
        return F.scaled_dot_product_attention(qkv[0], keys, values, attn_mask=mask)


class CachedTransformer:
    """A transformer that reads one code at a time, with cached keys and values, without gradients.

    Args:
        network: The transformer; call ``eval()`` first to disable dropout.
        n: Number of grids.
        prefix: Embedded condition, ``(n, L, width)``, or None.
        prefix_mask: Which of its entries are present, bool, ``(n, L)``; None for all.

    Raises:
        ShapeError: If the prefix or its mask does not fit.

    Example:
        >>> network = Transformer(levels=5, shape=(3, 4), width=16, layers=2, heads=2)
        >>> codes = torch.randint(5, (2, 3, 4))
        >>> cached = CachedTransformer(network, 2)
        >>> logits = [cached.first] + [cached.step(codes.flatten(1)[:, i]) for i in range(11)]
        >>> torch.allclose(torch.stack(logits, 1), network(codes).flatten(1, 2), atol=1e-5)
        True
    """

    @torch.no_grad()
    def __init__(
        self, network: Transformer, n: int, prefix: Tensor | None = None, prefix_mask: Tensor | None = None
    ) -> None:
        self.network, self.places, self.shown = network, network.places(), 0
        x, seen = network._front(n, prefix, prefix_mask)
        places = x.shape[1] + network.length - 1
        causal = network._causal(x.shape[1], x.shape[1] - 1, seen)
        later = None if seen is None else F.pad(seen, (0, network.length - 1), value=True)[:, None, None]
        self.caches = [Cache(places, later) for _ in network.blocks]
        self.blocks = [block.packed(n) for block in network.blocks]
        self.head = packed(network.head, n)
        x = network.dropout(x)
        for block, cache in zip(self.blocks, self.caches, strict=True):
            x = block(x, functools.partial(cache.begin, causal=causal))
        self.first = self.head(network.norm(x[:, -1]))
        """Logits of the first code, ``(n, levels)``."""

    @torch.no_grad()
    def step(self, codes: Tensor) -> Tensor:
        """Logits ``(n, levels)`` of the next code, given one more, ``(n,)``."""
        network = self.network
        x = network.dropout(network.codes(codes) + self.places[self.shown]).unsqueeze(1)
        self.shown += 1
        for block, cache in zip(self.blocks, self.caches, strict=True):
            x = block(x, cache.step)
        return self.head(network.norm(x[:, 0]))


def _causal_mask(length: int, seen: Tensor) -> Tensor:
    """The causal mask, ``(n, 1, T, T)``: all previous entries that are present, and always the entry itself, since a
    softmax over nothing is NaN; outputs of missing entries are never used.
    """
    places = torch.arange(length, device=seen.device)
    before, itself = places <= places[:, None], places == places[:, None]
    return (before & F.pad(seen, (0, length - seen.shape[1]), value=True)[:, None, None]) | itself


def _check(name: str, given: Tensor, shapes: Sequence[tuple[int, ...]], remedy: str) -> None:
    if tuple(given.shape) not in shapes:
        expected = " or ".join(dict.fromkeys(map(str, shapes)))
        message = f"The {name} does not fit the transformer."
        raise ShapeError(message, got=tuple(given.shape), expected=expected, remedy=remedy)


def initialise(module: nn.Module, depth: int) -> None:
    """Small normal weights; residual outputs are scaled down by depth.

    Args:
        module: With blocks of this module.
        depth: Number of blocks.
    """
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif "norm" not in name:
            added = name.endswith(("join.weight", "down.weight"))
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth) if added else 0.02)


def require_heads(width: int, heads: int, rotary_prefix: int = 0) -> None:
    """Refuses heads that do not fit the width.

    Raises:
        ShapeError: If they do not divide it, or rotary positions have an odd head size.

    Example:
        >>> require_heads(64, 4)
    """
    if width % heads:
        remedy = f"Try --width {heads * max(1, width // heads)}, or other --heads."
        got = f"--width {width} for --heads {heads}"
        raise ShapeError("The width must be a multiple of the heads.", got=got, expected="a multiple", remedy=remedy)
    if rotary_prefix and (width // heads) % 2:
        raise ShapeError("Rotary positions need an even head size.", got=f"heads of {width // heads}", expected="even")
