"""Naive Monte Carlo: unbiased under the logarithm, the importance-weighted bound with the prior for a posterior."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import MultivariateNormal

import tightbound as tb
from instances import double, within_error
from tightbound.conditions import Given
from tightbound.data import DataSpec
from tightbound.errors import ObjectiveError, UsageError
from tightbound.evaluation import diagnose, evaluate
from tightbound.models import LatentVariableModel
from tightbound.objectives import NaiveMonteCarlo, gsnn, iwae, naive_monte_carlo
from tightbound.recipes import CVAE, VAE
from tightbound.runs import RunFolder

D = 3
SPEC = DataSpec("x", (D,), levels=None)


def linear(**options: Any) -> tuple[LatentVariableModel, MultivariateNormal]:
    """A linear Gaussian model, and the law of x."""
    recipe = VAE(latent_dim=2, hidden=(), likelihood="gaussian", variance=0.3, **options)
    model = recipe.build(SPEC).double()
    layer: Any = next(m for m in model.likelihood.modules() if isinstance(m, torch.nn.Linear))
    covariance = layer.weight @ layer.weight.T + 0.3 * torch.eye(D).double()
    return model, MultivariateNormal(layer.bias, covariance, validate_args=False)


def test_the_mean_under_the_logarithm_is_unbiased() -> None:
    model, px = linear()
    x = double(4, D)
    generated = model().generated(x, k=200_000)
    assert within_error(generated.log_likelihood.detach().exp(), px.log_prob(x).exp().detach())


def test_it_rises_to_the_likelihood_with_k_from_gsnn() -> None:
    model, px = linear()
    x = px.sample((1,)).expand(10_000, D)  # as many estimates for one example
    means, errors = [], []
    for k in (1, 4, 32):
        found = naive_monte_carlo(model().generated(x, k)).detach()
        means.append(found.mean().item())
        errors.append(found.std().item() / 100)
    exact = px.log_prob(x[0]).item()
    for i in range(2):
        assert means[i] + 4 * math.hypot(*errors[i : i + 2]) < means[i + 1] < exact + 4 * errors[i + 1]
    assert (
        abs(gsnn(model().generated(x, 4)).mean().item() - means[0]) < 4 * errors[0]
    )  # GSNN gains nothing by more samples


def test_it_is_the_importance_weighted_bound_of_the_prior() -> None:
    generated = linear()[0]().generated(double(5, D), k=7)
    torch.testing.assert_close(naive_monte_carlo(generated), iwae(generated), rtol=0, atol=1e-10)
    one = linear()[0]().generated(double(5, D), k=1)
    torch.testing.assert_close(naive_monte_carlo(one), gsnn(one), rtol=0, atol=1e-12)


def test_its_gradient_is_that_of_the_likelihood() -> None:
    """With many samples of a small latent: of log p(x), by the decoder alone; the posterior is frozen."""
    torch.manual_seed(0)
    model, px = linear(objective=NaiveMonteCarlo(samples=200_000))
    x = px.sample((4,))
    parameters = [p for p in model.parameters() if p.requires_grad]
    naive_monte_carlo(model().generated(x, 200_000)).mean().backward()
    found = [p.grad.clone() for p in parameters if p.grad is not None]
    exact = torch.autograd.grad(px.log_prob(x).mean(), parameters)
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"likelihood"}
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02)


def test_a_conditional_prior_is_learned_by_its_draws() -> None:
    spec = DataSpec("digits", (1, 8, 8), levels=17, classes=("a", "b"))
    model = CVAE(latent_dim=2, hidden=(8,), objective=NaiveMonteCarlo(samples=5)).build(spec)
    generated = model(Given({"class": torch.zeros(6, 1).long()})).generated(torch.zeros(6, 1, 8, 8), k=5)
    naive_monte_carlo(generated).sum().backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"prior", "likelihood"}


def test_training_selects_by_it_and_leaves_the_posterior_alone(tmp_path: Path) -> None:
    data = tb.load_data("digits", binarize="dynamic")
    model = VAE(latent_dim=1, hidden=(16,), objective=NaiveMonteCarlo(samples=20)).build(data.spec)
    before = {name: p.clone() for name, p in model.posterior.named_parameters()}
    options: dict[str, Any] = {"steps": 60, "evaluate_every": 20, "lr": 1e-2, "pictures": False, "data_start": False}
    tb.train(model, data, out=tmp_path, **options)
    assert all(torch.equal(p, before[name]) for name, p in model.posterior.named_parameters())
    bounds = [r["bound"] for r in RunFolder(tmp_path).records() if r["split"] == "valid"]
    assert bounds[-1] > bounds[0] + 2
    test = data.test.subset(40)
    naive = evaluate(model, test, k=100, method="prior")
    assert naive.nll is not None
    assert naive.nll.value < -bounds[0]
    notes = evaluate(model, test, k=5).notes
    assert any("objective naive-monte-carlo" in note for note in notes)
    assert any("method prior suits" in note for note in notes)
    with pytest.raises(ObjectiveError, match="The posterior of this model was not trained"):
        diagnose(model, test)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": "vamp"}, "no gradient"),
        ({"prior": "mixture"}, "no gradient"),
        ({"posterior": "dirac"}, "no KL"),
    ],
)
def test_what_contradicts_it_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=rf"{words}(?s:.*)remedy"):
        VAE(objective=NaiveMonteCarlo(), **options)
