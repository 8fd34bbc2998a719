r"""Distances between two sets of features.

Convention: features are ``(n, d)``, one row per example; everything is float64. A Fréchet distance has the square of
their unit, is never negative, and shrinks as n grows, so that only distances of the same n can be compared; a kernel
distance is unbiased, so that it is zero on average for two sets of one distribution, and may be negative.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import ShapeError, UsageError
from ...runtime.randomness import fixed_noise
from ..estimate import Estimate

__all__ = ["KERNEL_FACTOR", "Support", "frechet_distance", "kernel_distance", "support"]

RESAMPLES = 20
"""Bootstrap samples behind a standard error."""
KERNEL_FACTOR = 1000
"""Kernel distances are printed times this, as is common."""
PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
"""Neighbours within the ball of an example, as published for precision and recall, and for density and coverage."""
AT_ONCE = 2**24
"""Pairs of rows that are worked on at once."""


def frechet_distance(a: Tensor, b: Tensor, *, seed: int = 0) -> Estimate:
    r"""Squared Fréchet distance of the Gaussians with the moments of two sets of features.

    .. math:: \lVert \mu_a - \mu_b \rVert^2 + \operatorname{tr}\bigl(\Sigma_a + \Sigma_b
        - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}\bigr)

    The last trace is the sum of the singular values of :math:`A B^\top / \sqrt{(n - 1)(m - 1)}`, with A and B the
    centred features: no covariance is inverted or needs full rank. The error is that of bootstrap samples of both sets.

    References:
        The Fréchet Distance between Multivariate Normal Distributions (Dowson and Landau, 1982).
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017).

    Args:
        a: Features ``(n, d)``.
        b: Features ``(m, d)``.
        seed: Of the bootstrap.

    Raises:
        ShapeError: If they are not such, or there are not two of each.
        UsageError: If a feature is not finite.

    Example:
        >>> x = torch.randn(1000, 3)
        >>> round(frechet_distance(x, x + torch.tensor([3.0, 4.0, 0.0])).value, 4)
        25.0
    """
    a, b = _sets(a, b)
    with fixed_noise(seed):
        again = torch.tensor([_frechet(_resampled(a), _resampled(b)) for _ in range(RESAMPLES)])
    return Estimate(_frechet(a, b), again.std().item())


def _sets(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 on the CPU, if they are features of two sets."""
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        got = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ShapeError("These are not features of two sets of examples.", got=got, expected="(n, d) and (m, d)")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise UsageError("A feature is not finite.", remedy="Look at the samples, or train the features anew.")
    return a.detach().cpu().double(), b.detach().cpu().double()


def _resampled(x: Tensor) -> Tensor:
    return x[torch.randint(len(x), (len(x),))]


def _frechet(a: Tensor, b: Tensor) -> float:
    x, y = _centred(a), _centred(b)
    overlap = torch.linalg.svdvals(_short(x) @ _short(y).T).sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + x.square().sum() + y.square().sum() - 2 * overlap
    return distance.clamp(min=0).item()


def _centred(x: Tensor) -> Tensor:
    """Rows whose products sum to the covariance."""
    return (x - x.mean(0)) / math.sqrt(len(x) - 1)


def _short(x: Tensor) -> Tensor:
    """At most d rows with the same products summed."""
    return torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x


# -- a kernel -------------------------------------------------------------------------------------------------------


def kernel_distance(a: Tensor, b: Tensor, *, seed: int = 0) -> Estimate:
    r"""Squared maximum mean discrepancy of a polynomial kernel, unbiased, times 1000.

    .. math:: \frac{\sum_{i \ne j} k(a_i, a_j)}{n (n - 1)} + \frac{\sum_{i \ne j} k(b_i, b_j)}{m (m - 1)}
        - \frac{2}{n m} \sum_{i, j} k(a_i, b_j), \qquad k(x, y) = \Bigl(\frac{x^\top y}{d} + 1\Bigr)^3

    It uses all pairs, where others average over subsets of 1,000 examples: both have the same expectation. The error
    is that of bootstrap samples of both sets, without the pairs of an example with itself.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012).
        Demystifying MMD GANs (Bińkowski et al., 2018).

    Args:
        a: Features ``(n, d)``.
        b: Features ``(m, d)``.
        seed: Of the bootstrap.

    Raises:
        ShapeError: If they are not such, or there are not two of each.
        UsageError: If a feature is not finite.

    Example:
        >>> a, b = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [0.0]])
        >>> kernel_distance(a, b).value  # 1000 (8 + 1 - 2)
        7000.0
    """
    a, b = _sets(a, b)
    with fixed_noise(seed):
        weights_a, weights_b = _weights(len(a)), _weights(len(b))
    found = _within(a, weights_a) + _within(b, weights_b)
    found -= 2 * _pairs(a, weights_a, b, weights_b) / (len(a) * len(b))
    found *= KERNEL_FACTOR
    return Estimate(found[0].item(), found[1:].std().item())


