"""Discrete latents from options to figures: codes, temperatures, the relaxed objective and the honest bound."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instances import BINARY, GREY, bound_of, double, examples, objective_of, terms_with, within_error, without_gradient
from tightbound.annealing import temperature
from tightbound.data import Data
from tightbound.distributions import OneHot, Unconditional
from tightbound.errors import ObjectiveError, ShapeError, UnknownName, UsageError
from tightbound.evaluation import evaluate, reconstruction_errors
from tightbound.evaluation.collapse.relaxation import relaxation_gap
from tightbound.evaluation.samples.quality import frechet_distance, sample_quality
from tightbound.likelihoods import Gaussian
from tightbound.models import LatentVariableModel
from tightbound.networks import MLP
from tightbound.objectives import elbo
from tightbound.options.priors import PixelCNNPrior
from tightbound.posteriors import BernoulliPosterior, CategoricalPosterior
from tightbound.priors import BernoulliPrior
from tightbound.recipes import VAE, GumbelVAE, Stage, TwoStage
from tightbound.spec import from_json, to_json
from tightbound.training import train
from tightbound.views.samples import reconstructions
from tightbound.views.walks import interpolation

P, K = 3, 4
RECIPES = {
    "classes": GumbelVAE(positions=P, classes=K, hidden=(9,), activation="tanh"),
    "classes, straight through": GumbelVAE(
        positions=P, classes=K, hidden=(9,), activation="tanh", straight_through=True, prior="learned"
    ),
    "bits": GumbelVAE(latents="binary", positions=P, hidden=(9,), activation="tanh", prior="learned"),
    "classes by convolutions": GumbelVAE(positions=P, classes=K, network="convolutional", channels=(4, 6)),
    "bits by convolutions": GumbelVAE(latents="binary", positions=P, network="convolutional", channels=(4, 6)),
}


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> GumbelVAE:
    return RECIPES[request.param]


def event(recipe: GumbelVAE) -> tuple[int, ...]:
    return (P,) if recipe.latents == "binary" else (P, K)


def every_latent(model: LatentVariableModel) -> Tensor:
    """All values of the latent, ``(number, *event)``."""
    q: Any = model.posterior
    return q.embed((torch.tensor(list(itertools.product(range(q.levels[0]), repeat=P))),))


# -- schedules --------------------------------------------------------------------------------------------------------


def test_an_exponential_temperature_falls_by_its_rate_to_its_floor() -> None:
    values = [temperature(step, "exponential", 2.0, 0.5, rate=0.1) for step in range(40)]
    above = [value for value in values if value > 0.5]
    assert above == pytest.approx([2 * math.exp(-0.1 * step) for step in range(len(above))])
    assert len(above) == math.ceil(10 * math.log(4))
    assert set(values[len(above) :]) == {0.5}


def test_a_held_temperature_changes_only_every_so_many_steps() -> None:
    """As in the published notebook: exp(-3e-5 i), taken anew at every thousandth step."""
    values = [temperature(step, "exponential", hold=1000) for step in range(0, 30_000, 250)]
    assert values == [max(0.5, math.exp(-3e-5 * 1000 * (i // 4))) for i in range(len(values))]
    assert values[-1] == 0.5


def test_a_cosine_temperature_goes_from_start_to_floor_and_stays() -> None:
    values = [temperature(step, "cosine", 1.0, 1 / 16, steps=100) for step in range(150)]
    assert (values[0], values[50], values[100]) == pytest.approx((1.0, (1 + 1 / 16) / 2, 1 / 16))
    assert values == sorted(values, reverse=True)
    assert set(values[100:]) == {1 / 16}
    assert [1 - values[i] for i in range(101)] == pytest.approx([values[100 - i] - 1 / 16 for i in range(101)])


def test_a_constant_temperature_stays() -> None:
    assert {temperature(step, "constant", 0.7, 0.5, steps=10) for step in range(20)} == {0.7}


# -- codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [None, (2, 3), (6,)])
def test_latents_are_codes_and_codes_are_latents(grid: Any) -> None:
    networks = [MLP(BINARY.shape, 6 * K, (7,)), MLP(BINARY.shape, 6, (7,))]
    choices = CategoricalPosterior(networks[0], BINARY.shape, 6, K, grid=grid).double().eval()
    bits = BernoulliPosterior(networks[1], BINARY.shape, 6, grid=grid).double().eval()
    for q, levels in ((choices, K), (bits, 2)):
        assert (q.grids, q.levels) == ((grid or (6,),), (levels,))
        z = q(examples(BINARY, 5)).sample((2,))
        (codes,) = q.codes_of(z)
        assert codes.shape == (2, 5, *q.grids[0])
        assert codes.dtype == torch.int64
        assert q.embed((codes,)).dtype == torch.float64
        assert torch.equal(q.embed((codes,)), z)
        chosen = torch.randint(levels, (7, *q.grids[0]))
        assert torch.equal(q.codes_of(q.embed((chosen,)))[0], chosen)
        with pytest.raises(UsageError, match="out of range"):
            q.embed((chosen.fill_(levels),))


@pytest.mark.parametrize("mode", [True, False])
def test_an_example_is_encoded_to_its_most_probable_codes(recipe: GumbelVAE, mode: bool) -> None:
    q: Any = recipe.build(BINARY).double().posterior.train(mode)
    x = examples(BINARY, 10).reshape(2, 5, *BINARY.shape)
    (codes,) = q.codes(x)
    assert codes.shape == (2, 5, P)
    probabilities = q.relaxed(x).categorical.mean
    likeliest = (probabilities > 0.5).long() if recipe.latents == "binary" else probabilities.argmax(-1)
    assert torch.equal(codes, likeliest)
    assert torch.equal(q.codes(x)[0], codes), "no noise"


def test_a_grid_holds_the_positions() -> None:
    with pytest.raises(ShapeError, match="6 of them"):
        CategoricalPosterior(nn.Identity(), (6 * K,), 6, K, grid=(2, 2))


# -- the recipe -------------------------------------------------------------------------------------------------------


def test_a_recipe_builds_what_it_says(recipe: GumbelVAE) -> None:
    model = recipe.build(GREY).double()
    x = examples(GREY, 5)
    assert from_json(to_json(recipe), GumbelVAE) == recipe
    assert model().sample_latent((6,)).shape == (6, *event(recipe))
    assert model().sample((6,)).shape == (6, *GREY.shape)
    assert model().terms(x, k=3).latents[0].z.shape == (3, 5, *event(recipe))
    per_position = model().terms(x).latents[0].kl()
    assert per_position.shape == (5, P)
    learned = [name for name, _ in model.named_parameters() if name.startswith("prior")]
    assert learned == (["prior.logits"] if recipe.prior == "learned" else [])


def test_training_samples_are_discrete_only_straight_through(recipe: GumbelVAE) -> None:
    model, x = recipe.build(BINARY).double(), examples(BINARY, 20)
    relaxed = model.train()().terms(x).latents[0].z.detach()
    exact = model.eval()().terms(x).latents[0].z
    assert exact.unique().tolist() == [0.0, 1.0]
    assert (relaxed.unique().tolist() == [0.0, 1.0]) == recipe.straight_through


def test_the_gradient_reaches_every_parameter(recipe: GumbelVAE) -> None:
    model = recipe.build(BINARY).double()
    nn.init.normal_(model.prior.logits)  # pyright: ignore
    objective_of(recipe, model().terms(examples(BINARY, 6))).sum().backward()
    assert without_gradient(model) == []


def test_each_term_reaches_its_own_parts_alone(recipe: GumbelVAE) -> None:
    """The likelihood teaches decoder and, through the relaxation, encoder; the divergence encoder and prior."""
    model = recipe.build(BINARY).double()
    nn.init.normal_(model.prior.logits)  # pyright: ignore
    terms = model().terms(examples(BINARY, 6))
    own = {"prior"} & {name.split(".")[0] for name, _ in model.named_parameters()}
    assert taught(terms.log_likelihood, model) == {"posterior", "likelihood"}
    assert taught(terms.kl(), model) == {"posterior"} | own
    terms = model.eval()().terms(examples(BINARY, 6))
    assert taught(terms.log_likelihood, model) == {"likelihood"}  # discrete samples have no gradient


def taught(loss: Tensor, model: LatentVariableModel) -> set[str]:
    """The parts that a loss has a gradient of: of every parameter, or it fails."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss.sum(), parameters, retain_graph=True, allow_unused=True)
    moved = {name for name, grad in zip(names, grads, strict=True) if grad is not None and grad.any()}
    parts = {name.split(".")[0] for name in moved}
    assert moved == {name for name in names if name.split(".")[0] in parts}
    return parts


