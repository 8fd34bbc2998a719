r"""Distributions whose denoiser is known: for tests, documentation and examples.

Convention: all have the interface of a network, :math:`D(x, \sigma)`, and the log-density of :math:`x_0 + \sigma
\epsilon` at every :math:`\sigma`, in nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Categorical

from ..conditions import Given
from ..errors import ShapeError
from .denoiser import Denoiser
from .paths import expanded

__all__ = ["GaussianOracle", "MixtureOracle"]


class GaussianOracle(Denoiser):
    r"""A Gaussian with any covariance, :math:`D(x, \sigma) = m + C (C + \sigma^2 I)^{-1} (x - m)`.

    Args:
        mean: Mean, of the shape of an event.
        covariance: ``(d, d)`` for d entries of the event, or the variances in the shape of an event.

    Raises:
        ShapeError: If the covariance has another shape.

    Example:
        >>> oracle = GaussianOracle(torch.zeros(2), torch.tensor([1.0, 3.0]))
        >>> oracle(torch.tensor([2.0, 2.0]), torch.tensor(1.0))
        tensor([1.0000, 1.5000])
    """

    mean: Tensor
    values: Tensor
    basis: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        d = mean.numel()
        if covariance.shape == mean.shape:
            values, basis = covariance.flatten(), torch.eye(d, dtype=mean.dtype)
        elif covariance.shape == (d, d):
            values, basis = torch.linalg.eigh(covariance)
        else:
            raise ShapeError(
                "The covariance does not fit the mean.",
                got=tuple(covariance.shape),
                expected=f"{tuple(mean.shape)} or {(d, d)}",
            )
        for name, value in (("mean", mean), ("values", values), ("basis", basis)):
            self.register_buffer(name, value)

    def forward(self, x: Tensor, sigma: Tensor, c: Given | None = None) -> Tensor:
        pulled, kept = self._turned(x, sigma), 1 / (1 + expanded(sigma, self._turned(x, sigma)).square() / self.values)
        if sigma.isinf().any():
            pulled = torch.where(expanded(sigma, pulled).isinf(), 0, pulled)
        return self.mean + (kept * pulled @ self.basis.mT).reshape(x.shape)

    def _turned(self, x: Tensor, sigma: Tensor) -> Tensor:
        return (x - self.mean).flatten(x.dim() - self.mean.dim()) @ self.basis

    def log_prob(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The log-density of noised data, ``(*batch)`` nats."""
        turned = self._turned(x, sigma)
        variance = self.values + expanded(sigma, turned).square()
        return -0.5 * (turned.square() / variance + (2 * math.pi * variance).log()).sum(-1)

    def sample(self, n: int) -> Tensor:
        """Data, ``(n, *event)``."""
        noise = torch.randn(n, len(self.values), dtype=self.mean.dtype) * self.values.clamp(min=0).sqrt()
        return self.mean + (noise @ self.basis.mT).reshape(n, *self.mean.shape)


class MixtureOracle(Denoiser):
    r"""A mixture of isotropic Gaussians, or of points: the expectation under the posterior of the components.

    .. math:: D(x, \sigma) = \sum_i r_i \left( \mu_i + \frac{s^2}{s^2 + \sigma^2} (x - \mu_i) \right), \qquad
        r_i \propto w_i \mathcal{N}(x; \mu_i, (s^2 + \sigma^2) I)

    Args:
        means: Of the components, ``(m, *event)``.
        std: Standard deviation s of all; 0 for points.
        weights: Probabilities of the components; even if left out.

    Example:
        >>> MixtureOracle(torch.tensor([[-1.0], [1.0]]))(torch.tensor([[0.5]]), torch.tensor(1.0))  # tanh 0.5
        tensor([[0.4621]])
    """

    means: Tensor
    log_weights: Tensor

    def __init__(self, means: Tensor, std: float = 0.0, weights: Tensor | None = None) -> None:
        super().__init__()
        self.std = std
        weights = torch.ones(len(means), dtype=means.dtype) if weights is None else weights
        self.register_buffer("means", means)
        self.register_buffer("log_weights", (weights / weights.sum()).log())

    def log_joint(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Log-probabilities of noised data and each component, ``(*batch, m)`` nats."""
        flat, means = x.flatten(x.dim() - self.means.dim() + 1), self.means.flatten(1)
        variance = self.std**2 + sigma.square()
        squares = (flat.unsqueeze(-2) - means).square().sum(-1)
        squares = squares / expanded(variance, squares)
        return self.log_weights - 0.5 * (squares + means.shape[1] * expanded((2 * math.pi * variance).log(), squares))

    def log_prob(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The log-density of noised data, ``(*batch)`` nats."""
        return self.log_joint(x, sigma).logsumexp(-1)

    def responsibilities(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Probabilities of the components given noised data, ``(*batch, m)``."""
        pure = sigma.isinf()
        found = self.log_joint(x, torch.where(pure, torch.ones_like(sigma), sigma)).softmax(-1)
        return torch.where(expanded(pure, found), self.log_weights.exp(), found)

    def forward(self, x: Tensor, sigma: Tensor, c: Given | None = None) -> Tensor:
        mean = (self.responsibilities(x, sigma) @ self.means.flatten(1)).reshape(x.shape)
        kept = expanded(self.std**2 / (self.std**2 + sigma.square()), x)
        return mean + kept * torch.where(expanded(sigma, x).isinf(), 0, x - mean)

    def sample(self, n: int) -> Tensor:
        """Data, ``(n, *event)``."""
        means = self.means[Categorical(logits=self.log_weights).sample((n,))]
        return means + self.std * torch.randn_like(means)
