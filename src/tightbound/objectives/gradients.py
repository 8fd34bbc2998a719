r"""Estimators of the gradient: each has the value of a bound, with its own gradient.

Convention: :math:`\theta` are the parameters of likelihood and prior, :math:`\phi` those of the posterior, and
:math:`z_j = z(\epsilon_j, \phi)`. The pathwise estimator is the ELBO's own, :func:`~tightbound.objectives.elbo`.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..errors import ObjectiveError
from ..models.terms import Terms

__all__ = ["dreg", "score_function", "sticking_the_landing"]


def sticking_the_landing(terms: Terms) -> Tensor:
    r"""The ELBO, with the pathwise gradient without its score term.

    .. math:: \nabla_\phi = \frac{1}{k} \sum_j \frac{\partial \log w_j}{\partial z_j} \frac{\partial z_j}{\partial \phi}

    The omitted term, :math:`\nabla_\phi \log q(z_j \mid x)` at a fixed :math:`z_j`, has expectation zero. The gradient
    then has zero variance if the posterior is exact.

    References:
        Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference (Roeder, Wu and
        Duvenaud, 2017).

    Args:
        terms: The terms of a batch; any posterior that can be reparameterised.

    Returns:
        ``(*batch)``, nats; the value is ``elbo(terms, analytic=False)``.

    Raises:
        ObjectiveError: If the model has no ELBO, or no gradient flows through the samples.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> sticking_the_landing(px.terms(torch.zeros(5, 1, 8, 8))).shape
        torch.Size([5])
    """
    return (terms.log_likelihood + terms.log_prior - _log_posterior_by_path(terms)).mean(0)


def dreg(terms: Terms) -> Tensor:
    r"""The importance-weighted bound, with the doubly reparameterised gradient of the posterior.

    .. math:: \nabla_\phi = \sum_j \tilde w_j^2 \frac{\partial \log w_j}{\partial z_j}
        \frac{\partial z_j}{\partial \phi}, \qquad \tilde w_j = \frac{w_j}{\sum_i w_i}

    Its signal-to-noise ratio grows with k, while that of the bound's own gradient falls. The gradients of likelihood
    and prior are those of the bound. The terms can be used for one such objective only: hooks on the samples weight
    their gradients.

    References:
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker, Lawson, Gu and Maddison, 2019).

    Args:
        terms: The terms of a batch with k samples.

    Returns:
        ``(*batch)``, nats; the value is ``iwae(terms)``.

    Raises:
        ObjectiveError: If a density is not exact, or no gradient flows through the samples.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> dreg(px.terms(torch.zeros(5, 1, 8, 8), k=10)).shape
        torch.Size([5])
    """
    if not terms.exact:
        raise ObjectiveError(
            "An importance-weighted bound needs exact densities.",
            got=f"no exact density: {terms.inexact}",
            remedy="Use the ELBO, or objectives.reconstruction for an autoencoder.",
        )
    log_weights = terms.log_likelihood + terms.log_prior - _log_posterior_by_path(terms)
    share = log_weights.detach().softmax(0)
    z = terms.latent.z
    if z.requires_grad:
        weight = share.reshape(share.shape + (1,) * (z.dim() - share.dim()))
        z.register_hook(lambda gradient: gradient * weight)
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def score_function(terms: Terms, *, baseline: bool = True) -> Tensor:
    r"""The ELBO, with the score-function gradient: it needs no derivative with respect to z, at the price of variance.

    .. math:: \nabla_\phi = \frac{1}{k} \sum_j (\log w_j - b_j) \nabla_\phi \log q(z_j \mid x), \qquad
        b_j = \frac{1}{k - 1} \sum_{i \ne j} \log w_i

    The control variate :math:`b_j` is the mean over the other samples, which is independent of :math:`z_j`.

    References:
        Black Box Variational Inference (Ranganath, Gerrish and Blei, 2014).
        Buy 4 REINFORCE Samples, Get a Baseline for Free! (Kool, van Hoof and Welling, 2019).

    Args:
        terms: The terms of a batch, drawn with ``terms(x, k, pathwise=False)``.
        baseline: Whether to use the control variate; needs k of at least 2.

    Returns:
        ``(*batch)``, nats; the value is ``elbo(terms, analytic=False)``.

    Raises:
        ObjectiveError: If gradients flow through the samples, or the baseline is used with k = 1.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> score_function(px.terms(torch.zeros(5, 1, 8, 8), k=4, pathwise=False)).shape
        torch.Size([5])
    """
    if any(latent.z.requires_grad for latent in terms.latents):
        raise ObjectiveError(
            "The score-function estimator needs samples without a gradient.", remedy="Draw terms(x, k, pathwise=False)."
        )
    log_posterior = terms.log_posterior
    joint = terms.log_likelihood + terms.log_prior
    signal = (joint - log_posterior).detach()
    k = len(signal)
    if baseline:
        if k < 2:
            raise ObjectiveError("The baseline needs at least two samples.", got="k = 1", remedy="Use k = 2 or more.")
        signal = signal - (signal.sum(0) - signal) / (k - 1)
    score = signal * log_posterior
    return (joint - log_posterior.detach() + score - score.detach()).mean(0)


def _log_posterior_by_path(terms: Terms) -> Tensor:
    """The value of log q(z | x), with the gradient through z only."""
    latent = terms.latent  # in a hierarchy, fixed parameters would depend on differentiable samples
    fixed = latent.posterior.log_prob(latent.z.detach())
    if fixed.requires_grad and not latent.z.requires_grad:
        raise ObjectiveError(
            "This estimator needs differentiable samples.",
            got=f"samples of {type(latent.posterior).__name__} without a gradient",
            remedy="Draw terms(x, k), from a posterior that can be reparameterised; or use objectives.score_function.",
        )
    through = latent.posterior.log_prob(latent.z.view_as(latent.z))  # not the cached density of a flow's last sample
    return through - (fixed - fixed.detach())
