r"""Baselines without a network on the same data.

Convention: an example is a vector of D entries as a model sees them; a level :math:`l` of L is
:math:`x = l / (L - 1)`, and dequantised :math:`y = (l + u) / L` with :math:`u \sim U(0, 1)`. Everything is float64;
negative log-likelihoods are nats per example, squared errors are summed over the entries of an example.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...data import Data, Split
from ...errors import UsageError
from ..estimate import Estimate
from .components import PrincipalComponents, fit_pca, pca_error, ppca_bound, ppca_log_density
from .discriminant import fit_lda, lda_classes
from .rows import chunks, levels_of, levels_only, within_limit

__all__ = ["Baseline", "baselines", "independent_pixels"]


@dataclass(frozen=True)
class Baseline:
    """One row of a comparison; undefined values are None.

    Args:
        name: What was fitted.
        nll: Negative log-likelihood, or negative log-density if ``measure`` is "density", nats.
        bits_per_dim: The same in bits per dimension, if it is a likelihood of discrete data.
        squared_error: Squared error of the reconstruction, summed over an example, in squared units of the data.
        measure: As in :class:`~tightbound.likelihoods.Measure`; ``"none"`` for a row without any likelihood.
        note: A note for the reader.
    """

    name: str
    nll: Estimate | None
    bits_per_dim: Estimate | None
    squared_error: Estimate | None
    measure: Literal["mass", "bound", "density", "none"]
    note: str


def independent_pixels(train: Split, test: Split) -> Tensor:
    r"""Independent entries, each categorical over the levels.

    .. math:: -\log p(x) = -\sum_i \log \frac{n_{i, x_i} + 1}{N + L}

    Dynamically binarised data is evaluated in expectation.

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
    levels = levels_of(train.spec)
    table = _binary_table(train) if levels == 2 else _level_table(train, levels)
    parts = []
    for x in chunks(levels_only(test)):
        if levels == 2:
            parts.append(-(x * table[:, 1] + (1 - x) * table[:, 0]).sum(1))
        else:
            chosen = table.take((x * (levels - 1)).round().long() + levels * torch.arange(len(table)))
            parts.append(-chosen.sum(1))
    return torch.cat(parts)


def baselines(data: Data, latent_dim: int, test: Split | None = None, limit: int | None = None) -> list[Baseline]:
    """Every baseline that the data allows, fitted on its training split.

    Args:
        data: The data.
        latent_dim: Components of PCA: the size of the model's latent.
        test: Examples to measure on; default: the test split.
        limit: Fit on at most this many evenly spaced training examples; the rows state it.

    Returns:
        Independent pixels and dequantised probabilistic PCA where the data has levels, PCA, the density of
        probabilistic PCA where values are not dequantised and it exists, and a linear discriminant where the data has
        labels: it has neither reconstruction nor likelihood; its row states the classification accuracy instead.

    Raises:
        UsageError: If ``latent_dim`` is less than 1.

    Example:
        >>> from tightbound.data import load_data
        >>> [row.name for row in baselines(load_data("digits"), latent_dim=16)]
        ['independent pixels', 'PCA', 'probabilistic PCA, dequantised', 'probabilistic PCA, density', 'LDA']
    """
    test = data.test if test is None else test
    train, there = data.train if limit is None else data.train.evenly_spaced(limit), len(data.train)
    pca = fit_pca(train, latent_dim)
    k, fitted = len(pca.variances), _fitted(pca.examples, there)
    rows = [_pca_row(pca, test, k, fitted)]
    if data.spec.levels is not None:
        nll = independent_pixels(train, test)
        bound = -ppca_bound(pca, test)
        note = f"k = {k}; values (level + u) / {data.spec.levels}, exact in expectation over the noise u{fitted}"
        counts = f"counts + 1 of every level of every entry{fitted}"
        rows.insert(0, _row("independent pixels", nll, test, "mass", counts))
        rows.append(_row("probabilistic PCA, dequantised", bound, test, "bound", note))
    if not data.spec.dequantized and pca.regular:
        note = f"k = {k}; exact optimum of a linear VAE; a density{fitted}"
        rows.append(_row("probabilistic PCA, density", -ppca_log_density(pca, test), test, "density", note))
    if test.labels is not None:
        rows.extend(_discriminant_rows(train, there, test, test.labels.cpu()))
    return rows


def _discriminant_rows(train: Split, there: int, test: Split, labels: Tensor) -> list[Baseline]:
    try:
        lda = fit_lda(train)
    except UsageError:  # no classes, or no variation within them
        return []
    right = 100 * (lda_classes(lda, test) == labels).double()
    told = f"k = {len(lda.separation)}; classifies {Estimate.of(right)} % of the examples correctly"
    note = f"{told}; no reconstruction, no likelihood of x{_fitted(lda.examples, there)}"
    return [Baseline("LDA", None, None, None, "none", note)]


def _pca_row(pca: PrincipalComponents, test: Split, k: int, fitted: str) -> Baseline:
    return Baseline("PCA", None, None, Estimate.of(pca_error(pca, test)), "none", f"k = {k}{fitted}")


def _row(name: str, nll: Tensor, test: Split, measure: Literal["mass", "bound", "density"], note: str) -> Baseline:
    bits = None if measure == "density" else Estimate.of(nll, 1 / (test.spec.dimensions * math.log(2)))
    return Baseline(name, Estimate.of(nll), bits, None, measure, note)


def _fitted(used: int, there: int) -> str:
    return "" if used == there else f"; fitted on {used:,} of {there:,} examples"


def _binary_table(train: Split) -> Tensor:
    """Log P(0), log P(1) of each entry, ``(D, 2)``."""
    split = levels_only(within_limit(train))
    ones = torch.stack([x.sum(0) for x in chunks(split)]).sum(0)
    counts = torch.stack([len(split) - ones, ones], dim=1)
    return torch.log((counts + 1) / (len(split) + 2))


def _level_table(train: Split, levels: int) -> Tensor:
    """Log P(level) of each entry, ``(D, L)``."""
    split = levels_only(within_limit(train))
    size = split.spec.dimensions * levels
    counts = torch.zeros(size, dtype=torch.int64)
    offsets = levels * torch.arange(split.spec.dimensions)
    for x in chunks(split):
        counts += torch.bincount(((x * (levels - 1)).round().long() + offsets).flatten(), minlength=size)
    return torch.log((counts.reshape(-1, levels) + 1).double() / (len(split) + levels))
