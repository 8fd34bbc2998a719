r"""The deterministic encoder as a posterior."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributions import Distribution

from ..distributions import Conditional, Dirac
from .base import Posterior

__all__ = ["DiracPosterior"]


class DiracPosterior(Conditional, Posterior):
    r"""A point mass at the code, :math:`q(z \mid x) = \delta(z - f(x))`: the autoencoder's encoder.

    Args:
        network: Encoder, maps ``(n, *shape)`` to ``(n, latent_dim)``.
        shape: Shape of one example.

    Example:
        >>> import torch
        >>> DiracPosterior(nn.Flatten(), (1, 8, 8))(torch.zeros(5, 1, 8, 8)).mean.shape
        torch.Size([5, 64])
    """

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        super().__init__(network, shape)

    def distribution(self, features: Tensor) -> Distribution:
        return Dirac(features, event_dims=1)
