r"""What a model without a network reaches on the same data: numbers to hold every other number against.

Convention: an example is a vector of D entries as a model sees them; a level :math:`l` of L is
:math:`x = l / (L - 1)`, and dequantised :math:`y = (l + u) / L` with :math:`u \sim U(0, 1)`. Everything is float64;
negative log-likelihoods are nats per example, squared errors are summed over the entries of an example.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..data import Data, DataSpec, Split
from ..errors import ObjectiveError, UsageError
from ..randomness import fixed_noise
from .estimate import Estimate

__all__ = [
    "Baseline",
    "PrincipalComponents",
    "baselines",
    "fit_pca",
    "independent_pixels",
    "pca_error",
    "ppca_bound",
    "ppca_log_density",
]

ENTRIES = 1 << 21
"""Entries that are worked on at once."""
MOST_ENTRIES = 1 << 28
"""A baseline is fitted on at most so many entries, of examples taken evenly from the training split."""
DENSE = 1024
"""Up to so many dimensions the whole covariance is decomposed; beyond, only its leading part is searched for."""


@dataclass(frozen=True)
class Baseline:
    """One row of a comparison; what is not defined is None.

    Args:
        name: What was fitted.
        nll: Negative log-likelihood, or negative log-density where ``measure`` says so, nats.
        bits_per_dim: The same in bits per dimension, where it is a likelihood of discrete data.
        squared_error: Of the reconstruction, summed over an example, in squared units of the data.
        measure: As in :class:`~tightbound.likelihoods.Measure`; ``"none"`` for a row without any likelihood.
        note: What a reader must know.
    """

    name: str
    nll: Estimate | None
    bits_per_dim: Estimate | None
    squared_error: Estimate | None
    measure: Literal["mass", "bound", "density", "none"]
    note: str


@dataclass(frozen=True)
class PrincipalComponents:
    r"""The leading part of a covariance, and the mean of what it leaves.

    Args:
        mean: Of the training examples, ``(D,)``.
        components: Orthonormal eigenvectors of the biased covariance, ``(D, k)``.
        variances: Their eigenvalues :math:`\lambda_i`, falling, ``(k,)``.
        noise: :math:`\sigma^2`, the mean of the other D - k eigenvalues; 0 if there are none.
        examples: How many examples it was fitted on.
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


def independent_pixels(train: Split, test: Split) -> Tensor:
    r"""Entries that are independent of each other, each with a free probability for every level.

    .. math:: -\log p(x) = -\sum_i \log \frac{n_{i, x_i} + 1}{N + L}

    Data that is binarised anew at every visit is taken in expectation over that.

    Args:
        train: Where the counts :math:`n_{i, l}` come from.
        test: Where the likelihood is measured.

    Returns:
        ``(n,)``, nats, for each example of ``test``.

    Raises:
        UsageError: If the data is continuous.

    Example:
        >>> from tightbound.data import load_data
        >>> data = load_data("digits", validation=0)
        >>> independent_pixels(data.train, data.test).mean().round()
        tensor(108., dtype=torch.float64)
    """
    levels = _levels(train.spec)
    table = _binary_table(train) if levels == 2 else _level_table(train, levels)
    parts = []
    for x in _chunks(_levels_only(test)):
        if levels == 2:
            parts.append(-(x * table[:, 1] + (1 - x) * table[:, 0]).sum(1))
        else:
            chosen = table.take((x * (levels - 1)).round().long() + levels * torch.arange(len(table)))
            parts.append(-chosen.sum(1))
    return torch.cat(parts)


def fit_pca(train: Split, k: int) -> PrincipalComponents:
    """Principal components of the examples as a model sees them, before any dequantisation.

    References:
        Probabilistic Principal Component Analysis (Tipping and Bishop, 1999).

    Args:
        train: The examples.
        k: How many components, at most D.

    Raises:
        UsageError: If k is less than 1.

    Example:
        >>> from tightbound.data import load_data
        >>> fit_pca(load_data("digits").train, 10).components.shape
        torch.Size([64, 10])
    """
    if k < 1:
        raise UsageError("At least one component is needed.", got=f"k = {k}", expected="k >= 1")
    split = _undequantized(_limited(train))
    n, k = len(split), min(k, split.spec.dimensions)
    mean = torch.stack([x.sum(0) for x in _chunks(split)]).sum(0) / n
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
        pca: What :func:`fit_pca` found on the training split.
        test: Examples.

    Returns:
        ``(n,)``, in squared units of the data as a model sees it.
    """
    errors = torch.cat([_projected(pca, x)[1] for x in _chunks(_undequantized(test))])
    if not test.spec.dequantized:
        return errors
    scale, noise = _dequantization(_levels(test.spec))
    return scale**2 * errors + (len(pca.mean) - len(pca.variances)) * noise


def ppca_log_density(pca: PrincipalComponents, test: Split) -> Tensor:
    r"""Log-density of probabilistic PCA at the scaled values, before any dequantisation.

    .. math:: \log \mathcal{N}(x; \mu, C), \qquad C = V \Lambda V^\top + \sigma^2 (I - V V^\top)

    It is the optimum of a linear VAE. At discrete levels it is a density, and no likelihood of that data.

    References:
        Probabilistic Principal Component Analysis (Tipping and Bishop, 1999).

    Args:
        pca: What :func:`fit_pca` found on the training split.
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
    return torch.cat([_log_normal(pca, *_projected(pca, x)) for x in _chunks(_undequantized(test))])


