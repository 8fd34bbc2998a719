"""Discrete posteriors and priors: relaxed in training, exact in evaluation, and the bound that follows is honest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from instances import BINARY, CONDITION, condition, double, examples, within_error, without_gradient
from tightbound.distributions.one_hot import Bits, OneHot, one_hot
from tightbound.distributions.relaxed import RelaxedBernoulli, RelaxedCategorical
from tightbound.errors import ShapeError, UsageError
from tightbound.likelihoods import Bernoulli
from tightbound.models import LatentVariableModel
from tightbound.networks import MLP
from tightbound.networks.residual import GridEncoder
from tightbound.objectives import elbo, iwae
from tightbound.posteriors.categorical import BernoulliPosterior, CategoricalPosterior
from tightbound.priors.categorical import BernoulliPrior, CategoricalPrior

P, K = 4, 3
SHAPE = BINARY.shape


def _mlp(outputs: int, condition_dim: int) -> nn.Module:
    return MLP(SHAPE, outputs, (7,), "tanh", condition_dim)


def _grid(outputs: int, condition_dim: int) -> nn.Module:
    return GridEncoder(SHAPE, outputs, (4, 6), 1, activation="tanh", condition_dim=condition_dim)  # 2 x 2


POSTERIORS: dict[str, Callable[..., Any]] = {
    "classes by mlp": lambda c, hard: CategoricalPosterior(_mlp(P * K, c), SHAPE, P, K, hard),
    "classes on a grid": lambda c, hard: CategoricalPosterior(_grid(K, c), SHAPE, P, K, hard),
    "bits by mlp": lambda c, hard: BernoulliPosterior(_mlp(P, c), SHAPE, P, hard),
    "bits on a grid": lambda c, hard: BernoulliPosterior(_grid(1, c), SHAPE, P, hard),
}
EXACT = {CategoricalPosterior: OneHot, BernoulliPosterior: Bits}
RELAXED = {CategoricalPosterior: RelaxedCategorical, BernoulliPosterior: RelaxedBernoulli}
PRIORS: list[tuple[Callable[[bool], Any], tuple[int, ...]]] = [
    (lambda learned: CategoricalPrior(P, K, learned), (P, K)),
    (lambda learned: BernoulliPrior(P, learned), (P,)),
]


@pytest.fixture(params=POSTERIORS)
def build(request: pytest.FixtureRequest) -> Any:
    return lambda c=0, hard=False: POSTERIORS[request.param](c, hard).double()


def event(posterior: Any) -> tuple[int, ...]:
    return (P, K) if isinstance(posterior, CategoricalPosterior) else (P,)


@pytest.mark.parametrize("condition_dim", [0, CONDITION])
def test_shapes(build: Any, condition_dim: int) -> None:
    posterior, c = build(condition_dim), condition(5, condition_dim)
    for leading in [(5,), (4, 5), (2, 4, 5)]:
        x = examples(BINARY, math.prod(leading)).reshape(*leading, *SHAPE)
        for q in (posterior.train()(x, c), posterior.eval()(x, c), posterior.relaxed(x, c)):
            assert q.batch_shape == leading
            assert q.event_shape == event(posterior)
            assert q.sample((3,)).shape == (3, *leading, *event(posterior))
            assert q.sample().dtype == torch.float64


@pytest.mark.parametrize("hard", [False, True])
def test_training_relaxes_and_evaluation_does_not(build: Any, hard: bool) -> None:
    posterior, x = build(hard=hard), examples(BINARY, 50)
    q = posterior(x)
    assert type(q) is RELAXED[type(posterior)]
    values = q.rsample().unique()
    assert (values.tolist() == [0.0, 1.0]) if hard else (len(values) > 2)
    exact = posterior.eval()(x)
    assert type(exact) is EXACT[type(posterior)]
    assert type(posterior.relaxed(x)) is RELAXED[type(posterior)]
    torch.testing.assert_close(exact.mean, q.categorical.mean)
    torch.testing.assert_close(exact.mean, posterior.relaxed(x).categorical.mean)


def test_a_condition_matters(build: Any) -> None:
    posterior, x = build(CONDITION).eval(), examples(BINARY, 5)
    assert (posterior(x, condition(5, CONDITION)).mean != posterior(x, condition(5, CONDITION)).mean).all()


def test_an_example_is_alone_in_its_batch(build: Any) -> None:
    posterior, x = build().eval(), examples(BINARY, 5)
    torch.testing.assert_close(posterior(x).mean[:2], posterior(x[:2]).mean)


def test_the_temperature_is_annealed_in_place_and_saved(build: Any) -> None:
    posterior, x = build(), examples(BINARY, 5)
    assert posterior.temperature.item() == 1.0
    assert "temperature" not in dict(posterior.named_parameters())
    before = posterior(x)
    loss = before.rsample().square().sum()
    posterior.temperature.fill_(0.25)
    loss.backward()  # what was made at the old temperature is whole
    assert before.base_dist.temperature == 1.0
    assert posterior(x).base_dist.temperature == 0.25
    other = build()
    other.load_state_dict(posterior.state_dict())
    assert other.temperature.item() == 0.25
    torch.testing.assert_close(other(x).categorical.mean, posterior(x).categorical.mean)


def test_logits_of_every_layout_mean_the_same() -> None:
    grid = double(5, K, 2, 3)  # rows, columns
    layouts = {
        "grid": grid,
        "rows": grid.flatten(2).mT,
        "flat": grid.flatten(2).mT.flatten(1),
    }
    for name, out in layouts.items():
        posterior = CategoricalPosterior(nn.Identity(), out.shape[1:], positions=6, classes=K).eval()
        mean = posterior(out).mean
        for row in range(2):
            for column in range(3):
                expected = grid[:, :, row, column].softmax(-1)
                torch.testing.assert_close(mean[:, row * 3 + column], expected, msg=name)


@pytest.mark.parametrize("shape", [(P * K + 1,), (K, P), (P, K, 1), (K, 2, 3), (K + 1, 2, 2), (2 * K, 2, 1)])
def test_an_encoder_with_another_number_of_logits_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(4, 3\), flat or not, or \(3, height, width\)"):
        CategoricalPosterior(nn.Identity(), shape, P, K)(double(5, *shape))
    if math.prod(shape) != P:
        with pytest.raises(ShapeError, match="4 in any shape"):
            BernoulliPosterior(nn.Identity(), shape, P)(double(5, *shape))


@pytest.mark.parametrize("temperature", [0.0, -0.5, math.nan])
def test_a_first_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(UsageError, match="positive"):
        CategoricalPosterior(nn.Identity(), (P * K,), P, K, temperature=temperature)
    with pytest.raises(UsageError, match="positive"):
        BernoulliPosterior(nn.Identity(), (P,), P, temperature=temperature)


@pytest.mark.parametrize(("make", "shape"), PRIORS, ids=["classes", "bits"])
def test_priors(make: Any, shape: tuple[int, ...]) -> None:
    for learned in (False, True):
        prior = make(learned).double()
        p, of_batch = prior(), prior(condition(5, CONDITION))
        assert (p.batch_shape, p.event_shape) == ((), shape)
        assert (of_batch.batch_shape, of_batch.event_shape) == ((5,), shape)
        assert of_batch.sample((3,)).shape == (3, 5, *shape)
        torch.testing.assert_close(p.mean, torch.full(shape, 1 / K if len(shape) == 2 else 0.5).double())
        assert list(prior.state_dict()) == (["logits"] if learned else [])
        if learned:
            p.log_prob(p.sample()).backward()
            assert without_gradient(prior) == []


def test_a_learned_prior_finds_the_mean_of_the_posteriors() -> None:
    """Which minimises the mean divergence: its gradient is zero there."""
    prior, q = CategoricalPrior(P, K, learned=True).double(), OneHot(double(50, P, K))
    with torch.no_grad():
        prior.logits.copy_(q.mean.mean(0).log())
    kl_divergence(q, prior()).mean().backward()
    assert prior.logits.grad is not None
    assert prior.logits.grad.abs().max() < 1e-12


def model(hard: bool = False) -> LatentVariableModel:
    """Four positions of three classes, small enough to sum over all 81 codes."""
    likelihood = Bernoulli(MLP((P, K), BINARY.dimensions, (7,), "tanh"), (P, K), SHAPE)
    return LatentVariableModel(CategoricalPrior(P, K, True), likelihood, POSTERIORS["classes by mlp"](0, hard)).double()


def every_code() -> Tensor:
    index = torch.cartesian_prod(*[torch.arange(K)] * P)
    return one_hot(index, torch.zeros(*index.shape, K, dtype=torch.float64))


def exact(m: LatentVariableModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """The log-likelihood and the ELBO of x by sums over all codes."""
    q, prior, codes = m.posterior.eval()(x), m.prior, every_code().unsqueeze(1)
    assert prior is not None
    log_q, log_likelihood = q.log_prob(codes), m.likelihood(codes).log_prob(x)
    log_joint = prior().log_prob(codes) + log_likelihood
    return log_joint.logsumexp(0), (log_q.exp() * (log_joint - log_q)).sum(0)


@torch.no_grad()
def test_what_evaluation_reports_is_a_bound_and_becomes_the_likelihood() -> None:
    m, x = model().eval(), examples(BINARY, 6)
    log_likelihood, bound = exact(m, x)
    assert (bound < log_likelihood).all()
    repeated = x.expand(4000, *x.shape)
    assert within_error(elbo(m().terms(repeated)), bound)
    assert within_error(elbo(m().terms(repeated), analytic=False), bound)
    torch.testing.assert_close(iwae(m().terms(x, k=20_000)), log_likelihood, rtol=0, atol=0.02)


@torch.no_grad()
def test_hard_samples_in_training_estimate_the_same_bound_and_relaxed_ones_do_not() -> None:
    x = examples(BINARY, 6)
    for hard in (True, False):
        torch.manual_seed(3)
        m = model(hard)
        for parameter in m.likelihood.parameters():
            parameter.mul_(3)  # so that the decoder is not linear in z
        _, bound = exact(m, x)
        assert within_error(elbo(m.train()().terms(x.expand(8000, *x.shape))), bound) == hard


@pytest.mark.parametrize("hard", [False, True])
def test_gradients_of_the_elbo_reach_every_parameter(hard: bool) -> None:
    m = model(hard)
    (-elbo(m().terms(examples(BINARY, 6)))).sum().backward()
    assert without_gradient(m) == []


def test_training_on_relaxed_samples_raises_the_bound() -> None:
    m, x = model(), examples(BINARY, 6)
    _, before = exact(m, x)
    m.train()
    optimizer = torch.optim.Adam(m.parameters(), 0.01)
    for step in range(150):
        m.posterior.temperature.fill_(max(0.5, math.exp(-0.01 * step)))  # pyright: ignore
        optimizer.zero_grad()
        (-elbo(m().terms(x))).mean().backward()
        optimizer.step()
    _, after = exact(m, x)
    assert after.mean() > before.mean() + 5
