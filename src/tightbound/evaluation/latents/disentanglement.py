r"""Disentanglement: scores of codes against the known factors of a data set.

Convention: codes are ``(n, d)``, posterior means of n examples, and factors ``(n, m)`` their known causes. A score is
near 1 if codes are factors up to order, sign and scale, near 0 (FactorVAE: 1 / m) if uninformative. Factors are ordered
except in ``categorical`` columns; MIG and FactorVAE treat all as categorical. Everything is float64 on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Generator, Tensor

from ...errors import UsageError
from ...information import entropy, mutual_information
from .factors import checked, halves, numbered, require_columns, squared_correlation, standard

if TYPE_CHECKING:
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        GradientBoostingRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.linear_model import Lasso

    Trees = GradientBoostingClassifier | GradientBoostingRegressor | RandomForestClassifier | RandomForestRegressor

__all__ = ["DCI", "Held", "dci", "factor_vae_score", "factor_vae_score_of", "mig", "sap"]

Held = Callable[[int, int, int, Generator], Tensor]
"""Maps a factor, a number of groups, their size and a generator to codes ``(groups, size, d)``: the examples of a group
share the value of that factor, sampled per group, and are independent otherwise."""
INACTIVE = 0.05
"""Maximum variance of a latent with a standard normal prior to count as unused."""


def mig(codes: Tensor, factors: Tensor, bins: int = 20) -> float:
    r"""Mutual information gap between the most informative latent and the next, averaged over factors.

    .. math:: \frac{1}{m} \sum_k \frac{I(z_{j_k}; v_k) - \max_{j \ne j_k} I(z_j; v_k)}{H(v_k)}, \qquad
        j_k = \arg\max_j I(z_j; v_k)

    Each latent is divided into ``bins`` of equal width between its extremes. The information is estimated from counts,
    and biased upward by about (bins - 1)(values - 1) / 2n nats for every latent.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018); the bins are those of
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations (Locatello et al.,
        2019).

    Args:
        codes: ``(n, d)``.
        factors: ``(n, m)``, with few values each.
        bins: Number of bins per latent.

    Raises:
        ShapeError: If codes and factors do not belong together.
        UsageError: If all latents or a factor are constant, a value is not finite, or a factor is continuous.

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(5))
        >>> mig(-2.0 * factors.flip(1), factors)
        1.0
    """
    codes, factors = checked(codes, factors)
    cut, values = _binned(codes, bins), numbered(factors)
    joints = [[_joint(latent, value) for latent in cut.T] for value in values.T]
    told = torch.stack([torch.stack([mutual_information(joint) for joint in row]) for row in joints])
    unknown = torch.stack([entropy(row[0].sum(0)) for row in joints])
    return _gap(told / unknown[:, None])


def sap(
    codes: Tensor, factors: Tensor, *, categorical: Sequence[int] = (), test_share: float = 0.5, seed: int = 0
) -> float:
    r"""Separated attribute predictability: the gap between the best and the next latent as predictor of a factor.

    An ordered factor is predicted by linear regression, scored by :math:`R^2`; a categorical one by thresholds on the
    latent that minimise the balanced error, scored on held-out examples, with chance accuracy mapped to 0 (unlike in
    the paper, whose gap is this one times 1 - 1 / categories).

    References:
        Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar, Sattigeri and
        Balakrishnan, 2018).

    Args:
        codes: ``(n, d)``.
        factors: ``(n, m)``.
        categorical: Columns of the factors whose values have no order.
        test_share: Share of the examples held out to score categories.
        seed: Seed of the held-out examples.

    Raises:
        ShapeError: If codes and factors do not belong together.
        UsageError: If all latents or a factor are constant, a value is not finite, or an option is out of range.

    Example:
        >>> codes = torch.randn(1000, 3)
        >>> round(sap(codes, 2 * codes[:, :2] + 1), 2)
        1.0
    """
    codes, factors = checked(codes, factors)
    require_columns(categorical, factors)
    scores = squared_correlation(factors, codes)
    train, test = halves(len(codes), test_share, seed)
    for k in categorical:
        values = numbered(factors[:, [k]], k)[:, 0]
        scores[k] = torch.stack([_thresholds(latent, values, train, test, seed) for latent in codes.T])
    return _gap(scores)


@dataclass(frozen=True)
class DCI:
    """Results of :func:`dci`.

    Args:
        disentanglement: Whether each latent predicts only one factor, 0 to 1.
        completeness: Whether each factor needs only one latent, 0 to 1.
        informativeness: How well all latents predict the factors of held-out examples, 0 to 1.
        importance: Share of each latent in the prediction of each factor, ``(d, m)``; columns sum to 1, or are 0 if
            nothing was learned.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: Tensor


