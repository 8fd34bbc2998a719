"""The logit-Laplace density is normalised, is torch's own by a change of variables, and its samples follow it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Laplace, SigmoidTransform, TransformedDistribution
from torch.distributions.transforms import AffineTransform

from instances import double
from tightbound.distributions.logit_laplace import LogitLaplace
from tightbound.errors import UsageError

EPS = [0.1, 0.01, 0.3]


def laplace_cdf(value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return Laplace(mean, scale).cdf(value)


def logit(y: float) -> Tensor:
    return torch.tensor(math.log(y / (1 - y))).double()


@pytest.mark.parametrize("eps", EPS)
def test_it_is_a_squashed_laplace_distribution(eps: float) -> None:
    mean, log_scale, x = double(50), double(50), torch.rand(20, 50, dtype=torch.float64)
    from_y = AffineTransform(-eps / (1 - 2 * eps), 1 / (1 - 2 * eps))
    theirs = TransformedDistribution(Laplace(mean, log_scale.exp()), [SigmoidTransform(), from_y], validate_args=False)
    torch.testing.assert_close(LogitLaplace(mean, log_scale, eps).log_prob(x), theirs.log_prob(x))


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("log_scale", [-1.5, -0.5, 0.3])
@pytest.mark.parametrize("mean", [-1.0, 0.0, 2.5])
def test_it_integrates_to_one_over_y_and_to_the_known_mass_over_x(mean: float, log_scale: float, eps: float) -> None:
    p = LogitLaplace(torch.tensor(mean).double(), torch.tensor(log_scale).double(), eps)
    logits = torch.linspace(-80.0, 80.0, 800_001, dtype=torch.float64)
    y = logits.sigmoid()
    x = (y - eps) / (1 - 2 * eps)
    slope = y * (1 - y) / (1 - 2 * eps)  # dx of d logit
    keep = (y > 1e-12) & (1 - y > 1e-12)
    whole = torch.trapezoid((p.log_prob(x).exp() * slope)[keep], logits[keep])
    assert whole.item() == pytest.approx(1, abs=1e-5)
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    ends = [laplace_cdf(logit(end), p.location, p.log_scale.exp()) for end in (eps, 1 - eps)]
    inside = torch.trapezoid(p.log_prob(grid).exp(), grid)
    assert inside.item() == pytest.approx((ends[1] - ends[0]).item(), abs=1e-6)
    assert inside < 1


def test_the_published_density_is_that_of_y() -> None:
    mean, log_scale, x, eps = double(50), double(50), torch.rand(50, dtype=torch.float64), 0.1
    y, b = (1 - 2 * eps) * x + eps, log_scale.exp()
    published = 1 / (2 * b * y * (1 - y)) * torch.exp(-(torch.logit(y) - mean).abs() / b)
    ours = LogitLaplace(mean, log_scale, eps).log_prob(x)
    torch.testing.assert_close(ours, published.log() + math.log(1 - 2 * eps))


def test_gradients() -> None:
    x = torch.rand(6, dtype=torch.float64)
    density = lambda mean, log_scale, x: LogitLaplace(mean, log_scale).log_prob(x)
    inputs = (double(6).requires_grad_(), double(6).requires_grad_(), x.requires_grad_())
    assert torch.autograd.gradcheck(density, inputs)


@pytest.mark.parametrize("x", [0.0, 1.0])
@pytest.mark.parametrize("mean", [-30.0, 0.0, 30.0])
def test_the_ends_of_the_interval_are_finite(x: float, mean: float) -> None:
    parameters = torch.tensor([mean, -2.0], requires_grad=True)
    log_prob = LogitLaplace(parameters[0], parameters[1]).log_prob(torch.tensor(x))
    (gradient,) = torch.autograd.grad(log_prob, parameters)
    assert log_prob.isfinite()
    assert gradient.isfinite().all()


def test_samples_follow_it_and_stay_in_the_interval() -> None:
    mean, log_scale = torch.tensor([-3.0, 0.0, 1.0]).double(), torch.tensor([-1.0, 0.5, -2.0]).double()
    p = LogitLaplace(mean, log_scale)
    samples = p.sample((40_000,))
    assert samples.shape == (40_000, 3)
    assert samples.min() >= 0
    assert samples.max() <= 1
    for t in (0.0, 0.2, 0.5, 0.7, 0.999):  # what lies beyond an end was put on it
        expected = laplace_cdf(logit(0.8 * t + 0.1), mean, log_scale.exp())
        share = (samples <= t).double().mean(0)
        error = (expected * (1 - expected) / len(samples)).sqrt()
        assert ((share - expected).abs() < 4.5 * error + 1e-9).all()


def test_the_centre_is_the_median_and_at_small_scales_the_mode() -> None:
    mean = torch.tensor([-5.0, -1.0, 0.0, 0.7, 5.0]).double()
    grid = torch.linspace(0, 1, 10_001, dtype=torch.float64).unsqueeze(1)
    for log_scale in (-3.0, -0.01):
        p = LogitLaplace(mean, torch.tensor(log_scale).double())
        best = grid[p.log_prob(grid).argmax(0), 0]
        torch.testing.assert_close(p.mode, best, rtol=0, atol=1e-4)
        samples = p.sample((20_000,))
        below, above = (samples < p.median - 1e-12).double().mean(0), (samples > p.median + 1e-12).double().mean(0)
        assert (torch.maximum(below, above) < 0.5 + 4.5 * 0.5 / 20_000**0.5).all()
        assert p.median.min() == 0
        assert p.median.max() == 1


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("b", [1e-5, 0.05, 0.5, 1.0, 3.0, 100.0])
def test_the_mean_is_that_of_the_quantiles(b: float, eps: float) -> None:
    """Every quantile of x is a function of one of the Laplace distribution: their average is the mean."""
    mean = torch.tensor([-6.0, -2.2, -1.0, 0.0, 0.7, 2.5]).double()
    p = LogitLaplace(mean, torch.tensor(b).double().log(), eps)
    u = ((torch.arange(200_000) + 0.5) / 200_000).double().unsqueeze(1)
    y = Laplace(mean, torch.tensor(b).double()).icdf(u).sigmoid()
    expected = ((y - eps) / (1 - 2 * eps)).clamp(0, 1).mean(0)
    torch.testing.assert_close(p.mean, expected, rtol=0, atol=2e-5)


def test_the_mean_of_a_wide_distribution_is_not_its_median() -> None:
    p = LogitLaplace(torch.tensor(-2.1).double(), torch.tensor(1.5).double().log())
    assert p.mean > p.median + 0.1
    samples = p.sample((40_000,))
    assert p.mean.item() == pytest.approx(samples.mean().item(), abs=4.5 * samples.std().item() / 200)


def test_shapes_broadcast() -> None:
    p = LogitLaplace(double(5, 3), double(3))
    assert p.batch_shape == (5, 3)
    assert LogitLaplace(double(3), double(5, 3)).mean.shape == (5, 3)
    assert LogitLaplace(double(3), double(5, 3)).sample((2,)).shape == (2, 5, 3)
    assert p.log_prob(torch.rand(7, 5, 3)).shape == (7, 5, 3)


@pytest.mark.parametrize("eps", [0.0, 0.5, -0.1, math.nan])
def test_the_margin_is_part_of_the_interval(eps: Any) -> None:
    with pytest.raises(UsageError, match="eps"):
        LogitLaplace(torch.zeros(1), torch.zeros(1), eps)
