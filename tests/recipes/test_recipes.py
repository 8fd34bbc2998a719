"""Every system of the literature, with every part, keeps every promise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from instances import (
    BINARY,
    CONTINUOUS,
    CONTINUOUS_IMAGE,
    DEQUANTIZED,
    GREY,
    HIERARCHIES,
    LATENT,
    LEVELS,
    ODD,
    RGB,
    SYSTEMS,
    bound_of,
    examples,
    is_level,
    objective_of,
    system_id,
    terms_with,
    training_terms,
    without_gradient,
)
from tightbound import checkpoint
from tightbound.data import DataSpec
from tightbound.errors import ObjectiveError, UnknownName, UsageError
from tightbound.likelihoods import Bernoulli, Categorical, DiscretizedLogisticLikelihood, Gaussian
from tightbound.models import LatentVariableModel, Terms
from tightbound.objectives import Elbo, Iwae, StickingTheLanding, TotalCorrelation
from tightbound.options.choices import changed, flat
from tightbound.options.objectives import (
    Capacity,
    Gsnn,
    Hybrid,
    LatentObjective,
    Mmd,
    NaiveMonteCarlo,
    Reconstruction,
    Score,
)
from tightbound.priors import PRIORS
from tightbound.recipes import CVAE, VAE, Autoencoder, Completion, LinearVAE, Recipe, find_recipe
from tightbound.recipes.vae import PriorName
from tightbound.spec import from_json, to_json
from tightbound.training.steps.bound import BoundStep


@pytest.fixture(params=[*SYSTEMS, *HIERARCHIES], ids=system_id)
def system(request: pytest.FixtureRequest) -> tuple[Recipe, DataSpec]:
    return request.param


def build(system: tuple[Recipe, DataSpec]) -> LatentVariableModel:
    recipe, spec = system
    return recipe.build(spec).double()


def objective(model: LatentVariableModel, terms: Terms, beta: float = 0.5) -> Tensor:
    assert model.recipe is not None
    return objective_of(model.recipe, terms, beta)


def of_the_batch(recipe: Recipe) -> bool:
    """Whether the objective of an example needs the others: estimates of the aggregate do."""
    o = recipe.training_objective
    return isinstance(o, TotalCorrelation | Mmd) or (isinstance(o, Elbo) and o.free_bits > 0)


def plain(recipe: Recipe) -> bool:
    """Whether the objective is the reconstruction less the weighted KL."""
    o = recipe.training_objective
    return isinstance(o, Reconstruction) or (isinstance(o, Elbo) and not o.free_bits)


def test_a_model_remembers_its_recipe_and_its_data(system: tuple[Recipe, DataSpec]) -> None:
    model = build(system)
    assert (model.recipe, model.data_spec) == system
    assert isinstance(model, nn.Module)
    assert type(model.likelihood).__name__ in repr(model)


def test_samples_have_the_shape_and_range_of_the_data(system: tuple[Recipe, DataSpec]) -> None:
    _, spec = system
    model = build(system)
    if model.prior is None:
        with pytest.raises(ObjectiveError, match="no prior"):
            model().sample((4,))
        x = model.likelihood(torch.randn(4, LATENT).double()).sample()
    else:
        x = model().sample((4,))
    assert x.shape == (4, *spec.shape)
    assert x.dtype == torch.float64
    assert x.isfinite().all()
    if spec.discrete and not isinstance(model.likelihood, Gaussian):
        assert is_level(x, 2 if isinstance(model.likelihood, Bernoulli) else spec.levels or 0)


def test_gradient_reaches_every_parameter(system: tuple[Recipe, DataSpec]) -> None:
    model = build(system)
    objective(model, training_terms(model, examples(system[1], 5))).sum().backward()
    assert without_gradient(model) == []


@pytest.mark.parametrize("system", SYSTEMS, ids=system_id)
def test_the_loss_of_an_example_does_not_depend_on_its_batch(system: tuple[Recipe, DataSpec]) -> None:
    """Of several latents: tests/recipes/test_hierarchies.py."""
    if of_the_batch(system[0]):
        assert bound_of(system[0], build(system)().terms(examples(system[1], 6))).shape == (6,)
        return
    model, x = build(system), examples(system[1], 6)
    terms = training_terms(model, x)
    together, z = objective(model, terms), terms.latents[0].z.detach()
    assert together.shape == (6,)
    for part in ([0], [4], [1, 2], [5, 3, 0]):
        with torch.no_grad():  # the samples have no path
            alone = objective(model, terms_with(model, x[part], z[:, part]))
        torch.testing.assert_close(alone, together[part], rtol=1e-9, atol=1e-9)


def test_saved_and_loaded_the_bound_is_the_same_bit_for_bit(system: tuple[Recipe, DataSpec], tmp_path: Path) -> None:
    recipe, spec = system
    model, x = build(system).float(), examples(spec, 5).float()
    for parameter in model.parameters():  # as if trained
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    checkpoint.write(tmp_path / "model.safetensors", checkpoint.tensors_of(model))
    again = from_json(to_json(recipe), Recipe).build(from_json(to_json(spec), DataSpec))
    checkpoint.load_into(again, checkpoint.read(tmp_path / "model.safetensors"))
    bounds = []
    for each in (model, again):
        torch.manual_seed(1)
        pathwise = not isinstance(recipe.training_objective, Score)
        bounds.append(bound_of(recipe, each().terms(x, k=2, pathwise=pathwise)))
    assert torch.equal(*bounds)


def test_bounds_and_beta(system: tuple[Recipe, DataSpec]) -> None:
    recipe, spec = system
    model = build(system)
    terms = training_terms(model, examples(spec, 5))
    bound = bound_of(recipe, terms)
    assert bound.shape == (5,)
    if not plain(recipe):
        return
    options = flat(recipe.training_objective)
    if options.get("beta", 1.0) == 1.0:
        torch.testing.assert_close(objective(model, terms, 1.0), bound)
    if model.prior is not None:
        analytic = {"monte-carlo": False}.get(options["divergence"])
        expected = terms.log_likelihood.mean(0) - 0.25 * options["beta"] * terms.kl(analytic)
        torch.testing.assert_close(objective(model, terms, 0.25), expected)


def test_what_is_reported_is_the_bound_whatever_was_optimised(system: tuple[Recipe, DataSpec]) -> None:
    recipe, spec = system
    model = build(system)
    o = recipe.training_objective
    terms = training_terms(model, examples(spec, 5))
    if not terms.bounded:
        expected = terms.log_likelihood.mean(0)
    elif isinstance(o, Iwae):
        expected = terms.log_weights.logsumexp(0) - torch.tensor(float(o.samples)).log()
    elif flat(o).get("divergence", "auto") == "auto":
        expected = terms.log_likelihood.mean(0) - terms.kl()
    else:
        expected = terms.log_weights.mean(0)
    torch.testing.assert_close(bound_of(recipe, terms), expected)


def test_float32(system: tuple[Recipe, DataSpec]) -> None:
    model, x = build(system).float(), examples(system[1], 5).float()
    terms = training_terms(model, x)
    assert objective(model, terms).dtype == torch.float32
    assert objective(model, terms).isfinite().all()


COMPILED = [
    (VAE(latent_dim=2, hidden=(4,)), GREY),
    (VAE(latent_dim=2, hidden=(4,)), BINARY),
    (VAE(latent_dim=2, hidden=(4,), likelihood="categorical"), LEVELS),
    (VAE(latent_dim=2, hidden=(4,), likelihood="discretized-logistic-mixture"), RGB),
    (VAE(latent_dim=2, network="convolutional", channels=(2,), objective=Iwae(samples=3)), ODD),
    (Autoencoder(latent_dim=2, hidden=(4,)), GREY),
    (LinearVAE(latent_dim=2), CONTINUOUS),
    (VAE(latent_dim=2, hidden=(4,), posterior="cholesky", prior="vamp", components=3), GREY),
    (VAE(latent_dim=2, hidden=(4,), prior="mixture", components=3, objective=Elbo(free_bits=0.1)), BINARY),
    (VAE(latent_dim=2, hidden=(4,), objective=TotalCorrelation(beta=4.0)), BINARY),
    (VAE(latent_dim=2, hidden=(4,), objective=StickingTheLanding()), BINARY),
]


@pytest.mark.compiles
@pytest.mark.parametrize("system", COMPILED, ids=system_id)
def test_the_whole_objective_compiles_to_one_graph(system: tuple[Recipe, DataSpec]) -> None:
    recipe, spec = system
    loss, x, beta = BoundStep(recipe.build(spec).double(), examples=100), examples(spec, 5), torch.tensor(0.5).double()
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    values, gradients = [], []
    for function in (loss, compiled):
        loss.zero_grad()
        torch.manual_seed(2)
        values.append(function(x, beta))
        values[-1][0].mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in loss.parameters() if p.grad is not None]))
    torch.testing.assert_close(values[0], values[1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("likelihood", "scale", "data", "expected", "resolved"),
    [
        ("auto", "auto", BINARY, Bernoulli, None),
        ("auto", "auto", GREY, DiscretizedLogisticLikelihood, "per-dimension"),
        ("auto", "auto", CONTINUOUS, Gaussian, "shared"),
        ("auto", "auto", DEQUANTIZED, Gaussian, "shared"),
        ("auto", "network", RGB, DiscretizedLogisticLikelihood, "network"),
        ("gaussian", "auto", GREY, Gaussian, "fixed"),
        ("gaussian", "per-dimension", CONTINUOUS, Gaussian, "per-dimension"),
        ("discretized-logistic", "auto", BINARY, DiscretizedLogisticLikelihood, "per-dimension"),
        ("categorical", "auto", GREY, Categorical, None),
        ("bernoulli", "auto", GREY, Bernoulli, None),
    ],
)
def test_names_become_parts(likelihood: Any, scale: Any, data: DataSpec, expected: type, resolved: str | None) -> None:
    part = VAE(latent_dim=2, hidden=(4,), likelihood=likelihood, scale=scale).build(data).likelihood
    assert type(part) is expected
    assert (part.scale or None) == resolved


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"likelihood": "categorical"}, CONTINUOUS, "levels"),
        ({"likelihood": "categorical"}, DEQUANTIZED, "dequantized"),
        ({"likelihood": "discretized-logistic"}, CONTINUOUS_IMAGE, "levels"),
        ({"likelihood": "bernoulli"}, CONTINUOUS, "continuous"),
        ({"network": "convolutional"}, LEVELS, "images"),
        ({"likelihood": "gaussian", "variance": -1.0}, CONTINUOUS, "positive"),
    ],
)
def test_options_that_cannot_model_the_data_are_refused(options: dict[str, Any], data: DataSpec, message: str) -> None:
    for recipe in (VAE, Autoencoder):
        with pytest.raises(UsageError, match=message):
            recipe(**options).build(data)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (VAE, {"latent_dim": 0}),
        (VAE, {"hidden": (4, 0)}),
        (VAE, {"channels": (-1,)}),
        (VAE, {"samples": 0}),
        (VAE, {"beta": -1.0}),
        (VAE, {"objective": "iwae", "beta": 2.0}),
        (VAE, {"objective": "iwae", "free_bits": 0.1}),
        (VAE, {"objective": "tc", "capacity": 1.0}),
        (VAE, {"objective": "capacity", "free_bits": 0.1}),
        (VAE, {"free_bits": float("nan")}),
        (VAE, {"objective": "capacity", "capacity": -1.0}),
        (VAE, {"gradient": "dreg"}),
        (VAE, {"objective": "iwae", "gradient": "stl"}),
        (VAE, {"objective": "stl", "beta": 2.0}),
        (VAE, {"objective": "score", "samples": 1}),
        (VAE, {"objective": "hybrid", "share": 1.0}),
        (VAE, {"objective": "hybrid", "prior": "vamp"}),
        (VAE, {"posterior": "dirac"}),
        (VAE, {"posterior": "dirac", "objective": "mmd"}),
        (VAE, {"posterior": "dirac", "objective": "mmd", "beta": 0.0, "prior": "vamp"}),
        (VAE, {"prior": "mixture", "components": 0}),
        (VAE, {"prior": "mixture", "beta": 0.0}),
        (VAE, {"prior": "vamp", "beta": 0.0, "objective": "mmd"}),
        (VAE, {"free_bits": 0.1, "free_bits_group": -1}),
        (VAE, {"posterior": "iaf", "transforms": 0}),
        (Autoencoder, {"latent_dim": -3}),
        (LinearVAE, {"latent_dim": 0}),
    ],
)
def test_options_out_of_range_are_refused(recipe: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        changed(recipe(), options)


@pytest.mark.parametrize(
    ("recipe", "options", "nearest"),
    [
        (VAE, {"likelihood": "gausian"}, "gaussian"),
        (VAE, {"network": "convolution"}, "convolutional"),
        (VAE, {"objective": "iwea"}, "iwae"),
        (VAE, {"activation": "rely"}, "relu"),
        (VAE, {"scale": "perdimension"}, "per-dimension"),
        (Autoencoder, {"likelihood": "categoric"}, "categorical"),
        (LinearVAE, {"posterior": "exat"}, "exact"),
    ],
)
def test_unknown_names_are_refused_and_the_nearest_offered(recipe: Any, options: dict[str, str], nearest: str) -> None:
    """A name that is not known must not become another part without a word."""
    with pytest.raises(UnknownName, match=f"Did you mean '{nearest}'"):
        changed(recipe(), options)


def test_recipes_are_found_by_name() -> None:
    assert find_recipe("vae") is VAE
    assert find_recipe("autoencoder") is Autoencoder
    assert find_recipe("linear-vae") is LinearVAE
    with pytest.raises(UnknownName, match="Did you mean 'vae'"):
        find_recipe("vea")


def test_recipes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        VAE().latent_dim = 3  # pyright: ignore[reportAttributeAccessIssue]


OLD: dict[str, Any] = {
    "objective": "elbo",
    "samples": 1,
    "gradient": "pathwise",
    "divergence": "auto",
    "beta": 1.0,
    "free_bits": 0.0,
    "free_bits_group": 1,
    "capacity": None,
    "mmd": 100.0,
    "hybrid": 1.0,
}
"""What files of the first two versions have of an objective."""


@pytest.mark.parametrize("recipe", [VAE(), CVAE(), Completion()], ids=["vae", "cvae", "completion"])
@pytest.mark.parametrize(
    ("told", "objective"),
    [
        ({}, Elbo()),
        ({"beta": 4.0, "samples": 2, "divergence": "analytic"}, Elbo(beta=4.0, samples=2, divergence="analytic")),
        ({"free_bits": 0.5, "free_bits_group": 0}, Elbo(free_bits=0.5, free_bits_group=0)),
        ({"objective": "iwae", "samples": 5, "gradient": "dreg"}, Iwae(samples=5, gradient="dreg")),
        ({"capacity": 5.0, "beta": 10.0}, Capacity(capacity=5.0, beta=10.0)),
        ({"gradient": "stl"}, StickingTheLanding()),
        ({"gradient": "score", "samples": 3}, Score(samples=3)),
        ({"objective": "tc", "beta": 6.0}, TotalCorrelation(beta=6.0)),
        ({"objective": "mmd", "beta": 0.5, "mmd": 7.0}, Mmd(beta=0.5, mmd=7.0)),
        ({"hybrid": 0.25, "beta": 2.0}, Hybrid(share=0.25, beta=2.0)),
        ({"hybrid": 0.0}, Gsnn()),
        ({"objective": "naive-monte-carlo", "samples": 9}, NaiveMonteCarlo(samples=9)),
    ],
    ids=str,
)
def test_the_second_version_had_the_options_of_the_objective_beside_its_name(
    recipe: Any, told: dict[str, Any], objective: LatentObjective
) -> None:
    old = to_json(recipe) | {"version": 2} | OLD | told
    assert from_json(old, Recipe) == dataclasses.replace(recipe, objective=objective)


@pytest.mark.parametrize("recipe", [VAE(), CVAE(), Completion()], ids=["vae", "cvae", "completion"])
def test_the_first_versions_called_the_pathwise_gradient_path(recipe: Any) -> None:
    old = to_json(recipe) | {"version": 1} | OLD
    assert from_json(old | {"gradient": "path"}, Recipe) == recipe
    assert from_json(old | {"gradient": "path", "objective": "iwae"}, Recipe).training_objective == Iwae()


def test_the_name_of_an_objective_alone_is_refused() -> None:
    wrong: Any = "iwae"
    with pytest.raises(UsageError, match=r"Iwae\(samples=5\)"):
        VAE(objective=wrong)


def test_every_named_prior_has_a_row_and_every_row_a_name() -> None:
    assert set(PRIORS) == set(get_args(PriorName))