def ppca_bound(pca: PrincipalComponents, test: Split) -> Tensor:
    r"""Bound on the likelihood of discrete data by probabilistic PCA of its uniformly dequantised values.

    .. math:: \log P(x) \ge \mathbb{E}_u \log \mathcal{N}\!\left(\tfrac{l + u}{L}; \mu', C'\right) - D \ln L,
              \qquad C' = \left(\tfrac{L - 1}{L}\right)^2 C + \tfrac{1}{12 L^2} I

    The covariance of the noise is known and the log-density is quadratic in it, so fit and expectation are exact: no
    noise is drawn.

    References:
        A Note on the Evaluation of Generative Models (Theis, van den Oord and Bethge, 2016).

    Args:
        pca: What :func:`fit_pca` found on the training split.
        test: Examples with levels.

    Returns:
        ``(n,)``, nats of the discrete data.

    Raises:
        UsageError: If the data is continuous.
    """
    levels = _levels(test.spec)
    scale, noise = _dequantization(levels)
    rest, dimensions = len(pca.mean) - len(pca.variances), len(pca.mean)
    noisy = replace(pca, variances=scale**2 * pca.variances + noise, noise=scale**2 * pca.noise + noise)
    trace = noisy.variances.reciprocal().sum().item() + rest / noisy.noise
    constant = -0.5 * noise * trace - dimensions * math.log(levels)
    parts = []
    for x in _chunks(_undequantized(test)):
        along, across = _projected(pca, x)
        parts.append(_log_normal(noisy, scale * along, scale**2 * across) + constant)
    return torch.cat(parts)


def baselines(data: Data, latent_dim: int, test: Split | None = None) -> list[Baseline]:
    """Every baseline that the data allows, fitted on its training split.

    Args:
        data: The data.
        latent_dim: Components of PCA: the size of the model's latent.
        test: Examples to measure on; default: the test split.

    Returns:
        Independent pixels and dequantised probabilistic PCA where the data has levels, PCA, and the density of
        probabilistic PCA where values are not dequantised and it exists.

    Raises:
        UsageError: If ``latent_dim`` is less than 1.

    Example:
        >>> from tightbound.data import load_data
        >>> [row.name for row in baselines(load_data("digits"), latent_dim=16)]
        ['independent pixels', 'PCA', 'probabilistic PCA, dequantised', 'probabilistic PCA, density']
    """
    test = data.test if test is None else test
    pca = fit_pca(data.train, latent_dim)
    k, fitted = len(pca.variances), _fitted(pca.examples, len(data.train))
    rows = [_pca_row(pca, test, k, fitted)]
    if data.spec.levels is not None:
        nll = independent_pixels(data.train, test)
        bound = -ppca_bound(pca, test)
        note = f"k = {k}; values (level + u) / {data.spec.levels}, exact in expectation over the noise u{fitted}"
        counts = f"counts + 1 of every level of every entry{fitted}"
        rows.insert(0, _row("independent pixels", nll, test, "mass", counts))
        rows.append(_row("probabilistic PCA, dequantised", bound, test, "bound", note))
    if not data.spec.dequantized and pca.regular:
        note = f"k = {k}; exact optimum of a linear VAE; a density{fitted}"
        rows.append(_row("probabilistic PCA, density", -ppca_log_density(pca, test), test, "density", note))
    return rows


def _pca_row(pca: PrincipalComponents, test: Split, k: int, fitted: str) -> Baseline:
    return Baseline("PCA", None, None, Estimate.of(pca_error(pca, test)), "none", f"k = {k}{fitted}")


def _row(name: str, nll: Tensor, test: Split, measure: Literal["mass", "bound", "density"], note: str) -> Baseline:
    bits = None if measure == "density" else Estimate.of(nll, 1 / (test.spec.dimensions * math.log(2)))
    return Baseline(name, Estimate.of(nll), bits, None, measure, note)


def _fitted(used: int, there: int) -> str:
    return "" if used == there else f"; fitted on {used:,} of {there:,} examples"


# -- examples as float64 rows ---------------------------------------------------------------------------------------


