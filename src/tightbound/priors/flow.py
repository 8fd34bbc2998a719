r"""Priors that are flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..conditions import Given
from ..distributions import FlowLayers, Pushed
from .base import Setting, named

__all__ = ["FlowPrior"]


class FlowPrior(nn.Module):
    r"""A learned flow from standard normal noise, :math:`z = f(\epsilon)`, initialised near the identity.

    References:
        Density Estimation using Real NVP (Dinh, Sohl-Dickstein and Bengio, 2017).
        Neural Spline Flows (Durkan, Bekasov, Murray and Papamakarios, 2019).

    Args:
        latent_dim: Size of one latent vector.
        kind: ``"coupling"``, affine; or ``"spline"``, by monotonic splines.
        transforms: Number of layers.
        hidden: Hidden sizes of each layer's network.

    Example:
        >>> FlowPrior(3)().log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    zero: Tensor

    def __init__(
        self,
        latent_dim: int,
        kind: Literal["coupling", "spline"] = "coupling",
        transforms: int = 4,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self.flow = FlowLayers(latent_dim, kind, transforms, hidden)
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)

    def forward(self, c: Given | None = None) -> Distribution:
        zero = self.zero.expand(*(() if c is None else c.shape), -1)
        return Pushed(self.flow(None), zero, zero)


@named("coupling")
def _coupling(o: Setting) -> FlowPrior:
    return FlowPrior(o.latent_dim, "coupling", o.transforms)


@named("spline")
def _spline(o: Setting) -> FlowPrior:
    return FlowPrior(o.latent_dim, "spline", o.transforms)
