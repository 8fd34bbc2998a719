r"""Bounds on the log-likelihood, and the reconstruction.

Convention: :math:`z_1, \dots, z_k \sim q(z \mid x, c)` and :math:`w_j = p(x, z_j \mid c) / q(z_j \mid x, c)`; the
caller averages over the batch.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..errors import ObjectiveError
from ..models.latent import Terms

__all__ = ["elbo", "iwae", "reconstruction"]


def reconstruction(terms: Terms) -> Tensor:
    r"""Expected log-likelihood, :math:`\mathbb{E}_{q} \log p(x \mid z)`: the first term of the ELBO.

    Args:
        terms: The terms of a batch, with any number of samples.

    Returns:
        ``(*batch)``, nats.

    Example:
        >>> import torch
        >>> reconstruction(Terms(torch.tensor([[-1.0, -4.0], [-3.0, -4.0]]), ()))
        tensor([-2., -4.])
    """
    return terms.log_likelihood.mean(0)


def elbo(terms: Terms, beta: float | Tensor = 1.0, *, analytic: bool | None = None) -> Tensor:
    r"""Evidence lower bound, :math:`\mathbb{E}_{q} \log p(x \mid z) - \beta \, \mathrm{KL}(q(z \mid x) \,\|\, p(z))`.

    At :math:`\beta = 1` it is :math:`\log p(x) - \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))`, a lower bound on
    :math:`\log p(x)`; at any other :math:`\beta` it is only a training objective.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).
        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et al., 2017).

    Args:
        terms: The terms of a batch; the expectation is the mean over their samples.
        beta: Weight of the KL.
        analytic: Whether the KL is its closed form (True: SGVB's form B), the mean of :math:`\log q - \log p` over the
            samples (False: form A), or the closed form if torch has one registered (None).

    Returns:
        ``(*batch)``, nats.

    Raises:
        ObjectiveError: If the model has no prior, or a posterior without a density.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> elbo(px.terms(torch.zeros(5, 1, 8, 8))).shape
        torch.Size([5])
    """
    return reconstruction(terms) - beta * terms.kl(analytic)


def iwae(terms: Terms) -> Tensor:
    r"""Importance-weighted bound, :math:`\log \frac{1}{k} \sum_{j=1}^k w_j`: the ELBO at k = 1, tighter as k grows.

    References:
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016).

    Args:
        terms: The terms of a batch with k samples.

    Returns:
        ``(*batch)``, nats.

    Raises:
        ObjectiveError: If the prior or the posterior has no exact density: the noise of a bound inside the logarithm
            would raise the result above the likelihood.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> iwae(px.terms(torch.zeros(5, 1, 8, 8), k=10)).shape
        torch.Size([5])
    """
    if not terms.exact:
        raise ObjectiveError(
            "An importance-weighted bound needs exact densities.",
            got=f"no exact density: {terms.inexact}",
            expected="distributions with an exact log_prob",
            remedy="Use the ELBO, or objectives.reconstruction for an autoencoder.",
        )
    weights = terms.log_weights
    return weights.logsumexp(0) - math.log(weights.shape[0])
