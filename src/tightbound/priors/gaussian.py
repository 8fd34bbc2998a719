r"""Learned Gaussian priors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from ..conditions import Given
from ..distributions import Conditional, MixtureOfGaussians, embedded, independent
from .base import Setting, named

__all__ = ["ConditionalNormal", "DiagonalNormal", "GaussianMixture"]


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

    def forward(self, c: Given | None = None) -> Distribution:
        batch = () if c is None else c.shape
        mean, std = self.mean.expand(*batch, -1), self.log_std.exp().expand(*batch, -1)
        return independent(Normal(mean, std, validate_args=False), 1)


class ConditionalNormal(Conditional):
    r"""A Gaussian given the condition, :math:`p(z \mid c) = \mathcal{N}(\mu(c), \operatorname{diag} \sigma^2(c))`.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Args:
        network: Maps features of the condition ``(n, dim)`` to ``(n, 2 * latent_dim)``: means, then log standard
            deviations.
        embedding: Maps conditions to these features, as in any :class:`~tightbound.distributions.Conditional`.
        dim: Size of the features.

    Example:
        >>> from tightbound.networks import MLP, ClassEmbedding
        >>> prior = ConditionalNormal(MLP(4, 2 * 3, ()), ClassEmbedding(10, 4), 4)
        >>> prior(Given({"class": torch.tensor([[7], [-1]])})).sample().shape
        torch.Size([2, 3])
    """

    def __init__(self, network: nn.Module, embedding: nn.Module, dim: int) -> None:
        super().__init__(network, (dim,))
        self.given = embedding

    def forward(self, c: Given | None = None) -> Distribution:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.distribution(self.features(embedded(self.given, c)))  # pyright: ignore[reportArgumentType]

    def distribution(self, features: Tensor) -> Distribution:
        mean, log_std = features.chunk(2, dim=-1)
        return independent(Normal(mean, log_std.exp(), validate_args=False), 1)


class GaussianMixture(nn.Module):
    r"""A learned mixture, :math:`p(z) = \sum_j \pi_j \mathcal{N}(\mu_j, \operatorname{diag} \sigma_j^2)`.

    Components start at draws from a standard normal with standard deviation 1, so the mixture is a little wider than
    the standard normal and all components differ.

    Args:
        latent_dim: Size of one latent vector.
        components: Number of components.

    Example:
        >>> GaussianMixture(3, 10)().log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(torch.randn(components, latent_dim))
        self.log_std = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self, c: Given | None = None) -> Distribution:
        return MixtureOfGaussians(self.logits, self.mean, self.log_std, () if c is None else c.shape)


@named("diagonal")
def _diagonal(o: Setting) -> DiagonalNormal:
    return DiagonalNormal(o.latent_dim)


@named("mixture")
def _mixture(o: Setting) -> GaussianMixture:
    return GaussianMixture(o.latent_dim, o.components)
