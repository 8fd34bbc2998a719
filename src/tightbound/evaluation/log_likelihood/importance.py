r"""Importance-weighted likelihoods, in memory that does not grow with the number of samples.

Convention: :math:`w_j = p(x, z_j) / q(z_j \mid x)` for :math:`z_j \sim q(z \mid x)`; every log is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from ...conditions import Given
from ...errors import UsageError
from ...models.latent import Latent, LatentVariableModel, Marginal, Terms
from ...runtime.memory import keep_freed_memory
from .pareto import pareto_k, tail_length

__all__ = [
    "chunks",
    "from_prior",
    "from_proposal",
    "is_unbounded",
    "outside_support",
    "per_example",
    "prior_samples",
    "weigh",
]

ENTRIES = 1 << 21
"""Maximum number of decoder outputs at a time: about the size of a processor's cache."""


@dataclass(frozen=True)
class _Chunk:
    """Results of some samples for a few examples.

    Args:
        sums: Sums over the samples, ``(points, ...)``.
        log_weights: Log-weight of each sample, ``(samples, points)``, nats, float64; None without weights.
    """

    sums: dict[str, Tensor]
    log_weights: Tensor | None


@torch.no_grad()
def per_example(model: LatentVariableModel, x: Tensor, k: int, c: Given | None = None) -> dict[str, Tensor]:
    r"""Estimates for each example from k samples of the posterior, computed in chunks.

    .. math:: \log p(x) \approx \log \frac{1}{k} \sum_j w_j, \qquad \text{ESS} = \frac{(\sum_j w_j)^2}{\sum_j w_j^2}

    References:
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016).

    Args:
        model: The model.
        x: Examples, ``(n, *shape)``.
        k: Samples per example; more take time, not memory.
        c: Conditions of shape ``(n,)``.

    Returns:
        ``reconstruction``, the mean of log p(x | z), ``(n,)`` nats, and ``posterior_mean``, ``(n, latent entries)``.
        If the model has a prior and its posterior a density: ``kl/NAME`` for each latent, ``(n, dimensions)`` nats
        (one column if it does not factorise). If both densities are exact: ``log_marginal``, ``(n,)`` nats;
        ``log_weight``, the mean of log w; ``effective_samples``, between 1 and k (0 if every weight is zero);
        ``pareto_k``, the shape of the weights' tail, if k is at least 25; ``outside``, the share of samples outside
        the prior's support, if that is bounded.

    Raises:
        UsageError: If k is less than 1.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> model = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> per_example(model, torch.zeros(5, 1, 8, 8), k=100)["log_marginal"].shape
        torch.Size([5])
    """

    def found(marginal: Marginal, x: Tensor, at_once: int) -> dict[str, Tensor]:
        posterior = marginal.posterior(x)
        draw = lambda samples: _chunk(marginal.terms(x, k=samples, posterior=posterior))
        return _stream(draw, k, at_once, x.dtype) | {"posterior_mean": posterior.mean.flatten(1)}

    return chunks(found, model, x, k, c)


@torch.no_grad()
def from_prior(model: LatentVariableModel, x: Tensor, k: int, c: Given | None = None) -> dict[str, Tensor]:
    r"""Naive Monte Carlo: the mean likelihood over samples of the prior.

    .. math:: \log p(x) \approx \log \frac{1}{k} \sum_j p(x \mid z_j), \qquad z_j \sim p(z)

    The estimate of p(x) is unbiased, but its variance is high if few samples of the prior explain x. The prior is only
    sampled, so it needs no density.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).

    Args:
        model: The model.
        x: Examples, ``(n, *shape)``.
        k: Samples per example.
        c: Conditions of shape ``(n,)``.

    Returns:
        ``log_marginal``, ``effective_samples`` and, for k of at least 25, ``pareto_k``, as :func:`per_example`.

    Raises:
        UsageError: If k is less than 1.
        ObjectiveError: If the model has no prior.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> model = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> sorted(from_prior(model, torch.zeros(5, 1, 8, 8), k=10))
        ['effective_samples', 'log_marginal']
    """

    def found(marginal: Marginal, x: Tensor, at_once: int) -> dict[str, Tensor]:
        def draw(samples: int) -> _Chunk:
            z = prior_samples(marginal, samples, len(x))
            return _Chunk({}, marginal.likelihood(z).log_prob(x).double())

        return _stream(draw, k, at_once, x.dtype)

    return chunks(found, model, x, k, c)


