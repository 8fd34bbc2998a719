r"""Gaussian priors that are learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from ..distributions import MixtureOfGaussians, independent

__all__ = ["DiagonalNormal", "GaussianMixture"]


class DiagonalNormal(nn.Module):
    r"""A learned Gaussian with independent dimensions, :math:`p(z) = \mathcal{N}(\mu, \operatorname{diag} \sigma^2)`.

    Args:
        latent_dim: Size of one latent vector.

    Example:
        >>> DiagonalNormal(3)().sample((5,)).shape
        torch.Size([5, 3])
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(latent_dim))
        self.log_std = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, c: Tensor | None = None) -> Distribution:
        batch = () if c is None else c.shape[:-1]
        mean, std = self.mean.expand(*batch, -1), self.log_std.exp().expand(*batch, -1)
        return independent(Normal(mean, std, validate_args=False), 1)


class GaussianMixture(nn.Module):
    r"""A learned mixture, :math:`p(z) = \sum_j \pi_j \mathcal{N}(\mu_j, \operatorname{diag} \sigma_j^2)`.

    Components start at draws from a standard normal with their standard deviations at 1, so that the mixture is a
    little wider than the standard normal and no two components are alike.

    Args:
        latent_dim: Size of one latent vector.
        components: How many components.

    Example:
        >>> GaussianMixture(3, 10)().log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(torch.randn(components, latent_dim))
        self.log_std = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self, c: Tensor | None = None) -> Distribution:
        return MixtureOfGaussians(self.logits, self.mean, self.log_std, () if c is None else c.shape[:-1])
