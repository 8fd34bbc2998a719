"""Recipes of hierarchies: what their options build, and what they refuse."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from instances import HIERARCHIES, examples, system_id
from tightbound import objectives
from tightbound.data import DataSpec
from tightbound.errors import UsageError
from tightbound.objectives import elbo, iwae
from tightbound.options.objectives import Elbo, Iwae, LatentObjective, TotalCorrelation
from tightbound.posteriors import PackedLayers
from tightbound.recipes import HVAE, VDVAE, Ladder, Recipe
from tightbound.recipes.ladder import SizeName, TopDownRecipe

MNIST = DataSpec("mnist", shape=(1, 28, 28), levels=2)
VECTORS = DataSpec("vectors", shape=(6,), levels=None)
WIDE = DataSpec("wide", shape=(3, 16, 32), levels=256)


def linear_layers(part: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in part.modules() if isinstance(m, nn.Linear)]


def test_the_two_layer_network_of_the_iwae_paper_is_options_alone() -> None:
    recipe = HVAE(layers=(100, 50), hidden=(200, 100), activation="tanh", likelihood="bernoulli")
    model = recipe.build(MNIST)
    assert linear_layers(model.posterior) == [(784, 200), (200, 200), (200, 200)]
    assert linear_layers(model.likelihood) == [(100, 200), (200, 200), (200, 784)]
    assert linear_layers(model.prior.posterior) == [(100, 100), (100, 100), (100, 100)]
    assert linear_layers(model.prior.likelihood) == [(50, 100), (100, 100), (100, 200)]


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_a_chain_has_any_depth(depth: int) -> None:
    model = HVAE(layers=tuple(range(8, 8 - depth, -1)), hidden=(16,)).build(VECTORS)
    terms = model().terms(torch.randn(5, 6), k=3)
    assert [entry.name for entry in terms.entries] == list(model.space.names)
    assert len(terms.entries) == depth
    assert terms.exact
    assert [latent.analytic for latent in terms.latents] == [False] * (depth - 1) + [True]
    assert iwae(terms).isfinite().all()
    assert elbo(terms).isfinite().all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": ()}, "at least one latent"),
        ({"layers": (8, 16)}, "must not grow"),
        ({"layers": (8, 0)}, "at least one unit"),
        ({"layers": (8, 4), "hidden": (3, 3, 3)}, "Each layer has one width"),
        ({"hidden_layers": 0}, "at least one unit"),
        ({"objective": TotalCorrelation()}, "one latent"),
        ({"objective": Iwae(samples=5, gradient="dreg")}, "one latent"),
        ({"objective": Elbo(divergence="analytic")}, "no closed form"),
    ],
)
def test_a_chain_refuses(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        HVAE(**options)  # pyright: ignore[reportArgumentType]
    assert "got" in str(refused.value)


@pytest.mark.parametrize("recipe", [Ladder, VDVAE])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"grids": ()}, "at least one group"),
        ({"groups": ()}, "at least one group"),
        ({"groups": (0,)}, "at least one unit"),
        ({"grids": (7, 1)}, "must rise"),
        ({"grids": (7, 7)}, "must rise"),
        ({"latent_channels": 0}, "at least one unit"),
        ({"posterior": "sum"}, "sum"),
        ({"objective": TotalCorrelation()}, "one latent"),
    ],
)
def test_a_top_down_hierarchy_refuses(recipe: type[TopDownRecipe], options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        recipe(**options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "data", "says"),
    [
        ({"grids": (1, 5)}, MNIST, "must divide"),
        ({"grids": (1, 56)}, MNIST, "no room"),
        ({"groups": (1, 2, 3)}, MNIST, "3 numbers for 2 grids"),
        ({}, VECTORS, "needs images"),
        ({"grids": (1, 9)}, DataSpec("odd", shape=(3, 24, 20), levels=256), "must divide"),
        ({"grids": (1,), "groups": (100,)}, DataSpec("digits", shape=(1, 8, 8), levels=17), "no room for so many"),
        ({"latent_channels": 10_000}, MNIST, "no room for so many"),
    ],
)
def test_grids_that_an_image_cannot_have_are_refused(options: dict[str, object], data: DataSpec, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        Ladder(**options).build(data)  # pyright: ignore[reportArgumentType]
    assert "--" in str(refused.value) or "recipe hvae" in str(refused.value)


def test_every_size_has_grids_that_the_image_can_have() -> None:
    for shape in ((1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 8, 8), (3, 16, 32), (3, 30, 30), (1, 7, 13), (1, 13, 13)):
        data = DataSpec("some", shape=shape, levels=256)
        for recipe in (Ladder, VDVAE):
            for size in get_args(SizeName):
                grids = [grid for grid, _ in recipe(size=size).levels(data)]
                assert shape[1] % grids[-1][0] == 0
                assert grids == sorted(set(grids))


def test_a_wide_image_has_wide_grids() -> None:
    model = Ladder(grids=(1, 2, 4), groups=(1,), channels=8).build(WIDE)
    assert [group.size for group in model.likelihood.network.groups] == [(8, 1, 2), (8, 2, 4), (8, 4, 8)]
    assert model().sample((2,)).shape == (2, 3, 16, 32)


def test_a_new_posterior_is_its_prior() -> None:
    model = VDVAE(channels=8, grids=(1, 7), groups=(2, 2)).build(MNIST)
    assert model().terms(torch.rand(3, 1, 28, 28)).kl().abs().max() < 1e-5
    free = VDVAE(channels=8, grids=(1, 7), groups=(2, 2), zero_last=False, scale_last=False).build(MNIST)
    assert free().terms(torch.rand(3, 1, 28, 28)).kl().min() > 0


def test_every_parameter_of_a_hierarchy_learns() -> None:
    for recipe in (Ladder(posterior="merge", channels=8), VDVAE(channels=8), HVAE(layers=(4, 3), hidden=(8,))):
        model = recipe.build(MNIST)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * torch.randn_like(p))
        objectives.elbo(model().terms(torch.rand(3, 1, 28, 28))).sum().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []


def test_objectives_say_whether_they_need_one_latent() -> None:
    assert {cls.__name__ for cls in LatentObjective.__subclasses__() if cls().one_latent} == {
        "TotalCorrelation",
        "Mmd",
        "StickingTheLanding",
    }


@pytest.mark.parametrize("system", HIERARCHIES, ids=system_id)
def test_an_example_does_not_depend_on_its_batch(system: tuple[Recipe, DataSpec]) -> None:
    recipe, spec = system
    model, x = recipe.build(spec).double(), examples(spec, 6)
    q, z = model().posterior(x), model().terms(x, k=2).latents[0].z
    z = q.sample((2,)) if isinstance(model.space, PackedLayers) else z
    density, likelihood = q.log_prob(z), model().likelihood(z).log_prob(x)
    for part in ([0], [4], [5, 3, 0]):
        torch.testing.assert_close(model().posterior(x[part]).log_prob(z[:, part]), density[:, part])
        torch.testing.assert_close(model().likelihood(z[:, part]).log_prob(x[part]), likelihood[:, part])


@pytest.mark.parametrize("system", HIERARCHIES, ids=system_id)
def test_kls_sum_layer_by_layer(system: tuple[Recipe, DataSpec]) -> None:
    recipe, spec = system
    terms = recipe.build(spec).double()().terms(examples(spec, 5), k=3)
    by_layer = torch.stack([entry.kl().flatten(1).sum(1) for entry in terms.entries])
    torch.testing.assert_close(terms.kl(), by_layer.sum(0))
    torch.testing.assert_close(elbo(terms), terms.log_likelihood.mean(0) - by_layer.sum(0))