def _chunks(split: Split) -> Iterator[Tensor]:
    """All examples in order, ``(n, D)``, with the same draws at every pass."""
    size = max(1, ENTRIES // split.spec.dimensions)
    for part, indices in enumerate(torch.arange(len(split)).split(size)):
        with fixed_noise(0, part):
            x = split.batch(indices).x
        yield x.flatten(1).double()


def _undequantized(split: Split) -> Split:
    return replace(split, transform=replace(split.transform, dequantize=False, flip=False))


def _levels_only(split: Split) -> Split:
    """Levels, or in place of draws of a binary value its probability."""
    split = _undequantized(split)
    if split.transform.binarize != "dynamic":
        return split
    return replace(split, transform=replace(split.transform, binarize="none"))


def _limited(split: Split) -> Split:
    most = max(2, MOST_ENTRIES // split.spec.dimensions)
    if len(split) <= most:
        return split
    return split.subset(torch.linspace(0, len(split) - 1, most, dtype=torch.float64).long())


def _levels(spec: DataSpec) -> int:
    if spec.levels is None:
        raise UsageError(
            "Continuous data has no probability of its values.",
            got=f"{spec.name!r}, floats",
            expected="data with levels",
            remedy="Compare densities instead: ppca_log_density.",
        )
    return spec.levels


# -- counts ---------------------------------------------------------------------------------------------------------


def _binary_table(train: Split) -> Tensor:
    """Log P(0), log P(1) of each entry, ``(D, 2)``."""
    split = _levels_only(_limited(train))
    ones = torch.stack([x.sum(0) for x in _chunks(split)]).sum(0)
    counts = torch.stack([len(split) - ones, ones], dim=1)
    return torch.log((counts + 1) / (len(split) + 2))


def _level_table(train: Split, levels: int) -> Tensor:
    """Log P(level) of each entry, ``(D, L)``."""
    split = _levels_only(_limited(train))
    size = split.spec.dimensions * levels
    counts = torch.zeros(size, dtype=torch.int64)
    offsets = levels * torch.arange(split.spec.dimensions)
    for x in _chunks(split):
        counts += torch.bincount(((x * (levels - 1)).round().long() + offsets).flatten(), minlength=size)
    return torch.log((counts.reshape(-1, levels) + 1).double() / (len(split) + levels))


# -- Gaussians ------------------------------------------------------------------------------------------------------


def _dense(split: Split, mean: Tensor) -> tuple[float, Tensor, Tensor]:
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for x in _chunks(split):
        centred = x - mean
        covariance.addmm_(centred.T, centred)
    variances, components = torch.linalg.eigh(covariance / len(split))
    return (covariance.trace() / len(split)).item(), variances.flip(0), components.flip(1)


def _leading(split: Split, mean: Tensor, k: int, passes: int = 6) -> tuple[float, Tensor, Tensor]:
    """The leading eigenpairs by power iteration on a block a little wider than k, then Rayleigh and Ritz."""
    generator = torch.Generator().manual_seed(0)
    width = min(len(mean), k + 20)
    block = torch.randn(len(mean), width, dtype=torch.float64, generator=generator)
    for _ in range(passes):
        basis, block = torch.linalg.qr(block).Q, torch.zeros_like(block)
        for x in _chunks(split):
            centred = x - mean
            block.addmm_(centred.T, centred @ basis)
    return _ritz(split, mean, torch.linalg.qr(block).Q)


def _ritz(split: Split, mean: Tensor, basis: Tensor) -> tuple[float, Tensor, Tensor]:
    small, total = basis.new_zeros(basis.shape[1], basis.shape[1]), 0.0
    for x in _chunks(split):
        centred = x - mean
        along = centred @ basis
        small.addmm_(along.T, along)
        total += centred.square().sum().item()
    variances, rotation = torch.linalg.eigh(small / len(split))
    return total / len(split), variances.flip(0), (basis @ rotation).flip(1)


def _projected(pca: PrincipalComponents, x: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates along the components, ``(n, k)``, and the squared distance from their plane, ``(n,)``."""
    centred = x - pca.mean
    along = centred @ pca.components
    return along, (centred - along @ pca.components.T).square().sum(1)


def _log_normal(pca: PrincipalComponents, along: Tensor, across: Tensor) -> Tensor:
    rest = len(pca.mean) - len(pca.variances)
    quadratic = (along.square() / pca.variances).sum(1)
    log_det = pca.variances.log().sum()
    if rest:
        quadratic, log_det = quadratic + across / pca.noise, log_det + rest * math.log(pca.noise)
    return -0.5 * (len(pca.mean) * math.log(2 * math.pi) + log_det + quadratic)


def _dequantization(levels: int) -> tuple[float, float]:
    """What dequantisation does to x = level / (L - 1): the factor on it, and the variance of the noise."""
    return (levels - 1) / levels, 1 / (12 * levels**2)