def dci(
    codes: Tensor,
    factors: Tensor,
    *,
    categorical: Sequence[int] = (),
    predictor: Literal["forest", "boosting", "lasso"] = "forest",
    test_share: float = 0.5,
    seed: int = 0,
) -> DCI:
    r"""Disentanglement, completeness and informativeness, from the feature importances of a predictor of the factors.

    .. math:: D = \sum_j \rho_j \bigl(1 - H_m(P_{j \cdot})\bigr), \qquad
        C = \frac{1}{m} \sum_k \bigl(1 - H_d(\tilde P_{\cdot k})\bigr)

    with the importances :math:`R_{jk}` normalised over factors (:math:`P`) or over latents (:math:`\tilde P`),
    entropies to the base of their number of outcomes, and :math:`\rho_j` the share of latent j in all importances.
    Informativeness is :math:`R^2`, or the balanced accuracy with chance mapped to 0, on held-out examples; negative
    values count as 0.

    References:
        A Framework for the Quantitative Evaluation of Disentangled Representations (Eastwood and Williams, 2018), where
        informativeness is an error instead.

    Args:
        codes: ``(n, d)``.
        factors: ``(n, m)``.
        categorical: Columns of the factors whose values have no order.
        predictor: A random forest, gradient boosting (slow), or the lasso (no categories).
        test_share: Share of the examples held out.
        seed: Seed of the held-out examples and the predictors.

    Raises:
        ShapeError: If codes and factors do not belong together.
        UsageError: If all latents or a factor are constant, a value is not finite, or an option is out of range.

    Example:
        >>> codes = torch.randn(1000, 3)
        >>> found = dci(codes, codes[:, :2])
        >>> found.disentanglement > 0.95, found.completeness > 0.95, found.informativeness > 0.95
        (True, True, True)
    """
    codes, factors = checked(codes, factors)
    require_columns(categorical, factors)
    train, test = halves(len(codes), test_share, seed)
    columns, qualities = [], []
    for k, factor in enumerate(factors.T[:, :, None]):
        ordered, model = k not in categorical, _predictor(predictor, k in categorical, seed)
        target = standard(factor)[:, 0] if ordered else numbered(factor, k)[:, 0]
        guess = _guessed(model, standard(codes), target, train, test)
        columns.append(_importance(model))
        qualities.append(max(0.0, (_r2 if ordered else _beyond_chance)(guess, target[test])))
    importance = _shares(torch.stack(columns, dim=1), 0)
    weight = _shares(importance.sum(1), 0)
    separate = (weight * _concentration(_shares(importance, 1), 1)).sum().item()
    complete = _concentration(importance, 0).mean().item()
    return DCI(separate, complete, sum(qualities) / len(qualities), importance)


def factor_vae_score(
    codes: Tensor,
    factors: Tensor,
    *,
    size: int = 64,
    votes: tuple[int, int] = (10_000, 5_000),
    inactive: float = INACTIVE,
    seed: int = 0,
) -> float:
    """The FactorVAE score of a table of codes; groups are sampled from its rows, with replacement.

    References:
        Disentangling by Factorising (Kim and Mnih, 2018).

    Args:
        codes: ``(n, d)``.
        factors: ``(n, m)``, with few values each.
        size: Examples per group.
        votes: Number of groups to train and to score.
        inactive: Maximum variance of a latent to be ignored.
        seed: Seed of the groups.

    Raises:
        ShapeError: If codes and factors do not belong together.
        UsageError: As :func:`factor_vae_score_of`, and if a factor is constant or continuous.

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(4.0), torch.arange(5.0), torch.arange(3.0))
        >>> factor_vae_score(factors, factors, votes=(300, 300))
        1.0
    """
    codes, factors = checked(codes, factors)
    held = _rows_that_agree(codes, numbered(factors))
    return factor_vae_score_of(held, factors.shape[1], size=size, votes=votes, inactive=inactive, seed=seed)


