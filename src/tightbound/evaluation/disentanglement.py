r"""How well single latent dimensions stand for single factors of variation: five published scores.

Convention: ``codes`` are ``(n, d)``, ``factors`` whole numbers ``(n, f)``, row by row of the same examples; every score
lies between 0 and 1, and a code that is a copy of the factors, in any order, sign and scale, reaches 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ShapeError, UsageError
from ..information import mutual_information

__all__ = ["DCI", "dci", "factor_vae_score", "mig", "sap", "udr"]

STILL = 1e-8
"""A dimension whose variance is below this share of the largest is left out, as it carries nothing."""


def mig(codes: Tensor, factors: Tensor, bins: int = 20) -> float:
    r"""Mutual information gap: by how much the best dimension tells more of a factor than the second best.

    .. math:: \frac{1}{f} \sum_k \frac{1}{H(v_k)} \left( I(z_{(1)}; v_k) - I(z_{(2)}; v_k) \right)

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen, Li, Grosse and Duvenaud, 2018).

    Args:
        codes: ``(n, d)``.
        factors: ``(n, f)``; constant ones are left out.
        bins: Intervals of equal width into which each dimension of the codes is divided.

    Raises:
        ShapeError: If codes and factors are not of the same examples.
        UsageError: If there are no bins, or no factor varies.

    Example:
        >>> factors = torch.randint(0, 4, (1000, 2))
        >>> round(mig(factors.flip(1).float(), factors), 1)
        1.0
    """
    codes, factors = _checked(codes, factors)
    if bins < 2:
        raise UsageError("Codes are divided into at least two bins.", got=bins)
    low, high = codes.min(0).values, codes.max(0).values
    levels = ((codes - low) / (high - low).clamp(min=1e-12) * bins).long().clamp(max=bins - 1)
    gaps: list[float] = []
    for factor in factors.T:
        told = torch.stack([_information(level, factor) for level in levels.T]).sort(descending=True).values
        second = told[1] if len(told) > 1 else 0.0
        gaps.append(((told[0] - second) / _information(factor, factor)).item())
    return sum(gaps) / len(gaps)


def sap(codes: Tensor, factors: Tensor, categorical: Sequence[int] = (), seed: int = 0) -> float:
    r"""Separated attribute predictability: by how much the best single dimension predicts better than the second best.

    A factor with an order is predicted by a straight line, with the score :math:`R^2`; a categorical one by a linear
    support vector machine, with the accuracy on held-out examples, balanced over its values.

    References:
        Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar, Sattigeri and
        Balakrishnan, 2018).

    Args:
        codes: ``(n, d)``.
        factors: ``(n, f)``; constant ones are left out.
        categorical: Which factors have no order.
        seed: Seed of the division into examples to fit and to test.

    Raises:
        ShapeError: If codes and factors are not of the same examples.
        UsageError: If no factor varies.

    Example:
        >>> factors = torch.randint(0, 4, (1000, 2))
        >>> sap(-3.0 * factors.float(), factors) > 0.95
        True
    """
    kinds = [k in categorical for k in range(factors.shape[-1])] if factors.dim() == 2 else []
    varies = [bool((column != column[0]).any()) for column in factors.T] if kinds and len(factors) else []
    codes, factors = _checked(codes, factors)
    gaps: list[float] = []
    for factor, named in zip(factors.T, [kind for kind, v in zip(kinds, varies, strict=True) if v], strict=True):
        told = [_accuracy(code, factor, seed) if named else _straightness(code, factor) for code in codes.T]
        first, second = sorted([*told, 0.0], reverse=True)[:2]
        gaps.append(first - second)
    return sum(gaps) / len(gaps)


@dataclass(frozen=True)
class DCI:
    """What :func:`dci` found.

    Args:
        disentanglement: How much each dimension matters to one factor only.
        completeness: How much each factor is captured by one dimension only.
        informativeness: How well the factors are predicted from all dimensions, on held-out examples.
        importance: Of each dimension for each factor, ``(d, f)``.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: Tensor


