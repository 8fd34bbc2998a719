"""Scores of codes whose worth is known: the factors themselves, their rotations, noise, and what fits nowhere."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tightbound.errors import ShapeError, UsageError
from tightbound.evaluation.latents.disentanglement import dci, factor_vae_score, factor_vae_score_of, mig, sap
from tightbound.evaluation.latents.ranking import udr

SIZES = (3, 4, 5, 6)
SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "mig": mig,
    "sap": sap,
    "sap, categories": functools.partial(sap, categorical=range(4)),
    "disentanglement": lambda codes, factors: dci(codes, factors).disentanglement,
    "completeness": lambda codes, factors: dci(codes, factors).completeness,
    "disentanglement, categories": lambda codes, factors: dci(codes, factors, categorical=(0, 2)).disentanglement,
    "disentanglement, lasso": lambda codes, factors: dci(codes, factors, predictor="lasso").disentanglement,
    "factor vae": functools.partial(factor_vae_score, votes=(2000, 2000)),
}


@pytest.fixture
def factors() -> Tensor:
    """Every combination, ten times."""
    grid = torch.cartesian_prod(*(torch.arange(size, dtype=torch.float64) for size in SIZES))
    return grid.repeat(10, 1)


def standard(table: Tensor) -> Tensor:
    return (table - table.mean(0)) / table.std(0)


def noise(n: int, d: int) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64)


def rotation(d: int) -> Tensor:
    return torch.linalg.qr(noise(d, d))[0]


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_factors_in_another_order_sign_and_scale_are_a_perfect_code(
    score: Callable[[Tensor, Tensor], float], factors: Tensor
) -> None:
    scales = torch.tensor([1.0, -2.0, 3.0, -0.5], dtype=torch.float64)
    assert score(scales * factors.flip(1), factors) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_unused_latents_change_little(score: Callable[[Tensor, Tensor], float], factors: Tensor) -> None:
    constant = torch.zeros(len(factors), 1, dtype=torch.float64)
    assert score(torch.cat([factors, noise(len(factors), 3), constant], dim=1), factors) > 0.95


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_a_rotation_is_worse_than_the_factors_and_better_than_nothing(
    score: Callable[[Tensor, Tensor], float], factors: Tensor
) -> None:
    found = score(standard(factors) @ rotation(4), factors)
    assert 0.01 < found < 0.9


NOTHING = {name: score for name, score in SCORES.items() if name != "factor vae" and "lasso" not in name}


@pytest.mark.parametrize("score", NOTHING.values(), ids=NOTHING)
def test_noise_is_worth_nothing(score: Callable[[Tensor, Tensor], float], factors: Tensor) -> None:
    assert abs(score(noise(len(factors), 6), factors)) < 0.05


def test_noise_is_right_by_chance(factors: Tensor) -> None:
    votes = 8000
    found = factor_vae_score_of(
        lambda k, groups, size, g: torch.randn(groups, size, 6, generator=g), 4, votes=(2000, votes)
    )
    assert abs(found - 1 / 4) < 4 * math.sqrt(1 / 4 * 3 / 4 / votes)


def test_the_mutual_information_gap_of_a_grid_is_exact(factors: Tensor) -> None:
    assert mig(factors, factors) == pytest.approx(1.0, abs=1e-12)
    assert mig(factors.repeat(1, 2), factors) == pytest.approx(0.0, abs=1e-12)
    merged = torch.cat([factors[:, :1].clamp(max=1), factors[:, 1:]], dim=1)  # two of three values look the same
    told = math.log(3) - 2 / 3 * math.log(2)
    assert mig(merged, factors) == pytest.approx((told / math.log(3) + 3) / 4, abs=1e-12)


def test_what_is_counted_is_the_gap_to_the_next_latent(factors: Tensor) -> None:
    """A noisy second copy takes from the score what it tells itself."""
    value = standard(factors[:, :1])
    second = value + noise(*value.shape)
    correlation = torch.corrcoef(torch.cat([value, second], dim=1).T)[0, 1]
    assert sap(torch.cat([value, second], dim=1), factors[:, :1]) == pytest.approx(1 - correlation.item() ** 2)
    assert sap(value, factors[:, :1]) == pytest.approx(1.0)


def test_categories_have_no_order(factors: Tensor) -> None:
    """A category in the middle is cut out by two thresholds, which no line can do."""
    shuffled = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)[factors[:, :1].long()]
    assert sap(factors, shuffled, categorical=(0,)) == pytest.approx(1.0, abs=0.01)
    assert sap(factors, shuffled) < 0.6
    assert dci(factors, shuffled, categorical=(0,)).informativeness == pytest.approx(1.0, abs=1e-3)


def test_each_of_the_three_sees_its_own_defect(factors: Tensor) -> None:
    two = factors[:, 2:]
    mixed = dci(torch.stack([two[:, 0] + 10 * two[:, 1]], dim=1), two)  # one latent for two factors
    assert mixed.disentanglement < 0.1
    assert mixed.completeness > 0.95
    assert mixed.informativeness > 0.95
    high = (factors[:, 3:] / 3).floor()
    spread = dci(torch.cat([high, factors[:, 3:] - 3 * high], dim=1), factors[:, 3:])  # two latents for one factor
    assert spread.disentanglement == pytest.approx(1.0)
    assert spread.completeness < 0.5
    assert spread.informativeness > 0.95
    dim = dci(two + 3 * noise(*two.shape), two)
    assert dim.informativeness < 0.5
    torch.testing.assert_close(dim.importance.sum(0), torch.ones(2, dtype=torch.float64))


def test_a_seed_gives_one_answer(factors: Tensor) -> None:
    codes = standard(factors) @ rotation(4)
    for score in SCORES.values():
        assert score(codes, factors) == score(codes, factors)


@pytest.mark.parametrize("similarity", ["spearman", "lasso"])
def test_models_that_agree_are_ranked_above_one_that_does_not(similarity: str) -> None:
    z = noise(2000, 4)
    found = udr([z, -z.flip(1), 3 * z[:, [2, 0, 1, 3]], z @ rotation(4)], similarity=similarity)  # pyright: ignore
    assert (found[:3] > 0.85).all()
    assert found[3] < found[:3].min() - 0.2


def test_ranks_see_monotone_maps_and_ties() -> None:
    z = noise(20_000, 2)
    assert (udr([z, z.exp()]) > 0.97).all()
    steps = z.round()
    torch.testing.assert_close(udr([steps, -steps.flip(1)]), udr([steps, steps]))


def test_two_models_by_hand() -> None:
    """With correlation r between their first latents and none else: 2 r^2 / r over two latents."""
    a = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    b = torch.tensor([[1.0], [2.0], [4.0], [3.0]])
    torch.testing.assert_close(udr([a, b]), torch.full((2,), 0.8, dtype=torch.float64))


def test_latents_without_information_are_not_compared() -> None:
    z = noise(2000, 3)
    more, kl = torch.cat([z, noise(2000, 2)], dim=1), torch.tensor([1.0, 1.0, 1.0, 0.001, 0.001])
    torch.testing.assert_close(udr([more, z], kl=[kl, kl[:3]]), udr([z, z]))
    assert (udr([more, z]) < udr([z, z])).all()
    with pytest.raises(UsageError, match="no informative latent"):
        udr([z, z], kl=[kl[:3], torch.zeros(3)])


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_bad_tables_are_refused(score: Callable[[Tensor, Tensor], float], factors: Tensor) -> None:
    n = len(factors)
    for codes, known in [(noise(n - 1, 2), factors), (noise(n, 2)[:, 0], factors), (noise(0, 2), factors[:0])]:
        with pytest.raises(ShapeError, match="do not belong together"):
            score(codes, known)
    with pytest.raises(UsageError, match="All codes are constant"):
        score(torch.ones(n, 2), factors)
    with pytest.raises(UsageError, match="factor is constant"):
        score(factors, torch.cat([factors[:, :3], torch.ones(n, 1)], dim=1))
    with pytest.raises(UsageError, match="not finite"):
        score(factors.where(factors < 5, math.nan), factors)


def test_bad_options_are_refused(factors: Tensor) -> None:
    with pytest.raises(UsageError, match="continuous"):
        mig(factors, noise(*factors.shape))
    with pytest.raises(UsageError, match="bins"):
        mig(factors, factors, bins=1)
    with pytest.raises(UsageError, match="Unknown factor"):
        sap(factors, factors, categorical=(4,))
    with pytest.raises(UsageError, match="Nothing is left"):
        sap(factors, factors, test_share=1.0)
    with pytest.raises(UsageError, match="predictor"):
        dci(factors, factors, categorical=(0,), predictor="lasso")
    with pytest.raises(UsageError, match="No latent is active"):
        factor_vae_score(0.01 * factors, factors)
    with pytest.raises(UsageError, match="vote"):
        factor_vae_score(factors, factors, size=1)
    with pytest.raises(UsageError, match="similarity"):
        udr([factors, factors], similarity="cosine")  # pyright: ignore
    with pytest.raises(ShapeError, match="same examples"):
        udr([factors])
    with pytest.raises(ShapeError, match="KL"):
        udr([factors, factors], kl=[torch.ones(3), torch.ones(4)])
