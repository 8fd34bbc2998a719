r"""Fisher's linear discriminant: the directions of largest between-class relative to within-class variance.

Convention: an example is a vector of D entries as a model sees it, before any dequantisation; covariances are biased;
everything is float64. It gives a map and a classifier of labelled data. It has no decoder, so no reconstruction, and it
models x given a class only within its few directions, so it has no likelihood of x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data import Split
from ...errors import UsageError
from .components import DENSE, fit_pca
from .rows import chunks, undequantized, within_limit

__all__ = ["LinearDiscriminant", "fit_lda", "lda_classes", "lda_codes"]

LEADING = 100
"""Principal components kept of data with more dimensions than
:data:`~tightbound.evaluation.baselines.components.DENSE`."""


@dataclass(frozen=True)
class LinearDiscriminant:
    r"""Directions scaled so that the classes have unit covariance along them.

    Args:
        mean: Of the training examples, ``(D,)``.
        directions: :math:`w_i` with :math:`w_i^\top S_w w_j = \delta_{ij}`, ``(D, k)``.
        separation: Variance between the classes along each, :math:`w_i^\top S_b w_i`, falling, ``(k,)``.
        centres: Codes of the class means, ``(C, k)``.
        log_priors: Log shares of the classes, ``(C,)``.
        classes: Their labels, rising, ``(C,)`` int64.
        examples: Number of examples it was fitted on.
    """

    mean: Tensor
    directions: Tensor
    separation: Tensor
    centres: Tensor
    log_priors: Tensor
    classes: Tensor
    examples: int


def fit_lda(train: Split, k: int | None = None, *, shrinkage: float = 1e-3) -> LinearDiscriminant:
    r"""The directions that separate the classes of labelled data best.

    .. math:: \max_w \frac{w^\top S_b w}{w^\top S_w w}, \qquad
              S_b = \sum_c \pi_c (\mu_c - \mu)(\mu_c - \mu)^\top, \quad
              S_w = (1 - \gamma) \sum_c \pi_c \Sigma_c + \gamma \frac{\operatorname{tr} \Sigma}{D} I

    High-dimensional data is first projected to its leading principal components.

    References:
        The Use of Multiple Measurements in Taxonomic Problems (Fisher, 1936).
        Regularized Discriminant Analysis (Friedman, 1989).

    Args:
        train: Examples with labels of at least two classes.
        k: Number of directions, at most C - 1 for C classes; default: all.
        shrinkage: :math:`\gamma`, which ignores directions without variance, such as constant pixels.

    Raises:
        UsageError: If there are no labels, fewer than two classes, no variation within them, or k is out of range.

    Example:
        >>> from tightbound.data import load_data
        >>> data = load_data("digits")
        >>> lda = fit_lda(data.train, 2)
        >>> lda_codes(lda, data.test).shape
        torch.Size([360, 2])
    """
    split = undequantized(within_limit(train))
    classes, members = _members(split)
    most = len(classes) - 1
    if k is not None and not 1 <= k <= most:
        raise UsageError("The number of directions k is out of range.", got=f"k = {k}", expected=f"1 to {most}")
    basis = fit_pca(train, LEADING).components if split.spec.dimensions > DENSE else None
    counts, means, within = _scatter(split, members, len(classes), basis)
    shares = counts / counts.sum()
    mean = shares @ means
    within = (1 - shrinkage) * within + shrinkage * within.trace() / len(within) * torch.eye(len(within)).to(within)
    separation, directions = _fisher(within, (means - mean) * shares.sqrt().unsqueeze(1), k or most)
    centres = (means - mean) @ directions
    if basis is not None:
        mean, directions = basis @ mean, basis @ directions
    return LinearDiscriminant(mean, directions, separation, centres, shares.log(), classes, len(split))


def lda_codes(lda: LinearDiscriminant, split: Split) -> Tensor:
    """Projects examples on the directions: the latent map of a linear discriminant.

    Args:
        lda: The result of :func:`fit_lda` on the training split.
        split: Examples; they need no labels.

    Returns:
        ``(n, k)``, in standard deviations of a class.
    """
    return torch.cat([(x - lda.mean) @ lda.directions for x in chunks(undequantized(split))])


def lda_classes(lda: LinearDiscriminant, split: Split) -> Tensor:
    r"""The most probable class of each example, for Gaussian classes with a common covariance.

    .. math:: \arg\max_c \; \log \pi_c - \tfrac{1}{2} \lVert W^\top (x - \mu_c) \rVert^2

    Args:
        lda: The result of :func:`fit_lda` on the training split.
        split: Examples.

    Returns:
        Labels, ``(n,)`` int64.

    Example:
        >>> from tightbound.data import load_data
        >>> data = load_data("digits")
        >>> found = lda_classes(fit_lda(data.train), data.test)
        >>> bool((found == data.test.labels).double().mean() > 0.9)
        True
    """
    distance = torch.cdist(lda_codes(lda, split), lda.centres)
    return lda.classes[(lda.log_priors - 0.5 * distance.square()).argmax(1)]


def _members(split: Split) -> tuple[Tensor, Tensor]:
    """The distinct labels, and the index of each example's label among them."""
    labels = torch.empty(0, dtype=torch.int64) if split.labels is None else split.labels.cpu()
    classes, members = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise UsageError(
            "A discriminant needs labelled classes.",
            got="no labels" if split.labels is None else f"{len(classes)} class",
            expected="at least two",
            remedy="Use data with labels, or PCA, which needs none: fit_pca.",
        )
    return classes, members


def _scatter(split: Split, members: Tensor, classes: int, basis: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Counts ``(C,)``, means ``(C, d)`` and the pooled covariance within the classes ``(d, d)``."""
    counts = torch.bincount(members, minlength=classes).double()
    size, start = split.spec.dimensions if basis is None else basis.shape[1], 0
    sums, within = torch.zeros(classes, size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    for x in _seen(split, basis):
        sums.index_add_(0, members[start : start + len(x)], x)
        start += len(x)
    means, start = sums / counts.unsqueeze(1), 0
    for x in _seen(split, basis):
        centred = x - means[members[start : start + len(x)]]
        within.addmm_(centred.T, centred)
        start += len(x)
    return counts, means, within / len(split)


def _seen(split: Split, basis: Tensor | None) -> Iterator[Tensor]:
    return (x if basis is None else x @ basis for x in chunks(split))


def _fisher(within: Tensor, between: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k leading solutions of S_b w = s S_w w, for S_b = between' between, by whitening S_w."""
    factor, failed = torch.linalg.cholesky_ex(within)
    if failed:
        raise UsageError(
            "The covariance within the classes is singular.",
            expected="values that vary within a class",
            remedy="Use a larger shrinkage, unless each class is constant.",
        )
    whitened = torch.linalg.solve_triangular(factor, between.T, upper=False)
    u, s, _ = torch.linalg.svd(whitened, full_matrices=False)
    return s[:k].square(), torch.linalg.solve_triangular(factor.T, u[:, :k], upper=True)
