"""The likelihood of the flow, where the density is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tightbound.diffusion import GaussianOracle, MixtureOracle
from tightbound.diffusion.ode import log_likelihood
from tightbound.errors import UsageError

SIGMAS = (math.exp(-4.0), math.exp(8.0))


def gaussian(d: int = 4) -> GaussianOracle:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(d, d, dtype=torch.float64, generator=generator) / 2
    covariance = mixing @ mixing.mT + 0.2 * torch.eye(d, dtype=torch.float64)
    return GaussianOracle(torch.randn(d, dtype=torch.float64, generator=generator), covariance)


def mixture() -> MixtureOracle:
    means = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.3, -2.0]], dtype=torch.float64)
    return MixtureOracle(means, 0.3, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64))


def seen(oracle: GaussianOracle | MixtureOracle, n: int = 30) -> Tensor:
    torch.manual_seed(1)
    x = oracle.sample(n)
    return x + SIGMAS[0] * torch.randn_like(x)


def at_the_end(oracle: GaussianOracle, end: Tensor) -> Tensor:
    """What the exact law at the last noise has more than the Gaussian that stands for it."""
    stand_in = -0.5 * (end / SIGMAS[1]).square().sum(-1) - end.shape[1] * math.log(SIGMAS[1] * math.sqrt(2 * math.pi))
    return oracle.log_prob(end, torch.tensor(SIGMAS[1], dtype=torch.float64)) - stand_in


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_it_is_the_density(make: Callable[[], GaussianOracle]) -> None:
    """To 1e-6, but for the Gaussian that stands for the exact law at the end."""
    oracle = make()
    x = seen(oracle)
    found = log_likelihood(oracle, x, sigmas=SIGMAS, steps=400)
    expected = oracle.log_prob(x, torch.tensor(SIGMAS[0], dtype=torch.float64))
    torch.testing.assert_close(found.log_prob + at_the_end(oracle, found.end), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=1e-2)
    assert found.standard_error is None
    assert found.evaluations == 1600


def test_adaptive_steps_reach_their_tolerance() -> None:
    oracle, x = gaussian(), seen(gaussian())
    expected = oracle.log_prob(x, torch.tensor(SIGMAS[0], dtype=torch.float64))
    for tolerance, least in ((1e-3, 0.1), (1e-8, 1e-6)):
        found = log_likelihood(oracle, x, sigmas=SIGMAS, steps=None, tolerance=tolerance)
        error = (found.log_prob + at_the_end(oracle, found.end) - expected).abs().max().item()
        assert error < least
    assert found.evaluations < 2000


def test_probes_are_right_in_the_mean_and_say_their_error() -> None:
    oracle, x = gaussian(8), seen(gaussian(8), 10)
    exact = log_likelihood(oracle, x, sigmas=SIGMAS, steps=50)
    found = log_likelihood(oracle, x, sigmas=SIGMAS, steps=50, probes=200)
    assert found.standard_error is not None
    assert ((found.log_prob - exact.log_prob) / found.standard_error).abs().max() < 4
    assert 0.001 < found.standard_error.mean() < 0.1


def test_fresh_probes_vary_less_than_fixed_ones() -> None:
    oracle, x = gaussian(8), seen(gaussian(8), 10)
    fresh = log_likelihood(oracle, x, sigmas=SIGMAS, steps=100, probes=100).standard_error
    fixed = log_likelihood(oracle, x, sigmas=SIGMAS, steps=None, probes=100).standard_error
    assert fresh is not None
    assert fixed is not None
    assert fixed.mean() > 3 * fresh.mean()


def test_the_trace_of_many_dimensions_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle, x = gaussian(), seen(gaussian())
    whole = log_likelihood(oracle, x, sigmas=SIGMAS, steps=3).log_prob
    monkeypatch.setattr("tightbound.diffusion.ode.ENTRIES", 1)
    torch.testing.assert_close(log_likelihood(oracle, x, sigmas=SIGMAS, steps=3).log_prob, whole)


@pytest.mark.parametrize("options", [{"steps": 0}, {"probes": 0}, {"sigmas": (2.0, 1.0)}, {"sigmas": (0.0, 1.0)}])
def test_what_cannot_be_integrated_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="flow"):
        log_likelihood(gaussian(), seen(gaussian()), **{"sigmas": SIGMAS} | options)  # pyright: ignore[reportArgumentType]
