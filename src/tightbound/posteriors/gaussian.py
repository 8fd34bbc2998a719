r"""Gaussian posteriors :math:`q(z \mid x, c)`.

Convention: a network turns ``x`` (and ``c``) into features; the posterior has ``event_shape == (latent_dim,)`` and is
sampled by :math:`z = \mu + \sigma \epsilon, \epsilon \sim \mathcal{N}(0, I)`. Log-densities are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from ..conditions import Given
from ..distributions import Conditional, FullGaussian, independent, leading_shape
from ..errors import ShapeError, UsageError
from ..likelihoods import Gaussian
from ..runtime.parts import MeasuresLatents
from .base import Posterior
from .statistics import LatentStatistics

__all__ = ["DiagonalGaussian", "ExactLinearGaussian", "GridGaussian"]


class DiagonalGaussian(Conditional, Posterior):
    r"""Gaussian with independent dimensions, :math:`q(z \mid x) = \prod_i \mathcal{N}(z_i; \mu_i(x), \sigma_i^2(x))`.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).

    Args:
        network: Encoder, maps ``(n, *shape)`` to ``(n, 2 * latent_dim)``: means, then log standard deviations.
        shape: Shape of one example.

    Raises:
        ShapeError: If the encoder's output cannot be halved.

    Example:
        >>> from tightbound.networks import MLP
        >>> posterior = DiagonalGaussian(MLP((1, 8, 8), 2 * 3), (1, 8, 8))
        >>> posterior(torch.zeros(5, 1, 8, 8)).rsample().shape
        torch.Size([5, 3])
    """

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        super().__init__(network, shape)

    def distribution(self, features: Tensor) -> Distribution:
        if features.shape[-1] % 2:
            raise ShapeError(
                "A diagonal Gaussian needs a mean and a log standard deviation for each latent dimension.",
                got=f"{features.shape[-1]} features",
                expected="an even number, 2 * latent_dim",
                remedy="Give the encoder 2 * latent_dim outputs.",
            )
        mean, log_std = features.chunk(2, dim=-1)
        return independent(Normal(mean, log_std.exp(), validate_args=False), 1)


class GridGaussian(Conditional, Posterior, MeasuresLatents):
    r"""Gaussian over a grid of latents, independent entries, with the mean and the log variance of each from a network.

    .. math:: q(z \mid x) = \prod_i \mathcal{N}(z_i; \mu_i(x), e^{\ell_i(x)} + \tau^2)

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022).

    Args:
        network: Encoder, maps ``(n, *shape)`` to ``(n, 2 * channels, h, w)``: means, then log variances, which are
            clamped to [-30, 20].
        shape: Shape of one example.
        channels: Channels of a latent.
        noise: :math:`\tau`, the least standard deviation of a latent.

    Raises:
        ShapeError: If the encoder's output is not such a grid.

    Example:
        >>> posterior = GridGaussian(nn.Conv2d(3, 2 * 4, 8, stride=8), (3, 32, 24), channels=4)
        >>> posterior(torch.zeros(5, 3, 32, 24)).rsample().shape
        torch.Size([5, 4, 4, 3])
    """

    def __init__(self, network: nn.Module, shape: Sequence[int], channels: int, noise: float = 0.0) -> None:
        super().__init__(network, shape)
        self.noise, self.statistics = noise, LatentStatistics(channels)

    @property
    def measured(self) -> bool:
        return self.statistics.known

    def measure_latents(self, batches: Iterable[Tensor]) -> None:
        self.statistics.reset()
        for x in batches:
            q = self(x)
            self.statistics.update(q.mean, q.variance)

    def distribution(self, features: Tensor) -> Distribution:
        if features.dim() < 3 or features.shape[-3] % 2:
            raise ShapeError(
                "A Gaussian over a grid needs a mean and a log variance for each channel.",
                got=f"features of shape {tuple(features.shape)}",
                expected="(*leading, 2 * channels, h, w)",
            )
        mean, log_variance = features.chunk(2, dim=-3)
        std = (log_variance.clamp(-30.0, 20.0) / 2).exp()
        std = (std.square() + self.noise**2).sqrt() if self.noise else std
        return independent(Normal(mean, std, validate_args=False), 3)


class ExactLinearGaussian(Posterior):
    r"""The exact posterior of a linear Gaussian likelihood under a standard normal prior.

    .. math:: p(z \mid x) = \mathcal{N}(M^{-1} W^\top \Psi^{-1} (x - b), M^{-1}), \qquad M = I + W^\top \Psi^{-1} W

    for :math:`p(x \mid z) = \mathcal{N}(W z + b, \Psi)` with diagonal :math:`\Psi`. It has no parameters of its own; it
    is computed from the likelihood, so the ELBO is :math:`\log p(x)` itself.

    References:
        Probabilistic Principal Component Analysis (Tipping and Bishop, 1999).

    Args:
        likelihood: A :class:`~tightbound.likelihoods.Gaussian` whose network is one linear layer.

    Raises:
        UsageError: If the likelihood is not linear Gaussian.

    Example:
        >>> from tightbound.networks import MLP
        >>> likelihood = Gaussian(MLP(2, 64, hidden=()), (2,), (1, 8, 8), scale="shared")
        >>> ExactLinearGaussian(likelihood)(torch.zeros(5, 1, 8, 8)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(self, likelihood: Gaussian) -> None:
        super().__init__()
        layers = [m for m in likelihood.network.modules() if not list(m.children())]
        linear = [m for m in layers if isinstance(m, nn.Linear) and m.bias is not None]
        fits = len(layers) == len(linear) == 1 and linear[0].in_features == math.prod(likelihood.input_shape)
        if likelihood.scale == "network" or not fits:
            raise UsageError(
                "Only a linear Gaussian likelihood has an exact Gaussian posterior.",
                got=f"layers {', '.join(map(str, layers))}; scale {likelihood.scale!r}",
                expected="one linear layer of z with a bias, and a scale that does not depend on z",
                remedy="Use recipe 'linear-vae', or another posterior.",
            )
        # In tuples, so that the likelihood's parameters are followed, but not registered and saved twice.
        self._source = (likelihood, linear[0])

    def forward(self, x: Tensor, c: Given | None = None) -> Distribution:
        with torch.autocast(x.device.type, enabled=False):
            return self._exact(x)

    def _exact(self, x: Tensor) -> Distribution:
        likelihood, linear = self._source
        leading_shape(x, likelihood.shape)
        precision = torch.exp(-2 * likelihood.log_scale).expand(likelihood.shape).flatten()
        scaled = linear.weight * precision.unsqueeze(-1)  # Psi^-1 W
        m = torch.eye(linear.in_features, dtype=scaled.dtype, device=scaled.device) + linear.weight.T @ scaled
        projected = (x.flatten(-len(likelihood.shape)) - linear.bias) @ scaled
        mean = torch.linalg.solve(m, projected.reshape(-1, len(m)), left=False).reshape(projected.shape)
        return FullGaussian(mean, precision_matrix=m, validate_args=False)
