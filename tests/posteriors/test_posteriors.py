"""Every posterior keeps the same promises; the exact one is Bayes' rule."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from instances import (
    CONDITION,
    CONTINUOUS,
    CONTINUOUS_IMAGE,
    GREY,
    LATENT,
    POSTERIORS,
    Part,
    condition,
    double,
    examples,
    linear_gaussian,
    named,
    within_error,
    without_gradient,
)
from tightbound.distributions import Pushed, has_density
from tightbound.errors import ShapeError, UsageError
from tightbound.likelihoods import Gaussian, Scale
from tightbound.networks import MLP, LinearWithConstant
from tightbound.posteriors import CholeskyGaussian, DiagonalGaussian, ExactLinearGaussian, FlowPosterior

LINEAR_SCALES: tuple[Scale, ...] = ("fixed", "shared", "per-dimension")


@pytest.fixture(params=POSTERIORS, ids=named)
def part(request: pytest.FixtureRequest) -> Part:
    return request.param


def test_shapes(part: Part) -> None:
    conditions = (0, CONDITION) if part.conditional else (0,)
    for leading, condition_dim in itertools.product([(5,), (4, 5), (2, 4, 5)], conditions):
        x = examples(part.spec, math.prod(leading)).reshape(*leading, *part.spec.shape)
        q = part.build(condition_dim)(x, condition(5, condition_dim))
        assert q.batch_shape == leading
        assert q.event_shape == (LATENT,)
        assert q.has_rsample
        assert q.mean.shape == (*leading, LATENT)
        z = q.rsample((3,))
        assert z.shape == (3, *leading, LATENT)
        assert z.dtype == torch.float64
        if has_density(q):
            assert q.log_prob(z).shape == (3, *leading)


def test_gradient_reaches_every_parameter(part: Part) -> None:
    posterior = part.build()
    q = posterior(examples(part.spec, 5))
    loss = q.rsample().square().sum()
    (loss + q.log_prob(double(5, LATENT)).sum() if has_density(q) else loss).backward()
    assert without_gradient(posterior) == []


def test_examples_alone(part: Part) -> None:
    posterior, x = part.build(), examples(part.spec, 5)
    torch.testing.assert_close(posterior(x[2:3]).mean, posterior(x).mean[2:3], rtol=1e-9, atol=1e-12)


def test_density_integrates_to_one(part: Part) -> None:
    q = part.build()(examples(part.spec, 1))
    if has_density(q):
        wide = MultivariateNormal(q.mean, 4 * torch.eye(LATENT).double(), validate_args=False)
        z = wide.sample((50_000,))
        assert within_error((q.log_prob(z) - wide.log_prob(z)).exp(), 1.0)


def test_samples_have_the_mean(part: Part) -> None:
    q = part.build()(examples(part.spec, 4))
    z = q.rsample((5_000,))
    if isinstance(q, Pushed):  # the mean of 64 draws
        assert ((z.mean(0) - q.mean).abs() < 5 * z.std(0) / 8).all()
        return
    assert within_error(z, q.mean)


@pytest.mark.parametrize("kind", ["iaf", "spline"])
def test_a_flow_knows_the_density_of_its_own_samples(kind: Any) -> None:
    """From how they were drawn; the same as by the inverse, for any layers."""
    network = MLP(GREY.shape, 2 * LATENT + 5, (7,))
    posterior = FlowPosterior(network, GREY.shape, LATENT, 5, kind, hidden=(8,)).double()
    for parameter in posterior.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    q = posterior(examples(GREY, 5))
    z = q.rsample((3,))
    torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()), rtol=1e-8, atol=1e-8)
    assert q.mean.shape == (5, LATENT)
    torch.testing.assert_close(q.mean, q.mean, rtol=0, atol=0)
    torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()), rtol=1e-8, atol=1e-8)


def test_the_full_covariance_is_by_its_factor() -> None:
    posterior = CholeskyGaussian(nn.Identity(), (9,), 3)
    features = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.5, -0.5, 10.0, 20.0, 30.0]])
    q = posterior(features)
    e = math.e
    factor = torch.tensor([[1.0, 0, 0], [10.0, e**0.5, 0], [20.0, 30.0, e**-0.5]])
    torch.testing.assert_close(q.scale_tril[0], factor)
    with pytest.raises(ShapeError, match="factor"):
        CholeskyGaussian(nn.Identity(), (8,), 3)(torch.zeros(1, 8))


def test_the_divergence_of_a_full_gaussian_from_a_diagonal_one() -> None:
    factor = double(4, 3, 3).tril(-1) + torch.diag_embed(double(4, 3).exp())
    q = MultivariateNormal(double(4, 3), scale_tril=factor)
    base = Normal(double(3), double(3).exp())
    full = MultivariateNormal(base.loc, scale_tril=torch.diag(base.scale)).expand((4,))
    torch.testing.assert_close(kl_divergence(q, Independent(base, 1)), kl_divergence(q, full))


def test_a_full_covariance_closes_the_gap_that_a_diagonal_one_leaves() -> None:
    torch.manual_seed(5)
    likelihood = linear_gaussian(CONTINUOUS, "shared", 2)
    x = examples(CONTINUOUS, 40)
    exact = ExactLinearGaussian(likelihood)(x)
    precision = exact.precision_matrix[0]  # pyright: ignore[reportAttributeAccessIssue]
    known = 0.5 * (precision.diagonal().log().sum() - precision.logdet()).item()
    assert known > 0.01
    gaps: list[float] = []
    for posterior in (
        CholeskyGaussian(LinearWithFactor(6, 2), CONTINUOUS.shape, 2),
        DiagonalGaussian(LinearWithConstant(CONTINUOUS.shape, 2), CONTINUOUS.shape),
    ):
        posterior.double()
        optimizer = torch.optim.LBFGS(posterior.parameters(), max_iter=500, line_search_fn="strong_wolfe")

        def gap(posterior: nn.Module = posterior) -> torch.Tensor:
            q = posterior(x)
            if isinstance(q, Independent):
                q = MultivariateNormal(q.mean, scale_tril=torch.diag_embed(q.stddev), validate_args=False)
            return kl_divergence(q, exact).mean()

        def closure(optimizer: torch.optim.Optimizer = optimizer, gap: Any = gap) -> torch.Tensor:
            optimizer.zero_grad()
            loss = gap()
            loss.backward(inputs=[p for group in optimizer.param_groups for p in group["params"]])
            return loss

        optimizer.step(closure)  # pyright: ignore[reportArgumentType]
        gaps.append(gap().item())
    assert gaps[0] < 1e-6
    assert gaps[1] == pytest.approx(known, abs=1e-4)


class LinearWithFactor(nn.Module):
    """A linear mean and a free constant factor."""

    def __init__(self, inputs: int, d: int) -> None:
        super().__init__()
        self.linear, self.factor = nn.Linear(inputs, d), nn.Parameter(torch.zeros(d * (d + 1) // 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.linear(x), self.factor.expand(len(x), -1)], dim=1)


def test_inputs_that_do_not_fit_are_refused(part: Part) -> None:
    with pytest.raises(ShapeError, match="expected"):
        part.build()(double(5, 11))


def test_the_diagonal_gaussian_takes_means_first() -> None:
    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1.0, 2.0, 0.0, -1.0]]).double().expand(len(x), 4)

    q = DiagonalGaussian(Network(), (6,))(double(5, 6))
    assert q.mean[0].tolist() == [1.0, 2.0]
    torch.testing.assert_close(q.stddev[0], torch.tensor([0.0, -1.0]).double().exp())


@pytest.mark.parametrize("scale", LINEAR_SCALES)
@pytest.mark.parametrize("spec", [CONTINUOUS, CONTINUOUS_IMAGE])
def test_the_exact_posterior_is_bayes_rule(spec: object, scale: Scale) -> None:
    likelihood = linear_gaussian(spec, scale)  # pyright: ignore[reportArgumentType]
    linear = next(m for m in likelihood.modules() if isinstance(m, nn.Linear))
    W, b = linear.weight, linear.bias
    noise = torch.diag((2 * likelihood.log_scale).exp().expand(likelihood.shape).flatten())
    x = double(5, *likelihood.shape)
    gain = W.T @ torch.linalg.inv(W @ W.T + noise)  # of the joint normal of z and x
    q = ExactLinearGaussian(likelihood)(x)
    torch.testing.assert_close(q.mean, (x.flatten(1) - b) @ gain.T, rtol=0, atol=1e-10)
    covariance = torch.eye(LATENT).double() - gain @ W
    torch.testing.assert_close(q.covariance_matrix, covariance.expand(5, -1, -1), rtol=0, atol=1e-10)  # pyright: ignore


def test_the_exact_posterior_follows_the_likelihood_and_owns_nothing() -> None:
    likelihood = linear_gaussian(CONTINUOUS, "shared")
    posterior, x = ExactLinearGaussian(likelihood), double(5, 6)
    before = posterior(x).mean
    with torch.no_grad():
        likelihood.log_scale.add_(1)
    assert not torch.equal(posterior(x).mean, before)
    assert list(posterior.parameters()) == []
    assert posterior.state_dict() == {}


@pytest.mark.parametrize(
    "likelihood",
    [
        Gaussian(MLP(2, 6, (4,)), (2,), (6,)),
        Gaussian(MLP(2, 12, ()), (2,), (6,), "network"),
        Gaussian(nn.Sequential(nn.Linear(2, 6), nn.Tanh()), (2,), (6,)),
        Gaussian(nn.Linear(2, 6, bias=False), (2,), (6,)),
    ],
    ids=["two layers", "scale of the network", "nonlinear", "without bias"],
)
def test_only_a_linear_gaussian_has_an_exact_posterior(likelihood: Gaussian) -> None:
    with pytest.raises(UsageError, match="linear Gaussian"):
        ExactLinearGaussian(likelihood)


def test_an_odd_number_of_features_is_refused() -> None:
    with pytest.raises(ShapeError, match="expected"):
        DiagonalGaussian(nn.Linear(6, 3), (6,))(torch.zeros(5, 6))
