r"""The tail shape of importance weights: that of a generalised Pareto distribution fitted to the largest.

Convention: excesses over a threshold have density :math:`\frac{1}{\sigma} (1 + k x / \sigma)^{-1/k - 1}`; weights
with tail shape k have finite moments only up to 1/k. Above 0.7 no practical number of samples makes their mean
reliable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["UNRELIABLE", "pareto_k", "pareto_shape", "tail_length"]

UNRELIABLE = 0.7
"""Maximum shape for an estimate to be trusted."""
SHORTEST = 5
"""Minimum number of weights in a tail to be fitted."""
FLAT = 1e-2
"""A tail that spans fewer nats is treated as equal weights with rounding errors."""
LEAST = 1e-30
"""Smallest excess, relative to the largest."""


def tail_length(k: int) -> int:
    r"""Number of the k weights in the tail, :math:`\min(k / 5, 3 \sqrt{k})`; 0 if too few to fit.

    References:
        Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao and Gabry, 2024).

    Args:
        k: Number of weights.

    Example:
        >>> tail_length(5000), tail_length(100), tail_length(10)
        (213, 20, 0)
    """
    length = min(k // 5, math.ceil(3 * math.sqrt(k)))
    return length if length >= SHORTEST else 0


def pareto_k(log_tail: Tensor) -> Tensor:
    r"""The shape :math:`\hat k` of the tail of importance weights.

    The fit is regularised towards 0.5 with the weight of ten observations, as published. Equal weights count as
    bounded, with shape -1 before regularisation.

    References:
        Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao and Gabry, 2024).

    Args:
        log_tail: Logarithms of the M + 1 largest weights, descending, ``(M + 1, *batch)``; the last is the threshold.

    Returns:
        ``(*batch)``, float64.

    Example:
        >>> log_weights = torch.linspace(0, -3, 21).unsqueeze(1)
        >>> bool(pareto_k(log_weights) < 0.7)
        True
    """
    log_tail = log_tail.double()
    largest, threshold, length = log_tail[0], log_tail[-1], len(log_tail) - 1
    excess = (log_tail[:-1] - largest).exp() - (threshold - largest).exp()
    flat = largest - threshold < FLAT
    shape = torch.where(flat, -1.0, pareto_shape(torch.where(flat, 1.0, excess)))
    return (length * shape + 10 * 0.5) / (length + 10)


def pareto_shape(excess: Tensor) -> Tensor:
    r"""Shape of the generalised Pareto distribution of excesses: a quasi-Bayesian mean over the profile likelihood.

    .. math:: \hat k = \frac{1}{M} \sum_i \log(1 - \hat\theta x_i), \qquad
              \hat\theta = \frac{\sum_j \theta_j L(\theta_j)}{\sum_j L(\theta_j)}

    References:
        A New and Efficient Estimation Method for the Generalized Pareto Distribution (Zhang and Stephens, 2009).

    Args:
        excess: Positive numbers in any unit, ``(M, *batch)``.

    Returns:
        ``(*batch)``, float64, without regularisation.

    Example:
        >>> u = (torch.arange(1000) + 0.5) / 1000
        >>> pareto_shape((u ** -0.5 - 1) / 0.5).round(decimals=1)
        tensor(0.5000, dtype=torch.float64)
    """
    x = excess.double().sort(0).values
    x = (x / x[-1]).clamp(min=LEAST)
    n, points = len(x), 30 + math.isqrt(len(x))
    quartile = x[math.floor(n / 4 + 0.5) - 1]
    j = torch.arange(1, points + 1, dtype=x.dtype, device=x.device).view(-1, *[1] * quartile.dim())
    theta = 1 / x[-1] + (1 - (points / (j - 0.5)).sqrt()) / (3 * quartile)
    shapes = _shape(theta, x)
    log_likelihood = n * ((-theta / shapes).log() - shapes - 1)
    return _shape((theta * log_likelihood.softmax(0)).sum(0, keepdim=True), x).squeeze(0)


def _shape(theta: Tensor, x: Tensor) -> Tensor:
    """The best shape at each theta, ``(points, *batch)``."""
    return torch.log1p(-theta.unsqueeze(1) * x).mean(1)
