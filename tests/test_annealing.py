"""Schedules are pure functions of the step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tightbound.annealing import learning_rate, ramp, weight


@pytest.mark.parametrize("length", [0, 1, 2, 7, 100])
def test_a_ramp_rises_to_one_and_stays(length: int) -> None:
    values = [ramp(step, length) for step in range(2 * length + 2)]
    assert all(0 < value <= 1 for value in values)
    assert values == sorted(values)
    assert all(value == 1 for value in values[max(0, length - 1) :])
    if length > 1:
        assert values[length - 2] < 1
        steps = [b - a for a, b in pairwise(values[:length])]
        assert steps == pytest.approx([1 / length] * (length - 1))


@pytest.mark.parametrize("warmup", [0, 1, 10, 100, 200])
def test_the_learning_rate_rises_then_falls(warmup: int) -> None:
    for schedule in ("constant", "cosine"):
        values = [learning_rate(step, 100, schedule, warmup) for step in range(100)]
        assert all(0 < value <= 1 for value in values)
        assert values[:warmup] == sorted(values[:warmup])
        assert values[warmup:] == sorted(values[warmup:], reverse=True)
        if schedule == "constant":
            assert all(value == 1 for value in values[warmup:])
        elif warmup < 100:
            assert values[warmup] == 1
            assert values[-1] < 0.01 or warmup > 50


def test_cosine_is_half_in_the_middle_and_ends_at_zero() -> None:
    assert learning_rate(50, 100, "cosine") == pytest.approx(0.5)
    assert learning_rate(55, 100, "cosine", warmup=10) == pytest.approx(0.5)
    assert learning_rate(100, 100, "cosine") == pytest.approx(0.0)


@pytest.mark.parametrize(("length", "cycles"), [(103, 4), (400, 4), (10, 3), (7, 7)])
def test_a_cyclical_weight_begins_as_often_as_it_is_told(length: int, cycles: int) -> None:
    values = [weight(step, length, "cyclical", cycles=cycles) for step in range(2 * length)]
    assert sum(b < a for a, b in pairwise(values)) == (cycles - 1 if length >= 2 * cycles else 0)
    assert all(value == 1 for value in values[length - 1 :])


@pytest.mark.parametrize("kind", ["linear", "cosine", "sigmoid", "cyclical"])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 100])
def test_every_weight_lies_between_nothing_and_one_and_ends_at_one(kind: Any, length: int) -> None:
    values = [weight(step, length, kind, cycles=3) for step in range(2 * length + 2)]
    assert all(0 <= value <= 1 for value in values)
    assert all(value == 1 for value in values[max(0, length - 1) :])
    if kind != "cyclical":
        assert values == sorted(values)


def test_a_sigmoid_and_a_cosine_are_symmetric() -> None:
    for kind in ("cosine", "sigmoid"):
        for step in range(99):
            assert weight(step, 100, kind) + weight(98 - step, 100, kind) == pytest.approx(1)


def test_a_cyclical_weight_falls_as_often_as_it_has_cycles() -> None:
    values = [weight(step, 400, "cyclical", cycles=4) for step in range(400)]
    assert sum(b < a for a, b in pairwise(values)) == 3
    assert sum(value == 1 for value in values) == pytest.approx(204, abs=4)


def test_milestones_multiply() -> None:
    rates = [learning_rate(step, 10, "step", milestones=[4, 8], factor=0.5) for step in range(10)]
    assert rates == [1.0] * 4 + [0.5] * 4 + [0.25] * 2
