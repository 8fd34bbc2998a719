r"""The Kullback-Leibler divergence, kept per dimension where the two distributions factorise alike."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

__all__ = ["kl_per_dimension"]


def kl_per_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    r"""Closed form of :math:`\mathrm{KL}(q \,\|\, p)` in nats, or None where torch has none registered.

    Args:
        q: The posterior.
        p: The prior.

    Returns:
        Shape ``(*batch, *event)`` if both are products over the event's dimensions, else ``(*batch, 1)``.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> q = Independent(Normal(torch.ones(5, 2), torch.ones(5, 2)), 1)
        >>> p = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> kl_per_dimension(q, p)[0]
        tensor([0.5000, 0.5000])
    """
    try:
        if isinstance(q, Independent) and isinstance(p, Independent) and q.event_shape == p.event_shape:
            factors = kl_divergence(q.base_dist, p.base_dist)
            if factors.shape[factors.dim() - len(q.event_shape) :] == q.event_shape:
                return factors
        return kl_divergence(q, p).unsqueeze(-1)
    except NotImplementedError:
        return None
