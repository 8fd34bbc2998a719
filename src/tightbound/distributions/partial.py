r"""A distribution over missing entries given the observed ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.types import _size

from ..errors import ShapeError
from .contract import Value

__all__ = ["Partial"]


class Partial(Value):
    r"""Independent entries of which some are observed: :math:`p(x_m \mid x_o) = \prod_{i \in m} p(x_i)`.

    Observed entries keep their values in samples and means, and are left out of the density.

    Args:
        complete: Independent entries, ``(*batch, *event)``.
        observed: Observed values, NaN where missing; broadcast to their shape.

    Raises:
        ShapeError: If the entries are not independent.

    Example:
        >>> from torch.distributions import Normal
        >>> p = Partial(Independent(Normal(torch.zeros(3), 1.0), 1), torch.tensor([torch.nan, 5.0, torch.nan]))
        >>> p.mean, p.log_prob(torch.tensor([0.0, 5.0, 0.0])).exp()
        (tensor([0., 5., 0.]), tensor(0.1592))
    """

    def __init__(self, complete: Distribution, observed: Tensor) -> None:
        if not isinstance(complete, Independent):
            raise ShapeError(
                "Only independent entries can be partly observed.",
                got=type(complete).__name__,
                expected="independent entries",
                remedy="Use --likelihood bernoulli, gaussian, categorical or discretized-logistic.",
            )
        self.complete, self.observed = complete, observed
        super().__init__(complete.batch_shape, complete.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        each = self.complete.base_dist.log_prob(value)
        missing = torch.where(self.observed.isnan(), each, torch.zeros((), dtype=each.dtype, device=each.device))
        return missing.flatten(missing.dim() - len(self.event_shape)).sum(-1)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        return self._with_observed(self.complete.sample(sample_shape))

    @property
    def mean(self) -> Tensor:
        return self._with_observed(self.complete.mean)

    def _with_observed(self, value: Tensor) -> Tensor:
        return torch.where(self.observed.isnan(), value, self.observed.to(value.dtype))