def dci(codes: Tensor, factors: Tensor, trees: int = 30, seed: int = 0) -> DCI:
    r"""Disentanglement, completeness and informativeness, by the importances of a random forest for each factor.

    .. math:: D = \sum_i \rho_i \left( 1 - H_f(P_{i \cdot}) \right), \qquad
              C = \sum_k \rho'_k \left( 1 - H_d(\tilde P_{\cdot k}) \right)

    with entropies to the base of their number of entries, of the importances divided by their sum over factors or over
    dimensions, and weights by their share of all importance.

    References:
        A Framework for the Quantitative Evaluation of Disentangled Representations (Eastwood and Williams, 2018).

    Args:
        codes: ``(n, d)``.
        factors: ``(n, f)``; constant ones are left out.
        trees: Of each forest.
        seed: Seed of the forests and of the division into examples to fit and to test.

    Raises:
        ShapeError: If codes and factors are not of the same examples.
        UsageError: If no factor varies.

    Example:
        >>> factors = torch.randint(0, 4, (500, 2))
        >>> dci(factors.float(), factors).informativeness
        1.0
    """
    from sklearn.ensemble import RandomForestClassifier

    codes, factors = _checked(codes, factors)
    fit, test = _halves(len(codes), seed)
    importances: list[np.ndarray] = []
    right: list[float] = []
    x = codes.numpy()
    for factor in factors.numpy().T:
        forest = RandomForestClassifier(trees, max_features=None, min_samples_leaf=2, random_state=seed)
        forest.fit(x[fit], factor[fit])
        importances.append(forest.feature_importances_)
        right.append(float(forest.score(x[test], factor[test])))
    importance = torch.from_numpy(np.stack(importances, axis=1))
    return DCI(_focus(importance), _focus(importance.T), sum(right) / len(right), importance)


def factor_vae_score(
    codes_of: Callable[[Tensor], Tensor],
    sizes: Sequence[int],
    *,
    votes: int = 800,
    group: int = 64,
    seed: int = 0,
) -> float:
    r"""FactorVAE's score: from the dimension that varies least among examples that share a factor, which factor it was.

    Each vote is a group of examples with one factor fixed; the dimension with the smallest variance, relative to that
    over all examples, votes for the factor. A table of majorities from half of the votes classifies the other half.

    References:
        Disentangling by Factorising (Kim and Mnih, 2018).

    Args:
        codes_of: From factors, int64 ``(n, f)``, to codes of examples that have them, ``(n, d)``; of a VAE, give the
            active dimensions only.
        sizes: Number of values of each factor.
        votes: Groups to learn the table from, and as many to test it.
        group: Examples of each group.
        seed: Seed of the factors.

    Returns:
        Accuracy of the table on the second half of the votes; 0 if no dimension varies.

    Raises:
        UsageError: If a number is out of range.

    Example:
        >>> factor_vae_score(lambda factors: factors.float(), (4, 5, 6), votes=100, group=20)
        1.0
    """
    if min(votes, *sizes) < 1 or group < 2 or max(sizes) < 2:
        raise UsageError(
            "A vote needs factors that vary and a group of several.", got=f"{votes} votes, groups of {group}, {sizes}"
        )
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.stack([torch.randint(size, (n,), generator=generator) for size in sizes], dim=1)
    overall = codes_of(draw(10_000)).double().var(0)
    used = overall > STILL * overall.max()
    if not overall.max() > 0:
        return 0.0
    varying = torch.tensor([k for k, size in enumerate(sizes) if size > 1])
    fixed = varying[torch.randint(len(varying), (2 * votes,), generator=generator)]
    factors = draw(2 * votes * group).view(2 * votes, group, len(sizes))
    index = fixed.view(-1, 1, 1).expand(-1, group, 1)
    factors = factors.scatter(2, index, factors[:, :1].expand_as(factors).gather(2, index))
    codes = codes_of(factors.flatten(0, 1)).double().view(2 * votes, group, -1)
    stillest = (codes.var(1) / overall).masked_fill(~used, math.inf).argmin(1)
    table = torch.zeros(len(overall), len(sizes)).index_put_(
        (stillest[:votes], fixed[:votes]), torch.ones(votes), accumulate=True
    )
    return (table.argmax(1)[stillest[votes:]] == fixed[votes:]).double().mean().item()


