r"""Information of each position of discrete latents about the data, and divergence of its codes from the prior.

Convention: z is one of K codes at each of P positions, sampled for N examples, ``(N, P)``; the aggregate of a position
is :math:`q(z_i) = \frac{1}{N} \sum_n q(z_i \mid x_n)`. Values are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...distributions import Bits, OneHot
from ...distributions.codes import CodeDistribution, CodePoint, UniformCodes, latent_shape
from ...posteriors import Codes, Space

__all__ = [
    "ACTIVE",
    "CARRIED",
    "NOTHING",
    "Positions",
    "active_units",
    "activity",
    "carrying",
    "information_of",
    "positions_of",
]

Discrete = OneHot | Bits

ACTIVE = 1e-2
"""A latent dimension is active if the posterior's mean varies more than this over the data (variance)."""
NOTHING = 0.1
"""Nats below which a code is uninformative, or unused by the decoder: about a seventh of a bit."""
CARRIED = 0.99
"""Share of the total KL, or information, of the dimensions that carry the code."""


@dataclass(frozen=True)
class Positions:
    r"""Log-probabilities of one sample per example, at each position.

    Args:
        log_posterior: :math:`\log q(z_i \mid x)`, ``(N, P)``, float64.
        log_aggregate: :math:`\log q(z_i)`, likewise.
        log_prior: :math:`\log p(z_i)`, likewise; None if the prior's positions are dependent.
        codes: Number K of codes at each position, ``(P,)``.

    Example:
        >>> told = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).unsqueeze(1)  # two examples, one position, two codes
        >>> found = positions_of(OneHot((told + 1e-9).log()), OneHot(torch.zeros(1, 2)), told)
        >>> found.information()  # ln 2: the position tells the examples apart
        tensor([0.6931], dtype=torch.float64)
        >>> found.kl().abs() < 1e-8
        tensor([True])
        >>> found.held_out(1.0).exp()  # the other example has the other code
        tensor([[0.2500],
                [0.2500]], dtype=torch.float64)
    """

    log_posterior: Tensor
    log_aggregate: Tensor
    log_prior: Tensor | None
    codes: Tensor

    def information(self) -> Tensor:
        """I(x; z_i) of each position, ``(P,)``."""
        return (self.log_posterior - self.log_aggregate).mean(0)

    def kl(self) -> Tensor | None:
        """KL(q(z_i) ‖ p(z_i)) of each position, ``(P,)``; None if the prior does not factorise."""
        return None if self.log_prior is None else (self.log_aggregate - self.log_prior).mean(0)

    def held_out(self, weight: float) -> Tensor:
        r"""Log-probabilities of each sample under the aggregate of the other examples, ``(N, P)``.

        .. math:: r(z_i) = \frac{\sum_{m \ne n} q(z_i \mid x_m) + w \, p(z_i)}{N - 1 + w}

        Args:
            weight: Weight w of the prior in examples; uniform codes replace a prior with dependent positions.
        """
        n = len(self.log_aggregate)
        others = (n * self.log_aggregate.exp() - self.log_posterior.exp()).clamp(min=0)
        start = 1 / self.codes.double() if self.log_prior is None else self.log_prior.exp()
        return ((others + weight * start) / (n - 1 + weight)).log()


def active_units(space: Space | None, means: Tensor) -> tuple[int, int]:
    """Number of active latent dimensions, or of positions whose codes depend on the data, and the total number.

    Args:
        space: The space of the model's latents.
        means: The posterior means of N examples, flattened, ``(N, d)``.

    Example:
        >>> active_units(None, torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
        (1, 2)
    """
    if (told := information_of(space, means)) is not None:
        return int((told > NOTHING).sum()), len(told)
    varies = means.double().var(0) if len(means) > 1 and means.numel() else torch.zeros(means.shape[1])
    return int((varies > ACTIVE).sum()), means.shape[1]


