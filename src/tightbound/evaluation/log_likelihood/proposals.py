r"""Proposals for importance sampling per example, for when the encoder's posterior is not good enough.

Convention: a proposal has one batch dimension, the examples, ``(n,)``; a family is its initial free parameters, one
row per example, and a function from them to a distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, constraints
from torch.types import _size

from ...distributions import FullGaussian, Value, independent
from ...distributions.packed import Packed
from ...models.latent import Marginal

__all__ = ["Family", "Mixture", "frozen", "gaussian_family", "optimised", "wide_family", "widened"]

Family = tuple[list[Tensor], Callable[[list[Tensor]], Distribution]]
FULL = 64
"""Maximum dimensions d for a full covariance: its factor has about d² / 2 entries per example."""
AS_MANY = 3
"""Dimensions whose widening costs as much as that of a packed posterior."""
MOMENTS = 100
"""Samples to estimate the mean and deviation of a posterior."""


class Mixture(Value):
    r"""A mixture of distributions, :math:`\sum_j \pi_j q_j(z)`.

    As a proposal its weights are :math:`p(x, z) / \sum_j \pi_j q_j(z)` for samples of every part, at most
    :math:`1 / \pi_j` times those of part j.

    References:
        Weighted Average Importance Sampling and Defensive Mixture Distributions (Hesterberg, 1995).
        Safe and Effective Importance Sampling (Owen and Zhou, 2000).

    Args:
        parts: The distributions; the first must have the full batch shape.
        shares: :math:`\pi_j`, which sum to one.

    Example:
        >>> narrow, wide = (independent(Normal(torch.zeros(5, 2), s), 1) for s in (0.1, 1.0))
        >>> Mixture([narrow, wide], [0.9, 0.1]).sample((100,)).shape
        torch.Size([100, 5, 2])
    """

    domain = constraints.real_vector

    def __init__(self, parts: Sequence[Distribution], shares: Sequence[float]) -> None:
        self.parts, self.shares = tuple(parts), tuple(shares)
        super().__init__(parts[0].batch_shape, parts[0].event_shape, validate_args=False)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Samples ``(k, *batch, *event)``; the part of each is sampled once for the batch."""
        (k,) = sample_shape
        chosen = torch.multinomial(torch.tensor(self.shares), k, replacement=True)
        counts = torch.bincount(chosen, minlength=len(self.parts)).tolist()
        drawn = [self._drawn(part, count) for part, count in zip(self.parts, counts, strict=True) if count]
        return torch.cat(drawn)  # without empty parts: not every flow can draw zero samples

    def _drawn(self, part: Distribution, count: int) -> Tensor:
        missing = self.batch_shape[: len(self.batch_shape) - len(part.batch_shape)]
        return part.sample((count, *missing))

    def log_prob(self, value: Tensor) -> Tensor:
        parts = [math.log(s) + part.log_prob(value) for part, s in zip(self.parts, self.shares, strict=True)]
        return torch.stack(parts).logsumexp(0)


def gaussian_family(q: Distribution) -> Family | None:
    """The family of a Gaussian posterior, with its own parameters as initial values; None for other posteriors.

    Example:
        >>> free, make = gaussian_family(independent(Normal(torch.zeros(5, 2), torch.ones(5, 2)), 1))
        >>> len(free), make(free).event_shape
        (2, torch.Size([2]))
    """
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal) and len(q.event_shape) == 1:
        free = [q.base_dist.loc, q.base_dist.scale.log()]
        return free, lambda p: independent(Normal(p[0], p[1].exp(), validate_args=False), 1)
    if isinstance(q, MultivariateNormal):
        factor = q.scale_tril.expand(*q.loc.shape, q.loc.shape[-1])
        free = [q.loc, factor.tril(-1), torch.diagonal(factor, dim1=-2, dim2=-1).log()]
        make = lambda p: FullGaussian(
            p[0], scale_tril=p[1].tril(-1) + torch.diag_embed(p[2].exp()), validate_args=False
        )
        return free, make
    return None


