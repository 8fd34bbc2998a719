r"""The standard normal prior."""

from __future__ import annotations

from collections.abc import Sequence

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
        latent: Size of one latent vector, or shape of one latent.

    Example:
        >>> StandardNormal(3)().sample((5,)).shape, StandardNormal((4, 8, 8))().event_shape
        (torch.Size([5, 3]), torch.Size([4, 8, 8]))
    """

    zero: Tensor
    one: Tensor

    def __init__(self, latent: int | Sequence[int]) -> None:
        super().__init__()
        shape = (latent,) if isinstance(latent, int) else tuple(latent)
        self.register_buffer("zero", torch.zeros(shape), persistent=False)
        self.register_buffer("one", torch.ones(shape), persistent=False)

    def forward(self, c: Given | None = None) -> Distribution:
        shape = (*(() if c is None else c.shape), *self.zero.shape)
        base = Normal(self.zero.expand(shape), self.one.expand(shape), validate_args=False)
        return independent(base, self.zero.dim())


@named("normal")
def _normal(o: Setting) -> StandardNormal:
    return StandardNormal(o.latent_dim)
