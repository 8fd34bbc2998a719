"""A latent-variable model is a conditional distribution: it samples, is bounded, and can be the prior of another."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, Normal, StudentT

from instances import (
    CONDITION,
    LATENT,
    PRIORS,
    condition,
    double,
    linear_gaussian,
    terms_with,
    within_error,
    without_gradient,
)
from tightbound.conditions import Given
from tightbound.data import DataSpec
from tightbound.distributions import Bounded, independent
from tightbound.errors import ObjectiveError, ShapeError, UsageError
from tightbound.likelihoods import Bernoulli, Gaussian, Scale
from tightbound.models import LatentVariableModel, Marginal
from tightbound.networks import MLP
from tightbound.objectives import elbo, iwae
from tightbound.posteriors import DiagonalGaussian, DiracPosterior, ExactLinearGaussian
from tightbound.priors import StandardNormal

SCALES: tuple[Scale, ...] = ("fixed", "shared", "per-dimension")
SHAPE = (1, 2, 3)
SPEC = DataSpec("x", SHAPE, levels=None)


def conditional_model(condition_dim: int, prior: str = "standard normal") -> LatentVariableModel:
    likelihood = Bernoulli(MLP(LATENT, 6, (7,), "tanh", condition_dim), (LATENT,), SHAPE)
    posterior = DiagonalGaussian(MLP(SHAPE, 2 * LATENT, (7,), "tanh", condition_dim), SHAPE)
    return LatentVariableModel(PRIORS[prior](condition_dim), likelihood, posterior).double()


def linear_model(scale: Scale = "shared") -> LatentVariableModel:
    likelihood = linear_gaussian(SPEC, scale)
    return LatentVariableModel(StandardNormal(LATENT), likelihood, ExactLinearGaussian(likelihood)).double()


def weights_and_noise(likelihood: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """W, b and the diagonal Psi of a linear Gaussian likelihood."""
    linear = next(m for m in likelihood.modules() if isinstance(m, nn.Linear))
    log_scale: Tensor = likelihood.log_scale  # pyright: ignore[reportAssignmentType]
    return linear.weight, linear.bias, torch.diag((2 * log_scale).exp().expand(SHAPE).flatten())


def exact_marginal(model: LatentVariableModel) -> MultivariateNormal:
    W, b, noise = weights_and_noise(model.likelihood)
    return MultivariateNormal(b, W @ W.T + noise, validate_args=False)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("condition_dim", [0, CONDITION], ids=["no-condition", "condition"])
class TestShapes:
    def test_samples(self, prior: str, condition_dim: int) -> None:
        px = conditional_model(condition_dim, prior)(condition(5, condition_dim))
        batch = (5,) if condition_dim else ()
        assert px.batch_shape == batch
        for sample_shape in ((), (3,), (3, 2)):
            assert px.sample(sample_shape).shape == (*sample_shape, *batch, *SHAPE)
            assert px.sample_latent(sample_shape).shape == (*sample_shape, *batch, LATENT)

    def test_terms(self, prior: str, condition_dim: int) -> None:
        px = conditional_model(condition_dim, prior)(condition(5, condition_dim))
        terms = px.terms(double(5, *SHAPE), k=4)
        assert terms.log_likelihood.shape == (4, 5)
        assert terms.log_prior.shape == terms.log_posterior.shape == terms.log_weights.shape == (4, 5)
        assert terms.latents[0].z.shape == (4, 5, LATENT)
        assert terms.kl().shape == (5,)
        assert px.lower_bound(double(5, *SHAPE)).shape == (5,)
        assert px.lower_bound(double(2, 5, *SHAPE)).shape == (2, 5)

    def test_gradient_reaches_every_parameter(self, prior: str, condition_dim: int) -> None:
        model = conditional_model(condition_dim, prior)
        elbo(model(condition(5, condition_dim)).terms(double(5, *SHAPE))).sum().backward()
        assert without_gradient(model) == []


def test_the_marginal_is_a_distribution_and_knows_its_shape() -> None:
    assert isinstance(conditional_model(0)(), Distribution)
    assert conditional_model(0)().event_shape == SHAPE


def test_conditions_change_the_distribution() -> None:
    model, z = conditional_model(CONDITION), double(5, LATENT)
    x, c = double(5, *SHAPE), double(5, CONDITION)
    one, other = (terms_with(model, x, z[None], Given({"vector": scale * c})) for scale in (1, 2))
    assert (one.log_likelihood != other.log_likelihood).all()
    assert (one.log_posterior != other.log_posterior).all()


@pytest.mark.parametrize("scale", SCALES)
def test_with_the_exact_posterior_the_elbo_is_the_log_likelihood(scale: Scale) -> None:
    model, x = linear_model(scale), double(7, *SHAPE)
    terms = model().terms(x, k=5)
    expected = exact_marginal(model).log_prob(x.flatten(1))
    for z in range(5):  # whatever z is: the weights are constant
        torch.testing.assert_close(terms.log_weights[z], expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(elbo(terms, analytic=False), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(iwae(terms), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", SCALES)
def test_samples_have_the_law_of_the_marginal(scale: Scale) -> None:
    model = linear_model(scale)
    x = model().sample((40_000,)).flatten(1)
    expected = exact_marginal(model)
    assert within_error(x, expected.mean)
    centred = x - expected.mean
    assert within_error(centred.unsqueeze(1) * centred.unsqueeze(2), expected.covariance_matrix)


class _ExactInnerPosterior(nn.Module):
    """q(u | z) of the inner linear model z = V u + a + noise."""

    def __init__(self, inner: LatentVariableModel) -> None:
        super().__init__()
        self.inner = inner.posterior

    def forward(self, z: Tensor, c: Given | None = None) -> Distribution:
        return self.inner(z)


class _ExactOuterPosterior(nn.Module):
    """q(z | x) where z is N(a, S), the marginal of the inner model, and x = W z + b + noise."""

    def __init__(self, prior: MultivariateNormal, W: Tensor, b: Tensor, noise: Tensor) -> None:
        super().__init__()
        self.a, self.b = prior.mean, b
        gain = prior.covariance_matrix @ W.T @ torch.linalg.inv(W @ prior.covariance_matrix @ W.T + noise)
        self.gain, self.W = gain, W
        self.covariance = prior.covariance_matrix - gain @ W @ prior.covariance_matrix

    def forward(self, x: Tensor, c: Given | None = None) -> Distribution:
        mean = self.a + (x.flatten(1) - self.b - self.W @ self.a) @ self.gain.T
        covariance = (self.covariance + self.covariance.T) / 2
        return MultivariateNormal(mean, covariance, validate_args=False)


def nested_linear_model() -> tuple[LatentVariableModel, MultivariateNormal]:
    """Two linear Gaussian models, one the prior of the other, with exact posteriors; and the law of x."""
    inner_likelihood = linear_gaussian(DataSpec("z", (LATENT,), levels=None), "per-dimension", latent_dim=2)
    inner = LatentVariableModel(StandardNormal(2), inner_likelihood, ExactLinearGaussian(inner_likelihood)).double()
    V, a = next((m.weight, m.bias) for m in inner.modules() if isinstance(m, nn.Linear))
    inner_noise = torch.diag((2 * inner_likelihood.log_scale).exp())
    pz = MultivariateNormal(a, V @ V.T + inner_noise, validate_args=False)
    likelihood = linear_gaussian(SPEC, "shared")
    W, b, noise = weights_and_noise(likelihood)
    outer = LatentVariableModel(inner, likelihood, _ExactOuterPosterior(pz, W, b, noise)).double()
    covariance = W @ pz.covariance_matrix @ W.T + noise
    return outer, MultivariateNormal(W @ a + b, (covariance + covariance.T) / 2, validate_args=False)


def test_a_model_can_be_the_prior_of_another() -> None:
    model, px = nested_linear_model()
    x = double(7, *SHAPE)
    terms = model().terms(x, k=3)
    expected = px.log_prob(x.flatten(1))
    torch.testing.assert_close(elbo(terms, analytic=False), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(terms.log_weights, expected.expand(3, 7), rtol=0, atol=1e-10)


def test_samples_of_nested_models_have_their_law() -> None:
    model, px = nested_linear_model()
    x = model().sample((40_000,)).flatten(1).detach()
    assert within_error(x, px.mean.detach())
    centred = x - px.mean.detach()
    assert within_error(centred.unsqueeze(1) * centred.unsqueeze(2), px.covariance_matrix.detach())


class _Bounded(Bounded):
    """Not a model of ours, yet a distribution with a lower bound."""

    def lower_bound(self, x: Tensor) -> Tensor:
        return -x.square().sum(-1)


def test_any_distribution_with_a_lower_bound_can_be_a_prior() -> None:
    class Prior(nn.Module):
        def forward(self, c: Given | None = None) -> Distribution:
            return _Bounded(event_shape=torch.Size([LATENT]), validate_args=False)

    model = conditional_model(0)
    terms = LatentVariableModel(Prior(), model.likelihood, model.posterior)().terms(double(5, *SHAPE), k=2)
    torch.testing.assert_close(terms.log_prior, -terms.latents[0].z.square().sum(-1))
    assert not terms.exact
    with pytest.raises(ObjectiveError, match="exact"):
        iwae(terms)


def test_sampling_takes_no_gradient_and_no_part_is_evaluated_twice() -> None:
    class Counted(nn.Module):
        def __init__(self, part: nn.Module) -> None:
            super().__init__()
            self.part, self.calls = part, 0

        def forward(self, *inputs: Tensor | None) -> Distribution:
            self.calls += 1
            return self.part(*inputs)

    model = conditional_model(0)
    parts = [Counted(part) for part in (model.prior, model.likelihood, model.posterior) if part is not None]
    prior, likelihood, posterior = parts
    terms = LatentVariableModel(prior, likelihood, posterior)().terms(double(5, *SHAPE), k=3)
    elbo(terms)
    iwae(terms)
    assert [part.calls for part in parts] == [1, 1, 1]
    assert not conditional_model(0)().sample((3,)).requires_grad


def test_without_a_prior_there_is_nothing_to_sample() -> None:
    likelihood = Gaussian(MLP(LATENT, 6), (LATENT,), SHAPE)
    model = LatentVariableModel(None, likelihood, DiracPosterior(MLP(SHAPE, LATENT), SHAPE)).double()
    with pytest.raises(ObjectiveError, match="no prior"):
        model().sample((3,))
    terms = model().terms(double(5, *SHAPE))
    assert not terms.bounded
    assert not terms.exact
    for value in (lambda: terms.log_prior, lambda: terms.log_posterior, terms.kl):
        with pytest.raises(ObjectiveError):
            value()


def test_a_marginal_has_no_density() -> None:
    with pytest.raises(ObjectiveError, match="lower_bound"):
        conditional_model(0)().log_prob(double(5, *SHAPE))


def test_at_least_one_sample() -> None:
    for k in (0, -1):
        with pytest.raises(UsageError, match="k >= 1"):
            conditional_model(0)().terms(double(5, *SHAPE), k=k)


@pytest.mark.parametrize("shape", [(5, 1, 3, 2), (5, 6), (5, 1, 2, 4)])
def test_data_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected"):
        conditional_model(0)().terms(double(*shape))


@pytest.mark.parametrize("event_dims", [0, 1, 2])
def test_a_likelihood_that_forgets_entries_is_refused(event_dims: int) -> None:
    """Independent over too few dimensions would leave part of the sum undone, without a word."""

    class Forgetful(nn.Module):
        def forward(self, z: Tensor, c: Given | None = None) -> Distribution:
            mean = torch.zeros(*z.shape[:-1], *SHAPE).double()
            return independent(Normal(mean, torch.ones_like(mean), validate_args=False), event_dims)

    model = conditional_model(0)
    with pytest.raises(ShapeError, match="The likelihood has the wrong event shape"):
        LatentVariableModel(model.prior, Forgetful(), model.posterior)().terms(double(5, *SHAPE), k=3)


def test_a_prior_that_forgets_dimensions_is_refused() -> None:
    class Forgetful(nn.Module):
        def forward(self, c: Given | None = None) -> Distribution:
            return Normal(torch.zeros(LATENT).double(), torch.ones(LATENT).double(), validate_args=False)

    model = conditional_model(0)
    with pytest.raises(ShapeError, match="prior"):
        LatentVariableModel(Forgetful(), model.likelihood, model.posterior)().terms(double(5, *SHAPE))


def test_a_likelihood_that_ignores_z_counts_for_every_sample() -> None:
    class Fixed(nn.Module):
        def forward(self, z: Tensor, c: Given | None = None) -> Distribution:
            return independent(Normal(torch.zeros(SHAPE).double(), torch.ones(SHAPE).double(), validate_args=False), 3)

    model, x = conditional_model(0), double(5, *SHAPE)
    terms = LatentVariableModel(model.prior, Fixed(), model.posterior)().terms(x, k=3)
    expected = -0.5 * x.square().flatten(1).sum(1) - 3 * math.log(2 * math.pi)
    torch.testing.assert_close(terms.log_likelihood, expected.expand(3, 5))


def test_any_modules_that_return_distributions_make_a_model() -> None:
    """Nothing here is of this package but the model."""

    class Prior(nn.Module):
        def forward(self, c: Given | None = None) -> Distribution:
            return independent(StudentT(torch.full((2,), 5.0).double(), validate_args=False), 1)

    class Decoder(nn.Linear):
        def forward(self, z: Tensor, c: Given | None = None) -> Distribution:  # pyright: ignore
            return independent(Normal(super().forward(z), torch.ones(()).double(), validate_args=False), 1)

    class Encoder(nn.Linear):
        def forward(self, x: Tensor, c: Given | None = None) -> Distribution:  # pyright: ignore
            mean, log_std = super().forward(x).chunk(2, -1)
            return independent(Normal(mean, log_std.exp(), validate_args=False), 1)

    model = LatentVariableModel(Prior(), Decoder(2, 4), Encoder(4, 4)).double()
    terms = model().terms(double(5, 4), k=6)
    assert not terms.latents[0].analytic
    assert (elbo(terms) <= iwae(terms)).all()
    assert model().sample((3,)).shape == (3, 4)
    with pytest.raises(ObjectiveError, match="register"):
        elbo(terms, analytic=True)


def test_repr_shows_the_parts() -> None:
    text = repr(conditional_model(0))
    assert all(name in text for name in ("prior", "likelihood", "posterior"))
    assert "Marginal" in repr(Marginal(conditional_model(0)))


def test_looking_at_the_kl_without_gradients_does_not_take_them_away() -> None:
    encoder = nn.Linear(4, 4)
    model = LatentVariableModel(
        StandardNormal(2), Gaussian(nn.Linear(2, 4), (2,), (4,)), DiagonalGaussian(encoder, (4,))
    )
    terms = model().terms(torch.randn(3, 4))
    with torch.no_grad():
        terms.kl()
    terms.kl().sum().backward()
    assert encoder.weight.grad is not None
    assert encoder.weight.grad.abs().sum() > 0
