"""Disentanglement scores: high for a perfect code, low for a random one, lower for a rotated than for a perfect one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tightbound.errors import ShapeError, UsageError
from tightbound.evaluation.disentanglement import dci, factor_vae_score, mig, sap, udr

SIZES = (3, 5, 6, 8)
SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "mig": mig,
    "sap": sap,
    "dci disentanglement": lambda codes, factors: dci(codes, factors).disentanglement,
    "dci completeness": lambda codes, factors: dci(codes, factors).completeness,
}


def drawn(n: int = 2000) -> Tensor:
    return torch.stack([torch.randint(size, (n,)) for size in SIZES], dim=1)


def rotation(d: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d))[0]


def standard(factors: Tensor) -> Tensor:
    return (factors - (torch.tensor(SIZES) - 1) / 2) / torch.tensor(SIZES)


def copies(factors: Tensor) -> Tensor:
    """In another order, sign and scale."""
    return (factors.float() * torch.tensor([1.0, -2.0, 30.0, 0.1])).flip(1)


@pytest.mark.parametrize("name", SCORES)
def test_a_copy_of_the_factors_is_perfect(name: str) -> None:
    factors = drawn()
    assert SCORES[name](copies(factors), factors) > 0.95


@pytest.mark.parametrize("name", SCORES)
def test_a_random_code_is_worth_nothing(name: str) -> None:
    assert SCORES[name](torch.randn(2000, 6), drawn()) < 0.1


@pytest.mark.parametrize("name", SCORES)
def test_a_rotated_code_is_worth_less_than_a_straight_one(name: str) -> None:
    factors = drawn()
    assert SCORES[name](standard(factors) @ rotation(4), factors) < 0.6


@pytest.mark.parametrize("name", SCORES)
def test_dimensions_without_use_do_not_matter(name: str) -> None:
    factors = drawn()
    codes = torch.cat([copies(factors), torch.zeros(2000, 2), 0.01 * torch.randn(2000, 1)], dim=1)
    assert SCORES[name](codes, factors) > 0.9


@pytest.mark.parametrize("name", SCORES)
def test_constant_factors_are_left_out(name: str) -> None:
    factors = drawn()
    more = torch.cat([torch.full((2000, 1), 7), factors], dim=1)
    assert SCORES[name](copies(factors), more) == pytest.approx(SCORES[name](copies(factors), factors))


def test_the_gap_of_a_noiseless_copy_is_exactly_one_where_factors_are_a_grid() -> None:
    factors = torch.cartesian_prod(*map(torch.arange, SIZES))
    assert mig(copies(factors), factors) == pytest.approx(1.0)
    assert mig(torch.cat([copies(factors)] * 2, dim=1), factors) == pytest.approx(0.0)  # the second best is as good


def test_one_dimension_for_two_factors() -> None:
    factors = drawn()
    codes = torch.stack([factors[:, 2] * 10 + factors[:, 3], factors[:, 2]], dim=1)
    found = dci(codes.float(), factors[:, 2:])
    assert found.informativeness > 0.99
    assert found.importance.shape == (2, 2)
    assert found.disentanglement < found.informativeness


def test_categorical_factors_need_no_order() -> None:
    factors = drawn()
    shuffled = torch.tensor([2, 0, 1])[factors[:, 0]]
    codes = torch.stack([factors[:, 0].float(), factors[:, 1].float()], dim=1)
    straight = sap(codes, torch.stack([shuffled, factors[:, 1]], dim=1))
    named = sap(codes, torch.stack([shuffled, factors[:, 1]], dim=1), categorical=[0])
    assert named > straight


def test_votes_for_the_fixed_factor() -> None:
    assert factor_vae_score(lambda f: copies(f), SIZES, votes=300) == 1.0
    noise = factor_vae_score(lambda f: torch.randn(len(f), 5), SIZES, votes=300)
    assert noise < 1 / len(SIZES) + 0.15
    turn = rotation(4)
    assert factor_vae_score(lambda f: standard(f) @ turn, SIZES, votes=300) < 1.0
    assert factor_vae_score(lambda f: torch.zeros(len(f), 2), SIZES, votes=10) == 0.0
    dead = lambda f: torch.cat([copies(f), 1e-6 * torch.randn(len(f), 3)], dim=1)
    assert factor_vae_score(dead, SIZES, votes=300) == 1.0


def test_a_factor_with_one_value_is_never_fixed() -> None:
    assert factor_vae_score(lambda f: f.float(), (4, 1, 5), votes=200, group=30) == 1.0


def test_models_that_agree_up_to_order_and_sign_rank_high() -> None:
    z = torch.randn(3000, 4)
    alike = udr([z, -z[:, [2, 0, 3, 1]], z.exp()])
    assert (alike > 0.85).all()
    turned = udr([z @ rotation(4), z @ rotation(4), z @ rotation(4)])
    assert (turned < 0.6).all()
    odd_one = udr([z, -z, z @ rotation(4)])
    assert odd_one.argmin() == 2


def test_unused_dimensions_are_left_out_of_the_ranking() -> None:
    z = torch.randn(3000, 3)
    more = torch.cat([z, torch.randn(3000, 2)], dim=1)
    kl = [torch.tensor([1.0, 1.0, 1.0, 0.001, 0.0])] * 2
    assert (udr([more, more.roll(1, 0).roll(-1, 0)], kl) > 0.85).all()
    nothing = udr([z, z], [torch.zeros(3), torch.zeros(3)])
    assert (nothing == 0).all()


def test_the_same_seed_gives_the_same_score() -> None:
    factors = drawn(500)
    codes = standard(factors) @ rotation(4)
    assert dci(codes, factors).informativeness == dci(codes, factors).informativeness
    turn = rotation(4)
    scores = [factor_vae_score(lambda f: standard(f) @ turn, SIZES, votes=50) for _ in range(2)]
    assert scores[0] == scores[1]


def test_bad_input_is_refused() -> None:
    factors = drawn(100)
    for score in SCORES.values():
        with pytest.raises(ShapeError, match="same examples"):
            score(torch.randn(90, 3), factors)
        with pytest.raises(ShapeError, match="same examples"):
            score(torch.randn(100), factors)
        with pytest.raises(UsageError, match="No factor varies"):
            score(torch.randn(100, 3), torch.zeros(100, 2).long())
    with pytest.raises(UsageError, match="two bins"):
        mig(torch.randn(100, 3), factors, bins=1)
    with pytest.raises(UsageError, match="vote needs"):
        factor_vae_score(lambda f: f.float(), (1, 1))
    with pytest.raises(UsageError, match="ranked by each other"):
        udr([torch.randn(5, 2)])
    with pytest.raises(ShapeError, match="same examples"):
        udr([torch.randn(5, 2), torch.randn(6, 2)])
