"""The importance-weighted likelihood: unbiased, every sample counted, in memory that does not grow with k."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal

from instances import CONDITION, LATENT, condition, double, linear_gaussian, within_error
from tightbound.conditions import Given
from tightbound.data import DataSpec
from tightbound.errors import UsageError
from tightbound.evaluation import per_example
from tightbound.evaluation.log_likelihood import importance as engine
from tightbound.likelihoods import Bernoulli
from tightbound.models import LatentVariableModel
from tightbound.networks import MLP, LinearWithConstant
from tightbound.posteriors import DiagonalGaussian, DiracPosterior, ExactLinearGaussian
from tightbound.priors import StandardNormal

SPEC = DataSpec("x", (4,), levels=None)
ROWS = 8  # samples at once, when the engine's budget is cut down to it


@pytest.fixture
def tight_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ENTRIES", ROWS * SPEC.dimensions)


class Recorded(nn.Module):
    """A likelihood that keeps what it was asked for."""

    def __init__(self, likelihood: nn.Module) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.asked: list[Tensor] = []

    def forward(self, z: Tensor, c: Given | None = None) -> Distribution:
        self.asked.append(z)
        return self.likelihood(z, c)

    def samples(self, n: int, k: int) -> Tensor:
        """The samples of each example, ``(k, n, latent)``, wherever they were decoded."""
        columns: list[Tensor] = []
        chunks: list[Tensor] = []
        for z in self.asked:
            chunks.append(z)
            if sum(len(chunk) for chunk in chunks) == k:
                columns.append(torch.cat(chunks))
                chunks = []
        assert not chunks
        z = torch.cat(columns, dim=1)
        assert z.shape[:2] == (k, n)
        return z


def linear_model(exact: bool) -> tuple[LatentVariableModel, MultivariateNormal]:
    likelihood = linear_gaussian(SPEC, "shared", latent_dim=2)
    posterior = (
        ExactLinearGaussian(likelihood) if exact else DiagonalGaussian(LinearWithConstant(SPEC.shape, 2), SPEC.shape)
    )
    linear = next(m for m in likelihood.modules() if isinstance(m, nn.Linear))
    covariance = linear.weight @ linear.weight.T + (2 * likelihood.log_scale).exp() * torch.eye(4).double()
    px = MultivariateNormal(linear.bias.detach(), covariance.detach(), validate_args=False)
    return LatentVariableModel(StandardNormal(2), likelihood, posterior).double(), px


@pytest.mark.usefixtures("tight_budget")
@pytest.mark.parametrize("k", [1, 7, ROWS, ROWS + 1, 3 * ROWS + 5])
@pytest.mark.parametrize("n", [1, 5])
def test_k_is_honoured_within_the_budget_and_the_sum_is_a_plain_loop(n: int, k: int) -> None:
    model, _ = linear_model(exact=False)
    recorded = Recorded(model.likelihood)
    x = double(n, 4)
    values = per_example(LatentVariableModel(model.prior, recorded, model.posterior), x, k)
    assert sum(math.prod(z.shape[:2]) for z in recorded.asked) == n * k
    assert max(math.prod(z.shape[:2]) for z in recorded.asked) <= ROWS
    z = recorded.samples(n, k)
    for i in range(n):
        q, p = model.posterior(x[i]), StandardNormal(2).double()()
        weights, likelihoods = [], []
        for j in range(k):
            likelihoods.append(model.likelihood(z[j, i]).log_prob(x[i]).item())
            weights.append(likelihoods[-1] + p.log_prob(z[j, i]).item() - q.log_prob(z[j, i]).item())
        total = sum(math.exp(w) for w in weights)
        assert values["log_marginal"][i].item() == pytest.approx(math.log(total / k), abs=1e-10)
        ess = total**2 / sum(math.exp(2 * w) for w in weights)
        assert values["effective_samples"][i].item() == pytest.approx(ess, rel=1e-10)
        assert values["reconstruction"][i].item() == pytest.approx(sum(likelihoods) / k, abs=1e-10)
        torch.testing.assert_close(
            values["kl/z"][i], torch.distributions.kl_divergence(q.base_dist, p.base_dist), rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("budget", [2, 100_000])
@pytest.mark.parametrize("k", [1, 7, 20])
def test_the_weights_are_unbiased(k: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, px = linear_model(exact=False)
    repeats = 200 if budget == 2 else 5_000
    monkeypatch.setattr(engine, "ENTRIES", budget * 4)
    x = double(1, 4)
    estimates = per_example(model, x.expand(repeats, 4), k)["log_marginal"]
    assert within_error((estimates - px.log_prob(x)).exp(), 1.0, errors=3.5)


def test_in_chunks_or_at_once_the_law_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, px = linear_model(exact=False)
    x = double(1, 4).expand(500, 4)
    means, errors = [], []
    for budget in (3, 100_000):
        monkeypatch.setattr(engine, "ENTRIES", budget * 4)
        values = per_example(model, x, 10)["log_marginal"] - px.log_prob(x[0])
        means.append(values.mean().item())
        errors.append(values.std().item() / len(values) ** 0.5)
    assert abs(means[0] - means[1]) < 4 * math.hypot(*errors)
    assert max(means) < 4 * max(errors)  # below log p(x) in the mean


@pytest.mark.usefixtures("tight_budget")
@pytest.mark.parametrize("k", [1, 7, ROWS + 1])
def test_with_the_exact_posterior_every_sample_counts(k: int) -> None:
    model, px = linear_model(exact=True)
    x = double(5, 4)
    values = per_example(model, x, k)
    torch.testing.assert_close(values["log_marginal"], px.log_prob(x), rtol=0, atol=1e-10)
    torch.testing.assert_close(values["effective_samples"], torch.full((5,), float(k)).double())


def test_effective_samples_lie_between_one_and_k() -> None:
    model, _ = linear_model(exact=False)
    for k in (1, 2, 50):
        ess = per_example(model, 3 * double(20, 4), k)["effective_samples"]
        assert ((ess >= 1 - 1e-9) & (ess <= k + 1e-9)).all()
    torch.testing.assert_close(per_example(model, double(5, 4), 1)["effective_samples"], torch.ones(5).double())


def test_weights_too_small_for_a_float_still_have_a_logarithm() -> None:
    model, px = linear_model(exact=True)
    x = 1_000 * double(5, 4)
    values = per_example(model, x, 20)
    assert (px.log_prob(x) < -10_000).all()
    torch.testing.assert_close(values["log_marginal"], px.log_prob(x), rtol=1e-8, atol=0)
    torch.testing.assert_close(values["effective_samples"], torch.full((5,), 20.0).double(), rtol=1e-3, atol=0)


@pytest.mark.usefixtures("tight_budget")
def test_conditions_stay_with_their_examples() -> None:
    likelihood = Bernoulli(MLP(LATENT, 4, (7,), "tanh", CONDITION), (LATENT,), SPEC.shape)
    posterior = DiagonalGaussian(MLP(SPEC.shape, 2 * LATENT, (7,), "tanh", CONDITION), SPEC.shape)
    model = LatentVariableModel(StandardNormal(LATENT), Recorded(likelihood), posterior).double()
    x, c, k = double(5, 4).gt(0).double(), condition(5, CONDITION), 3
    values = per_example(model, x, k, c)
    z = model.likelihood.samples(5, k)  # pyright: ignore[reportCallIssue]
    expected = likelihood(z, c).log_prob(x)
    torch.testing.assert_close(values["reconstruction"], expected.mean(0))
    weights = expected + model.prior(c).log_prob(z) - posterior(x, c).log_prob(z)  # pyright: ignore
    torch.testing.assert_close(values["log_marginal"], weights.logsumexp(0) - math.log(k))


def test_without_a_closed_form_the_kl_is_the_mean_over_samples() -> None:
    model, _ = linear_model(exact=True)  # torch has no KL of a full and a diagonal Gaussian
    x = double(3, 4)
    values = per_example(model, x, 20_000)
    assert values["kl/z"].shape == (3, 1)
    q = model.posterior(x)
    standard = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double(), validate_args=False)
    torch.testing.assert_close(values["kl/z"][:, 0], torch.distributions.kl_divergence(q, standard), rtol=0, atol=0.05)


def test_a_model_as_prior_has_a_kl_of_each_layer_and_importance_weights() -> None:
    inner, _ = linear_model(exact=True)
    inner_likelihood = linear_gaussian(DataSpec("z", (2,), levels=None), "shared", latent_dim=1)
    prior = LatentVariableModel(StandardNormal(1), inner_likelihood, ExactLinearGaussian(inner_likelihood)).double()
    values = per_example(LatentVariableModel(prior, inner.likelihood, inner.posterior), double(5, 4), 6)
    assert {"reconstruction", "kl/z1", "kl/z2", "posterior_mean", "log_marginal"} <= set(values)
    assert values["kl/z1"].shape == (5, 1)
    assert values["kl/z2"].shape == (5, 1)


def test_a_point_mass_has_a_reconstruction_alone() -> None:
    model, _ = linear_model(exact=True)
    posterior = DiracPosterior(MLP(SPEC.shape, 2), SPEC.shape).double()
    for prior in (None, model.prior):
        values = per_example(LatentVariableModel(prior, model.likelihood, posterior), double(5, 4), 6)
        assert set(values) == {"reconstruction", "posterior_mean"}


def test_no_gradient_is_kept() -> None:
    model, _ = linear_model(exact=False)
    assert not any(value.requires_grad for value in per_example(model, double(5, 4), 3).values())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("k", [0, -5])
def test_at_least_one_sample(k: int) -> None:
    with pytest.raises(UsageError, match="k >= 1"):
        per_example(linear_model(exact=False)[0], double(5, 4), k)


def test_each_example_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = linear_model(exact=True)
    encoded: list[int] = []
    encoder = model.posterior.forward
    monkeypatch.setattr(model.posterior, "forward", lambda x, c=None: encoded.append(len(x)) or encoder(x, c))
    monkeypatch.setattr(
        "tightbound.evaluation.log_likelihood.importance.ENTRIES", 12
    )  # three rows of four entries at once
    per_example(model, double(5, 4), k=10)
    assert sum(encoded) == 5


@pytest.mark.parametrize("level", [-3e4, -3e5, -1e6])
def test_equal_weights_count_fully_however_small(level: float) -> None:
    """Effective samples come from a difference of nearly equal logs, which float32 would lose for large images."""

    class Constant(torch.nn.Module):
        def forward(self, z: torch.Tensor, c: Given | None = None) -> Independent:
            return Independent(Level(torch.full((*z.shape[:-1], 1), level)), 1)

    class Level(torch.distributions.Normal):
        def __init__(self, mean: torch.Tensor) -> None:
            super().__init__(mean, torch.ones_like(mean), validate_args=False)

        def log_prob(self, value: torch.Tensor) -> torch.Tensor:
            return self.loc.expand(torch.broadcast_shapes(self.loc.shape, value.shape))

    prior = StandardNormal(1)
    model = LatentVariableModel(prior, Constant(), PriorAgain(prior))
    found = per_example(model, torch.zeros(2, 1), k=1000)
    torch.testing.assert_close(found["effective_samples"], torch.full((2,), 1000.0), rtol=1e-5, atol=0)


class PriorAgain(torch.nn.Module):
    """A posterior that is the prior, so that all weights are the likelihood."""

    def __init__(self, prior: StandardNormal) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: torch.Tensor, c: Given | None = None) -> torch.distributions.Distribution:
        return self.prior(Given({"x": x}))
