r"""The standard normal prior."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from ..conditions import Given
from ..distributions import independent
from .base import Setting, named

__all__ = ["StandardNormal"]


class StandardNormal(nn.Module):
    r"""The standard normal prior, :math:`p(z) = \mathcal{N}(0, I)`, independent of the condition.

    Args:
        latent_dim: Size of one latent vector.

    Example:
        >>> StandardNormal(3)().sample((5,)).shape
        torch.Size([5, 3])
    """

    zero: Tensor
    one: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("one", torch.ones(latent_dim), persistent=False)

    def forward(self, c: Given | None = None) -> Distribution:
        batch = () if c is None else c.shape
        return independent(Normal(self.zero.expand(*batch, -1), self.one.expand(*batch, -1), validate_args=False), 1)


@named("normal")
def _normal(o: Setting) -> StandardNormal:
    return StandardNormal(o.latent_dim)
