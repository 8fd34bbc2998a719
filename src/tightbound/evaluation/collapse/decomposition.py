r"""A decomposition of the ELBO: mutual information, and KL of the aggregate posterior from the prior.

Convention: expectations are over the N examples of a split and :math:`z \sim q(z \mid x_n)`; the aggregate posterior is
:math:`q(z) = \frac{1}{N} \sum_n q(z \mid x_n)`, over the same examples; every value is in nats per example.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...checkpoint import require_finite
from ...data import Split
from ...distributions import has_density, lower_bound
from ...models.latent import LatentVariableModel, Marginal, Terms
from ...runtime.modes import evaluating
from ...runtime.randomness import fixed_noise
from ..estimate import Estimate
from ..latents.positions import Positions, positions_of
from ..log_likelihood.importance import outside_support
from ..passes import require_split, require_support
from .aggregate import held_out, log_aggregate, log_marginals, normal_factors, of_the_others
from .layers import LayerInformation, information_of_layers, own_and_aggregate

__all__ = ["Decomposition", "decompose"]


@dataclass(frozen=True)
class Decomposition:
    r"""The result of :func:`decompose`, from the same samples: ``kl`` is the sum of a lower bound and an upper bound.

    Args:
        reconstruction: :math:`\mathbb{E} \log p(x \mid z)`.
        kl: :math:`\mathbb{E} \log q(z \mid x) - \log p(z)`.
        mutual_information: :math:`I(x; z) = \mathbb{E} \log q(z \mid x) - \log q(z)` is at least this, which is at
            most ln N.
        mutual_information_at_most: And at most this.
        aggregate_kl: :math:`\mathrm{KL}(q(z) \,\|\, p(z)) = \mathbb{E} \log q(z) - \log p(z)` is at most this; None
            if the prior has no exact density, or there is one for each condition.
        aggregate_kl_at_least: And at least this; None likewise.
        total_correlation: :math:`\mathbb{E} \log q(z) - \sum_i \log q(z_i)`; None unless posterior and prior factorise.
        dimension_wise_kl: :math:`\mathrm{KL}(q(z_i) \,\|\, p(z_i))` of each dimension, or position of codes; None
            likewise.
        information_per_dimension: :math:`I(x; z_i)` of each dimension, or position of codes; None unless the posterior
            factorises.
        layers: The information of each layer of a hierarchy, in the order of inference; empty for a single latent.
        n: N.

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
    mutual_information_at_most: Estimate
    aggregate_kl: Estimate | None
    aggregate_kl_at_least: Estimate | None
    total_correlation: Estimate | None
    dimension_wise_kl: tuple[float, ...] | None
    information_per_dimension: tuple[float, ...] | None
    n: int
    layers: dict[str, LayerInformation] = field(default_factory=dict)


