"""Three ways to the same likelihood, their doubts, and models that have none."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Exponential, MultivariateNormal, Uniform

from instances import double, linear_gaussian, within_error
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.distributions import Bounded as OnlyBounded
from tightbound.distributions import independent
from tightbound.errors import CheckpointError, ObjectiveError, UsageError
from tightbound.evaluation import Annealing, LikelihoodEstimate, evaluate, from_prior, likelihood, per_example
from tightbound.models import LatentVariableModel
from tightbound.networks import LinearWithConstant
from tightbound.options.priors import TransformerPrior
from tightbound.posteriors import DiagonalGaussian, ExactLinearGaussian
from tightbound.priors import StandardNormal
from tightbound.recipes import VAE, VQVAE, Autoencoder, GumbelVAE, Stage, TwoStage


def floats(n: int = 300) -> Data:
    return Data.from_arrays(np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32), name="floats")


def images(**options: object) -> Data:
    values = np.random.default_rng(0).integers(0, 5, (200, 3, 4)).astype(np.uint8)
    return Data.from_arrays(values, levels=5, name="toy", **options)  # pyright: ignore


FLOATS, GREY = floats(), images()


def linear_model(exact: bool = False) -> tuple[LatentVariableModel, MultivariateNormal]:
    decoder = linear_gaussian(FLOATS.spec, "shared", latent_dim=2)
    linear = next(m for m in decoder.modules() if isinstance(m, nn.Linear))
    covariance = linear.weight @ linear.weight.T + (2 * decoder.log_scale).exp() * torch.eye(4).double()
    px = MultivariateNormal(linear.bias.detach(), covariance.detach(), validate_args=False)
    posterior = ExactLinearGaussian(decoder) if exact else DiagonalGaussian(LinearWithConstant((4,), 2), (4,))
    return LatentVariableModel(StandardNormal(2), decoder, posterior).double(), px


def truth(px: MultivariateNormal) -> Tensor:
    return px.log_prob(FLOATS.test.batch(torch.arange(len(FLOATS.test))).x.double())


@pytest.mark.parametrize(
    ("method", "k", "bias"), [("importance", 500, 0.01), ("prior", 4000, 0.02), ("annealed", 16, 0.02)]
)
def test_every_method_finds_the_closed_form(method: str, k: int, bias: float) -> None:
    """Within three standard errors over repeats, but for the bias 1 / (2 ESS) that any logarithm of a mean has."""
    model, px = linear_model()
    annealing = Annealing(steps=60, leapfrog=4)
    part = FLOATS.test.subset(15)
    repeats = torch.stack(
        [
            likelihood(model, part, method, k, annealing=annealing, seed=seed).log_marginal  # pyright: ignore
            for seed in range(6)
        ]
    )
    off = (repeats - truth(px)[:15]).mean(1)
    assert abs(off.mean()) < 3 * off.std() / 6**0.5 + bias


def test_naive_samples_are_unbiased_and_few_of_them_count() -> None:
    model, px = linear_model()
    x = double(1, 4)
    found = from_prior(model, x.expand(2000, 4), 50)
    assert within_error((found["log_marginal"] - px.log_prob(x)).exp(), 1.0, errors=3.5)
    model.likelihood.log_scale.data.fill_(-4.0)  # pyright: ignore
    sharp = from_prior(model, model().sample((20,)), 50)
    assert sharp["effective_samples"].median() < 2


def test_importance_weights_are_never_worse_in_the_mean_with_more_samples() -> None:
    model, px = linear_model()
    x = FLOATS.test.batch(torch.arange(len(FLOATS.test))).x.double().repeat(20, 1)
    means = [per_example(model, x, k)["log_marginal"].mean().item() for k in (1, 3, 10, 100)]
    assert means == sorted(means)
    assert means[-1] < px.log_prob(x).mean().item() + 0.01


def test_the_exact_posterior_is_trusted_and_a_narrow_one_is_not() -> None:
    good = likelihood(linear_model(exact=True)[0], FLOATS.test, k=500)
    assert good.trusted
    assert good.pareto_k is not None
    assert good.pareto_k < 0.1
    assert good.effective_sample_size == pytest.approx(500)
    assert good.unreliable == 0
    model, _ = linear_model()
    with torch.no_grad():
        model.posterior.network.constant.fill_(math.log(0.05))  # pyright: ignore
    bad = likelihood(model, FLOATS.test, k=500)
    assert not bad.trusted
    assert bad.pareto_k is not None
    assert bad.pareto_k > 0.7
    assert any("cannot be trusted" in note for note in bad.notes)
    assert evaluate(model, FLOATS.test, k=500).trusted is False


def test_json_holds_what_a_reader_needs() -> None:
    model = VAE(latent_dim=2, hidden=(4,)).build(GREY.spec)
    found = dataclasses.asdict(likelihood(model, GREY.test, k=30))
    assert {"nll", "bits_per_dim", "pareto_k", "trusted", "effective_sample_size", "method", "k"} <= set(found)
    assert found["bits_per_dim"]["value"] == pytest.approx(found["nll"]["value"] / (12 * math.log(2)))


def test_the_offset_of_dequantisation_is_stated() -> None:
    data = images(dequantize=True)
    found = likelihood(VAE(latent_dim=2, hidden=(4,)).build(data.spec), data.test, k=5)
    assert found.offset == pytest.approx(12 * math.log(5))
    assert found.nll.value == pytest.approx(-found.log_marginal.double().mean().item() + found.offset)
    assert any("ln 5" in note for note in found.notes)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (VAE(latent_dim=2, hidden=(4,), likelihood="bernoulli"), "not a likelihood of that data"),
        (Autoencoder(latent_dim=2, hidden=(4,)), "no prior"),
    ],
    ids=["cross-entropy", "autoencoder"],
)
def test_models_without_a_likelihood_are_refused(recipe: VAE | Autoencoder, says: str) -> None:
    model = recipe.build(GREY.spec)
    with pytest.raises(ObjectiveError, match=says):
        likelihood(model, GREY.test, k=5)
    found = evaluate(model, GREY.test, k=5)
    assert found.nll is None
    assert found.trusted is None
    assert any("not a likelihood" in note or "no likelihood" in note for note in found.notes)


def nested() -> LatentVariableModel:
    inner, _ = linear_model()
    top = linear_gaussian(FLOATS.spec, "shared", latent_dim=4)
    posterior = DiagonalGaussian(LinearWithConstant((4,), 4), (4,))
    return LatentVariableModel(inner, top, posterior).double()


def test_a_prior_without_an_exact_density_can_only_be_sampled() -> None:
    model = VAE(latent_dim=2, hidden=(4,)).build(FLOATS.spec)
    model.prior = _Guessed()
    with pytest.raises(ObjectiveError, match="bound, no exact density"):
        likelihood(model, FLOATS.test, k=5)
    found = evaluate(model, FLOATS.test, k=5)
    assert found.method == "bound"
    assert found.bounded
    assert any("only bounded" in note for note in found.notes)
    assert isinstance(likelihood(model, FLOATS.test, "prior", k=5), LikelihoodEstimate)


def test_the_layers_of_a_hierarchy_are_weighed_together() -> None:
    found = evaluate(nested(), FLOATS.test, k=50)
    assert found.nll is not None
    assert found.kl_per_dimension is not None
    assert list(found.kl_per_dimension) == ["z1", "z2"]
    with pytest.raises(ObjectiveError, match="all latents in one vector"):
        likelihood(nested(), FLOATS.test, "annealed", k=2)


class _Guess(OnlyBounded):
    def __init__(self) -> None:
        super().__init__(torch.Size(), torch.Size((2,)), validate_args=False)

    def lower_bound(self, x: Tensor) -> Tensor:
        return -x.square().sum(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return torch.randn(*sample_shape, 2)


class _Guessed(nn.Module):
    def forward(self, c: Given | None = None) -> _Guess:
        return _Guess()


@pytest.mark.parametrize("second", [None, TransformerPrior(layers=1, width=8, heads=2)])
@pytest.mark.parametrize("first", [VQVAE(codes=4, channels=(4,)), GumbelVAE(positions=3, classes=3, hidden=(4,))])
def test_annealing_through_codes_is_refused(first: Any, second: TransformerPrior | None) -> None:
    data = Data.from_arrays(np.random.default_rng(0).integers(0, 5, (40, 4, 4)).astype(np.uint8), levels=5)
    recipe = dataclasses.replace(first, likelihood="categorical")
    model = (recipe if second is None else TwoStage(Stage(recipe), second)).build(data.spec)
    few = Annealing(steps=2, leapfrog=1)
    with pytest.raises(ObjectiveError) as error:
        likelihood(model, data.test, "annealed", k=2, annealing=few)
    assert "importance" in str(error.value.remedy)
    if first.__class__ is VQVAE or second is not None:
        found = evaluate(model, data.test, k=2, method="annealed", annealing=few)
        assert found.nll is None
        assert found.elbo is not None
        assert any("latents are codes" in note for note in found.notes)


class Bounded(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, c: Given | None = None) -> Distribution:
        if self.kind == "exponential":
            return independent(Exponential(self.one, validate_args=False), 1)
        return independent(Uniform(-self.one, self.one, validate_args=False), 1)


@pytest.mark.parametrize("kind", ["exponential", "uniform"])
def test_samples_outside_the_priors_support_are_refused(kind: str) -> None:
    model, _ = linear_model()
    model = LatentVariableModel(Bounded(kind), model.likelihood, model.posterior)
    for measured in (likelihood, evaluate):
        with pytest.raises(ObjectiveError, match="support") as caught:
            measured(model, FLOATS.test, k=20)  # pyright: ignore
        assert "%" in str(caught.value.got)


def test_weights_that_are_no_numbers_are_named() -> None:
    model, _ = linear_model()
    with torch.no_grad():
        model.posterior.network.constant[1] = math.nan  # pyright: ignore
    with pytest.raises(CheckpointError, match="not finite") as caught:
        likelihood(model, FLOATS.test, k=2)
    assert "posterior.network.constant" in str(caught.value.got)


@pytest.mark.parametrize("method", ["importance", "prior", "annealed"])
def test_no_samples_are_refused(method: str) -> None:
    with pytest.raises(UsageError, match="k >= 1"):
        likelihood(linear_model()[0], FLOATS.test, method, k=0)  # pyright: ignore


def test_unknown_names_are_refused() -> None:
    model, _ = linear_model()
    with pytest.raises(UsageError, match="Unknown method"):
        likelihood(model, FLOATS.test, "hmc")  # pyright: ignore
    with pytest.raises(UsageError, match="Unknown precision"):
        likelihood(model, FLOATS.test, k=2, precision="fp8")  # pyright: ignore


def test_half_precision_is_within_the_standard_error() -> None:
    data = images(binarize="dynamic")
    for prior, posterior in [("normal", "gaussian"), ("mixture", "cholesky"), ("coupling", "iaf")]:
        options: dict[str, Any] = {"prior": prior, "posterior": posterior, "components": 5}
        model = VAE(latent_dim=2, hidden=(16,), **options).build(data.spec)
        full, half = (likelihood(model, data.test, k=50, precision=p) for p in ("float32", "bf16"))  # pyright: ignore
        assert full.nll.standard_error is not None
        assert 0 < abs(full.nll.value - half.nll.value) < full.nll.standard_error


@pytest.mark.parametrize("method", ["prior", "annealed"])
def test_evaluate_by_another_method_keeps_the_bound(method: str) -> None:
    model, _ = linear_model()
    annealing = Annealing(steps=10, leapfrog=2)
    found = evaluate(model, FLOATS.test.subset(5), k=4, method=method, annealing=annealing)  # pyright: ignore
    assert found.method == method
    assert found.elbo is not None
    alone = likelihood(model, FLOATS.test.subset(5), method, k=4, annealing=annealing)  # pyright: ignore
    assert found.nll is not None
    assert alone.nll.value == pytest.approx(found.nll.value, abs=3)  # other noise
    assert found.pareto_k is None  # not that of the bound's own samples
    assert found.unreliable is None


def test_few_samples_are_not_judged() -> None:
    model, _ = linear_model()
    for k in (1, 5, 24):
        found = likelihood(model, FLOATS.test.subset(5), k=k)
        assert not found.trusted
        assert found.trusted is None or k >= 10
        assert any("less than 25" in note for note in found.notes)
    exact, _ = linear_model(exact=True)
    assert likelihood(exact, FLOATS.test.subset(5), k=2).trusted


def test_a_prior_without_a_condition_is_made_once_a_pass() -> None:
    model = VAE(latent_dim=2, hidden=(8,), prior="vamp", components=7).build(GREY.spec)
    rows: list[int] = []
    model.posterior.register_forward_hook(lambda module, inputs, out: rows.append(len(inputs[0])))
    with torch.no_grad():
        per_example(model, GREY.test.batch(torch.arange(4)).x, k=40_000)
    assert rows.count(7) == 1


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it imports its compiler
@pytest.mark.parametrize("spec", ["binary", "levels"])
def test_a_compiled_density_is_the_same(spec: str) -> None:
    data = images(binarize="dynamic") if spec == "binary" else GREY
    model = VAE(latent_dim=2, hidden=(8,)).build(data.spec)
    plain, compiled = (likelihood(model, data.test, k=30, compile=c).log_marginal for c in (False, True))
    torch.testing.assert_close(plain, compiled, rtol=0, atol=1e-4)
