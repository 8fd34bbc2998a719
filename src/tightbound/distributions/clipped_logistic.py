r"""Moments of a logistic variable clipped to the unit interval, in closed form.

Convention: :math:`X` has location :math:`\mu` and scale :math:`s`; :math:`\zeta(a) = \log(1 + e^a)` is the softplus,
and :math:`\zeta_2(a) = \int_{-\infty}^a \zeta = -\operatorname{Li}_2(-e^a)` its integral.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ClippedLogistic"]


@dataclass(frozen=True)
class ClippedLogistic:
    r"""The moments of :math:`\min(\max(X, 0), 1)`, by :math:`\mathbb{E} x^n = \int_0^1 n t^{n-1} P(X > t) \, dt`.

    .. math:: \mathbb{E} x = s \, (\zeta(a) - \zeta(b)), \quad
        \mathbb{E} x^2 = 2 s^2 (\zeta_2(a) - \zeta_2(b)) - 2 s \, \zeta(b), \qquad
        a = \frac{\mu}{s}, \quad b = \frac{\mu - 1}{s}

    Rounding x to L levels moves its mean by at most half a step, :math:`1 / (2 (L - 1))`, and by much less where s is
    not smaller than a step. Computed in float64 where the device has it, as the terms cancel at large scales.

    Args:
        location: :math:`\mu`, any shape.
        log_scale: :math:`\log s`, broadcast with it.

    Example:
        >>> ClippedLogistic(torch.tensor(0.5), torch.tensor(-3.0)).mean
        tensor(0.5000)
    """

    location: Tensor
    log_scale: Tensor

    @property
    def mean(self) -> Tensor:
        scale, a, b = self._standardised()
        return (scale * (F.softplus(a) - F.softplus(b))).clamp(0, 1).to(self.location.dtype)

    @property
    def variance(self) -> Tensor:
        scale, a, b = self._standardised()
        mean = scale * (F.softplus(a) - F.softplus(b))
        second = 2 * scale.square() * (_integrated_softplus(a) - _integrated_softplus(b)) - 2 * scale * F.softplus(b)
        return (second - mean.square()).clamp(0, 0.25).to(self.location.dtype)

    def _standardised(self) -> tuple[Tensor, Tensor, Tensor]:
        exact = torch.float32 if self.location.device.type == "mps" else torch.float64
        scale, location = self.log_scale.to(exact).exp(), self.location.to(exact)
        return scale, location / scale, (location - 1) / scale


def _integrated_softplus(a: Tensor) -> Tensor:
    r""":math:`\zeta_2(a)`, by the series of the dilogarithm in :math:`\zeta(-|a|) \le \log 2`.

    For positive a by :math:`\zeta_2(a) = \tfrac{a^2}{2} + \tfrac{\pi^2}{6} - \zeta_2(-a)`.
    """
    u = F.softplus(-a.abs())
    square = u.square()
    rest = torch.zeros_like(u)
    for denominator in (526_901_760, -10_886_400, 211_680, -3600, 36):
        rest = square * (1 / denominator + rest)
    below = u * (1 + u / 4 + rest)
    return torch.where(a > 0, a.square() / 2 + math.pi**2 / 6 - below, below)
