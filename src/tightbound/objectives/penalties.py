r"""Objectives for training that are not bounds: they change the cost of the KL, to avoid collapse or to disentangle.

Convention: as in :mod:`tightbound.objectives`; N is the size of the training set and M that of a batch.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from ..errors import ObjectiveError
from ..models.latent import Latent, Terms
from .bounds import reconstruction

__all__ = ["beta_tcvae", "capacity", "free_bits", "info_vae", "layer_costs", "mmd", "total_correlation"]

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Widths of the kernels of the maximum mean discrepancy, in units of the squared distance of two prior samples."""


def free_bits(
    terms: Terms,
    nats: float,
    beta: float | Tensor = 1.0,
    *,
    group: int = 1,
    analytic: bool | None = None,
) -> Tensor:
    r"""The ELBO with free bits: a KL below :math:`\lambda` nats, averaged over the batch, costs nothing.

    .. math:: \mathbb{E}_q \log p(x \mid z) - \beta \sum_i \max(\lambda, \overline{\mathrm{KL}}_i)

    Per example it is :math:`\mathrm{KL}_i` where the batch mean is above :math:`\lambda`, else the constant, so that
    the batch mean is the formula above, and never above the ELBO's. Below the top of a chain :math:`\mathrm{KL}_i` is a
    log ratio of samples, and may be negative: then it costs :math:`\lambda` too.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016).

    Args:
        terms: The terms of a batch.
        nats: :math:`\lambda`.
        beta: Weight of the KL.
        group: Number of adjacent dimensions sharing :math:`\lambda`; 0: all of a layer. A KL that does not factorise
            by dimension is one group.
        analytic: As for :func:`~tightbound.objectives.elbo`.

    Returns:
        ``(*batch)``, nats.

    Raises:
        ObjectiveError: If the model has no ELBO.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> free_bits(px.terms(torch.zeros(5, 1, 8, 8)), nats=0.5).shape
        torch.Size([5])
    """
    costs = layer_costs(terms, nats, group=group, analytic=analytic)
    return reconstruction(terms) - beta * functools.reduce(torch.add, costs)


def layer_costs(terms: Terms, nats: float = 0.0, *, group: int = 1, analytic: bool | None = None) -> list[Tensor]:
    """The KL of each layer, ``(*batch)`` nats, from the data up, with free bits if ``nats`` is not 0.

    Args:
        terms: The terms of a batch.
        nats: As for :func:`free_bits`.
        group: The same.
        analytic: The same.

    Raises:
        ObjectiveError: If the model has no ELBO.

    Example:
        >>> from tightbound.models.terms import Estimated
        >>> terms = Terms(torch.zeros(1, 2), (Estimated("z", torch.tensor([[0.5, 3.0], [1.5, 3.0]])),))
        >>> layer_costs(terms), layer_costs(terms, 2.0)
        ([tensor([3.5000, 4.5000])], [tensor([5., 5.])])
    """
    leading = terms.log_likelihood.dim() - 1
    each = [entry.kl(analytic).flatten(leading) for entry in terms.entries]
    if not nats:
        return [kl.sum(-1) for kl in each]
    return [_with_free_bits(kl, nats, group or kl.shape[-1]) for kl in each]


def _with_free_bits(kl: Tensor, nats: float, group: int) -> Tensor:
    groups = torch.stack([part.sum(-1) for part in kl.split(group, dim=-1)], dim=-1)
    free = groups.detach().flatten(0, -2).mean(0) < nats
    return torch.where(free, nats, groups).sum(-1)


def capacity(
    terms: Terms, nats: float | Tensor, gamma: float | Tensor = 1.0, *, analytic: bool | None = None
) -> Tensor:
    r"""The KL held at a capacity C, :math:`\mathbb{E}_q \log p(x \mid z) - \gamma \, \lvert \mathrm{KL} - C \rvert`.

    References:
        Understanding Disentangling in beta-VAE (Burgess et al., 2018).

    Args:
        terms: The terms of a batch.
        nats: C, usually raised slowly during training.
        gamma: Weight of the deviation.
        analytic: As for :func:`~tightbound.objectives.elbo`.

    Returns:
        ``(*batch)``, nats.

    Raises:
        ObjectiveError: If the model has no ELBO.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> capacity(px.terms(torch.zeros(5, 1, 8, 8)), nats=5.0, gamma=10.0).shape
        torch.Size([5])
    """
    return reconstruction(terms) - gamma * (terms.kl(analytic) - nats).abs()


