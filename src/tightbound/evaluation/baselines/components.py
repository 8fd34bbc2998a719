r"""Principal components, and their Gaussian: the exact optimum of a linear autoencoder and a linear VAE.

Convention: an example is a vector of D entries as a model sees them; a level :math:`l` of L is
:math:`x = l / (L - 1)`, and dequantised :math:`y = (l + u) / L` with :math:`u \sim U(0, 1)`. Everything is float64;
log-densities are nats per example, squared errors are summed over the entries of an example.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...data import Split
from ...data.transform import widths
from ...errors import ObjectiveError, UsageError
from .rows import chunks, levels_of, undequantized, within_limit

__all__ = ["PrincipalComponents", "fit_pca", "pca_error", "ppca_bound", "ppca_log_density", "project"]

DENSE = 1024
"""Up to this many dimensions the full covariance is decomposed; above, only its leading part."""


@dataclass(frozen=True)
class PrincipalComponents:
    r"""The leading eigenvectors of a covariance, and the mean of the remaining eigenvalues.

    Args:
        mean: Of the training examples, ``(D,)``.
        components: Orthonormal eigenvectors of the biased covariance, ``(D, k)``.
        variances: Their eigenvalues :math:`\lambda_i`, falling, ``(k,)``.
        noise: :math:`\sigma^2`, the mean of the other D - k eigenvalues; 0 if there are none.
        examples: Number of examples it was fitted on.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor
    noise: float
    examples: int

    @property
    def regular(self) -> bool:
        """Whether the Gaussian with this covariance has a density."""
        least = 1e-12 * max(self.variances[0].item(), 1e-300)
        rest = len(self.mean) > len(self.variances)
        return self.variances[-1].item() > least and (not rest or self.noise > least)


def fit_pca(train: Split, k: int) -> PrincipalComponents:
    """Principal components of the examples as a model sees them, before any dequantisation.

    References:
        Probabilistic Principal Component Analysis (Tipping and Bishop, 1999).

    Args:
        train: The examples.
        k: Number of components, at most D.

    Raises:
        UsageError: If k is less than 1.

    Example:
        >>> from tightbound.data import load_data
        >>> fit_pca(load_data("digits").train, 10).components.shape
        torch.Size([64, 10])
    """
    if k < 1:
        raise UsageError("At least one component is needed.", got=f"k = {k}", expected="k >= 1")
    split = undequantized(within_limit(train))
    n, k = len(split), min(k, split.spec.dimensions)
    mean = torch.stack([x.sum(0) for x in chunks(split)]).sum(0) / n
    if split.spec.dimensions <= DENSE:
        total, variances, components = _dense(split, mean)
    else:
        total, variances, components = _leading(split, mean, k)
    variances = variances[:k].clamp(min=0)
    rest = split.spec.dimensions - k
    noise = max(0.0, total - variances.sum().item()) / rest if rest else 0.0
    return PrincipalComponents(mean, components[:, :k], variances, noise, n)


def pca_error(pca: PrincipalComponents, test: Split) -> Tensor:
    r"""Summed squared error of the projection, :math:`\lVert (I - V V^\top)(x - \mu) \rVert^2`.

    For dequantised data it is the exact expectation over the noise.

    Args:
        pca: The result of :func:`fit_pca` on the training split.
        test: Examples.

    Returns:
        ``(n,)``, in squared units of the data.
    """
    units = widths(test.spec).flatten()
    errors = torch.cat([(_rest(pca, x) * units).square().sum(1) for x in chunks(undequantized(test))])
    if not test.spec.dequantized:
        return errors
    scale, noise = _dequantization(levels_of(test.spec))
    return scale**2 * errors + (len(pca.mean) - len(pca.variances)) * noise


def ppca_log_density(pca: PrincipalComponents, test: Split) -> Tensor:
    r"""Log-density of probabilistic PCA of the values as a model sees them, before any dequantisation.

    .. math:: \log \mathcal{N}(x; \mu, C), \qquad C = V \Lambda V^\top + \sigma^2 (I - V V^\top)

    It is the optimum of a linear VAE, and of standardised data a density in the data's own units. For discrete levels
    it is not a likelihood of that data.

    References:
        Probabilistic Principal Component Analysis (Tipping and Bishop, 1999).

    Args:
        pca: The result of :func:`fit_pca` on the training split.
        test: Examples.

    Returns:
        ``(n,)``, nats.

    Raises:
        ObjectiveError: If the covariance is singular.
    """
    if not pca.regular:
        raise ObjectiveError(
            "The covariance is singular, so there is no density.",
            got=f"{pca.examples} examples, noise variance {pca.noise:.3g}",
            expected="more examples than components, and values that vary",
            remedy="Use fewer components, or measure on dequantised values: ppca_bound.",
        )
    found = torch.cat([_log_normal(pca, *project(pca, x)) for x in chunks(undequantized(test))])
    return found - test.spec.log_volume


