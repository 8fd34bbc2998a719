r"""Mixtures of diagonal Gaussians, evaluated by matrix products."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.types import _size

from .contract import Value

__all__ = ["MixtureOfGaussians"]


class MixtureOfGaussians(Value):
    r"""A joint mixture over vectors, :math:`p(z) = \sum_j \pi_j \prod_i \mathcal{N}(z_i; \mu_{ji}, \sigma_{ji}^2)`.

    The exponents of all components are a quadratic form, so n points and K components need two products of ``(n, d)``
    by ``(d, K)`` matrices and no tensor of ``n K d`` entries; means are centred first.

    Args:
        logits: Unnormalised :math:`\log \pi_j`, ``(K,)``.
        mean: :math:`\mu`, ``(K, d)``.
        log_std: :math:`\log \sigma`, ``(K, d)``.
        batch_shape: Batch shape; all mixtures are the same.

    Example:
        >>> p = MixtureOfGaussians(torch.zeros(3), torch.zeros(3, 2), torch.zeros(3, 2))
        >>> p.log_prob(torch.zeros(5, 2)).exp()
        tensor([0.1592, 0.1592, 0.1592, 0.1592, 0.1592])
    """

    domain = constraints.real_vector

    def __init__(self, logits: Tensor, mean: Tensor, log_std: Tensor, batch_shape: _size = ()) -> None:
        self.log_weights, self.means, self.log_std = logits.log_softmax(-1), mean, log_std
        super().__init__(torch.Size(batch_shape), mean.shape[-1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        if torch.is_grad_enabled() or value.device.type == "mps":
            return self._log_prob(value, self.log_weights, self.means, self.log_std)
        # What is measured, not trained on, is exact for the narrowest of components too.
        parts = (value, self.log_weights, self.means, self.log_std)
        return self._log_prob(*(part.double() for part in parts)).to(value.dtype)

    def _log_prob(self, value: Tensor, log_weights: Tensor, means: Tensor, log_std: Tensor) -> Tensor:
        centre = means.mean(0)
        precision, mean = torch.exp(-2 * log_std), means - centre  # (K, d)
        z = (value - centre).reshape(-1, value.shape[-1])
        constant = log_weights - log_std.sum(-1) - 0.5 * (precision * mean.square()).sum(-1)
        constant = constant - 0.5 * math.log(2 * math.pi) * value.shape[-1]
        with torch.autocast(z.device.type, enabled=False):  # large terms that cancel
            exponents = torch.addmm(constant, z, (precision * mean).T)
            exponents = torch.addmm(exponents, z.square(), precision.T, alpha=-0.5)
        return exponents.logsumexp(-1).reshape(value.shape[:-1])

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        raise NotImplementedError("The choice of a component cannot be reparameterised.")

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            chosen = torch.multinomial(self.log_weights.exp(), shape[:-1].numel(), replacement=True)
            noise = torch.randn(len(chosen), shape[-1], dtype=self.means.dtype, device=self.means.device)
            return (self.means[chosen] + self.log_std[chosen].exp() * noise).reshape(shape)

    @property
    def mean(self) -> Tensor:
        return (self.log_weights.exp() @ self.means).expand(*self.batch_shape, -1)

    @property
    def variance(self) -> Tensor:
        second = self.log_weights.exp() @ (self.means.square() + torch.exp(2 * self.log_std))
        return second.expand(*self.batch_shape, -1) - self.mean.square()
