r"""The variational mixture of posteriors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints
from torch.types import _size

from ..conditions import Given
from ..distributions import MixtureOfGaussians, Value, has_density
from ..errors import ObjectiveError
from ..runtime.parts import StartsFromData
from .base import Setting, named

__all__ = ["VampPrior"]

EDGE = 1e-2
"""Initial distance of pseudo-inputs from the ends of the range, where a logit is infinite."""


ENTRIES = 1 << 20
"""Number of point-member pairs evaluated at once."""


class VampPrior(nn.Module, StartsFromData):
    r"""A mixture of the posteriors of learned pseudo-inputs, :math:`p(z) = \frac{1}{K} \sum_j q(z \mid u_j)`.

    It is one mixture over complete vectors. The pseudo-inputs are encoded once per call, so once per training step for
    any number of samples. The posterior is shared with the model, not copied.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018).

    Args:
        posterior: :math:`q(z \mid x)`.
        pseudo_inputs: Initial :math:`u`, ``(K, *shape)``; training replaces it with examples if a recipe built the
            model.
        bounded: Whether data lies in [0, 1]; pseudo-inputs are then kept there too.

    Example:
        >>> from tightbound.networks import MLP
        >>> from tightbound.posteriors import DiagonalGaussian
        >>> posterior = DiagonalGaussian(MLP((1, 8, 8), 2 * 3), (1, 8, 8))
        >>> VampPrior(posterior, torch.rand(10, 1, 8, 8))().log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, posterior: nn.Module, pseudo_inputs: Tensor, bounded: bool = True) -> None:
        super().__init__()
        self.posterior, self.bounded = posterior, bounded
        self.unconstrained = nn.Parameter(self._inverse(pseudo_inputs))

    @property
    def examples_wanted(self) -> int:
        return len(self.unconstrained)

    @property
    def pseudo_inputs(self) -> Tensor:
        """The pseudo-inputs u, ``(K, *shape)``."""
        return self.unconstrained.sigmoid() if self.bounded else self.unconstrained

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Initialises from training examples ``(n, *shape)``, repeated if there are too few."""
        repeated = x.repeat(-(-self.examples_wanted // len(x)), *[1] * (x.dim() - 1))[: self.examples_wanted]
        self.unconstrained.copy_(self._inverse(repeated))

    def forward(self, c: Given | None = None) -> Distribution:
        q, batch = self.posterior(self.pseudo_inputs), () if c is None else c.shape
        if not has_density(q):
            raise ObjectiveError(
                "A VampPrior needs a posterior with a density.",
                got=type(q).__name__,
                remedy="Use --posterior gaussian, or another prior.",
            )
        base = q.base_dist if isinstance(q, Independent) else None
        if isinstance(base, Normal) and len(q.event_shape) == 1:
            return MixtureOfGaussians(base.loc.new_zeros(len(base.loc)), base.loc, base.scale.log(), batch)
        return _EqualMixture(q, batch)

    def _inverse(self, u: Tensor) -> Tensor:
        return u.clamp(EDGE, 1 - EDGE).logit() if self.bounded else u.clone()


class _EqualMixture(Value):
    """An equally weighted mixture of the members of a batch."""

    domain = constraints.real_vector

    def __init__(self, members: Distribution, batch_shape: _size = ()) -> None:
        self.members = members
        super().__init__(torch.Size(batch_shape), members.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        points, members = value.reshape(-1, value.shape[-1]), self.members.batch_shape[0]
        at_once = max(1, ENTRIES // (members * value.shape[-1]))
        parts = [self.members.log_prob(z.unsqueeze(1).expand(-1, members, -1)) for z in points.split(at_once)]
        return (torch.cat(parts).logsumexp(-1) - math.log(members)).reshape(value.shape[:-1])

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            count, members = shape[:-1].numel(), self.members.batch_shape[0]
            chosen = torch.randint(members, (count,), device=self.members.mean.device)
            most = int(torch.bincount(chosen, minlength=members).max()) if count else 0
            draws = self.members.sample((most,))  # each member as often as the most frequent one
            order = chosen.argsort(stable=True)
            sorted_choice = chosen[order]
            first = torch.searchsorted(sorted_choice, sorted_choice)
            rank = torch.arange(count, device=chosen.device) - first
            out = torch.empty(count, shape[-1], dtype=draws.dtype, device=draws.device)
            out[order] = draws[rank, sorted_choice]
            return out.reshape(shape)

    @property
    def mean(self) -> Tensor:
        return self.members.mean.mean(0).expand(*self.batch_shape, -1)

    @property
    def variance(self) -> Tensor:
        mean = self.members.mean
        total = (self.members.variance + mean.square()).mean(0) - mean.mean(0).square()
        return total.expand(*self.batch_shape, -1)


@named("vamp")
def _vamp(o: Setting) -> VampPrior:
    """Training starts its pseudo-inputs from data."""
    start = torch.rand(o.components, *o.data.shape)
    return VampPrior(o.posterior, start, bounded=o.data.levels is not None)