def wide_family(q: Distribution) -> Family:
    r"""Gaussians in units of any posterior over vectors: :math:`\mu + \sigma (u + A \epsilon)`.

    A is triangular, or diagonal for more than :data:`FULL` dimensions; initially A is the identity, and u zero. For a
    packed posterior of more dimensions :math:`\mu` and :math:`\sigma` stay those of each layer given the layers above.

    Example:
        >>> free, make = wide_family(independent(Normal(torch.zeros(5, 2), torch.ones(5, 2)), 1))
        >>> make(free).batch_shape
        torch.Size([5])
    """
    if isinstance(q, Packed) and q.event_shape.numel() > FULL:
        start = torch.zeros(*q.batch_shape, *q.event_shape, dtype=q.mean.dtype, device=q.mean.device)
        return [start, start], lambda p: q.corrected(*p)
    some = q.sample((MOMENTS,))
    mean, std = some.mean(0), some.std(0).clamp(min=1e-6)
    free = [torch.zeros_like(mean), torch.zeros_like(mean)]
    if mean.shape[-1] > FULL:
        return free, lambda p: independent(Normal(mean + std * p[0], std * p[1].exp(), validate_args=False), 1)

    def make(p: list[Tensor]) -> Distribution:
        factor = p[2].tril(-1) + torch.diag_embed(p[1].exp())
        return FullGaussian(mean + std * p[0], scale_tril=std.unsqueeze(-1) * factor, validate_args=False)

    return [*free, torch.zeros(*mean.shape, mean.shape[-1], dtype=mean.dtype, device=mean.device)], make


def widened(q: Distribution, factor: float) -> Distribution:
    """The same Gaussian with standard deviations scaled by a factor, of a packed one by less the more dimensions.

    Widening d dimensions costs about d times the KL of widening one. In 264 dimensions a factor of 1.2 in each left a
    tenth of the effective samples; the same KL as :data:`AS_MANY` dimensions at 1.2 gave the most.

    Example:
        >>> q = widened(independent(Normal(torch.zeros(2), torch.ones(2)), 1), 1.5)
        >>> q.stddev
        tensor([1.5000, 1.5000])
    """
    if isinstance(q, Packed):
        wider = math.log(factor) * (AS_MANY / q.event_shape.numel()) ** 0.5
        return q.corrected(torch.zeros_like(q.mean), torch.full_like(q.mean, wider))
    if isinstance(q, MultivariateNormal):
        return FullGaussian(q.loc, scale_tril=factor * q.scale_tril, validate_args=False)
    return independent(Normal(q.mean, factor * q.stddev, validate_args=False), 1)


def optimised(marginal: Marginal, x: Tensor, family: Family, steps: int, lr: float, draws: int) -> list[Tensor]:
    """Maximises the ELBO of each example with Adam; the model's parameters get gradients unless frozen.

    Args:
        marginal: The model, conditioned on the examples' conditions.
        x: Examples, ``(n, *shape)``.
        family: Initial parameters, and the function from them to a distribution.
        steps: Number of steps.
        lr: Initial learning rate of a cosine schedule to zero.
        draws: Samples per example for a gradient.

    Returns:
        The optimised parameters of the family.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> model = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> x = torch.zeros(5, 1, 8, 8)
        >>> family = gaussian_family(model().posterior(x))
        >>> [tuple(p.shape) for p in optimised(model(), x, family, steps=2, lr=0.1, draws=2)]
        [(5, 2), (5, 2)]
    """
    start, make = family
    with torch.enable_grad():
        free = [p.detach().clone().requires_grad_() for p in start]
        optimizer = torch.optim.Adam(free, lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            terms = marginal.terms(x, draws, posterior=make(free))
            loss = -(terms.log_likelihood.mean(0) - terms.kl()).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return [p.detach() for p in free]


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Freezes all parameters inside the block.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> with frozen(layer):
        ...     print(layer.weight.requires_grad)
        False
    """
    wanted = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in wanted:
            p.requires_grad_(False)
        yield
    finally:
        for p in wanted:
            p.requires_grad_(True)