def test_the_objective_is_the_elbo_with_the_weighted_divergence_of_each_example_alone(recipe: GumbelVAE) -> None:
    recipe = dataclasses.replace(recipe, beta=3.0)
    model, x = recipe.build(BINARY).double(), examples(BINARY, 6)
    terms = model().terms(x)
    whole = objective_of(recipe, terms, 0.5)
    torch.testing.assert_close(whole, terms.log_likelihood.mean(0) - 1.5 * terms.kl())
    torch.testing.assert_close(bound_of(recipe, terms), elbo(terms))
    z = terms.latents[0].z.detach()
    alone = objective_of(recipe, terms_with(model, x[[4]], z[:, [4]]))
    torch.testing.assert_close(alone, whole[[4]])


def test_a_uniform_prior_costs_at_most_the_logarithm_of_the_codes() -> None:
    recipe = RECIPES["classes"]
    model, x = recipe.build(BINARY).double().eval(), examples(BINARY, 20)
    with torch.no_grad():
        model.posterior.network.last_layer.weight.mul_(1e6)  # pyright: ignore
    torch.testing.assert_close(model().terms(x).kl(), torch.full((20,), P * math.log(K)).double())


def test_the_decoder_starts_from_the_data(recipe: GumbelVAE) -> None:
    model = recipe.build(BINARY)
    model.likelihood.initialise(torch.ones(50, *BINARY.shape))  # pyright: ignore
    assert model.likelihood.network.last_layer.bias.min() > 6  # pyright: ignore