def decompose(model: LatentVariableModel, split: Split, *, limit: int = 2000, seed: int = 0) -> Decomposition:
    r"""Decomposes the ELBO of a model.

    .. math:: \mathrm{ELBO} = \underbrace{\mathbb{E} \log p(x \mid z)}_{\text{reconstruction}}
        - \underbrace{I(x; z)}_{\text{mutual information}}
        - \underbrace{\mathrm{KL}(q(z) \,\|\, p(z))}_{\text{mismatch}}

    and, if all factorise, the mismatch is the total correlation of :math:`q(z)` and the KL of its dimensions. N
    examples only bound the aggregate of all data from both sides (:mod:`~tightbound.evaluation.collapse.aggregate`):
    with every sample's own posterior included it is too dense at the samples, so the information cannot exceed ln N;
    without it is too sparse. More examples tighten both bounds.

    The layers of a hierarchy are compared on at most ``space.most_compared`` examples, see
    :mod:`~tightbound.evaluation.collapse.layers`; of a top-down hierarchy all bounds are of these.

    References:
        ELBO Surgery: Yet Another Way to Carve up the Variational Evidence Lower Bound (Hoffman and Johnson, 2016).
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen, Li, Grosse and Duvenaud, 2018).

    Args:
        model: The model, on the device to compute on.
        split: The data.
        limit: Use at most this many evenly spaced examples; the cost is quadratic.
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
    require_split(split, model)
    require_finite(model)
    with torch.no_grad(), fixed_noise(seed), evaluating(model):
        offset, px = model.measure(split.spec).offset, lambda n: _marginal(model, split.evenly_spaced(n))
        if model.space.adds_up:
            return _of_layers(*px(min(limit, model.space.most_compared)), offset)
        marginal, x = px(limit)
        found = _decomposed(marginal.terms(x), offset)
        if len(model.space.names) == 1:
            return found
        marginal, x = px(min(limit, model.space.most_compared))
        compared = model.space.compared(x, marginal.c)
        return dataclasses.replace(found, layers=information_of_layers(model.space, compared))


def _marginal(model: LatentVariableModel, split: Split) -> tuple[Marginal, Tensor]:
    """The distribution of all examples given their conditions, and the examples."""
    x, c = model.see(split.batch(torch.arange(len(split)), model.device))
    return model(c), x


def _of_layers(px: Marginal, x: Tensor, offset: float) -> Decomposition:
    """From a sample of each example, compared layer by layer, for a top-down hierarchy."""
    space, prior = px.model.space, px.prior()
    compared = space.compared(x, px.c)
    z = space.joined({name: z for name, (z, _) in compared.items()})
    log_all_pairs = torch.stack([log_q for _, log_q in compared.values()]).sum(0)
    log_q, log_all = own_and_aggregate(log_all_pairs)
    against = prior.log_prob(z).double() if has_density(prior) and not prior.batch_shape else None
    known = [] if against is None else [against]
    log_others = max([*known, of_the_others(log_q, log_all)], key=lambda log_r: log_r.mean().item())
    return Decomposition(
        reconstruction=Estimate.of(lower_bound(px.likelihood(z), x), offset=-offset),
        kl=None if against is None else Estimate.of(log_q - against),
        mutual_information=Estimate.of(log_q - log_all),
        mutual_information_at_most=Estimate.of(log_q - log_others),
        aggregate_kl=None if against is None else Estimate.of(log_all - against),
        aggregate_kl_at_least=None if against is None else Estimate.of(log_others - against),
        total_correlation=None,
        dimension_wise_kl=None,
        information_per_dimension=None,
        n=len(x),
        layers=information_of_layers(space, compared),
    )


def _decomposed(terms: Terms, offset: float) -> Decomposition:
    """From a sample of each example; the first of a hierarchy, the latent next to the data."""
    latent = terms.latents[0]
    if (outside := outside_support(latent)) is not None:
        require_support({"outside": outside[0].double()})
    log_q, z = latent.log_posterior[0].double(), latent.z[0]
    log_all = log_aggregate(latent.posterior, z)
    log_prior = latent.log_prior[0].double() if terms.exact and len(terms.entries) == 1 else None
    common = latent.prior is not None and not latent.prior.batch_shape  # not a prior for each condition
    parts = _by_factor(latent.posterior, latent.prior, z, common)
    against = log_prior if common else None
    known = [] if against is None else [against]
    log_others = held_out(latent.posterior, z, log_q, log_all, parts.positions, *known)
    return Decomposition(
        reconstruction=Estimate.of(terms.log_likelihood[0], offset=-offset),
        kl=None if log_prior is None else Estimate.of(log_q - log_prior),
        mutual_information=Estimate.of(log_q - log_all),
        mutual_information_at_most=Estimate.of(log_q - log_others),
        aggregate_kl=None if against is None else Estimate.of(log_all - against),
        aggregate_kl_at_least=None if against is None else Estimate.of(log_others - against),
        total_correlation=None if parts.log_aggregate is None else Estimate.of(log_all - parts.log_aggregate),
        dimension_wise_kl=_listed(parts.wise),
        information_per_dimension=_listed(parts.information),
        n=len(log_q),
    )


@dataclass(frozen=True)
class _Parts:
    """Values per dimension or position: None if posterior or prior do not factorise.

    Args:
        positions: Of codes.
        log_aggregate: Sum of log q(z_i), ``(n,)``.
        wise: KL(q(z_i) ‖ p(z_i)), ``(d,)``.
        information: I(x; z_i), ``(d,)``.
    """

    positions: Positions | None = None
    log_aggregate: Tensor | None = None
    wise: Tensor | None = None
    information: Tensor | None = None


def _by_factor(q: Distribution, p: Distribution | None, z: Tensor, common: bool) -> _Parts:
    """Values per factor, for one prior or one per condition; other values need a single prior."""
    if (found := positions_of(q, p, z)) is not None:
        found = found if common else dataclasses.replace(found, log_prior=None)
        total = None if found.log_prior is None else found.log_aggregate.sum(1)
        return _Parts(found, total, found.kl(), found.information())
    if (normal := normal_factors(q)) is None:
        return _Parts()
    marginals = log_marginals(normal, z)
    information = (normal.log_prob(z).double() - marginals).mean(0)
    if not common or p is None or (prior := normal_factors(p)) is None:
        return _Parts(information=information)
    return _Parts(None, marginals.sum(1), (marginals - prior.log_prob(z).double()).mean(0), information)


def _listed(values: Tensor | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values.tolist())