def _weights(n: int) -> Tensor:
    """How often each row is in a set: once, and as bootstrap samples have it, ``(1 + resamples, n)``."""
    drawn = torch.randint(n, (RESAMPLES, n))
    counts = torch.zeros(RESAMPLES, n, dtype=torch.float64)
    return torch.cat([counts.new_ones(1, n), counts.scatter_add_(1, drawn, torch.ones_like(counts))])


def _within(x: Tensor, weights: Tensor) -> Tensor:
    """The mean of the kernel over pairs of different rows, for each set of weights."""
    own = _kernel(x.square().sum(1) / x.shape[1])
    squares = weights.square()
    return (_pairs(x, weights, x, weights) - squares @ own) / (weights.sum(1).square() - squares.sum(1))


def _pairs(x: Tensor, weights: Tensor, y: Tensor, others: Tensor) -> Tensor:
    """The sum of the kernel over all pairs of rows, for each set of weights."""
    total = weights.new_zeros(len(weights))
    for rows in torch.arange(len(x)).split(max(1, AT_ONCE // len(y))):
        kernel = _kernel(x[rows] @ y.T / x.shape[1])
        total += (weights[:, rows] @ kernel * others).sum(1)
    return total


def _kernel(product: Tensor) -> Tensor:
    return (product + 1) ** 3


# -- neighbours -----------------------------------------------------------------------------------------------------


class Support(NamedTuple):
    """How the supports of two sets overlap; each from 0 to 1, but density may be larger.

    Args:
        precision: Share of samples within the ball of an example.
        recall: Share of examples within the ball of a sample.
        density: Number of balls of examples that a sample lies in, divided by the number of neighbours of a ball.
        coverage: Share of examples whose ball has a sample.
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def support(samples: Tensor, data: Tensor) -> Support:
    r"""Precision, recall, density and coverage of samples, by nearest neighbours.

    The ball of a point reaches to the k-th nearest other point of its own set, with k = 3 for precision and recall and
    k = 5 for density and coverage. Standard errors are over the points that are counted, the balls given.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019).
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020).

    Args:
        samples: Features ``(n, d)``.
        data: Features ``(m, d)``.

    Raises:
        ShapeError: If they are not such, or there are not six of each.
        UsageError: If a feature is not finite.

    Example:
        >>> x = torch.randn(100, 2)
        >>> support(x[:50], x[50:] + 100).coverage.value
        0.0
    """
    y, x = _sets(samples, data)
    if min(len(x), len(y)) <= DENSITY_NEIGHBOURS:
        got, least = f"{len(y)} and {len(x)}", DENSITY_NEIGHBOURS + 1
        raise ShapeError("There are too few examples for neighbours.", got=got, expected=f"{least} or more of each")
    tight, wide = _radii(x)
    own, _ = _radii(y)
    precision, density = list[Tensor](), list[Tensor]()
    recall, nearest = torch.zeros(len(x), dtype=torch.bool), x.new_full((len(x),), math.inf)
    for rows in torch.arange(len(y)).split(max(1, AT_ONCE // len(x))):
        squared = _squared(y[rows], x)
        precision.append((squared <= tight).any(1))
        density.append((squared <= wide).sum(1).double() / DENSITY_NEIGHBOURS)
        recall |= (squared <= own[rows].unsqueeze(1)).any(0)
        nearest = torch.minimum(nearest, squared.amin(0))
    values = (torch.cat(precision), recall, torch.cat(density), nearest <= wide)
    return Support(*(Estimate.of(value) for value in values))


def _radii(x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances to the neighbours that bound the balls of each point; the point itself is its 0-th."""
    parts = [_squared(x[rows], x) for rows in torch.arange(len(x)).split(max(1, AT_ONCE // len(x)))]
    nearest = torch.cat([part.topk(DENSITY_NEIGHBOURS + 1, largest=False).values for part in parts])
    return nearest[:, PRECISION_NEIGHBOURS], nearest[:, DENSITY_NEIGHBOURS]


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances of all pairs of rows."""
    products = x @ y.T
    return (x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * products).clamp(min=0)
