"""Distances of two sets: closed forms, all ways to divide a set, and the definitions written as loops."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from tightbound.errors import ShapeError
from tightbound.evaluation.samples.distances import (
    KERNEL_FACTOR,
    frechet_distance,
    kernel_distance,
    support,
)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 40, 4), (12, 9, 40), (12, 60, 40)])
def test_the_overlap_needs_no_covariance(n: int, m: int, d: int) -> None:
    """Fewer rows than features, more, and both, against the eigenvalues of the product of the covariances."""
    a, b = torch.randn(n, d).double(), torch.randn(m, d).double() @ torch.randn(d, d).double()
    product = torch.linalg.eigvals(a.T.cov() @ b.T.cov()).real.clamp(min=0).sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * product
    assert frechet_distance(a, b).value == pytest.approx(expected.item(), rel=1e-6)


def by_loops(a: Tensor, b: Tensor) -> float:
    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    def within(x: Tensor) -> float:
        pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
        return sum(kernel(x[i], x[j]) for i, j in pairs) / len(pairs)

    between = sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
    return KERNEL_FACTOR * (within(a) + within(b) - 2 * between)


def test_the_kernel_distance_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(9, 5).double(), torch.randn(7, 5).double() + 1
    assert kernel_distance(a, b).value == pytest.approx(by_loops(a, b), rel=1e-12)
    monkeypatch.setattr("tightbound.evaluation.samples.distances.AT_ONCE", 10)
    assert kernel_distance(a, b).value == pytest.approx(by_loops(a, b), rel=1e-12)


def test_of_one_law_the_kernel_distance_is_zero_on_average() -> None:
    """Exactly: over all ways to divide eight rows into two sets, whatever their sizes."""
    x = torch.randn(8, 3).double()
    for size in (2, 3, 4):
        found = []
        for chosen in combinations(range(8), size):
            mask = torch.zeros(8, dtype=torch.bool)
            mask[list(chosen)] = True
            found.append(kernel_distance(x[mask], x[~mask]).value)
        assert sum(found) / len(found) == pytest.approx(0, abs=1e-9)
        assert min(found) < 0


def test_the_kernel_distance_of_known_laws() -> None:
    """In one dimension the expectation of (x y + 1)^3 is a sum of products of moments: here 7000, of points."""
    points = torch.full((5, 1), 2.0).double(), torch.full((4, 1), 1.0).double()
    assert kernel_distance(*points).value == KERNEL_FACTOR * (5**3 + 2**3 - 2 * 3**3)
    found = [kernel_distance(torch.randn(60, 1).double() + 1, torch.randn(60, 1).double()).value for _ in range(200)]
    first, second, third = (1.0, 0.0), (2.0, 1.0), (4.0, 0.0)  # E x, E x^2, E x^3 of N(1, 1) and of N(0, 1)
    k = lambda i, j: 1 + 3 * first[i] * first[j] + 3 * second[i] * second[j] + third[i] * third[j]
    expected = KERNEL_FACTOR * (k(0, 0) + k(1, 1) - 2 * k(0, 1))
    values = torch.tensor(found)
    assert values.mean().item() == pytest.approx(expected, abs=4 * values.std().item() / 200**0.5)


def test_the_error_of_the_kernel_distance_is_that_of_its_values_over_many_sets() -> None:
    found = [kernel_distance(torch.randn(150, 3) + 0.5, torch.randn(150, 3), seed=i) for i in range(60)]
    spread = torch.tensor([each.value for each in found]).std().item()
    claimed = sum(each.standard_error or 0.0 for each in found) / 60
    assert claimed == pytest.approx(spread, rel=0.35)


def support_by_loops(samples: Tensor, data: Tensor) -> list[float]:
    def radius(points: Tensor, i: int, k: int) -> float:
        return sorted(float((points[i] - points[j]).norm()) for j in range(len(points)) if j != i)[k - 1]

    inside = lambda x, points, i, k: float((x - points[i]).norm()) <= radius(points, i, k) * (1 + 1e-12)
    n, m = len(samples), len(data)
    precision = sum(any(inside(y, data, i, 3) for i in range(m)) for y in samples) / n
    recall = sum(any(inside(x, samples, j, 3) for j in range(n)) for x in data) / m
    density = sum(inside(y, data, i, 5) for y in samples for i in range(m)) / (5 * n)
    coverage = sum(any(inside(y, data, i, 5) for y in samples) for i in range(m)) / m
    return [precision, recall, density, coverage]


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_precision_recall_density_and_coverage_are_their_definitions(
    shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, data = torch.randn(25, 2).double() * 0.5 + shift, torch.randn(31, 2).double()
    expected = support_by_loops(samples, data)
    assert [each.value for each in support(samples, data)] == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr("tightbound.evaluation.samples.distances.AT_ONCE", 100)
    assert [each.value for each in support(samples, data)] == pytest.approx(expected, abs=1e-12)


def test_of_constructed_sets_they_are_known() -> None:
    """Two far clusters of ten points each; the samples are those of one: all are good, half of the data is missed."""
    near, far = torch.arange(10).double().unsqueeze(1), 1000 + torch.arange(10).double().unsqueeze(1)
    found = support(near, torch.cat([near, far]))
    assert (found.precision.value, found.recall.value, found.coverage.value) == (1.0, 0.5, 0.5)
    inside = sum(sum(abs(i - j) <= max(5 - i, 5 - (9 - i), 3) for j in range(10)) for i in range(10))
    assert found.density.value == pytest.approx(inside / (5 * 10))
    found = support(torch.cat([near, far]), near)
    assert (found.precision.value, found.recall.value, found.coverage.value) == (0.5, 1.0, 1.0)


def test_too_few_for_neighbours_are_refused() -> None:
    with pytest.raises(ShapeError, match="too few examples"):
        support(torch.randn(5, 2), torch.randn(50, 2))