def activity(space: Space, means: Tensor, above: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """The fields of an evaluation on active units, in a hierarchy also of each layer: see :func:`active_units`.

    Args:
        space: The space of the model's latents.
        means: The posterior means of N examples as the likelihood takes them, flattened, ``(N, d)``.
        above: In a chain the representatives of the layers above.

    Example:
        >>> from torch import nn
        >>> from tightbound.posteriors import Reals
        >>> activity(Reals(nn.Identity()), torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
        {'active_units': 1, 'dimensions': 2}
    """
    layers = dict(zip(space.names, space.layers, strict=False))  # a packed latent is one space of several layers
    each = {**space.split(means), **(above or {})}
    found = {name: active_units(layers.get(name), z.flatten(1)) for name, z in each.items()}
    active, dimensions = ({name: both[i] for name, both in found.items()} for i in (0, 1))
    total = {"active_units": sum(active.values()), "dimensions": sum(dimensions.values())}
    return total | ({"active_per_layer": active, "dimensions_per_layer": dimensions} if len(found) > 1 else {})


def carrying(nats: Sequence[float]) -> tuple[int, ...]:
    """The fewest dimensions that carry :data:`CARRIED` of all nats, in ascending order.

    Args:
        nats: Nats of each dimension.

    Example:
        >>> carrying([0.01, 3.0, 0.0, 2.0])
        (1, 3)
    """
    left, chosen = CARRIED * sum(nats), list[int]()
    for i in sorted(range(len(nats)), key=lambda i: -nats[i]):
        if left <= 0 or nats[i] <= 0:
            break
        chosen.append(i)
        left -= nats[i]
    return tuple(sorted(chosen))


def information_of(space: Space | None, means: Tensor) -> Tensor | None:
    r"""I(x; z_i) of each position of codes, the coarsest grid first, ``(P,)`` float64; None for other latents.

    .. math:: I(x; z_i) = \mathrm{H}\Big(\frac{1}{N} \sum_n q(z_i \mid x_n)\Big)
        - \frac{1}{N} \sum_n \mathrm{H}(q(z_i \mid x_n))

    Args:
        space: The space of the model's latents.
        means: The posterior means of N examples, flattened, ``(N, d)``.

    Example:
        >>> information_of(None, torch.zeros(5, 2)) is None
        True
    """
    if not isinstance(space, Codes):
        return None
    if space.posterior.means_are_vectors:
        rows = means.to(next(space.posterior.parameters())).unflatten(1, latent_shape(space.posterior))
        codes = [level.flatten(1) for level in space.posterior.codes_of(rows)]
        return -torch.cat([_log_shares(level, k).mean(0) for level, k in zip(codes, space.levels, strict=True)]).cpu()
    p = means.double().unflatten(1, (math.prod(space.grids[0]), -1))
    p = torch.cat([p, 1 - p], dim=-1) if p.shape[-1] == 1 else p  # bits
    entropy = torch.special.entr
    return (entropy(p.mean(0)) - entropy(p).mean(0)).sum(-1)


def positions_of(q: Distribution, p: Distribution | None, z: Tensor) -> Positions | None:
    """The positions of discrete latents; None for others.

    Args:
        q: The posterior of N examples.
        p: The unconditional prior.
        z: A sample per example, ``(N, *latent)``.
    """
    if isinstance(q, CodePoint):
        return _of_points(q, p) if isinstance(p, CodeDistribution) else None
    if not isinstance(q, Discrete):
        return None
    own, aggregate = _log_mass(q.logits, z), _log_mass(_aggregate(q), z)
    prior = _log_mass(p.logits, z) if isinstance(p, Discrete) else None
    k = q.logits.shape[-1] if isinstance(q, OneHot) else 2
    return Positions(own, aggregate, prior, torch.full((own.shape[1],), k, device=own.device))


def _of_points(q: CodePoint, p: CodeDistribution) -> Positions:
    """For deterministic codes, whose aggregate is their frequencies."""
    parts = [_log_shares(codes.flatten(1), k) for codes, k in zip(q.codes, p.space.levels, strict=True)]
    aggregate = torch.cat(parts, dim=1)
    counts = [torch.full((part.shape[1],), k) for part, k in zip(parts, p.space.levels, strict=True)]
    prior = p.code_log_prob(q.codes).double() if isinstance(p, UniformCodes) else None
    return Positions(torch.zeros_like(aggregate), aggregate, prior, torch.cat(counts).to(aggregate.device))


def _log_shares(codes: Tensor, k: int) -> Tensor:
    """Log of the share of examples with the same code, ``(N, P)``."""
    counts = torch.zeros(codes.shape[1], k, dtype=torch.float64, device=codes.device)
    counts.scatter_add_(1, codes.T, torch.ones_like(codes.T, dtype=torch.float64))
    return counts.gather(1, codes.T).T.log() - math.log(len(codes))


def _aggregate(q: Discrete) -> Tensor:
    """Logits of the aggregate posterior."""
    mean = q.mean.double().mean(0)
    return mean.log() if isinstance(q, OneHot) else mean.logit()


def _log_mass(logits: Tensor, z: Tensor) -> Tensor:
    """Log-mass of one-hot vectors ``(N, P, K)`` given log-probabilities, or of bits ``(N, P)`` given logits."""
    if z.dim() == 3:
        return logits.double().expand(z.shape).gather(-1, z.argmax(-1, keepdim=True)).squeeze(-1)
    return torch.nn.functional.logsigmoid(torch.where(z > 0.5, logits, -logits).double())
