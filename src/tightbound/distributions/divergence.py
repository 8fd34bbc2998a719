r"""The Kullback-Leibler divergence, per dimension where both distributions factorise the same way."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence
from torch.distributions.kl import register_kl

from .codes import CodeMass, CodePoint

__all__ = ["gaussian_factors", "kl_per_dimension"]


def gaussian_factors(distribution: Distribution) -> Normal | None:
    """The factors of a product of Gaussians over the entries of a vector; None for any other distribution.

    Example:
        >>> gaussian_factors(Independent(Normal(torch.zeros(2), torch.ones(2)), 1))
        Normal(loc: torch.Size([2]), scale: torch.Size([2]))
    """
    base = distribution.base_dist if isinstance(distribution, Independent) else None
    return base if isinstance(base, Normal) and len(distribution.event_shape) == 1 else None


def kl_per_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    r"""Closed form of :math:`\mathrm{KL}(q \,\|\, p)` in nats, or None where none is registered with torch.

    Args:
        q: The posterior.
        p: The prior.

    Returns:
        Batch and factor dimensions if both factorise into the same number of factors, ``(*batch, *event)`` for numbers
        and ``(*batch, positions)`` for one-hot vectors and for codes; else ``(*batch, 1)``.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> q = Independent(Normal(torch.ones(5, 2), torch.ones(5, 2)), 1)
        >>> p = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> kl_per_dimension(q, p)[0]
        tensor([0.5000, 0.5000])
    """
    if isinstance(q, CodePoint) and isinstance(p, CodeMass):
        return -p.code_log_prob(q.codes)
    try:
        if isinstance(q, Independent) and isinstance(p, Independent) and _alike(q, p):
            return kl_divergence(q.base_dist, p.base_dist)
        return kl_divergence(q, p).unsqueeze(-1)
    except NotImplementedError:
        return None


def _alike(q: Independent, p: Independent) -> bool:
    return q.event_shape == p.event_shape and q.reinterpreted_batch_ndims == p.reinterpreted_batch_ndims


@register_kl(MultivariateNormal, Independent)
def _full_from_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    r"""KL of a full-covariance Gaussian from a diagonal one.

    .. math:: \frac{1}{2} \left( \lVert S^{-1} L \rVert_F^2 + \lVert S^{-1} (\mu - m) \rVert^2 - d \right)
        - \log \det L + \log \det S
    """
    base = p.base_dist
    if not isinstance(base, Normal) or len(p.event_shape) != 1:
        raise NotImplementedError
    factor = q.scale_tril / base.scale.unsqueeze(-1)
    distance = (q.loc - base.loc) / base.scale
    log_det = torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (factor.square().sum((-2, -1)) + distance.square().sum(-1) - q.event_shape[0]) - log_det