def ppca_bound(pca: PrincipalComponents, test: Split) -> Tensor:
    r"""Bound on the likelihood of discrete data by probabilistic PCA of its uniformly dequantised values.

    .. math:: \log P(x) \ge \mathbb{E}_u \log \mathcal{N}\!\left(\tfrac{l + u}{L}; \mu', C'\right) - D \ln L,
              \qquad C' = \left(\tfrac{L - 1}{L}\right)^2 C + \tfrac{1}{12 L^2} I

    The covariance of the noise is known and the log-density is quadratic in it, so fit and expectation are exact: no
    noise is drawn.

    References:
        A Note on the Evaluation of Generative Models (Theis, van den Oord and Bethge, 2016).

    Args:
        pca: The result of :func:`fit_pca` on the training split.
        test: Examples with levels.

    Returns:
        ``(n,)``, nats of the discrete data.

    Raises:
        UsageError: If the data is continuous.
    """
    levels = levels_of(test.spec)
    scale, noise = _dequantization(levels)
    rest, dimensions = len(pca.mean) - len(pca.variances), len(pca.mean)
    noisy = replace(pca, variances=scale**2 * pca.variances + noise, noise=scale**2 * pca.noise + noise)
    trace = noisy.variances.reciprocal().sum().item() + rest / noisy.noise
    constant = -0.5 * noise * trace - dimensions * math.log(levels)
    parts = []
    for x in chunks(undequantized(test)):
        along, across = project(pca, x)
        parts.append(_log_normal(noisy, scale * along, scale**2 * across) + constant)
    return torch.cat(parts)


def _dense(split: Split, mean: Tensor) -> tuple[float, Tensor, Tensor]:
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for x in chunks(split):
        centred = x - mean
        covariance.addmm_(centred.T, centred)
    variances, components = torch.linalg.eigh(covariance / len(split))
    return (covariance.trace() / len(split)).item(), variances.flip(0), components.flip(1)


def _leading(split: Split, mean: Tensor, k: int, passes: int = 6) -> tuple[float, Tensor, Tensor]:
    """The leading eigenpairs by block power iteration with a few extra vectors, then Rayleigh-Ritz."""
    generator = torch.Generator().manual_seed(0)
    width = min(len(mean), k + 20)
    block = torch.randn(len(mean), width, dtype=torch.float64, generator=generator)
    for _ in range(passes):
        basis, block = torch.linalg.qr(block).Q, torch.zeros_like(block)
        for x in chunks(split):
            centred = x - mean
            block.addmm_(centred.T, centred @ basis)
    return _ritz(split, mean, torch.linalg.qr(block).Q)


def _ritz(split: Split, mean: Tensor, basis: Tensor) -> tuple[float, Tensor, Tensor]:
    small, total = basis.new_zeros(basis.shape[1], basis.shape[1]), 0.0
    for x in chunks(split):
        centred = x - mean
        along = centred @ basis
        small.addmm_(along.T, along)
        total += centred.square().sum().item()
    variances, rotation = torch.linalg.eigh(small / len(split))
    return total / len(split), variances.flip(0), (basis @ rotation).flip(1)


def project(pca: PrincipalComponents, x: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates along the components, ``(n, k)``, and the squared distance from their plane, ``(n,)``."""
    return (x - pca.mean) @ pca.components, _rest(pca, x).square().sum(1)


def _rest(pca: PrincipalComponents, x: Tensor) -> Tensor:
    """The residual of each entry, ``(n, D)``."""
    centred = x - pca.mean
    return centred - (centred @ pca.components) @ pca.components.T


def _log_normal(pca: PrincipalComponents, along: Tensor, across: Tensor) -> Tensor:
    rest = len(pca.mean) - len(pca.variances)
    quadratic = (along.square() / pca.variances).sum(1)
    log_det = pca.variances.log().sum()
    if rest:
        quadratic, log_det = quadratic + across / pca.noise, log_det + rest * math.log(pca.noise)
    return -0.5 * (len(pca.mean) * math.log(2 * math.pi) + log_det + quadratic)


def _dequantization(levels: int) -> tuple[float, float]:
    """The effect of dequantisation on x = level / (L - 1): the factor and the variance of the noise."""
    return (levels - 1) / levels, 1 / (12 * levels**2)
