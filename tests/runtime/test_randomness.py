"""Noise is a function of where it is used."""

from __future__ import annotations

import itertools

import pytest
import torch

from tightbound.runtime.randomness import epoch_order, fixed_noise, mix, reseed

CPU = torch.device("cpu")


def test_mixed_seeds_are_the_same_everywhere() -> None:
    """Pinned, since a run must resume under another version of Python."""
    assert mix(0) == 4761921975702974394
    assert mix(1, 2, 3) == 8149998584550362645


def test_mixed_seeds_differ_and_fit_a_generator() -> None:
    seeds = {mix(*numbers) for numbers in itertools.product(range(12), repeat=3)}
    assert len(seeds) == 12**3
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix(1, 2) != mix(2, 1)
    assert mix(2**31, 0) != mix(0, 2**31)
    torch.manual_seed(max(seeds))


def test_mixed_seeds_are_spread_over_all_bits() -> None:
    ones = torch.tensor([[seed >> bit & 1 for bit in range(63)] for seed in map(mix, range(2_000))]).double().mean(0)
    assert ((ones - 0.5).abs() < 4 * 0.5 / 2_000**0.5).all()


def test_every_part_of_every_step_has_its_own_noise() -> None:
    draws = []
    for seed, step, part in itertools.product(range(2), range(3), range(2)):
        reseed(CPU, seed, step, part)
        draws.append(tuple(torch.randn(3).tolist()))
    assert len(set(draws)) == len(draws)
    reseed(CPU, 1, 2, 1)
    assert tuple(torch.randn(3).tolist()) == draws[-1]


def test_an_epoch_visits_every_example_once_in_its_own_order() -> None:
    before = torch.get_rng_state()
    orders = [epoch_order(seed, epoch, 50) for seed in range(2) for epoch in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    for order in orders:
        assert order.sort().values.tolist() == list(range(50))
    assert len({tuple(order.tolist()) for order in orders}) == 6
    assert torch.equal(epoch_order(0, 1, 50), orders[1])


def test_fixed_noise_is_the_same_every_time_and_leaves_no_trace() -> None:
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    with fixed_noise(4):
        one = torch.randn(3)
    assert torch.equal(torch.randn(3), expected)
    torch.manual_seed(2)
    with fixed_noise(4):
        assert torch.equal(torch.randn(3), one)
    for other in (fixed_noise(5), fixed_noise(4, part=1)):
        with other:
            assert not torch.equal(torch.randn(3), one)


def test_fixed_noise_leaves_no_trace_of_a_failure() -> None:
    before = torch.get_rng_state()

    def draw_and_fail() -> None:
        with fixed_noise():
            torch.randn(3)
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_and_training_never_share_noise() -> None:
    with fixed_noise(0, 0):
        fixed = torch.randn(3)
    reseed(CPU, 0, 0, 0)
    assert not torch.equal(torch.randn(3), fixed)
