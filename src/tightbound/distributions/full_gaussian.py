"""A Gaussian with full covariance whose matrix products ignore autocast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.types import _size

__all__ = ["FullGaussian"]


class FullGaussian(MultivariateNormal):
    """torch's multivariate normal, in full precision under autocast too.

    Example:
        >>> FullGaussian(torch.zeros(2), scale_tril=torch.eye(2)).log_prob(torch.zeros(2)).exp()
        tensor(0.1592)
    """

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        with torch.autocast(self.loc.device.type, enabled=False):
            return super().rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        with torch.autocast(self.loc.device.type, enabled=False):
            return super().log_prob(value)
