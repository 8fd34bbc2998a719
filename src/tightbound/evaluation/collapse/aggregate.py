r"""Bounds on the KL of the aggregate posterior from the prior, and on the mutual information.

Convention: :math:`z_n \sim q(z \mid x_n)` for N examples, :math:`q(z) = \mathbb{E}_x q(z \mid x)` over the data
distribution, of which the examples are a sample; log-densities are float64, ``(N,)``, in nats. With a density r that
does not use example n at :math:`z_n`, and with :math:`\hat q(z) = \frac1N \sum_m q(z \mid x_m)`, which does,

.. math:: \mathbb{E} \log r(z) - \log p(z) \;\le\; \mathrm{KL}(q(z) \,\|\, p(z))
    \;\le\; \mathbb{E} \log \hat q(z) - \log p(z),

.. math:: \mathbb{E} \log q(z \mid x) - \log \hat q(z) \;\le\; I(x; z) \;\le\; \mathbb{E} \log q(z \mid x) - \log r(z).

The left of the second line never exceeds ln N: more information cannot be shown with N examples.

References:
    On Variational Bounds of Mutual Information (Poole, Ozair, van den Oord, Alemi and Tucker, 2019).
    The IM Algorithm: A Variational Approach to Information Maximization (Barber and Agakov, 2003).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from ...distributions import MixtureOfGaussians
from ...runtime.progress import progress
from ..latents.positions import Positions

__all__ = ["held_out", "log_aggregate", "log_marginals", "normal_factors", "of_the_others"]

ENTRIES = 1 << 24
"""Number of densities held at once."""
FOLDS = 10
"""Number of folds; each is evaluated under the Gaussian fitted to the others."""
WIDEST = 1024
"""Maximum dimensions for that Gaussian: the cost is cubic."""
PRIOR_WEIGHTS = (1.0, 4.0, 16.0, 64.0, 256.0)
"""Weight of the prior of a code, in examples."""


def log_aggregate(q: Distribution, z: Tensor) -> Tensor:
    """Log q̂(z) of n samples under the mixture of their n posteriors, ``(n,)``.

    Args:
        q: The posteriors of n examples.
        z: A sample of each, ``(n, *latent)``.
    """
    factors = normal_factors(q)
    if factors is not None:
        return _mixture(factors.mean, factors.stddev, z)
    rows, n = max(1, ENTRIES // (len(z) * q.event_shape.numel())), len(z)
    parts: list[Tensor] = []
    with progress("aggregate posterior", n) as advance:
        for part in z.split(rows):
            parts.append(q.log_prob(part.unsqueeze(1)).double().logsumexp(1))
            advance(len(part))
    return torch.cat(parts) - math.log(n)


def log_marginals(q: Normal, z: Tensor) -> Tensor:
    """Log q̂(z_i) of each dimension, ``(n, d)``."""
    columns = [_mixture(q.mean[:, i : i + 1], q.stddev[:, i : i + 1], z[:, i : i + 1]) for i in range(z.shape[1])]
    return torch.stack(columns, dim=1)


def held_out(
    q: Distribution, z: Tensor, log_q: Tensor, log_aggregate: Tensor, positions: Positions | None, *known: Tensor
) -> Tensor:
    """Log r(z) of every sample under the best density that is fitted without its example.

    The candidates are the mixture of the other posteriors; a Gaussian with the moments of other folds; for codes,
    independent positions estimated from the other examples, with the prior as pseudo-counts; and those given.

    Args:
        q: The posteriors of n examples.
        z: A sample of each, ``(n, *latent)``.
        log_q: Log-density of each under its own posterior, ``(n,)``.
        log_aggregate: Log-density of each under the mixture of all, ``(n,)``.
        positions: The positions of codes.
        known: Log-densities under densities independent of the examples, such as the prior.
    """
    candidates = [*known, of_the_others(log_q, log_aggregate)]
    if positions is not None:
        candidates += [positions.held_out(weight).sum(1) for weight in PRIOR_WEIGHTS]
    elif len(z) >= 3 and z[0].numel() <= WIDEST:
        candidates.append(_gaussian(*_moments(q, z)))
    return max(candidates, key=lambda log_r: log_r.mean().item())


def of_the_others(log_q: Tensor, log_aggregate: Tensor) -> Tensor:
    """Log-density under the mixture without the own posterior; −∞ if all others are zero."""
    n = len(log_q)
    if n < 2:
        return torch.full_like(log_q, -math.inf)
    own_share = (log_q - log_aggregate - math.log(n)).clamp(max=0).exp()
    return log_aggregate + torch.log1p(-own_share) + math.log(n / (n - 1))


def _moments(q: Distribution, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The samples, and the mean and the covariance of each posterior: for others, the sample itself and zero."""
    z = z.flatten(1).double()
    if isinstance(q, MultivariateNormal):
        return z, q.mean.double(), q.covariance_matrix.double().expand(*z.shape, -1)
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return z, q.mean.flatten(1).double(), q.variance.flatten(1).double()
    return z, z, torch.zeros_like(z)


def _gaussian(z: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """Log-density under the Gaussian of the other folds, with correlations shrunk for few examples."""
    log_r, d = z.new_empty(len(z)), z.shape[1]
    fold = torch.arange(len(z), device=z.device) % min(FOLDS, len(z))
    for i in fold.unique():
        others, mine = fold != i, fold == i
        known, extra = mean[others], noise[others].mean(0)
        covariance = torch.cov(known.T, correction=0).reshape(d, d) + (extra if extra.dim() == 2 else extra.diag())
        variance = torch.diagonal(covariance).clamp(min=torch.finfo(z.dtype).tiny)
        seen = len(known) / (len(known) + d)
        covariance = seen * covariance + (1 - seen) * variance.diag()
        factor, wrong = torch.linalg.cholesky_ex(covariance)
        if wrong:
            return torch.full_like(log_r, -math.inf)
        r = MultivariateNormal(known.mean(0), scale_tril=factor, validate_args=False)
        log_r[mine] = r.log_prob(z[mine])
    return log_r


def _mixture(mean: Tensor, std: Tensor, z: Tensor) -> Tensor:
    mixture = MixtureOfGaussians(mean.new_zeros(len(mean)).double(), mean.double(), std.double().log())
    return torch.cat([mixture.log_prob(part) for part in z.double().split(max(1, ENTRIES // len(mean)))])


def normal_factors(distribution: Distribution) -> Normal | None:
    """The factors of a product of Gaussians over vectors, or None."""
    base = distribution.base_dist if isinstance(distribution, Independent) else None
    return base if isinstance(base, Normal) and len(distribution.event_shape) == 1 else None
