"""Estimators of the gradient: the value of a bound, the same mean gradient, and variances in the published order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instances import linear_gaussian, within_error
from tightbound.data import DataSpec
from tightbound.errors import ObjectiveError
from tightbound.models import LatentVariableModel, Terms
from tightbound.networks import LinearWithConstant
from tightbound.objectives import dreg, elbo, iwae, score_function, sticking_the_landing
from tightbound.posteriors import CholeskyGaussian, DiagonalGaussian, FlowPosterior
from tightbound.priors import StandardNormal

SPEC = DataSpec("x", (4,), levels=None)
X = torch.tensor([[0.3, -0.5, 0.8, 0.1]], dtype=torch.float64)


def linear_model(noise: float = 0.3) -> LatentVariableModel:
    """A one-dimensional latent, so that a Gaussian posterior can be exact; it is off by the noise."""
    likelihood = linear_gaussian(SPEC, "shared", latent_dim=1)
    posterior = DiagonalGaussian(LinearWithConstant(SPEC.shape, 1), SPEC.shape).double()
    model = LatentVariableModel(StandardNormal(1), likelihood, posterior).double()
    network = next(m for m in likelihood.modules() if isinstance(m, torch.nn.Linear))
    variance = (2 * likelihood.log_scale).exp()
    precision = 1 + network.weight.square().sum() / variance
    with torch.no_grad():
        constant, linear = posterior.network.constant, posterior.network.linear
        linear.weight.copy_(network.weight.T / variance / precision)  # pyright: ignore
        linear.bias.copy_(-linear.weight @ network.bias)  # pyright: ignore
        constant.copy_(-0.5 * precision.log().reshape(1))  # pyright: ignore
        linear.weight.add_(noise)  # pyright: ignore
        constant.add_(noise)  # pyright: ignore
    return model


def gradients(
    model: LatentVariableModel,
    estimator: Callable[[Terms], Tensor],
    k: int,
    draws: int,
    part: str,
    pathwise: bool = True,
) -> Tensor:
    """Gradients of one part's parameters in independent draws, ``(draws, parameters)``."""
    parameters = list(getattr(model, part).parameters())
    out: list[Tensor] = []
    for _ in range(draws):
        value = estimator(model().terms(X, k, pathwise=pathwise)).sum()
        out.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)]))
    return torch.stack(out)


def monte_carlo(terms: Terms) -> Tensor:
    return elbo(terms, analytic=False)


def without_baseline(terms: Terms) -> Tensor:
    return score_function(terms, baseline=False)