@torch.no_grad()
def from_proposal(marginal: Marginal, x: Tensor, proposal: Distribution, k: int) -> dict[str, Tensor]:
    r"""Importance sampling from any proposal with a density, :math:`w_j = p(x, z_j) / r(z_j), z_j \sim r`.

    Args:
        marginal: The model, conditioned on the examples' conditions.
        x: Examples, ``(n, *shape)``.
        proposal: r, with batch shape ``(n,)``, whose support contains that of p(z | x).
        k: Samples per example.

    Returns:
        ``log_marginal``, ``effective_samples`` and, for k of at least 25, ``pareto_k``, as :func:`per_example`.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> x = torch.zeros(5, 1, 8, 8)
        >>> from_proposal(px, x, px.posterior(x), k=100)["pareto_k"].shape
        torch.Size([5])
    """
    draw = lambda samples: _Chunk({}, marginal.terms(x, samples, posterior=proposal).log_weights.double())
    return _stream(draw, k, min(k, max(1, _rows(marginal.model, x) // len(x))), x.dtype)


def prior_samples(marginal: Marginal, samples: int, n: int) -> Tensor:
    """Samples of the prior for each of n examples, ``(samples, n, *latent)``."""
    return marginal.sample_latent((samples, n) if marginal.c is None else (samples,))


def chunks(
    found: Callable[[Marginal, Tensor, int], dict[str, Tensor]],
    model: LatentVariableModel,
    x: Tensor,
    k: int,
    c: Given | None,
) -> dict[str, Tensor]:
    """Evaluates ``found`` on all examples, in chunks of points and samples within :data:`ENTRIES`."""
    if k < 1:
        raise UsageError("At least one sample is needed.", got=f"k = {k}", expected="k >= 1", remedy="Try -k 1000.")
    keep_freed_memory()
    rows = _rows(model, x)
    points = max(1, rows // k)
    parts: list[dict[str, Tensor]] = []
    whole = model() if c is None else None  # makes its prior only once
    for i in range(0, len(x), points):
        marginal = model(None if c is None else c[i : i + points]) if whole is None else whole
        parts.append(found(marginal, x[i : i + points], min(k, rows)))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _rows(model: LatentVariableModel, x: Tensor) -> int:
    """Points times samples decoded at a time."""
    return max(1, ENTRIES // (x[0].numel() * model.numbers_per_entry))


def weigh(log_weights: Tensor) -> dict[str, Tensor]:
    """The estimates from all log-weights of k samples of n examples, ``(k, n)``."""
    drawn = iter([log_weights])
    return _stream(lambda _: _Chunk({}, next(drawn)), len(log_weights), len(log_weights), log_weights.dtype)


def _stream(draw: Callable[[int], _Chunk], k: int, at_once: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Estimates from k samples in chunks, of which only sums and the largest weights are kept."""
    sums, length = dict[str, Tensor](), tail_length(k)
    tail: Tensor | None = None
    for done in range(0, k, at_once):
        chunk = draw(min(at_once, k - done))
        for name, new in (chunk.sums | _log_sums(chunk.log_weights)).items():
            sums[name] = _added(name, sums[name], new) if name in sums else new
        if chunk.log_weights is not None and length:
            tail = _largest(tail, chunk.log_weights, length + 1)
    log_sum, log_squares = sums.pop("log_sum", None), sums.pop("log_sum_squares", None)
    out = {name: total / k for name, total in sums.items()}
    if log_sum is not None and log_squares is not None:
        out["log_marginal"] = (log_sum - math.log(k)).to(dtype)
        effective = (2 * log_sum - log_squares).exp()
        out["effective_samples"] = torch.where(log_sum.isneginf(), 0.0, effective).to(dtype)
    return out if tail is None else out | {"pareto_k": pareto_k(tail).to(dtype)}


def _added(name: str, old: Tensor, new: Tensor) -> Tensor:
    return torch.logaddexp(old, new) if name.startswith("log_sum") else old + new


def _largest(tail: Tensor | None, log_weights: Tensor, length: int) -> Tensor:
    """The largest of the old and new weights, in descending order."""
    both = log_weights if tail is None else torch.cat([tail, log_weights])
    return both.topk(min(length, len(both)), dim=0).values


def _chunk(terms: Terms) -> _Chunk:
    """Sums over one chunk of samples; log-weights in float64, as they are large with small differences."""
    sums, size = {"reconstruction": terms.log_likelihood.sum(0)}, len(terms.log_likelihood)
    if terms.bounded:
        for entry in terms.entries:
            sums[f"kl/{entry.name}"] = size * entry.kl().flatten(1)
    if not terms.exact:
        return _Chunk(sums, None)
    log_weights = terms.log_weights.double()
    for outside in (found for latent in terms.latents if (found := outside_support(latent)) is not None):
        share = outside.to(log_weights.dtype).sum(0)
        sums["outside"] = sums["outside"] + share if "outside" in sums else share
        log_weights = log_weights.masked_fill(outside, -math.inf)
    return _Chunk(sums | {"log_weight": log_weights.sum(0)}, log_weights)


def _log_sums(log_weights: Tensor | None) -> dict[str, Tensor]:
    if log_weights is None:
        return {}
    return {"log_sum": log_weights.logsumexp(0), "log_sum_squares": (2 * log_weights).logsumexp(0)}


def outside_support(latent: Latent) -> Tensor | None:
    """Which samples lie outside the prior's support, ``(k, *batch)``; an unvalidated density does not check."""
    if latent.prior is None or is_unbounded(latent.prior) or (support := latent.prior.support) is None:
        return None
    inside = support.check(latent.z)
    event = inside.dim() - latent.z.dim() + len(latent.posterior.event_shape)
    return ~(inside.flatten(-event).all(-1) if event > 0 else inside)


def is_unbounded(distribution: Distribution) -> bool:
    """Whether the support is all real numbers, or unknown.

    Example:
        >>> from torch.distributions import Exponential, Normal
        >>> is_unbounded(Normal(0.0, 1.0)), is_unbounded(Exponential(1.0))
        (True, False)
    """
    try:
        support = distribution.support
    except NotImplementedError:
        return True
    while isinstance(support, constraints.independent | constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    return support is None or support is constraints.real
