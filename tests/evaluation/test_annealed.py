"""Annealed importance sampling: unbiased, exact on linear Gaussian models, and bracketed from both sides."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Distribution, Exponential, MultivariateNormal

from instances import double, linear_gaussian, within_error
from tightbound.conditions import Given
from tightbound.data import DataSpec
from tightbound.distributions import independent
from tightbound.errors import ObjectiveError, UsageError
from tightbound.evaluation import Annealing, annealed, bidirectional
from tightbound.evaluation.log_likelihood.annealed import temperatures
from tightbound.models import LatentVariableModel
from tightbound.networks import LinearWithConstant
from tightbound.posteriors import DiagonalGaussian, ExactLinearGaussian
from tightbound.priors import StandardNormal

SPEC = DataSpec("x", (4,), levels=None)
SHORT = Annealing(steps=60, leapfrog=4)


def linear_model(start: bool = False) -> tuple[LatentVariableModel, MultivariateNormal]:
    """A model whose posterior is wrong, and the law of x under it."""
    likelihood = linear_gaussian(SPEC, "shared", latent_dim=2)
    linear = next(m for m in likelihood.modules() if isinstance(m, nn.Linear))
    covariance = linear.weight @ linear.weight.T + (2 * likelihood.log_scale).exp() * torch.eye(4).double()
    px = MultivariateNormal(linear.bias.detach(), covariance.detach(), validate_args=False)
    posterior = ExactLinearGaussian(likelihood) if start else DiagonalGaussian(LinearWithConstant(SPEC.shape, 2), (4,))
    return LatentVariableModel(StandardNormal(2), likelihood, posterior).double(), px


@pytest.mark.parametrize("schedule", ["sigmoid", "linear"])
@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_the_weights_are_unbiased(schedule: str, start: str) -> None:
    model, px = linear_model()
    x = double(1, 4)
    annealing = Annealing(steps=15, leapfrog=3, schedule=schedule, start=start)  # pyright: ignore
    found = annealed(model, x.expand(800, 4), 5, annealing=annealing)["log_marginal"]
    assert within_error((found - px.log_prob(x)).exp(), 1.0, errors=3.5)


def test_the_closed_form_within_three_errors() -> None:
    model, px = linear_model()
    x = px.sample((40,))
    repeats = torch.stack([annealed(model, x, 8, annealing=SHORT)["log_marginal"] for _ in range(6)])
    difference = repeats.mean(0) - px.log_prob(x)
    assert abs(difference.mean()) < 3 * (repeats.std(0) / 6**0.5).square().mean().sqrt() / 40**0.5 + 0.005


def test_from_the_exact_posterior_nothing_is_left_to_do() -> None:
    model, px = linear_model(start=True)
    x = double(5, 4)
    found = annealed(model, x, 3, annealing=Annealing(steps=4, leapfrog=2, start="posterior"))
    torch.testing.assert_close(found["log_marginal"], px.log_prob(x), rtol=0, atol=1e-9)
    torch.testing.assert_close(found["effective_samples"], torch.full((5,), 3.0).double())


def test_proposals_are_accepted_as_often_as_aimed_at() -> None:
    model, px = linear_model()
    found = annealed(model, px.sample((20,)), 16, annealing=Annealing(steps=150, leapfrog=4))
    assert 0.5 < found["acceptance"].mean() < 0.85


def test_both_directions_bracket_the_truth() -> None:
    model, px = linear_model()
    found = bidirectional(model, 60, k=4, annealing=Annealing(steps=25, leapfrog=3))
    truth = px.log_prob(found.x)
    for bound, sign in ((found.lower_bounds, -1), (found.upper_bounds, 1)):
        above = sign * (bound - truth)
        assert above.mean() > -3 * above.std() / 60**0.5
    assert found.lower.value <= truth.mean().item() + 0.02
    assert truth.mean().item() - 0.02 <= found.upper.value
    assert found.gap.value == pytest.approx(found.upper.value - found.lower.value, abs=1e-9)
    closer = bidirectional(model, 60, k=4, annealing=Annealing(steps=100, leapfrog=3))
    assert closer.gap.value < found.gap.value


def test_chains_that_do_not_fit_at_once_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightbound.evaluation.log_likelihood.importance.ENTRIES", 12)  # three chains of four entries
    model, px = linear_model()
    x = px.sample((4,))
    found = annealed(model, x, 7, annealing=SHORT)
    assert (found["log_marginal"] - px.log_prob(x)).abs().max() < 0.5
    assert (found["effective_samples"] <= 7).all()
    both = bidirectional(model, 5, k=4, annealing=SHORT)
    assert abs(both.gap.value) < 0.5


def test_no_gradient_reaches_the_model() -> None:
    model, _ = linear_model()
    found = annealed(model, double(3, 4), 2, annealing=SHORT)
    assert not any(value.requires_grad for value in found.values())
    assert all(p.grad is None for p in model.parameters())


def test_the_same_seed_gives_the_same_bounds() -> None:
    model, _ = linear_model()
    first, again = (bidirectional(model, 3, k=2, annealing=SHORT, seed=4) for _ in range(2))
    assert torch.equal(first.lower_bounds, again.lower_bounds)


def test_temperatures_rise_from_zero_to_one() -> None:
    for schedule in ("sigmoid", "linear"):
        betas = temperatures(Annealing(steps=50, schedule=schedule))  # pyright: ignore
        assert (betas[0], betas[-1]) == (0, 1)
        assert (betas.diff() > 0).all()
        torch.testing.assert_close(betas, 1 - betas.flip(0))


class Rates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, c: Given | None = None) -> Distribution:
        return independent(Exponential(self.rate, validate_args=False), 1)


def test_what_cannot_be_annealed_is_refused() -> None:
    model, _ = linear_model()
    bordered = LatentVariableModel(Rates(), model.likelihood, model.posterior)
    with pytest.raises(ObjectiveError, match="unbounded support"):
        annealed(bordered, double(3, 4), 2)
    nested = LatentVariableModel(model, linear_gaussian(SPEC, "shared", latent_dim=4), model.posterior)
    with pytest.raises(ObjectiveError, match="exact density"):
        annealed(nested, double(3, 4), 2)
    with pytest.raises(ObjectiveError, match="no prior"):
        annealed(LatentVariableModel(None, model.likelihood, model.posterior), double(3, 4), 2)
    with pytest.raises(UsageError, match="k >= 1"):
        annealed(model, double(3, 4), 0)
    with pytest.raises(UsageError, match="At least one example"):
        bidirectional(model, 0)
    with pytest.raises(UsageError, match="at least one temperature"):
        Annealing(steps=0)
    with pytest.raises(UsageError, match="Unknown schedule or start"):
        Annealing(schedule="cubic")  # pyright: ignore
