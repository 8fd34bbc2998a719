r"""The posterior of a model without a latent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from ..distributions import independent, leading_shape

__all__ = ["EmptyPosterior"]


class EmptyPosterior(nn.Module):
    r"""A latent of no dimensions: with it, a prior of as many and a likelihood, a model without a latent is one too.

    Its ELBO is :math:`\log p(x \mid c)` itself.

    Args:
        shape: Shape of one example.

    Example:
        >>> EmptyPosterior((1, 8, 8))(torch.zeros(5, 1, 8, 8)).sample().shape
        torch.Size([5, 0])
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        nothing = torch.zeros(*leading_shape(x, self.shape), 0, dtype=x.dtype, device=x.device)
        return independent(Normal(nothing, torch.ones_like(nothing), validate_args=False), 1)