def factor_vae_score_of(
    held: Held,
    factors: int,
    *,
    size: int = 64,
    votes: tuple[int, int] = (10_000, 5_000),
    inactive: float = INACTIVE,
    seed: int = 0,
) -> float:
    r"""FactorVAE score: how often the latent with least variance identifies the fixed factor.

    In a group of examples with equal factor k, the latent :math:`\arg\min_j \mathrm{Var}_\text{group}(z_j) /
    \mathrm{Var}(z_j)` votes for k. Each latent is assigned the factor it voted for most; the score is the share of new
    votes that are correct. Uninformative codes score about 1 / factors.

    References:
        Disentangling by Factorising (Kim and Mnih, 2018).

    Args:
        held: Samples codes with one factor fixed.
        factors: Number of factors.
        size: Examples per group.
        votes: Number of groups to train and to score; divided evenly over the factors.
        inactive: Maximum variance of a latent to be ignored, in units of a standard normal prior.
        seed: Seed of the groups.

    Raises:
        UsageError: If no latent is active, or a number is too small.

    Example:
        >>> def held(factor, groups, size, generator):
        ...     codes = torch.rand(groups, size, 3, generator=generator)
        ...     codes[..., factor] = codes[:, :1, factor]
        ...     return 4 * codes
        >>> factor_vae_score_of(held, 3, votes=(300, 300))
        1.0
    """
    if factors < 1 or size < 2 or min(votes) < factors:
        got = f"{factors} factors, groups of {size}, votes {votes}"
        raise UsageError(
            "Too few factors, examples or votes.", got=got, expected="groups of 2, and a vote for each factor"
        )
    generator = torch.Generator().manual_seed(seed)
    spread = held(0, max(votes), 1, generator)[:, 0].double().var(0)
    active = _active(spread, inactive)
    learned, scored = (_votes(held, factors, size, total, spread, active, generator) for total in votes)
    right = scored.gather(1, learned.argmax(1, keepdim=True)).sum()
    return (right / scored.sum()).item()


def _active(spread: Tensor, inactive: float) -> Tensor:
    """Which latents vary."""
    active = spread > inactive
    if not active.any():
        raise UsageError(
            "No latent is active.",
            got=f"variances up to {spread.max().item():.3g}",
            expected=f"one above {inactive:g}",
            remedy="Pass standardised codes or a lower threshold, if the model uses its latents.",
        )
    return active


def _binned(codes: Tensor, bins: int) -> Tensor:
    if bins < 2:
        raise UsageError("Too few bins.", got=f"bins={bins}", expected="2 or more")
    low, high = codes.aminmax(dim=0)
    width = torch.where(high > low, high - low, 1.0)
    return ((codes - low) / width * bins).long().clamp(max=bins - 1)


def _joint(a: Tensor, b: Tensor) -> Tensor:
    """Joint frequencies of two columns of integers."""
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    return torch.bincount(a * columns + b, minlength=rows * columns).view(rows, columns).double() / len(a)


def _gap(scores: Tensor) -> float:
    """Mean gap between the best latent and the next over the factors (rows)."""
    best = torch.cat([scores, torch.zeros(len(scores), 1, dtype=scores.dtype)], dim=1).topk(2, dim=1).values
    return (best[:, 0] - best[:, 1]).mean().item()


