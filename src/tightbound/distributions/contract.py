r"""What a distribution supports, declared by its type.

Convention: every distribution of torch has an exact ``log_prob``, in nats; one without declares it by its class.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.distributions.constraints import Constraint

from ..errors import ObjectiveError

__all__ = ["Bounded", "Value", "WithoutDensity", "has_density", "is_certain", "log_prob_per_dimension", "lower_bound"]


class Value(Distribution):
    """Abstract: a lightweight distribution that is discarded after use; nothing is validated."""

    arg_constraints: ClassVar[dict[str, Constraint]] = {}  # pyright: ignore[reportIncompatibleMethodOverride]
    domain: ClassVar[Constraint] = constraints.real
    """What its values are."""
    certain: ClassVar[bool] = False
    """Whether all its samples are the same."""

    @property
    def support(self) -> Constraint | None:
        return self.domain


class WithoutDensity(Value):
    """Abstract: a distribution without an exact ``log_prob``."""


class Bounded(WithoutDensity):
    """Abstract: a distribution with only a lower bound on its log-density.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> isinstance(px, Bounded), has_density(px)
        (True, False)
    """

    def lower_bound(self, x: Tensor) -> Tensor:
        """A lower bound on log p(x), or an unbiased estimate of one, ``(*batch)`` nats."""
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        raise ObjectiveError(
            "The density of this model is an integral without a closed form.",
            remedy="Use `lower_bound(x)`, or `tightbound.evaluate` for an importance-weighted estimate with its error.",
        )


def has_density(distribution: Distribution) -> bool:
    """Whether ``log_prob`` is exact: a bound and a point mass are declared by their types.

    Example:
        >>> from torch.distributions import Normal
        >>> has_density(Normal(0.0, 1.0))
        True
    """
    return not isinstance(distribution, WithoutDensity)


def is_certain(distribution: Distribution) -> bool:
    """Whether all samples of a distribution are the same.

    Example:
        >>> from torch.distributions import Normal
        >>> is_certain(Normal(0.0, 1.0))
        False
    """
    return isinstance(distribution, Value) and distribution.certain


def lower_bound(distribution: Distribution, value: Tensor) -> Tensor:
    """The log-density of a value if it is exact, else a lower bound, in nats.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> lower_bound(Normal(0.0, 1.0), torch.zeros(()))
        tensor(-0.9189)
    """
    return distribution.lower_bound(value) if isinstance(distribution, Bounded) else distribution.log_prob(value)


def log_prob_per_dimension(distribution: Distribution, value: Tensor) -> Tensor | None:
    """The log-density of each dimension of an event, ``(*leading, *event)`` nats; None if it does not factorise.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> log_prob_per_dimension(Independent(Normal(torch.zeros(2), torch.ones(2)), 1), torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """
    if not isinstance(distribution, Independent) or len(distribution.base_dist.event_shape) > 0:
        return None
    whole = distribution.reinterpreted_batch_ndims == len(distribution.event_shape)
    return distribution.base_dist.log_prob(value) if whole else None
