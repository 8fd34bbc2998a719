"""Bounds on the aggregate posterior: closed forms between them, and one verdict whatever the number of examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, Normal, kl_divergence

from instances import linear_gaussian
from tightbound.conditions import Given
from tightbound.data import DataSpec, Split
from tightbound.data.transform import Transform
from tightbound.distributions import independent
from tightbound.evaluation import decompose, diagnose
from tightbound.models import LatentVariableModel
from tightbound.posteriors import ExactLinearGaussian
from tightbound.priors import FlowPrior, GaussianMixture, StandardNormal

SIZES = (150, 360, 1300)


class Scaled(nn.Module):
    """A posterior whose means are multiples of the entries of x."""

    def __init__(self, factors: Tensor, std: float) -> None:
        super().__init__()
        self.factors, self.std = nn.Parameter(factors), std

    def forward(self, x: Tensor, c: Given | None = None) -> Distribution:
        mean = self.factors * x
        return independent(Normal(mean, torch.full_like(mean, self.std), validate_args=False), 1)


def split_of(values: Any) -> Split:
    """Examples as they are."""
    values = torch.as_tensor(values, dtype=torch.float32)
    return Split("test", DataSpec("vectors", tuple(values.shape[1:]), levels=None), values, Transform(None))


def normal_data(n: int, d: int, seed: int = 0) -> Split:
    return split_of(np.random.default_rng(seed).normal(size=(n, d)))


def scaled(
    factors: list[float], std: float, prior: nn.Module | None = None
) -> tuple[LatentVariableModel, float, float]:
    """A model of standard normal data, the exact KL of its aggregate posterior from N(0, I), and its information."""
    of, d = torch.tensor(factors, dtype=torch.float64), len(factors)
    likelihood = linear_gaussian(normal_data(2, d).spec, "shared", latent_dim=d)
    model = LatentVariableModel(prior or StandardNormal(d), likelihood, Scaled(of, std)).double()
    aggregate = Normal(torch.zeros(d).double(), (of**2 + std**2).sqrt())
    kl = kl_divergence(aggregate, Normal(0.0, 1.0)).sum().item()
    return model, kl, 0.5 * (1 + (of / std) ** 2).log().sum().item()


INSTANCES = [
    ([0.9], 0.4),  # one dimension, close to the prior
    ([1.5, 0.1], 0.5),
    ([0.0, 0.0, 0.0], 1.0),  # says nothing
    ([0.0, 0.0, 0.0], 0.2),  # says nothing, far from the prior
    ([1.0] * 8, 0.1),  # says far more than any number of examples can show
    ([3.0] * 4, 0.5),  # far from the prior, and says more than few examples can show
]


@pytest.mark.parametrize(("factors", "std"), INSTANCES, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_the_exact_values_lie_between_the_bounds_on_average(factors: list[float], std: float, n: int) -> None:
    model, kl, information = scaled(factors, std)
    repeats = 4
    parts = [decompose(model, normal_data(n, len(factors), seed), seed=seed) for seed in range(repeats)]
    for truth, least, most in [
        (kl, "aggregate_kl_at_least", "aggregate_kl"),
        (information, "mutual_information", "mutual_information_at_most"),
    ]:
        low, high = (torch.tensor([getattr(p, name).value for p in parts]) for name in (least, most))
        slack = 1e-9 + 4 * (low.std() + high.std()) / math.sqrt(repeats)
        assert low.mean() - slack < truth < high.mean() + slack
    if information < 0.5 * math.log(n):  # few examples tell it: the bounds are close
        assert (high - low).mean() < 1.5 * len(factors) / math.sqrt(n) + 0.05
    d = len(factors)
    shown = torch.tensor([p.aggregate_kl_at_least.value for p in parts])  # pyright: ignore
    cost = d * (d + 3) / (4 * 0.9 * n) + 0.1  # of the moments of a Gaussian, and of what their shrinkage loses
    assert kl - shown.mean() < 2 * cost + 4 * shown.std() / math.sqrt(repeats)


@pytest.mark.parametrize("n", SIZES)
def test_two_clusters_between_bounds_by_quadrature(n: int) -> None:
    """A density that no Gaussian is, which the mixture of the other posteriors sees."""
    data = split_of(np.random.default_rng(0).choice([-1.0, 1.0], size=(n, 1)))
    model, _, _ = scaled([2.0], 0.3)
    z = torch.linspace(-6, 6, 20_001, dtype=torch.float64)
    density = 0.5 * sum(Normal(m, 0.3).log_prob(z).exp() for m in (-2.0, 2.0))
    truth = torch.trapezoid(torch.special.xlogy(density, density) - density * Normal(0.0, 1.0).log_prob(z), z).item()
    parts = [decompose(model, data, seed=seed) for seed in range(10)]
    low = np.array([p.aggregate_kl_at_least.value for p in parts])  # pyright: ignore
    high = np.array([p.aggregate_kl.value for p in parts])  # pyright: ignore
    slack = 4 * low.std() / math.sqrt(10) + 0.02  # the shares of the two in so many examples
    assert low.mean() - slack < truth < high.mean() + slack
    assert truth - low.mean() < 0.05


@pytest.mark.parametrize("prior", [GaussianMixture(3, 4), FlowPrior(3, "coupling", 1)], ids=["mixture", "flow"])
def test_any_prior_with_a_density_has_both_bounds_and_its_own_codes_are_at_no_distance(prior: nn.Module) -> None:
    model, _, _ = scaled([0.0, 0.0, 0.0], 1.0, prior.double())
    parts = decompose(model, normal_data(200, 3))
    assert parts.aggregate_kl is not None
    assert parts.aggregate_kl_at_least is not None
    # all posteriors are one, so both bounds are its distance from the prior, or the least that a distance can be
    assert parts.aggregate_kl_at_least.value == pytest.approx(max(0.0, parts.aggregate_kl.value), abs=1e-9)


# -- one verdict for the same weights -------------------------------------------------------------------------------


def linear(data_scale: float, weight: float) -> tuple[Any, MultivariateNormal, float]:
    """A linear model with its exact posterior, a law of x, and the exact KL of the aggregate under that law."""
    spec = normal_data(2, 6).spec
    likelihood = linear_gaussian(spec, "shared", latent_dim=3)
    decoder = next(m for m in likelihood.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        decoder.weight.copy_(weight * torch.linalg.qr(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))[0])
        decoder.bias.zero_()
        likelihood.log_scale.fill_(-0.5)
    likelihood = likelihood.double()
    w, noise = decoder.weight.double().detach(), math.exp(-1.0)
    covariance = data_scale**2 * (w @ w.T) + noise * torch.eye(6).double()
    precision = torch.eye(3).double() + w.T @ w / noise
    gain = torch.linalg.solve(precision, w.T) / noise
    aggregate = gain @ covariance @ gain.T + torch.linalg.inv(precision)
    zero = torch.zeros(3).double()
    kl = kl_divergence(MultivariateNormal(zero, aggregate), MultivariateNormal(zero, torch.eye(3).double())).item()
    model = LatentVariableModel(StandardNormal(3), likelihood, ExactLinearGaussian(likelihood)).double()
    return model, MultivariateNormal(torch.zeros(6).double(), covariance), kl


@pytest.mark.parametrize(
    ("data_scale", "weight", "verdict"),
    [(1.0, 30.0, "healthy"), (4.0, 3.0, "under-regularised"), (1.0, 0.0, "collapsed")],
    ids=["its own data, told sharply", "wider data", "no weight"],
)
def test_one_verdict_for_the_same_weights_and_the_exact_kl_between_its_bounds(
    data_scale: float, weight: float, verdict: str
) -> None:
    model, px, kl = linear(data_scale, weight)
    torch.manual_seed(0)
    data = split_of(px.sample((max(SIZES),)))
    for n in SIZES:
        found = diagnose(model, data, limit=n, gap_examples=2, k=2)
        least, most = found.aggregate_kl_at_least, found.aggregate_kl
        assert found.verdict == verdict
        assert least is not None
        assert most is not None
        assert least.value - 4 * (least.standard_error or 0) < kl + 1e-9
        assert kl - 1e-9 < most.value + 4 * (most.standard_error or 0)