def test_values_are_those_of_the_bounds() -> None:
    model = linear_model()
    terms = model().terms(X, k=5)
    torch.testing.assert_close(sticking_the_landing(terms), elbo(terms, analytic=False), rtol=0, atol=1e-12)
    torch.testing.assert_close(dreg(terms), iwae(terms), rtol=0, atol=1e-12)
    fixed = model().terms(X, k=5, pathwise=False)
    for baseline in (True, False):
        expected = elbo(fixed, analytic=False)
        torch.testing.assert_close(score_function(fixed, baseline=baseline), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("part", ["posterior", "likelihood"])
def test_all_estimators_of_the_elbo_agree_in_mean(part: str) -> None:
    model = linear_model()
    reference = gradients(model, lambda terms: elbo(terms, analytic=True), 2000, 50, part).mean(0)
    for estimator, pathwise in [(monte_carlo, True), (sticking_the_landing, True), (score_function, False)]:
        found = gradients(model, estimator, 8, 500, part, pathwise)
        assert within_error(found, reference, errors=5), estimator.__name__


def test_the_doubly_reparameterised_gradient_agrees_with_the_bounds_own() -> None:
    model = linear_model(noise=0.6)
    for part in ("posterior", "likelihood"):
        ours, plain = (gradients(model, e, 4, 1200, part) for e in (dreg, iwae))
        error = (ours.var(0) / len(ours) + plain.var(0) / len(plain)).sqrt()
        assert bool(((ours.mean(0) - plain.mean(0)).abs() < 4 * error).all()), part


def variance(model: LatentVariableModel, estimator: Callable[[Terms], Tensor], pathwise: bool = True) -> float:
    return gradients(model, estimator, 4, 400, "posterior", pathwise).var(0).sum().item()


def test_variances_are_in_the_published_order() -> None:
    """Score without baseline > with > pathwise, where the posterior is off; pathwise > sticking the landing near it."""
    far, near = linear_model(noise=1.0), linear_model(noise=0.05)
    plain, controlled = variance(far, without_baseline, False), variance(far, score_function, False)
    assert plain > 2 * controlled > 4 * variance(far, monte_carlo)
    assert variance(near, monte_carlo) > 4 * variance(near, sticking_the_landing)


def test_at_the_exact_posterior_sticking_the_landing_has_no_variance() -> None:
    model = linear_model(noise=0.0)
    assert gradients(model, sticking_the_landing, 1, 20, "posterior").abs().max() < 1e-10
    assert gradients(model, monte_carlo, 1, 20, "posterior").var(0).max() > 1e-3


def test_the_signal_of_dreg_grows_with_k_where_that_of_iwae_falls() -> None:
    model = linear_model(noise=0.6)

    def signal(estimator: Callable[[Terms], Tensor], k: int) -> float:
        found = gradients(model, estimator, k, 600, "posterior")
        return (found.mean(0).abs() / found.std(0)).mean().item()

    assert signal(iwae, 64) < 0.8 * signal(iwae, 2)
    assert signal(dreg, 64) > 1.5 * signal(dreg, 2)


def other_posterior(kind: str) -> LatentVariableModel:
    """The posteriors whose density of a sample may be known from how it was drawn, and one of full covariance."""
    torch.manual_seed(3)
    if kind == "cholesky":
        posterior: torch.nn.Module = CholeskyGaussian(LinearWithConstant(SPEC.shape, 5).double(), SPEC.shape, 2)
        torch.nn.init.normal_(posterior.network.constant, std=0.3)  # pyright: ignore
        posterior.network = torch.nn.Sequential(posterior.network, _FirstHalf())  # pyright: ignore
    else:
        network = LinearWithConstant(SPEC.shape, 4)
        posterior = FlowPosterior(network, SPEC.shape, 2, 4, kind, hidden=(8,))  # pyright: ignore[reportArgumentType]
    return LatentVariableModel(StandardNormal(2), linear_gaussian(SPEC, "shared", 2), posterior).double()


class _FirstHalf(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, : x.shape[1] // 2]


@pytest.mark.parametrize("kind", ["iaf", "spline", "cholesky"])
@pytest.mark.parametrize("estimator", ["stl", "dreg", "score"])
def test_every_estimator_agrees_with_the_plain_gradient_for_every_posterior(kind: str, estimator: str) -> None:
    model, k, draws = other_posterior(kind), 4, 600
    ours_of, plain_of = {
        "stl": (sticking_the_landing, monte_carlo),
        "dreg": (dreg, iwae),
        "score": (score_function, monte_carlo),
    }[estimator]
    ours = gradients(model, ours_of, k, draws, "posterior", pathwise=estimator != "score")
    plain = gradients(model, plain_of, k, draws, "posterior")
    assert ours.mean(0).norm() > 0.1 * plain.mean(0).norm()
    error = (ours.var(0) / draws + plain.var(0) / draws).sqrt()
    assert bool(((ours.mean(0) - plain.mean(0)).abs() < 5 * error + 1e-12).all())


def test_misuse_is_refused() -> None:
    model = linear_model()
    for through_samples in (sticking_the_landing, dreg):
        with pytest.raises(ObjectiveError, match="needs differentiable samples"):
            through_samples(model().terms(X, k=4, pathwise=False))
    with pytest.raises(ObjectiveError, match="without a gradient"):
        score_function(model().terms(X, k=4))
    with pytest.raises(ObjectiveError, match="at least two samples"):
        score_function(model().terms(X, k=1, pathwise=False))


def test_the_importance_weighted_bound_rises_with_k_and_stays_below_the_likelihood() -> None:
    model = linear_model(noise=0.6)
    likelihood = model.likelihood
    network = next(m for m in likelihood.modules() if isinstance(m, torch.nn.Linear))
    variance = (2 * likelihood.log_scale).exp()  # pyright: ignore[reportOperatorIssue, reportCallIssue]
    covariance = network.weight @ network.weight.T + variance * torch.eye(4).double()
    exact = torch.distributions.MultivariateNormal(network.bias, covariance).log_prob(X)
    with torch.no_grad():
        x = X.expand(4000, 4)
        values = [iwae(model().terms(x, k)) for k in (1, 2, 8, 32, 128)]
    means = [v.mean().item() for v in values]
    assert means == sorted(means)
    assert all(m <= exact.item() + 4 * v.std().item() / 4000**0.5 for m, v in zip(means, values, strict=True))
    assert exact.item() - means[-1] < 0.05
