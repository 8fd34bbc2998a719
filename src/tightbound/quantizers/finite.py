r"""Finite scalar quantisation: a fixed grid instead of a codebook.

Convention: an encoder's output is ``(n, d, *grid)``, codes are int64 of shape ``(n, *grid)``; a point of the fixed grid
has one entry for each entry of ``levels``, from -1 to at most 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UsageError
from ..networks.linear import Linear
from .quantized import Quantized, Quantizer, grid_of, require_codes, require_finite, rows_of, straight_through

__all__ = ["FiniteScalarQuantizer"]

MARGIN, WIDEST = 1e-3, 0.25
"""Margin of the bound over the outermost levels (a fraction of their distance, and at most of a level), so that they
are reached before tanh saturates; half a level would add further levels."""
MOST = 1 << 24
"""Integers that float32 represents exactly."""


class FiniteScalarQuantizer(Quantizer):
    r"""A few bounded dimensions, each rounded to one of its levels; the code is their mixed-radix number.

    A dimension with :math:`L` levels, of half-width :math:`h`, slightly more than :math:`(L - 1) / 2`, and offset
    :math:`o`, which is 0 for odd and 1/2 for even :math:`L`, is

    .. math:: \hat z = \mathrm{round}\big(h \tanh(z + \operatorname{artanh}(o / h)) - o\big) / \lfloor L / 2 \rfloor,

    so that 0 lies on a level and all L are reached. Gradients go straight through the rounding. There is no codebook
    to learn or to collapse, so both losses are 0. Everything is float32, also under autocast: bfloat16 would merge
    neighbouring codes. A position with a NaN gets a NaN vector and the code of its other dimensions.

    References:
        Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2023).

    Args:
        levels: Number of levels of each dimension, at least 3; their product is the number of codes.
        dim: Width d of the vectors; learned projections map to ``len(levels)`` dimensions and back.

    Raises:
        UsageError: If there are no levels, one is below 3, there are too many codes, or ``dim`` is less than 1.

    Example:
        >>> quantizer = FiniteScalarQuantizer((8, 5, 5, 5), dim=16)
        >>> quantizer.codes
        1000
        >>> quantizer(torch.randn(2, 16, 7, 7)).vectors.shape
        torch.Size([2, 16, 7, 7])
    """

    widths: Tensor
    places: Tensor

    def __init__(self, levels: Sequence[int] = (8, 5, 5, 5), *, dim: int) -> None:
        super().__init__()
        self.levels, self.dim = tuple(levels), dim
        if not self.levels or min(self.levels) < 3:
            raise UsageError(
                "Each dimension needs 3 or more levels.", got=self.levels, remedy="Try --fsq-levels 8 5 5 5."
            )
        if math.prod(self.levels) > MOST:
            got, remedy = f"{self.levels}: {math.prod(self.levels)} codes", "Try --fsq-levels 8 5 5 5."
            raise UsageError("Too many codes for float32.", got=got, expected=f"at most {MOST}", remedy=remedy)
        if dim < 1:
            raise UsageError("Vectors must have at least one dimension.", got=f"dim = {dim}", expected="1 or more")
        self.codes = math.prod(self.levels)
        self.inward, self.outward = Linear(dim, len(self.levels)), Linear(len(self.levels), dim)
        places = [math.prod(self.levels[:i]) for i in range(len(self.levels))]
        self.register_buffer("widths", torch.tensor(self.levels), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        """The vectors ``(n, d, *grid)`` of an encoder's output of that shape."""
        with torch.autocast(z.device.type, enabled=False):
            points = self._points_near(z)
            shape, nothing = (z.shape[0], *z.shape[2:]), points.new_zeros(z.shape[0])
            vectors = grid_of(self.outward(points), shape)
            return Quantized(vectors, self._codes_at(points.detach()).view(shape), nothing, nothing.clone())

    def codes_of(self, z: Tensor) -> Tensor:
        """The codes ``(n, *grid)`` of an encoder's output ``(n, d, *grid)``.

        Raises:
            DataError: If there is a NaN or an infinite entry.
        """
        require_finite(z)
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            return self._codes_at(self._points_near(z)).view(z.shape[0], *z.shape[2:])

    def embed(self, codes: Tensor) -> Tensor:
        """The vectors ``(n, d, *grid)`` of codes ``(n, *grid)``.

        Raises:
            UsageError: If a code is out of range.
        """
        require_codes(codes, self.codes)
        with torch.autocast(codes.device.type, enabled=False):
            return grid_of(self.outward(self.points_of(codes.flatten())), codes.shape)

    def points_of(self, codes: Tensor) -> Tensor:
        """The points ``(*shape, len(levels))`` of the fixed grid of codes ``(*shape)``."""
        digits = codes.unsqueeze(-1).div(self.places, rounding_mode="floor") % self.widths
        half = self.widths // 2
        return (digits - half).to(self.outward.weight.dtype) / half

    def bounded(self, values: Tensor) -> Tensor:
        """Numbers ``(*shape, len(levels))`` bounded by the outermost levels, with levels 1 apart."""
        half = (self.widths - 1).to(values.dtype) / 2
        half = half + (MARGIN * half).clamp(max=WIDEST)
        offset = (1 - self.widths % 2).to(values.dtype) / 2
        return half * torch.tanh(values + torch.atanh(offset / half)) - offset

    def _points_near(self, z: Tensor) -> Tensor:
        bounded = self.bounded(self.inward(rows_of(z, self.dim).to(self.inward.weight.dtype)))
        return straight_through(bounded.round(), bounded) / (self.widths // 2)

    def _codes_at(self, points: Tensor) -> Tensor:
        half = self.widths // 2
        digits = (points.nan_to_num(0) * half).round().long() + half
        return (digits * self.places).sum(-1)