def total_correlation(terms: Terms, examples: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""The KL of a batch in three terms: mutual information, total correlation and dimension-wise KL.

    .. math:: \log \frac{q(z \mid x)}{q(z)}, \qquad \log \frac{q(z)}{\prod_i q(z_i)}, \qquad
        \sum_i \log \frac{q(z_i)}{p(z_i)}, \qquad q(z) = \frac{1}{N} \sum_n q(z \mid x_n)

    The aggregate is estimated from the batch by stratified weights: :math:`1 / N` for the example that z comes from,
    and :math:`(N - 1) / (N (M - 1))` for each other, so that they sum to 1 and the estimate of :math:`q(z)` is
    unbiased; its logarithm is biased downward by the remaining noise.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen, Li, Grosse and Duvenaud, 2018).

    Args:
        terms: The terms of a batch; a posterior of independent Gaussians over vectors.
        examples: N.

    Returns:
        Three times ``(*batch)``, nats; their sum is the Monte Carlo KL.

    Raises:
        ObjectiveError: If the posterior is not of that kind, or there are several latents.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> [part.shape for part in total_correlation(px.terms(torch.zeros(5, 1, 8, 8)), examples=100)]
        [torch.Size([5]), torch.Size([5]), torch.Size([5])]
    """
    latent, base = _factorised(terms)
    z, size = latent.z, latent.z.shape[1]
    pairs = base.log_prob(z.unsqueeze(2))  # [k, i, j, d]: sample of example i under the posterior of example j
    weights = _stratified(z, size, max(examples, size))
    joint = (pairs.sum(-1) + weights).logsumexp(2)
    factors = (pairs + weights.unsqueeze(-1)).logsumexp(2).sum(-1)
    return (latent.log_posterior - joint).mean(0), (joint - factors).mean(0), (factors - latent.log_prior).mean(0)


def beta_tcvae(terms: Terms, examples: int, beta: float | Tensor = 1.0) -> Tensor:
    r"""The ELBO with the weight :math:`\beta` on the total correlation only.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen, Li, Grosse and Duvenaud, 2018).

    Args:
        terms: The terms of a batch, as for :func:`total_correlation`.
        examples: Size of the training set.
        beta: Weight of the total correlation; at 1 the objective is the Monte Carlo ELBO.

    Returns:
        ``(*batch)``, nats.

    Raises:
        ObjectiveError: As :func:`total_correlation`.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> beta_tcvae(px.terms(torch.zeros(5, 1, 8, 8)), examples=100, beta=4.0).shape
        torch.Size([5])
    """
    information, correlation, dimensions = total_correlation(terms, examples)
    return reconstruction(terms) - information - beta * correlation - dimensions


def mmd(z: Tensor, prior: Tensor) -> Tensor:
    r"""Unbiased squared maximum mean discrepancy of two sets of vectors, which may be negative.

    .. math:: \mathbb{E} k(z, z') + \mathbb{E} k(u, u') - 2 \mathbb{E} k(z, u), \qquad
        k(a, b) = \frac{1}{S} \sum_s \frac{2 d s}{2 d s + \lVert a - b \rVert^2}

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012).
        Wasserstein Auto-Encoders (Tolstikhin, Bousquet, Gelly and Schölkopf, 2018).

    Args:
        z: ``(n, d)``, n at least 2.
        prior: ``(m, d)``, m at least 2.

    Returns:
        A dimensionless number.

    Example:
        >>> same = mmd(torch.randn(500, 2), torch.randn(500, 2))
        >>> other = mmd(torch.randn(500, 2), 3 + torch.randn(500, 2))
        >>> bool(same.abs() < 0.01 < other)
        True
    """
    n, m = len(z), len(prior)
    within_z = (_kernel(z, z).sum() - n) / (n * (n - 1))
    within_prior = (_kernel(prior, prior).sum() - m) / (m * (m - 1))
    return within_z + within_prior - 2 * _kernel(z, prior).mean()


def info_vae(
    terms: Terms, alpha: float | Tensor = 0.0, weight: float = 100.0, *, analytic: bool | None = None
) -> Tensor:
    r"""InfoVAE: a down-weighted KL, plus a discrepancy of the aggregate posterior from the prior.

    .. math:: \mathbb{E}_q \log p(x \mid z) - (1 - \alpha) \, \mathrm{KL}(q(z \mid x) \,\|\, p(z))
        - (\alpha + \lambda - 1) \, \mathrm{MMD}^2(q(z), p(z))

    At :math:`\alpha = 1` there is no KL, and the posterior may be a point mass: a Wasserstein autoencoder. The
    discrepancy is one number for the batch, added to each of its examples.

    References:
        InfoVAE: Balancing Learning and Inference in Variational Autoencoders (Zhao, Song and Ermon, 2019).

    Args:
        terms: The terms of a batch of vectors.
        alpha: :math:`\alpha`; treated as 1 if the posterior has no density.
        weight: :math:`\lambda`.
        analytic: As for :func:`~tightbound.objectives.elbo`.

    Returns:
        ``(*batch)``, nats.

    Raises:
        ObjectiveError: If the model has no prior.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> px = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> info_vae(px.terms(torch.zeros(5, 1, 8, 8)), alpha=0.5).shape
        torch.Size([5])
    """
    latent = terms.latent
    if latent.prior is None:
        raise ObjectiveError("The model has no prior to compare with.", remedy="Use objectives.reconstruction.")
    z = latent.z.flatten(0, -2)
    out = reconstruction(terms) - ((1 - alpha) * terms.kl(analytic) if terms.bounded else 0.0)
    if len(z) < 2:  # a last batch of one example does not estimate the aggregate
        return out
    with torch.no_grad():
        drawn = (
            latent.prior.sample((len(z),)) if not latent.prior.batch_shape else latent.prior.sample((len(latent.z),))
        )
    share = 0.0 if terms.bounded else 1.0
    return out - (alpha * (1 - share) + share + weight - 1) * mmd(z, drawn.reshape(-1, z.shape[-1]))


def _factorised(terms: Terms) -> tuple[Latent, Normal]:
    latent = terms.latent
    base = latent.posterior.base_dist if isinstance(latent.posterior, Independent) else None
    if not isinstance(base, Normal) or latent.z.dim() != 3:
        raise ObjectiveError(
            "The total correlation needs one latent with independent Gaussian dimensions.",
            got=type(latent.posterior).__name__,
            remedy="Use --posterior gaussian, or objectives.elbo.",
        )
    return latent, base


def _stratified(z: Tensor, size: int, examples: int) -> Tensor:
    """Log-weights ``[i, j]`` of example j in the aggregate at a sample of example i; each row sums to 1."""
    if size == 1:
        return z.new_zeros(1, 1)
    weights = z.new_full((size, size), math.log((examples - 1) / (examples * (size - 1))))
    return weights.fill_diagonal_(-math.log(examples))


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    squared = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
    width = 2 * a.shape[-1]
    return functools.reduce(torch.add, (width * s / (width * s + squared) for s in SCALES)) / len(SCALES)
