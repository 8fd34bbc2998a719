"""What each objective computes for a batch: the terms it needs, the value to maximise, and the metrics.

The classes of :mod:`tightbound.options.objectives` are data; their computations are registered here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import lower_bound
from ..likelihoods import declared
from ..models import Marginal, Terms
from ..options import objectives as values
from ..options.direct import LogLikelihood
from ..options.published import WIDTH, PublishedQuantized, WeakKL
from .balancing import balanced
from .bounds import elbo, iwae, reconstruction
from .gradients import dreg, score_function, sticking_the_landing
from .penalties import beta_tcvae, capacity, free_bits, info_vae
from .prediction import gsnn, hybrid, naive_monte_carlo
from .quantized import vq, weight_of_means

__all__ = ["ROWS", "OfTerms", "nats_of_error", "rows"]

ROWS = ("objective", "bound", "reconstruction", "kl")
"""The objective to maximise; the bound for model selection and reports, never weighted, annealed or relaxed; and its
two terms."""
_CLOSED = {"auto": None, "analytic": True, "monte-carlo": False}


@dataclass(frozen=True)
class OfTerms(values.Objective):
    """A function of the terms, used instead of a named objective.

    Args:
        samples: Posterior samples per training step.
        function: ``(terms, beta) -> (n,)`` nats, to be maximised; beta rises from 0 to 1 during warm-up.

    Example:
        >>> OfTerms(samples=3, function=lambda terms, beta: reconstruction(terms)).samples
        3
    """

    function: Callable[[Terms, Tensor], Tensor] = elbo


@functools.singledispatch
def rows(objective: values.Objective, px: Distribution, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    """The rows :data:`ROWS` of the examples of a batch, ``(4, n)`` nats; one function for each class of objective.

    Without a latent there are only the first two.

    Args:
        objective: What is maximised.
        px: The model's distribution.
        x: The batch.
        beta: Rises from 0 to 1 during warm-up; a tensor, so that a compiled step is compiled once.
        examples: Size of the training split, for estimates of the aggregate posterior.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> rows(values.Iwae(samples=5), px, torch.zeros(3, 1, 8, 8), torch.ones(()), examples=1000).shape
        torch.Size([4, 3])
    """
    raise NotImplementedError(
        f"No computation is registered for {type(objective).__name__}: use objectives.rows.register."
    )


def _read(terms: Terms, objective: Tensor, bound: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():  # metrics need no gradient
        likelihood = reconstruction(terms)
        kl = terms.kl() if terms.bounded else torch.zeros_like(likelihood)
        readings = torch.stack([bound(), likelihood, kl])
    return torch.cat([objective.unsqueeze(0), readings])


@rows.register
def _(o: values.Elbo, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms, weight, analytic = px.terms(x, o.samples), o.beta * beta, _CLOSED[o.divergence]
    if o.balance:
        free = (o.free_bits, o.free_bits_group)
        objective = balanced(terms, weight, warming=beta < 1, free=free, analytic=analytic)
    elif o.free_bits:
        objective = free_bits(terms, o.free_bits, weight, group=o.free_bits_group, analytic=analytic)
    else:
        objective = elbo(terms, weight, analytic=analytic)
    return _read(terms, objective, lambda: elbo(terms, analytic=analytic))


@rows.register
def _(o: values.Capacity, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms, analytic = px.terms(x, o.samples), _CLOSED[o.divergence]
    objective = capacity(terms, o.capacity * beta, o.beta, analytic=analytic)
    return _read(terms, objective, lambda: elbo(terms, analytic=analytic))


@rows.register
def _(o: values.Iwae, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples)
    return _read(terms, dreg(terms) if o.gradient == "dreg" else iwae(terms), lambda: iwae(terms))


@rows.register
def _(o: values.TotalCorrelation, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples)
    objective = beta_tcvae(terms, examples, 1 + (o.beta - 1) * beta)
    return _read(terms, objective, lambda: elbo(terms, analytic=_CLOSED[o.divergence]))


@rows.register
def _(o: values.Mmd, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples)
    objective = info_vae(terms, alpha=1 - o.beta * beta, weight=o.mmd)
    return _read(terms, objective, lambda: _elbo_if_any(terms, _CLOSED[o.divergence]))


@rows.register
def _(o: values.StickingTheLanding, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples)
    return _read(terms, sticking_the_landing(terms), lambda: elbo(terms))


@rows.register
def _(o: values.Score, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples, pathwise=False)
    return _read(terms, score_function(terms), lambda: elbo(terms))


@rows.register
def _(o: values.Hybrid, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    (terms, generated), analytic = _both(px, x, o.samples), _CLOSED[o.divergence]
    objective = hybrid(terms, generated, o.share, o.beta * beta, analytic=analytic)
    return _read(terms, objective, lambda: elbo(terms, analytic=analytic))


@rows.register
def _(o: values.Gsnn, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms, generated = _both(px, x, o.samples)
    return _read(terms, gsnn(generated), lambda: gsnn(generated))


@rows.register
def _(o: values.NaiveMonteCarlo, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms, generated = _both(px, x, o.samples)
    return _read(terms, naive_monte_carlo(generated), lambda: naive_monte_carlo(generated))


@rows.register
def _(o: values.Quantized, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples)
    return _read(terms, vq(terms, o.codebook, o.commitment), lambda: elbo(terms))


@rows.register
def _(o: WeakKL, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples)
    weight = o.weight * nats_of_error(px)
    return _read(terms, elbo(terms, beta * weight), lambda: elbo(terms))


@rows.register
def _(o: PublishedQuantized, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples)
    entries, of_latent = math.prod(px.event_shape), math.prod(terms.latents[0].z.shape[2:])
    weight = weight_of_means(1.0, entries, of_latent) * nats_of_error(px)
    return _read(terms, vq(terms, o.codebook * weight, o.commitment * weight), lambda: elbo(terms))


def nats_of_error(px: Marginal) -> Tensor:
    """The nats of a unit of the error that published weights refer to, at the likelihood's current scale.

    Args:
        px: A model of images in [0, 1], whose published errors are those of images in [-1, 1].

    Raises:
        ObjectiveError: If its likelihood is not made of an error.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import KLAutoencoder
        >>> spec = DataSpec("digits", shape=(1, 8, 8), levels=17)
        >>> px = KLAutoencoder(factor=2, channels=(8, 8), spread=0.05).build(spec)()
        >>> round(nats_of_error(px).item(), 3)
        10.0
    """
    return declared(px.model.likelihood).nats_per_error(WIDTH).detach()


@rows.register
def _(o: values.LogPrior, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples)
    return _read(terms, terms.log_prior.mean(0), lambda: elbo(terms))


@rows.register
def _(o: values.Reconstruction, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples)
    return _read(terms, reconstruction(terms), lambda: reconstruction(terms))


@rows.register
def _(o: LogLikelihood, px: Distribution, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    bound = lower_bound(px, x)
    return torch.stack([bound, bound.detach()])


@rows.register
def _(o: OfTerms, px: Marginal, x: Tensor, beta: Tensor, examples: int) -> Tensor:
    terms = px.terms(x, o.samples)
    return _read(terms, o.function(terms, beta), lambda: _elbo_if_any(terms))


def _elbo_if_any(terms: Terms, analytic: bool | None = None) -> Tensor:
    return elbo(terms, analytic=analytic) if terms.bounded else reconstruction(terms)


def _both(px: Marginal, x: Tensor, k: int) -> tuple[Terms, Terms]:
    """The terms with latents of the posterior, and those with latents of the prior."""
    terms = px.terms(x, k)
    alone = terms.latents[0].prior if len(terms.entries) == 1 else None  # in a hierarchy it is given a sample above
    return terms, px.generated(x, k, alone)
