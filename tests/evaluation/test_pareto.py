"""The shape of the weights' tail: recovered from tails of known shape, and untouched by scale."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from tightbound.evaluation.log_likelihood.pareto import pareto_k, pareto_shape, tail_length


def excesses(shape: float, n: int, *batch: int) -> torch.Tensor:
    """Samples of a generalised Pareto distribution, by inversion."""
    u = torch.rand(n, *batch, dtype=torch.float64)
    return -torch.log(u) if shape == 0 else (u**-shape - 1) / shape


@pytest.mark.parametrize("shape", [-0.4, -0.2, 0.0, 0.3, 0.5, 0.7, 1.0, 1.5])
def test_the_shape_is_recovered(shape: float) -> None:
    found = pareto_shape(excesses(shape, 2000, 50))
    error = found.std() / 50**0.5
    assert found.std() < 1.5 * (1 + abs(shape)) / 2000**0.5
    assert abs(found.mean() - shape) < 4 * error + 0.01


@pytest.mark.parametrize("shape", [0.2, 0.8])
def test_as_near_the_truth_as_maximum_likelihood(shape: float) -> None:
    x = excesses(shape, 500)
    best, _, _ = stats.genpareto.fit(x.numpy(), floc=0)
    assert abs(pareto_shape(x).item() - best) < 0.05


@pytest.mark.parametrize("scale", [1e-12, 3.0, 1e9])
def test_units_do_not_matter(scale: float) -> None:
    x = excesses(0.5, 200, 3)
    torch.testing.assert_close(pareto_shape(scale * x), pareto_shape(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_weights_with_a_pareto_tail(shape: float) -> None:
    """Weights u^-shape have that very tail, above any threshold."""
    k = 20_000
    log_weights = -shape * torch.rand(k, 40, dtype=torch.float64).log() - 500.0
    tail = log_weights.topk(tail_length(k) + 1, dim=0).values
    found = pareto_k(tail)
    drawn = 10 / (tail_length(k) + 10)
    assert abs(found.mean() - (shape * (1 - drawn) + 0.5 * drawn)) < 4 * found.std() / 40**0.5 + 0.01


def test_a_weight_times_its_posterior_too_narrow() -> None:
    """For q = N(0, s^2) and p = N(0, 1) the weights' tail is of shape 1 - s^2: heavy where q is too narrow."""
    k = 100_000
    for s in (0.4, 0.6, 0.8):
        z = s * torch.randn(k, 20, dtype=torch.float64)
        log_weights = -z.square() / 2 + z.square() / (2 * s * s)
        found = pareto_k(log_weights.topk(tail_length(k) + 1, dim=0).values).mean()
        assert abs(found - (1 - s * s)) < 0.12  # the tail is that only in the limit, times a power of a logarithm


def test_equal_weights_are_no_alarm() -> None:
    found = pareto_k(torch.full((214, 3), -1e5) + 1e-6 * torch.rand(214, 3).sort(0, descending=True).values)
    assert (found < 0).all()


def test_one_weight_that_carries_all_is() -> None:
    tail = torch.cat([torch.zeros(1, 2), -100 - torch.linspace(0, 3, 213).unsqueeze(1).expand(-1, 2)])
    assert (pareto_k(tail) > 0.7).all()


def test_lengths() -> None:
    for k in (25, 100, 1000, 5000):
        assert tail_length(k) == min(k // 5, math.ceil(3 * math.sqrt(k)))
    assert tail_length(24) == 0
