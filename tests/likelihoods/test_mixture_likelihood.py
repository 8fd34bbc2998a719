"""The mixture likelihood of images, whatever decoder it is on, starts where the data lies and keeps its promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instances import BINARY, CONTINUOUS_IMAGE, DEQUANTIZED, GREY, LEVELS, RGB, double, examples, is_level
from tightbound.data import Data, DataSpec
from tightbound.distributions import DiscretizedLogisticMixture
from tightbound.errors import UsageError
from tightbound.evaluation import Annealing, evaluate
from tightbound.evaluation.collapse.decoder_noise import decoder_noise, learned_sigma
from tightbound.likelihoods import DiscretizedLogisticMixtureLikelihood as MixtureLikelihood
from tightbound.networks import MLP, ConvolutionalDecoder
from tightbound.recipes import DVAE, HVAE, VAE, VQVAE, Autoencoder, GumbelVAE, Recipe
from tightbound.recipes.ladder import Ladder
from tightbound.spec import from_json, to_json

MIXTURE: dict[str, Any] = {"likelihood": "discretized-logistic-mixture", "likelihood_components": 3}
SQUARE = DataSpec("square", (3, 8, 8), levels=256)


def on_mlp(spec: DataSpec, components: int = 3) -> MixtureLikelihood:
    network = MLP(2, MixtureLikelihood.parameters_for(spec.shape, components) * spec.dimensions, ())
    return MixtureLikelihood(network, (2,), spec.shape, spec.levels or 0, components)


def on_convolutions(spec: DataSpec, components: int = 3) -> MixtureLikelihood:
    channels, *sides = spec.shape
    parameters = MixtureLikelihood.parameters_for(spec.shape, components)
    network = ConvolutionalDecoder(2, (parameters * channels, *sides), (4, 4))
    return MixtureLikelihood(network, (2,), spec.shape, spec.levels or 0, components)


def without_latent(likelihood: MixtureLikelihood) -> DiscretizedLogisticMixture:
    """The distribution that the last bias alone gives."""
    with torch.no_grad():
        likelihood.network.last_layer.weight.zero_()  # pyright: ignore
        return likelihood(torch.zeros(2))


def coloured(n: int) -> Tensor:
    """Images whose second channel follows the first, ``(n, 3, 8, 8)``."""
    red = torch.rand(n, 1, 8, 8)
    green = 0.2 + 0.5 * red + 0.1 * torch.randn_like(red)
    x = torch.cat([red, green, torch.rand(n, 1, 8, 8)], dim=1).clamp(0, 1)
    return (x * 255).round() / 255


@pytest.mark.parametrize(
    ("shape", "components", "parameters"),
    [((1, 8, 8), 5, 15), ((2, 8, 8), 5, 15), ((3, 8, 8), 5, 17), ((4, 8, 8), 2, 8)],
)
def test_the_decoder_outputs_all_parameters_of_a_pixel(
    shape: tuple[int, ...], components: int, parameters: int
) -> None:
    assert MixtureLikelihood.parameters_for(shape, components) == parameters
    channels = shape[0]
    of_a_pixel = components * (1 + 2 * channels + channels * (channels - 1) // 2)
    assert 0 <= parameters * channels - of_a_pixel < channels


def test_both_layouts_of_a_decoder_hold_the_same_parameters() -> None:
    """What an MLP and convolutions output is read alike: the numbers of a pixel before its place."""
    mlp, convolutions = on_mlp(RGB), on_convolutions(RGB)
    output = torch.randn(5, mlp.parameters_per_entry * 3, 6, 4)
    x = examples(RGB, 5).float()
    assert torch.equal(mlp.given(output.flatten(1)[:, None, None]).log_prob(x), convolutions.given(output).log_prob(x))
    p: Any = convolutions.given(output)
    assert torch.equal(p.logits, output[:, :3])
    assert torch.equal(p.location, output[:, 3:12].unflatten(1, (3, 3)))
    assert torch.equal(p.coefficients, output[:, 21:30].unflatten(1, (3, 3)))


@pytest.mark.parametrize("make", [on_mlp, on_convolutions])
def test_it_starts_with_components_spread_over_the_levels_and_the_colours_dependence(make: Any) -> None:
    likelihood, x = make(SQUARE), coloured(400)
    likelihood.initialise(x)
    p = without_latent(likelihood)
    quantiles = torch.tensor([1, 3, 5]) / 6
    torch.testing.assert_close(p.location[:, 0].mean((1, 2)), quantiles, rtol=0, atol=0.02)
    a = p.coefficients.mean((0, 2, 3))
    torch.testing.assert_close(a, torch.tensor([0.5, 0.0, 0.0]), rtol=0, atol=0.05)
    width = math.pi / math.sqrt(3) * p.log_scale.exp().mean((0, 2, 3))
    assert width[0] == pytest.approx(12**-0.5 / 3, rel=0.05)
    assert width[1] == pytest.approx(0.1, rel=0.1)
    assert width[2] == pytest.approx(12**-0.5, rel=0.05)


@pytest.mark.parametrize("make", [on_mlp, on_convolutions])
def test_starting_from_data_gives_a_better_likelihood(make: Any) -> None:
    likelihood, x = make(SQUARE), coloured(400)
    before = without_latent(likelihood).log_prob(x[200:]).mean()
    likelihood.initialise(x[:200])
    after = without_latent(likelihood).log_prob(x[200:]).mean()
    bits = -after / (192 * math.log(2))
    assert after > before
    assert bits < 8  # without any model


def test_latents_do_not_hide_the_start() -> None:
    """Where the first outputs moved the components by more than the data vary, models began by ignoring z for good."""
    torch.manual_seed(0)
    recipe = Ladder(grids=(1, 4), groups=(2,), channels=16, latent_channels=4, **MIXTURE)
    model, x = recipe.build(SQUARE), coloured(200)
    model.likelihood.initialise(x)
    with torch.no_grad():
        terms = model().terms(x)
        at_zero = model.likelihood(torch.zeros(1, *model.likelihood.input_shape)).log_prob(x)
    lost = (at_zero - terms.log_likelihood).mean() / (192 * math.log(2))
    assert lost < 0.5, "bits of each dimension"


def test_data_that_does_not_vary_gives_a_finite_start() -> None:
    likelihood = on_mlp(SQUARE)
    likelihood.initialise(torch.full((7, 3, 8, 8), 0.2))
    assert without_latent(likelihood).log_prob(torch.ones(2, 3, 8, 8)).isfinite().all()
    assert without_latent(likelihood).log_prob(torch.full((2, 3, 8, 8), 51 / 255)).isfinite().all()


def test_a_network_whose_last_layer_is_not_known_is_welcome() -> None:
    network = nn.Sequential(nn.Linear(2, 192 * 10))
    likelihood = MixtureLikelihood(network, (2,), (3, 8, 8), 256, components=3)
    likelihood.initialise(coloured(5))
    assert likelihood(torch.zeros(5, 2)).sample().shape == (5, 3, 8, 8)


RECIPES: list[tuple[Recipe, DataSpec]] = [
    *[(VAE(latent_dim=2, hidden=(4,), channels=(4,), network=n, **MIXTURE), RGB) for n in ("mlp", "convolutional")],
    (Autoencoder(latent_dim=2, hidden=(4,), **MIXTURE), GREY),
    (GumbelVAE(positions=3, classes=2, hidden=(4,), **MIXTURE), RGB),
    (HVAE(layers=(3, 2), hidden=(4,), **MIXTURE), RGB),
    (Ladder(grids=(1, 4), groups=(1,), channels=8, latent_channels=2, blocks=1, **MIXTURE), SQUARE),
    (VQVAE(codes=4, code_dim=2, channels=(4,), blocks=1, **MIXTURE), SQUARE),
    (DVAE(codes=4, channels=(8,), blocks=1, **MIXTURE), SQUARE),
]


@pytest.mark.parametrize(("recipe", "spec"), RECIPES, ids=[type(recipe).__name__ for recipe, _ in RECIPES])
def test_every_recipe_has_it_on_its_own_decoder(recipe: Recipe, spec: DataSpec) -> None:
    model = recipe.build(spec).double()
    assert isinstance(model.likelihood, MixtureLikelihood)
    assert model.likelihood.components == 3
    assert from_json(to_json(recipe), Recipe) == recipe
    model().terms(examples(spec, 4)).log_likelihood.sum().backward()
    network: Any = model.likelihood.network
    gradient = network.last_layer.bias.grad
    assert gradient.isfinite().all()
    assert (gradient != 0).sum() >= 0.9 * len(gradient)  # all but the few outputs that are left over
    assert model.measure(spec).kind in ("mass", "bound")
    if model.prior is not None:
        assert is_level(model.eval()().sample((3,)), spec.levels or 0)


def test_files_of_older_versions_have_no_number_of_components() -> None:
    fields = to_json(VAE())
    assert fields.pop("likelihood_components") == 5
    assert from_json(fields, Recipe) == VAE()


@pytest.mark.parametrize(
    ("options", "data", "says"),
    [
        ({}, CONTINUOUS_IMAGE, "continuous"),
        ({}, DEQUANTIZED, "dequantized"),
        ({}, BINARY, "--likelihood bernoulli"),
        ({}, LEVELS, "--likelihood discretized-logistic"),
        ({"scale": "fixed"}, GREY, "no scale"),
        ({"likelihood_components": 0}, GREY, "--likelihood-components"),
    ],
)
def test_what_it_cannot_model_is_refused(options: dict[str, Any], data: DataSpec, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        VAE(latent_dim=2, hidden=(4,), **{**MIXTURE, **options}).build(data)


def test_its_decoder_noise_is_that_of_its_samples() -> None:
    spec = DataSpec("coloured", (3, 8, 8), levels=256)
    data = Data.from_arrays((coloured(60) * 255).to(torch.uint8))
    model = VAE(latent_dim=2, hidden=(8,), **MIXTURE).build(spec)
    model.likelihood.initialise(coloured(200))
    noise = decoder_noise(model, data.train)
    assert noise is not None
    assert not noise.fixed
    px = model()
    p = px.likelihood(px.representative(data.train.batch(torch.arange(20)).x))
    spread = p.sample((2000,)).var(0).mean().sqrt().item()
    assert noise.std == pytest.approx(spread, rel=0.05)
    assert learned_sigma(model.likelihood) == {"scale": "network"}


@pytest.mark.compiles
def test_its_density_compiles_to_one_graph() -> None:
    """What `evaluate --compile` compiles: the density of what the decoder outputs."""
    likelihood, x = on_mlp(RGB).double(), examples(RGB, 5)
    features = likelihood.features(double(7, 5, 2)).detach()
    density = lambda features, x: likelihood.distribution(features).log_prob(x)
    torch._dynamo.reset()
    got = torch.compile(density, fullgraph=True, dynamic=True, backend="aot_eager")(features, x)
    torch.testing.assert_close(got, density(features, x), rtol=1e-10, atol=1e-10)


def test_annealed_evaluation_takes_its_gradients() -> None:
    data = Data.from_arrays((coloured(40) * 255).to(torch.uint8))
    model = VAE(latent_dim=2, hidden=(8,), **MIXTURE).build(data.spec)
    model.likelihood.initialise(coloured(100))
    few = Annealing(steps=5, leapfrog=2)
    found = evaluate(model, data.test.subset(3), k=2, method="annealed", annealing=few)
    assert found.nll is not None
    assert math.isfinite(found.nll.value)
