r"""The logistic distribution discretised into levels.

Convention: a value with :math:`L` levels is :math:`x = l / (L - 1) \in [0, 1]`; its bin extends half a step,
:math:`\delta / 2 = 1 / (2 (L - 1))`, to either side, and the outermost bins extend to infinity.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F
from torch.types import _size

from .contract import Value

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(Value):
    r"""Probability of a level under a logistic density, a mass that sums to one over the levels.

    .. math:: P(x) = \sigma(a) - \sigma(b), \qquad
        a = \frac{x + \delta/2 - \mu}{s}, \quad b = \frac{x - \delta/2 - \mu}{s}

    computed without cancellation as :math:`\log \sigma(a) + \log \sigma(-b) + \log(1 - e^{-\delta / s})`; the first
    level has no :math:`b`, the last no :math:`a`.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016).
        PixelCNN++ (Salimans et al., 2017).

    Args:
        mean: Location :math:`\mu` of the density, any shape.
        log_scale: :math:`\log s`, broadcast with ``mean``.
        levels: Number of levels, at least 2.

    Example:
        >>> p = DiscretizedLogistic(torch.tensor(0.3), torch.tensor(-1.0), levels=17)
        >>> p.log_prob(torch.arange(17) / 16).exp().sum().round(decimals=4)
        tensor(1.)
    """

    domain = constraints.unit_interval

    def __init__(self, mean: Tensor, log_scale: Tensor, levels: int) -> None:
        self.location, self.log_scale, self.levels = mean, log_scale, levels
        super().__init__(torch.broadcast_shapes(mean.shape, log_scale.shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        precision = torch.exp(-self.log_scale)
        half = 0.5 / (self.levels - 1)
        centred = (value - self.location) * precision
        below = F.softplus(-(centred + half * precision))  # -log P(X <= level)
        above = F.softplus(centred - half * precision)  # -log P(X >= level)
        width = torch.log(-torch.expm1(-2 * half * precision))
        first, last = value < half, value > 1 - half
        return torch.where(first, -below, torch.where(last, -above, width - below - above))

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            u = torch.rand(*sample_shape, *self.batch_shape, dtype=self.location.dtype, device=self.location.device)
            eps = torch.finfo(u.dtype).eps
            x = self.location + self.log_scale.exp() * torch.logit(u, eps=eps)
            return (x * (self.levels - 1)).round().clamp(0, self.levels - 1) / (self.levels - 1)

    @property
    def mean(self) -> Tensor:
        r""":math:`\mathbb{E}[x] = \sum_{l \ge 1} P(X \ge l) / (L - 1)`, exact."""
        return self._summed_tails(lambda level: 1.0) / (self.levels - 1)

    @property
    def variance(self) -> Tensor:
        r"""Exact, by :math:`\mathbb{E}[x^2] = \sum_{l \ge 1} (2 l - 1) P(X \ge l) / (L - 1)^2`."""
        second = self._summed_tails(lambda level: 2.0 * level - 1.0) / (self.levels - 1) ** 2
        return (second - self.mean.square()).clamp(min=0)

    def _summed_tails(self, weight: Callable[[int], float]) -> Tensor:
        """The weighted sum of P(X >= l) over the levels above the lowest."""
        precision = torch.exp(-self.log_scale)
        total = torch.zeros(self.batch_shape, dtype=self.location.dtype, device=self.location.device)
        for level in range(1, self.levels):
            tail = torch.sigmoid((self.location - (level - 0.5) / (self.levels - 1)) * precision)
            total = total + weight(level) * tail
        return total