@pytest.mark.parametrize(
    "options",
    [
        *({"positions": 0}, {"classes": 1}, {"hidden": (0,)}, {"samples": 0}, {"beta": -1.0}, {"beta": math.nan}),
        *({"temperature": 0.0, "temperature_floor": 0.0}, {"temperature": 0.4}, {"temperature_floor": math.nan}),
        *({"temperature_hold": 0}, {"temperature_steps": 0}, {"temperature_rate": -1.0}),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        GumbelVAE(**options)


def test_a_schedule_that_is_none_is_refused() -> None:
    with pytest.raises(UnknownName, match="exponential"):
        GumbelVAE(temperature_schedule="exponentail")  # pyright: ignore


# -- training ---------------------------------------------------------------------------------------------------------


def small(n: int = 120) -> Data:
    return Data.from_arrays(torch.randint(2, (n, 8, 8), dtype=torch.uint8).numpy(), levels=2)


def test_training_anneals_the_temperature_and_keeps_it(tmp_path: Path) -> None:
    recipe = GumbelVAE(positions=P, classes=K, hidden=(9,), temperature_schedule="exponential", temperature_rate=0.05)
    data = small()
    model = recipe.build(data.spec)
    train(model, data, steps=10, evaluate_every=10, out=tmp_path / "run", pictures=False)
    posterior: Any = model.posterior
    assert posterior.temperature.item() == pytest.approx(math.exp(-0.05 * 9))


def test_the_temperature_follows_its_options() -> None:
    recipe = GumbelVAE(positions=P, classes=K, hidden=(9,), temperature=2.0, temperature_floor=1.0)
    model = recipe.build(BINARY)
    posterior: Any = model.posterior
    assert posterior.temperature.item() == 2.0
    for step, expected in ((0, 2.0), (50, 1.5), (100, 1.0)):
        recipe.anneal(model, step, 100)
        assert posterior.temperature.item() == pytest.approx(expected)
    dataclasses.replace(recipe, temperature_steps=20).anneal(model, 10, 100)
    assert posterior.temperature.item() == pytest.approx(1.5)


def test_what_is_validated_is_the_bound_with_discrete_latents(tmp_path: Path) -> None:
    """The record of training is of relaxed samples, that of validation equals the discrete bound of evaluation."""
    from tightbound.runs import RunFolder

    data = small(300)
    recipe = GumbelVAE(positions=P, classes=K, hidden=(9,))
    model = recipe.build(data.spec)
    result = train(model, data, steps=30, evaluate_every=30, beta_warmup=0, out=tmp_path / "run", pictures=False)
    assert RunFolder(tmp_path / "run").metrics.exists()
    found = evaluate(model, data.valid, k=200)
    assert found.elbo is not None
    assert result.best_bound == pytest.approx(found.elbo.value, abs=0.5)


def test_learning_finds_what_the_latent_can_tell(tmp_path: Path) -> None:
    """Pictures of four kinds: ln 4 nats once the latent says which, about 20 without one."""
    kinds = torch.randint(2, (4, 8, 8), dtype=torch.uint8)
    data = Data.from_arrays(kinds[torch.randint(4, (1000,))].numpy(), levels=2)
    for number, recipe in enumerate(
        (
            GumbelVAE(positions=8, classes=4, hidden=(32,)),
            GumbelVAE(positions=8, classes=4, hidden=(32,), straight_through=True, prior="learned"),
            GumbelVAE(latents="binary", positions=8, hidden=(32,)),
        )
    ):
        model = recipe.build(data.spec)
        train(model, data, steps=200, lr=1e-2, out=tmp_path / str(number), pictures=False)
        found = evaluate(model, data.test, k=200)
        assert found.nll is not None
        assert 1.3 < found.nll.value < 5


# -- bounds -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_likelihood_of_discrete_samples_is_the_sum_over_all_codes(recipe: GumbelVAE) -> None:
    data = small(80)
    model = recipe.build(data.spec)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    x, z = data.test.batch(torch.arange(len(data.test))).x, every_latent(model).unsqueeze(1)
    log_joint = model.prior().log_prob(z) + model.likelihood(z).log_prob(x)  # pyright: ignore
    found = evaluate(model, data.test, k=4000)
    assert found.nll is not None
    assert found.elbo is not None
    assert found.nll.value == pytest.approx(-log_joint.logsumexp(0).mean().item(), abs=0.02)
    log_q = model.posterior(x).log_prob(z)
    bound = (log_q.exp() * (log_joint - log_q)).sum(0).mean().item()
    assert found.elbo.value == pytest.approx(bound, abs=0.1)
    assert found.elbo.value < -found.nll.value


def linear(variance: float = 0.5) -> LatentVariableModel:
    """Three fair bits, a Gaussian with linear mean, and a posterior that knows nothing."""
    likelihood = Gaussian(MLP(P, BINARY.dimensions, ()), (P,), BINARY.shape, "fixed", variance)
    posterior = BernoulliPosterior(MLP(BINARY.shape, P, ()), BINARY.shape, P)
    for parameter in posterior.parameters():
        parameter.detach().zero_()
    return LatentVariableModel(BernoulliPrior(P), likelihood, posterior)


def test_the_relaxation_gap_of_a_linear_model_is_a_difference_of_variances() -> None:
    r"""A fair bit relaxed at temperature 1 is uniform, of variance 1/12 where the bit has 1/4; the rest is alike.

    So the squared error is larger by :math:`\sum_i \lVert w_i \rVert^2 (1/4 - 1/12)` with bits.
    """
    model, data = linear(variance=0.2), small(200)
    weight = model.likelihood.network.last_layer.weight.detach()  # pyright: ignore
    expected = weight.square().sum().item() * (1 / 4 - 1 / 12) / (2 * 0.2)
    found = relaxation_gap(model, data.train, samples=400)
    assert found.gap.standard_error is not None
    assert found.gap.value == pytest.approx(expected, abs=4 * found.gap.standard_error)
    assert found.gap.standard_error < 0.05 * expected
    assert (found.temperature, found.samples, found.n, found.split) == (1.0, 400, len(data.train), "train")
    hot, cold = linear(0.2), linear(0.2)
    for other, at in ((hot, 1.0), (cold, 1e-3)):
        other.load_state_dict(model.state_dict())
        other.posterior.temperature.fill_(at)  # pyright: ignore
    assert relaxation_gap(hot, data.train, samples=400) == found
    assert abs(relaxation_gap(cold, data.train, samples=400).gap.value) < 0.02 * expected


@torch.no_grad()
def test_both_sides_of_the_gap_are_the_bounds_that_training_and_evaluation_see(recipe: GumbelVAE) -> None:
    data = small(60)
    model = recipe.build(data.spec)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    found = relaxation_gap(model.eval(), data.test, samples=2000)
    evaluated = evaluate(model, data.test, k=2000).elbo
    assert evaluated is not None
    assert found.hard.value == pytest.approx(evaluated.value, abs=0.1)
    x = data.test.batch(torch.arange(len(data.test))).x
    relaxed = torch.stack([elbo(model.train()().terms(x)).mean() for _ in range(1000)])
    assert within_error(relaxed, found.relaxed.value, errors=6)
    assert (found.gap.value == 0) == recipe.straight_through
    assert set(dataclasses.asdict(found)) == {"relaxed", "hard", "gap", "temperature", "samples", "n", "split"}


def test_measuring_the_gap_leaves_the_model_alone() -> None:
    data = small(60)
    model = RECIPES["classes"].build(data.spec).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    relaxation_gap(model, data.test, samples=2)
    assert model.posterior.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_posterior_that_is_not_relaxed_has_no_gap() -> None:
    data = small(60)
    with pytest.raises(ObjectiveError, match="gumbel-vae"):
        relaxation_gap(VAE(latent_dim=2).build(data.spec), data.test)
    with pytest.raises(UsageError, match="At least one sample"):
        relaxation_gap(RECIPES["classes"].build(data.spec), data.test, samples=0)


# -- what is measured at codes ----------------------------------------------------------------------------------------


def stages(data: Data) -> tuple[LatentVariableModel, LatentVariableModel]:
    """A first stage whose codes are unsure, and a second stage over it that is given the class."""
    first_recipe = RECIPES["classes"]
    second = TwoStage(Stage(first_recipe), PixelCNNPrior(condition="class", channels=4, layers=1, kernel=3)).build(
        data.spec
    )
    first = first_recipe.build(data.spec)
    for part, other in ((first.posterior, second.posterior), (first.likelihood, second.likelihood)):
        for parameter in part.parameters():
            parameter.detach().add_(0.3 * torch.randn_like(parameter))
        other.load_state_dict(part.state_dict())
    return first.eval(), second.eval()


def labelled() -> Data:
    data = small(120)
    spec = dataclasses.replace(data.spec, classes=("even", "odd"))
    split = lambda part: dataclasses.replace(part, spec=spec, labels=torch.arange(len(part)) % 2)
    return dataclasses.replace(data, spec=spec, train=split(data.train), valid=split(data.valid), test=split(data.test))


@torch.no_grad()
def test_reconstructions_are_made_of_codes_and_a_second_stage_makes_the_same() -> None:
    data = labelled()
    first, second = stages(data)
    batch = data.test.batch(torch.arange(len(data.test)))
    q: Any = first.posterior
    mean = first.likelihood(q.embed(q.codes(batch.x))).mean
    soft = first.likelihood(first.posterior(batch.x).mean).mean
    assert (mean - soft).abs().max() > 0.01, "else this test tells nothing"
    for model in (first, second):
        errors = reconstruction_errors(model, data.test)[0]
        torch.testing.assert_close(errors, (batch.x - mean).double().square().flatten(1).sum(1))
        shown = reconstructions(model(model.conditions(batch)), batch.x)
        torch.testing.assert_close(shown["mean of p(x|z)"], mean)
        quality = sample_quality(model, data, features=lambda x: x.flatten(1)[:, :5])
        expected = frechet_distance(mean.flatten(1)[:, :5], batch.x.flatten(1)[:, :5])
        assert quality.reconstructions is not None
        assert quality.reconstructions.value == pytest.approx(expected.value, rel=1e-4)


@torch.no_grad()
def test_a_walk_between_codes_begins_and_ends_at_codes() -> None:
    data = small(60)
    model = RECIPES["classes"].build(data.spec)
    x = data.test.batch(torch.arange(6)).x
    z = interpolation(model, x[:3], x[3:], steps=3).z
    assert set(z[:, [0, -1]].unique().tolist()) == {0.0, 1.0}


def test_a_second_stage_is_evaluated_and_has_no_relaxation_gap() -> None:
    data = labelled()
    _, second = stages(data)
    found = evaluate(second, data.test, k=2)
    assert found.elbo is not None
    assert found.relaxation_gap is None
    with pytest.raises(ObjectiveError, match="first stage"):
        relaxation_gap(second, data.test, samples=2)


def test_a_condition_of_the_prior_alone_does_not_reach_the_relaxation() -> None:
    """The gap of parts that know of no condition is the same beside a prior that is given one."""
    data = labelled()
    first, second = stages(data)
    beside = LatentVariableModel(first.prior, first.likelihood, first.posterior)
    beside.condition = second.condition
    for part in (beside.likelihood, beside.posterior):
        part.embedding = Unconditional()
    assert relaxation_gap(beside, data.test, samples=3) == relaxation_gap(first, data.test, samples=3)


def test_the_discrete_distribution_is_at_hand() -> None:
    q = RECIPES["classes"].build(BINARY).double().eval().posterior(double(2, *BINARY.shape))
    assert isinstance(q, OneHot)
