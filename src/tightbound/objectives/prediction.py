r"""Objectives of conditional models that are to predict: trained with the latents that they will predict with.

Convention: as in :mod:`~tightbound.objectives.bounds`; at test time z comes from the prior :math:`p(z \mid c)`.
"""

from __future__ import annotations

from torch import Tensor

from ..errors import ObjectiveError, UsageError
from ..models.latent import Terms
from .bounds import elbo, reconstruction

__all__ = ["gsnn", "hybrid"]


def gsnn(terms: Terms) -> Tensor:
    r"""Gaussian stochastic neural network: :math:`\mathbb{E}_{p(z \mid c)} \log p(x \mid z, c)`, z from the prior.

    It is a lower bound on :math:`\log p(x \mid c)` too, whose posterior is the prior: training then predicts as the
    test does, and need not learn to use the latent.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Args:
        terms: The terms of a batch, made with ``terms(x, k, generate=True)``.

    Returns:
        ``(*batch)``, nats.

    Raises:
        ObjectiveError: If they were made without.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> gsnn(px.terms(torch.zeros(5, 1, 8, 8), k=3, generate=True)).shape
        torch.Size([5])
    """
    if terms.generated is None:
        raise ObjectiveError(
            "These terms hold no samples of the prior.", remedy="Make them with terms(x, k, generate=True)."
        )
    return reconstruction(terms.generated)


def hybrid(terms: Terms, alpha: float, beta: float | Tensor = 1.0, *, analytic: bool | None = None) -> Tensor:
    r"""A share of both, :math:`\alpha \, \mathrm{ELBO}_\beta + (1 - \alpha) \, \mathrm{GSNN}`.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015).

    Args:
        terms: The terms of a batch, made with ``terms(x, k, generate=True)``.
        alpha: Share of the ELBO, from 0 to 1.
        beta: Weight of its KL.
        analytic: As for :func:`~tightbound.objectives.elbo`.

    Returns:
        ``(*batch)``, nats.

    Raises:
        UsageError: If alpha is no share.
        ObjectiveError: If the terms hold no samples of the prior.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> terms = px.terms(torch.zeros(5, 1, 8, 8), generate=True)
        >>> torch.equal(hybrid(terms, 1.0), elbo(terms)), torch.equal(hybrid(terms, 0.0), gsnn(terms))
        (True, True)
    """
    if not 0 <= alpha <= 1:
        raise UsageError("The share of the ELBO lies between 0 and 1.", got=alpha, expected="0 (GSNN) to 1 (ELBO)")
    if alpha == 1:
        return elbo(terms, beta, analytic=analytic)
    if alpha == 0:
        return gsnn(terms)
    return alpha * elbo(terms, beta, analytic=analytic) + (1 - alpha) * gsnn(terms)
