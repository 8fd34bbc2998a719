r"""The ELBO taken apart: what the code tells of the data, and how far all codes together are from the prior.

Convention: expectations are over the N examples of a split and :math:`z \sim q(z \mid x_n)`; the aggregate posterior is
:math:`q(z) = \frac{1}{N} \sum_n q(z \mid x_n)`, over the same examples; every value is in nats per example.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

from ..checkpoint import check_finite
from ..data import Split
from ..distributions import MixtureOfGaussians
from ..likelihoods import measure_of
from ..models.latent import LatentVariableModel, evaluating
from ..progress import progress
from ..randomness import fixed_noise
from .estimate import Estimate
from .importance import outside_support
from .passes import check_split, check_support
from .positions import positions_of

__all__ = ["Decomposition", "decompose", "spread"]

ENTRIES = 1 << 24
"""How many densities are held at once."""
FULL = 0.9
"""An estimate of mutual information above this share of ln N says little but that it is larger."""


@dataclass(frozen=True)
class Decomposition:
    r"""What :func:`decompose` found; ``kl`` is the sum of the next two, of the same samples.

    Args:
        reconstruction: :math:`\mathbb{E} \log p(x \mid z)`.
        kl: :math:`\mathbb{E} \log q(z \mid x) - \log p(z)`.
        mutual_information: :math:`I(x; z) = \mathbb{E} \log q(z \mid x) - \log q(z)`, at most ln N.
        aggregate_kl: :math:`\mathrm{KL}(q(z) \,\|\, p(z)) = \mathbb{E} \log q(z) - \log p(z)`; None if the prior has no
            exact density, or there is one for each condition.
        aggregate_kl_at_least: KL of the Gaussian with the aggregate's mean and covariance from a Gaussian prior, which
            no aggregate with these moments can fall below; of codes, what is sure of the next but one
            (:meth:`~tightbound.evaluation.positions.Positions.kl_at_least`); None for other priors.
        total_correlation: :math:`\mathbb{E} \log q(z) - \sum_i \log q(z_i)`; None unless posterior and prior factorise.
        dimension_wise_kl: :math:`\mathrm{KL}(q(z_i) \,\|\, p(z_i))` of each dimension, or position of codes; None
            likewise.
        information_per_position: :math:`I(x; z_i)` of each position of codes; None for other latents.
        n: N.
        saturated: Whether the mutual information is so near ln N that it is only a lower bound, and the aggregate KL
            an upper one.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> parts = decompose(tb.recipes.VAE(latent_dim=2).build(data.spec), data.test)
        >>> len(parts.dimension_wise_kl)
        2
    """

    reconstruction: Estimate
    kl: Estimate | None
    mutual_information: Estimate
    aggregate_kl: Estimate | None
    aggregate_kl_at_least: float | None
    total_correlation: Estimate | None
    dimension_wise_kl: tuple[float, ...] | None
    information_per_position: tuple[float, ...] | None
    n: int
    saturated: bool


def decompose(model: LatentVariableModel, split: Split, *, limit: int = 2000, seed: int = 0) -> Decomposition:
    r"""Takes the ELBO of a model apart.

    .. math:: \mathrm{ELBO} = \underbrace{\mathbb{E} \log p(x \mid z)}_{\text{reconstruction}}
        - \underbrace{I(x; z)}_{\text{mutual information}}
        - \underbrace{\mathrm{KL}(q(z) \,\|\, p(z))}_{\text{mismatch}}

    and, where all factorise, the mismatch is the total correlation of :math:`q(z)` and the KL of its dimensions. The
    aggregate is evaluated in full, every sample under every posterior. It holds each sample's own posterior too, so
    the mutual information cannot exceed ln N: more examples raise that ceiling.

    References:
        ELBO Surgery: Yet Another Way to Carve up the Variational Evidence Lower Bound (Hoffman and Johnson, 2016).
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen, Li, Grosse and Duvenaud, 2018).

    Args:
        model: The model, on the device to compute on.
        split: The data.
        limit: Examples at most, evenly spread over the split; the work grows with their square.
        seed: Seed of all noise.

    Raises:
        UsageError: If the split is empty.
        ObjectiveError: If the posterior has no density.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> parts = decompose(model, data.test)
        >>> abs(parts.kl.value - parts.mutual_information.value - parts.aggregate_kl.value) < 1e-4
        True
    """
    check_split(split, model)
    check_finite(model)
    parameter = next(model.parameters())
    with torch.no_grad(), fixed_noise(seed), evaluating(model):
        some = spread(split, limit)
        batch = some.batch(torch.arange(len(some)), parameter.device)
        x = batch.x.to(parameter.dtype)
        terms = model.given(batch).terms(x)
        latent, n = terms.latents[0], len(x)
        if (outside := outside_support(latent)) is not None:
            check_support({"outside": outside[0].double()})
        own = latent.log_posterior[0].double()
        z = latent.z[0]
        log_aggregate = _log_aggregate(latent.posterior, z)
        log_prior = latent.log_prior[0].double() if terms.exact else None
        common = latent.prior is not None and not latent.prior.batch_shape  # not a prior for each condition
        parts = _by_factor(latent.posterior, latent.prior, z, common)
    information = Estimate.of(own - log_aggregate)
    return Decomposition(
        reconstruction=Estimate.of(terms.log_likelihood[0], offset=-measure_of(model.likelihood, split.spec).offset),
        kl=None if log_prior is None else Estimate.of(own - log_prior),
        mutual_information=information,
        aggregate_kl=Estimate.of(log_aggregate - log_prior) if log_prior is not None and common else None,
        aggregate_kl_at_least=parts.at_least,
        total_correlation=None if parts.log_aggregate is None else Estimate.of(log_aggregate - parts.log_aggregate),
        dimension_wise_kl=_listed(parts.wise),
        information_per_position=_listed(parts.information),
        n=n,
        saturated=n > 1 and information.value > FULL * math.log(n),
    )


def spread(split: Split, limit: int) -> Split:
    """So many examples at even distances, because those of a folder lie in the order of their class."""
    if len(split) <= limit:
        return split
    return split.subset(torch.linspace(0, len(split) - 1, limit, dtype=torch.float64).round().long())


def _log_aggregate(q: Distribution, z: Tensor) -> Tensor:
    """Log q(z) of n samples under the mixture of their n posteriors, ``(n,)``, float64."""
    factors = _factors(q)
    if factors is not None:
        return _mixture(factors.mean, factors.stddev, z)
    rows, n = max(1, ENTRIES // (len(z) * q.event_shape.numel())), len(z)
    parts: list[Tensor] = []
    with progress("aggregate posterior", n) as advance:
        for part in z.split(rows):
            parts.append(q.log_prob(part.unsqueeze(1)).double().logsumexp(1))
            advance(len(part))
    return torch.cat(parts) - math.log(n)


@dataclass(frozen=True)
class _Parts:
    """What is known dimension by dimension, or position by position: None where posterior or prior do not factorise.

    Args:
        at_least: What the aggregate KL cannot be less than.
        log_aggregate: Sum of log q(z_i), ``(n,)``.
        wise: KL(q(z_i) ‖ p(z_i)), ``(d,)``.
        information: I(x; z_i) of codes, ``(d,)``.
    """

    at_least: float | None = None
    log_aggregate: Tensor | None = None
    wise: Tensor | None = None
    information: Tensor | None = None


def _by_factor(q: Distribution, p: Distribution | None, z: Tensor, common: bool) -> _Parts:
    """Of codes, what they tell, be their prior one or one for each condition; all else is held against one prior."""
    if (found := positions_of(q, p, z)) is not None:
        found = found if common else dataclasses.replace(found, log_prior=None)
        total = None if found.log_prior is None else found.log_aggregate.sum(1)
        return _Parts(found.kl_at_least(), total, found.kl(), found.information())
    normal, prior = _factors(q), _factors(p) if common and p is not None else None
    if prior is None:
        return _Parts()
    if normal is None:
        return _Parts(_of_moments(q, prior))
    marginals = _log_marginals(normal, z)
    return _Parts(_of_moments(q, prior), marginals.sum(1), (marginals - prior.log_prob(z).double()).mean(0))


def _listed(values: Tensor | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values.tolist())


def _log_marginals(q: Normal, z: Tensor) -> Tensor:
    """Log q(z_i) of each dimension under the aggregate, ``(n, d)``, float64."""
    columns = [_mixture(q.mean[:, i : i + 1], q.stddev[:, i : i + 1], z[:, i : i + 1]) for i in range(z.shape[1])]
    return torch.stack(columns, dim=1)


def _of_moments(q: Distribution, p: Normal) -> float:
    """KL of the Gaussian with the aggregate's moments from the prior."""
    mean = q.mean.double()
    noise = q.covariance_matrix.mean(0) if isinstance(q, MultivariateNormal) else q.variance.mean(0).diag_embed()
    covariance = noise.double() + torch.cov(mean.T, correction=0).reshape(noise.shape)
    prior = Independent(Normal(p.loc.double().expand(len(noise)), p.scale.double().expand(len(noise))), 1)
    matched = MultivariateNormal(mean.mean(0), covariance, validate_args=False)
    return kl_divergence(matched, prior).item()


def _mixture(mean: Tensor, std: Tensor, z: Tensor) -> Tensor:
    mixture = MixtureOfGaussians(mean.new_zeros(len(mean)).double(), mean.double(), std.double().log())
    return torch.cat([mixture.log_prob(part) for part in z.double().split(max(1, ENTRIES // len(mean)))])


def _factors(distribution: Distribution) -> Any:
    """The factors of a product of Gaussians over vectors, or None."""
    base = distribution.base_dist if isinstance(distribution, Independent) else None
    return base if isinstance(base, Normal) and len(distribution.event_shape) == 1 else None