def udr(codes: Sequence[Tensor], kl: Sequence[Tensor] | None = None, used: float = 0.01) -> Tensor:
    r"""Unsupervised disentanglement ranking: how alike the dimensions of models of one kind are, one to one.

    With :math:`R` the absolute rank correlations of the dimensions of two models, and sums over their used dimensions,

    .. math:: \mathrm{UDR}_{ij} = \frac{1}{d_i + d_j} \left( \sum_b \frac{\max_a R_{ab}^2}{\sum_a R_{ab}}
        + \sum_a \frac{\max_b R_{ab}^2}{\sum_b R_{ab}} \right)

    and the score of a model is its median over the others. It needs no factors, but several trainings.

    References:
        Unsupervised Model Selection for Variational Disentangled Representation Learning (Duan et al., 2020).

    Args:
        codes: Of each model, ``(n, d)``, of the same examples.
        kl: KL of each dimension of each model, ``(d,)``; those of at most ``used`` nats are left out. Without it, those
            that hardly vary.
        used: Nats.

    Returns:
        Score of each model.

    Raises:
        UsageError: If there is a single model.
        ShapeError: If the codes are not of the same examples.

    Example:
        >>> z = torch.randn(200, 3)
        >>> bool((udr([z, -z.flip(1)]) > 0.7).all())
        True
    """
    if len(codes) < 2:
        raise UsageError("Models are ranked by each other.", got=f"{len(codes)} model", expected="at least 2")
    if any(z.dim() != 2 or len(z) != len(codes[0]) for z in codes):
        raise ShapeError("The codes are not of the same examples.", got=[tuple(z.shape) for z in codes])
    kept = [_kept(z, None if kl is None else kl[i], used) for i, z in enumerate(codes)]
    ranks = [z.double().argsort(0).argsort(0).double()[:, keep] for z, keep in zip(codes, kept, strict=True)]
    score = torch.stack([torch.stack([_likeness(a, b) for b in ranks]) for a in ranks])
    others = ~torch.eye(len(codes), dtype=torch.bool)
    return torch.stack([row[other].quantile(0.5) for row, other in zip(score, others, strict=True)])


def _checked(codes: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Both on the CPU, and without factors that do not vary."""
    if codes.dim() != 2 or factors.dim() != 2 or len(codes) != len(factors) or len(codes) < 4:
        raise ShapeError(
            "Codes and factors are tables of the same examples.",
            got=f"{tuple(codes.shape)} and {tuple(factors.shape)}",
            expected="(n, d) and (n, f), n of at least 4",
        )
    codes, factors = codes.detach().double().cpu(), factors.detach().long().cpu()
    factors = factors[:, (factors != factors[0]).any(0)]
    if factors.shape[1] == 0:
        raise UsageError("No factor varies over these examples.", remedy="Take examples with different factors.")
    return codes, factors


def _information(a: Tensor, b: Tensor) -> Tensor:
    """Mutual information of two columns of whole numbers, nats."""
    a, b = a.unique(return_inverse=True)[1], b.unique(return_inverse=True)[1]
    width = int(b.max()) + 1
    counts = torch.bincount(a * width + b, minlength=(int(a.max()) + 1) * width)
    return mutual_information((counts.double() / len(a)).view(-1, width))


def _straightness(code: Tensor, factor: Tensor) -> float:
    """Squared correlation."""
    x, y = code - code.mean(), factor.double() - factor.double().mean()
    norm = x.square().sum() * y.square().sum()
    return (x.mul(y).sum().square() / norm).item() if norm > 0 else 0.0


def _accuracy(code: Tensor, factor: Tensor, seed: int) -> float:
    """Balanced accuracy of a linear classifier of one dimension, less what chance gives, on held-out examples."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.svm import LinearSVC

    if not code.std() > 0:
        return 0.0
    x, y = ((code - code.mean()) / code.std()).unsqueeze(1).numpy(), factor.numpy()
    fit, test = _halves(len(x), seed)
    model = LinearSVC(C=0.01, class_weight="balanced", dual="auto").fit(x[fit], y[fit])
    return float(balanced_accuracy_score(y[test], model.predict(x[test])))


def _halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(n)
    return order[: n // 2], order[n // 2 :]


def _focus(importance: Tensor) -> float:
    """One less the entropy of each row, weighted by the row's share of all importance."""
    total = importance.sum()
    if not total > 0:
        return 0.0
    rows = importance / importance.sum(1, keepdim=True).clamp(min=1e-12)
    entropy = -torch.xlogy(rows, rows).sum(1) / math.log(max(2, importance.shape[1]))
    return ((1 - entropy) * importance.sum(1) / total).sum().item()


def _kept(z: Tensor, kl: Tensor | None, used: float) -> Tensor:
    variance = z.double().var(0)
    return variance > STILL * variance.max() if kl is None else kl > used


def _likeness(a: Tensor, b: Tensor) -> Tensor:
    if a.shape[1] == 0 or b.shape[1] == 0:
        return torch.zeros((), dtype=torch.float64)
    standard = lambda ranks: (ranks - ranks.mean(0)) / (ranks - ranks.mean(0)).norm(dim=0)
    alike = (standard(a).T @ standard(b)).abs()
    by_b = (alike.max(0).values.square() / alike.sum(0)).sum()
    by_a = (alike.max(1).values.square() / alike.sum(1)).sum()
    return (by_a + by_b) / sum(alike.shape)
