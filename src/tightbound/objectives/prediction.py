r"""Objectives whose latents come from the prior: for conditional prediction, and naive Monte Carlo.

Convention: as in :mod:`~tightbound.objectives.bounds`, but :math:`z_1, \dots, z_k \sim p(z \mid c)`, as at test time.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..errors import ObjectiveError, UsageError
from ..models.latent import Terms
from .bounds import elbo, reconstruction

__all__ = ["gsnn", "hybrid", "naive_monte_carlo"]


def gsnn(generated: Terms) -> Tensor:
    r"""Gaussian stochastic neural network: :math:`\mathbb{E}_{p(z \mid c)} \log p(x \mid z, c)`, z from the prior.

    It is a lower bound on :math:`\log p(x \mid c)` too, whose posterior is the prior: training then predicts as the
    test does, and need not learn to use the latent.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Args:
        generated: The terms of a batch with latents of the prior, ``px.generated(x, k)``.

    Returns:
        ``(*batch)``, nats.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> gsnn(px.generated(torch.zeros(5, 1, 8, 8), k=3)).shape
        torch.Size([5])
    """
    return reconstruction(generated)


def naive_monte_carlo(generated: Terms) -> Tensor:
    r"""Naive Monte Carlo, :math:`\log \frac{1}{k} \sum_{j=1}^k p(x \mid z_j, c)`, :math:`z_j \sim p(z \mid c)`.

    It is :func:`~tightbound.objectives.iwae` with the prior instead of the posterior, and at k = 1 equal to
    :func:`~tightbound.objectives.gsnn`, whose mean is outside the logarithm. The mean is unbiased, its logarithm too
    low; if few samples of the prior explain x, one dominates the sum, and k must grow exponentially with the
    information (nats) in z about x.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).

    Args:
        generated: The terms of a batch with latents of the prior, ``px.generated(x, k)``; it needs no density.

    Returns:
        ``(*batch)``, nats.

    Raises:
        ObjectiveError: If the likelihood is only a bound.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> naive_monte_carlo(px.generated(torch.zeros(5, 1, 8, 8), k=100)).shape
        torch.Size([5])
    """
    if not generated.exact_likelihood:
        raise ObjectiveError(
            "Naive Monte Carlo needs an exact likelihood: a bound inside the logarithm would raise the result.",
            got="a likelihood that is only a bound",
            remedy="Use the ELBO.",
        )
    log_likelihood = generated.log_likelihood
    return log_likelihood.logsumexp(0) - math.log(len(log_likelihood))


def hybrid(
    terms: Terms, generated: Terms, alpha: float, beta: float | Tensor = 1.0, *, analytic: bool | None = None
) -> Tensor:
    r"""A weighted mean of both, :math:`\alpha \, \mathrm{ELBO}_\beta + (1 - \alpha) \, \mathrm{GSNN}`.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Args:
        terms: The terms of a batch.
        generated: The terms with latents of the prior, ``px.generated(x, k)``.
        alpha: Share of the ELBO, from 0 to 1.
        beta: Weight of its KL.
        analytic: As for :func:`~tightbound.objectives.elbo`.

    Returns:
        ``(*batch)``, nats.

    Raises:
        UsageError: If alpha is not between 0 and 1.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> x = torch.zeros(5, 1, 8, 8)
        >>> terms, generated = px.terms(x), px.generated(x)
        >>> torch.equal(hybrid(terms, generated, 1.0), elbo(terms))
        True
        >>> torch.equal(hybrid(terms, generated, 0.0), gsnn(generated))
        True
    """
    if not 0 <= alpha <= 1:
        raise UsageError("The share of the ELBO must lie between 0 and 1.", got=alpha, expected="0 (GSNN) to 1 (ELBO)")
    if alpha == 1:
        return elbo(terms, beta, analytic=analytic)
    if alpha == 0:
        return gsnn(generated)
    return alpha * elbo(terms, beta, analytic=analytic) + (1 - alpha) * gsnn(generated)