def _thresholds(latent: Tensor, values: Tensor, train: Tensor, test: Tensor, seed: int) -> Tensor:
    """Held-out accuracy beyond chance of thresholds on one latent, one fewer than values."""
    from sklearn.tree import DecisionTreeClassifier

    leaves = int(values.max()) + 1
    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, class_weight="balanced", random_state=seed)
    tree.fit(latent[train, None].numpy(), values[train].numpy())
    guess = torch.from_numpy(tree.predict(latent[test, None].numpy()))
    return torch.tensor(max(0.0, _beyond_chance(guess, values[test])), dtype=torch.float64)


def _beyond_chance(guess: Tensor, truth: Tensor) -> float:
    """Mean accuracy over the values that occur, with chance mapped to 0."""
    hits = torch.stack([(guess[truth == value] == value).double().mean() for value in truth.unique()])
    chance = 1 / len(hits)
    return ((hits.mean().item() - chance) / (1 - chance)) if len(hits) > 1 else 0.0


def _r2(guess: Tensor, truth: Tensor) -> float:
    return 1 - ((guess - truth).square().mean() / truth.var(correction=0).clamp(min=1e-300)).item()


def _predictor(name: str, categorical: bool, seed: int) -> Lasso | Trees:
    from sklearn import ensemble, linear_model

    if name == "lasso" and not categorical:
        return linear_model.Lasso(alpha=0.01)
    if name == "forest":  # all latents at each split: else useless ones get importance
        kind = ensemble.RandomForestClassifier if categorical else ensemble.RandomForestRegressor
        return kind(n_estimators=10, min_samples_leaf=5, random_state=seed).set_params(max_features=None)
    if name == "boosting":
        kind = ensemble.GradientBoostingClassifier if categorical else ensemble.GradientBoostingRegressor
        return kind(random_state=seed)
    raise UsageError(
        "Unknown predictor of factors.",
        got=f"{name!r} for a {'categorical' if categorical else 'ordered'} factor",
        expected="forest or boosting, or lasso for ordered factors",
    )


def _guessed(model: Lasso | Trees, codes: Tensor, target: Tensor, train: Tensor, test: Tensor) -> Tensor:
    """Predictions for the held-out examples."""
    model.fit(codes[train].numpy(), target[train].numpy())
    return torch.from_numpy(model.predict(codes[test].numpy()))


def _importance(model: Lasso | Trees) -> Tensor:
    """The importance of each latent, ``(d,)``: of a coefficient, its magnitude; of trees, the feature importance."""
    from sklearn.linear_model import Lasso

    weights = model.coef_ if isinstance(model, Lasso) else model.feature_importances_
    return torch.as_tensor(weights, dtype=torch.float64).abs()


def _shares(table: Tensor, dim: int) -> Tensor:
    return table / table.sum(dim, keepdim=True).clamp(min=1e-300)


def _concentration(shares: Tensor, dim: int) -> Tensor:
    """1 if concentrated in one entry, 0 if uniform or all zero."""
    if shares.shape[dim] == 1:
        return shares.sum(dim)
    spread = -torch.xlogy(shares, shares).sum(dim) / math.log(shares.shape[dim])
    return torch.where(shares.sum(dim) > 0, 1 - spread, 0.0)


def _rows_that_agree(codes: Tensor, values: Tensor) -> Held:
    """Samples rows of a table that share a value, which is that of a random row."""

    def held(factor: int, groups: int, size: int, generator: Generator) -> Tensor:
        value = values[:, factor]
        order, counts = value.argsort(), value.bincount()
        chosen = value[torch.randint(len(value), (groups, 1), generator=generator)]
        within = torch.rand(groups, size, generator=generator, dtype=torch.float64) * counts[chosen]
        return codes[order[(counts.cumsum(0) - counts)[chosen] + within.long()]]

    return held


def _votes(
    held: Held, factors: int, size: int, total: int, spread: Tensor, active: Tensor, generator: Generator
) -> Tensor:
    """How often each latent varied least with each factor fixed, ``(d, factors)``."""
    counts = []
    for factor in range(factors):
        codes = held(factor, total // factors, size, generator).double()
        share = torch.where(active, codes.var(1) / spread, math.inf)
        counts.append(share.argmin(1).bincount(minlength=len(spread)))
    return torch.stack(counts, dim=1)
