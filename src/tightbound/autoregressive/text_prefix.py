r"""Text prefixes: tokens to the vectors at the start of a transformer's input.

Convention: tokens are int64 ``(n, length)``, numbered from 0, with -1 where the text has ended.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ShapeError, UsageError

__all__ = ["TokenPrefix", "rotary_angles", "rotate"]


class TokenPrefix(nn.Module):
    """Embedded text, with a learned padding vector for each empty position.

    So no mask is needed, and an empty row is the missing condition that guidance needs.

    References:
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021), section 2.2.
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022).

    Args:
        vocabulary: Number of tokens.
        length: The longest text.
        width: Size of the vector at each position.
        positions: ``"learned"`` adds a vector for each position; ``"rotary"`` leaves positions to the transformer,
            which must be built with this prefix's ``rotary_prefix``.

    Raises:
        UsageError: If the kind of positions is unknown.

    Example:
        >>> text = TokenPrefix(vocabulary=10, length=4, width=16)
        >>> text(torch.tensor([[3, 1, -1, -1]])).shape
        torch.Size([1, 4, 16])
    """

    def __init__(
        self, vocabulary: int, length: int, width: int, positions: Literal["learned", "rotary"] = "learned"
    ) -> None:
        super().__init__()
        if positions not in ("learned", "rotary"):
            raise UsageError("Unknown kind of positions.", got=positions, expected="'learned' or 'rotary'")
        self.vocabulary, self.length = vocabulary, length
        self.rotary_prefix = length if positions == "rotary" else 0
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.empty(length, width)) if positions == "learned" else None
        self.empty = nn.Parameter(torch.empty(length, width))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """The prefix ``(n, length, width)``.

        Args:
            tokens: int64, ``(n, length)``; -1 where the text has ended.

        Raises:
            ShapeError: If the rows are not of that length.
        """
        if tokens.dim() != 2 or tokens.shape[1] != self.length:
            raise ShapeError(
                "The texts do not fit the prefix.",
                got=tuple(tokens.shape),
                expected=f"(n, {self.length})",
                remedy="Pad each row with -1 after the text, or shorten the text.",
            )
        x = self.tokens(tokens.clamp(min=0))
        if self.places is not None:
            x = x + self.places
        return torch.where(tokens.unsqueeze(-1) < 0, self.empty.to(x.dtype), x)

    def missing(self, n: int) -> Tensor:
        """The tokens of n missing texts, ``(n, length)``."""
        return torch.full((n, self.length), -1, device=self.empty.device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    r"""Rotates each pair of numbers by its angle, so that inner products depend on relative positions.

    .. math:: (R_m q)^\top (R_n k) = q^\top R_{n - m} k

    References:
        RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021).

    Args:
        x: Queries or keys, ``(..., L, d)``; entry i of the first half pairs with entry i of the second.
        cos: Cosines of the angles, ``(L, d / 2)``.
        sin: Their sines.

    Example:
        >>> rotate(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 1), torch.ones(1, 1))
        tensor([[0., 1.]])
    """
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


def rotary_angles(length: int, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    r"""Cosines and sines of the angles :math:`m \cdot 10000^{-2 i / d}` of the positions m and pairs i, ``(L, d / 2)``.

    References:
        RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021).

    Args:
        length: L, number of positions.
        size: d, the size of a head, even.
        like: A tensor with the desired device and precision; at least float32.

    Example:
        >>> cos, sin = rotary_angles(3, 8, torch.zeros(()))
        >>> cos.shape, sin[0]
        (torch.Size([3, 4]), tensor([0., 0., 0., 0.]))
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    m, i = (torch.arange(count, dtype=dtype, device=like.device) for count in (length, size // 2))
    angles = torch.outer(m, 10000 ** (-2 * i / size))
    return angles.cos(), angles.sin()
