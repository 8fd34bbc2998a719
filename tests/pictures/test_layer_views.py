"""What each layer of a hierarchy holds: fixed layers stay, the others change, and walks keep to one layer."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

import tightbound as tb
from tightbound.data import DataSpec
from tightbound.distributions import Sampling
from tightbound.errors import UnknownName, UsageError
from tightbound.models import LatentVariableModel
from tightbound.pictures.sheets import layer_rows, layer_sheet
from tightbound.posteriors import Layers
from tightbound.recipes import CVAE, HVAE, VAE, Autoencoder, GumbelVAE, Ladder, PixelCNNRecipe
from tightbound.runtime.randomness import fixed_noise
from tightbound.views.latents import encode, layer_means, posterior_means
from tightbound.views.layers import LayerViews, evenly_chosen, redrawn
from tightbound.views.walks import interpolation, quantiles, traversal

DIGITS = DataSpec("digits", shape=(1, 8, 8), levels=17)
CHAIN = HVAE(layers=(5, 3, 2), hidden=(16,))
PACKED = Ladder(grids=(1, 4), groups=(1, 2), channels=8, latent_channels=2)
BOTH = pytest.mark.parametrize("recipe", [CHAIN, PACKED], ids=["chain", "packed"])
LEVELS = torch.tensor([0.02, 0.5, 0.98])


def built(recipe: Any, spec: DataSpec = DIGITS) -> LatentVariableModel:
    torch.manual_seed(0)
    return recipe.build(spec)


def examples(n: int = 4) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


# -- redrawn ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_layers_above_stay_and_those_below_follow(recipe: Any, layer: int) -> None:
    """With temperature 0 in the layers that are redrawn, nothing is left that could change."""
    model = built(recipe)
    cold = Sampling(layers=tuple(0.0 if i < layer else 1.0 for i in range(3)))
    with fixed_noise(1):
        views = redrawn(model, 4, how=cold)
    for i in range(1, 4):
        images, same = views.redrawn[f"z{i}"], views.sample.expand(4, 1, 8, 8)
        if i <= layer:
            torch.testing.assert_close(images, same)
        else:
            assert not torch.isclose(images, same).flatten(1).all(1).any()
            assert images.var(0).max() > 0


@BOTH
def test_every_layer_has_its_samples_the_top_first(recipe: Any) -> None:
    views = redrawn(built(recipe), 5)
    assert [*views.redrawn] == ["z3", "z2", "z1"]
    assert all(x.shape == (5, 1, 8, 8) for x in views.redrawn.values())
    assert views.sample.shape == (1, 8, 8)
    assert views.omitted == ""
    assert [views.title(name) for name in views.redrawn] == [
        "z1 to z3 redrawn, none fixed",
        "z1 and z2 redrawn, z3 fixed",
        "z1 redrawn, z2 and z3 fixed",
    ]


def test_pieces_of_many_samples_share_their_upper_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightbound.views.layers._AT_ONCE", 2)
    views = redrawn(built(PACKED), 5, how=Sampling(layers=(0.0, 1.0, 1.0)))
    torch.testing.assert_close(views.redrawn["z1"], views.sample.expand(5, 1, 8, 8))
    assert len(views.redrawn["z2"].unique(dim=0)) == 5


def test_of_many_layers_eight_are_shown_with_both_ends() -> None:
    views = redrawn(built(Ladder(grids=(1, 4), groups=(5, 6), channels=8, latent_channels=1)), 2)
    assert [*views.redrawn] == ["z11", "z10", "z8", "z7", "z5", "z4", "z2", "z1"]
    assert views.omitted == "8 of 11 layers, evenly spaced"
    assert views.title("z4") == "z1 to z4 redrawn, z5 to z11 fixed"
    assert evenly_chosen([str(i) for i in range(100)], 8)[::7] == ["0", "99"]


@pytest.mark.parametrize("recipe", [VAE(latent_dim=2, hidden=(8,)), Autoencoder(latent_dim=2, hidden=(8,))])
def test_one_latent_has_nothing_above_it(recipe: Any) -> None:
    with pytest.raises(UsageError, match=r"one layer of latents(.|\n)*hvae, ladder or vdvae"):
        redrawn(built(recipe), 2)


def test_what_cannot_be_redrawn_is_refused() -> None:
    with pytest.raises(UsageError, match="no latent"):
        redrawn(PixelCNNRecipe(channels=8, layers=1, kernel=3).build(DIGITS), 2)
    with pytest.raises(UsageError, match="At least one sample"):
        redrawn(built(CHAIN), 0)
    with pytest.raises(UsageError, match="one for each layer"):
        redrawn(built(CHAIN), 2, how=Sampling(layers=(1.0, 1.0)))


# -- temperatures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        VAE(latent_dim=2, hidden=(8,)),
        VAE(latent_dim=2, hidden=(8,), prior="mixture"),
        GumbelVAE(positions=3, classes=4, hidden=(8,)),
        PixelCNNRecipe(channels=8, layers=1, kernel=3),
    ],
    ids=["vector", "mixture", "codes", "pixels"],
)
def test_temperatures_of_layers_are_refused_without_layers(recipe: Any) -> None:
    px = built(recipe)()
    with pytest.raises(UsageError, match=r"Only a hierarchy(.|\n)*0.5, 0.7(.|\n)*hvae, ladder or vdvae"):
        px.sample((2,), Sampling(layers=(0.5, 0.7)))


@BOTH
def test_temperature_zero_in_a_layer_is_its_mean(recipe: Any) -> None:
    model = built(recipe)
    drawn = model().sample_layers((6,), Sampling(layers=(1.0, 0.0, 1.0)))
    above = cast(LatentVariableModel, model.prior).likelihood if recipe is CHAIN else None
    if above is None:
        assert (drawn["z2"] == 0).all()
    else:
        second = cast(LatentVariableModel, cast(LatentVariableModel, model.prior).prior)
        torch.testing.assert_close(drawn["z2"], second.likelihood(drawn["z3"]).mean)
    assert len(drawn["z1"].unique(dim=0)) == len(drawn["z3"].unique(dim=0)) == 6


# -- the sheet --------------------------------------------------------------------------------------------------------


def test_a_row_is_the_sample_the_others_their_mean_and_their_deviation() -> None:
    images = {"z2": torch.rand(6, 3, 8, 8), "z1": torch.full((6, 3, 8, 8), 0.5)}
    views = LayerViews(("z1", "z2"), torch.rand(3, 8, 8), images)
    head, rows = layer_rows(views, None)
    assert [title for title, _ in rows] == [
        f"z1 and z2 redrawn, none fixed; pixels deviate by {images['z2'].var(0, correction=0).mean().sqrt():.3f}",
        "z1 redrawn, z2 fixed; pixels deviate by 0.000",
    ]
    for (_, (first, middle, (mean, deviation))), x in zip(rows, images.values(), strict=True):
        assert torch.equal(first[0], views.sample)
        assert torch.equal(middle, x)
        torch.testing.assert_close(mean, x.mean(0))
        most = images["z2"].var(0, correction=0).mean(0).sqrt().max()
        torch.testing.assert_close(deviation, (x.var(0, correction=0).mean(0).sqrt() / most).expand(3, 8, 8))
    assert "6 redrawn" in head


def test_layers_that_decide_nothing_have_a_black_deviation() -> None:
    views = LayerViews(("z1", "z2"), torch.rand(1, 8, 8), {"z1": torch.full((1, 1, 8, 8), 0.5)})
    _, ((_, parts),) = layer_rows(views, None)
    assert (parts[2][1] == 0).all()
    assert layer_sheet(views, None).width > 4 * 48


# -- walks ------------------------------------------------------------------------------------------------------------


def test_a_packed_dimension_moves_alone() -> None:
    model, x = built(PACKED), examples(1)
    code, place = model().representative(x)[0], model.space.split(torch.arange(66))["z2"]
    walk = traversal(model, x[0], [3, 0], torch.tensor([-1.0, 0.0, 2.0]), layer="z2")
    assert walk.z.shape == (2, 3, 66)
    for row, dim in enumerate([3, 0]):
        assert walk.z[row, :, place[dim]].tolist() == [-1.0, 0.0, 2.0]
        others = torch.arange(66) != place[dim]
        torch.testing.assert_close(walk.z[row][:, others], code[others].expand(3, -1))
    torch.testing.assert_close(walk.mean, model().likelihood(walk.z).mean)


def test_in_a_chain_the_layers_below_are_the_means_of_their_prior() -> None:
    model, x = built(CHAIN), examples(1)
    below = cast(LatentVariableModel, model.prior)
    above = cast(LatentVariableModel, below.prior)
    codes, values = model.space.latents(x), torch.tensor([-1.0, 0.5])
    for layer, links in {"z1": [], "z2": [below], "z3": [above, below]}.items():
        z = codes[layer].expand(2, -1).clone()
        z[:, 1] = values
        for link in links:
            z = link.likelihood(z).mean
        torch.testing.assert_close(traversal(model, x[0], [1], values, layer=layer).z[0], z)
    assert torch.equal(traversal(model, x[0], [1], values).z, traversal(model, x[0], [1], values, layer="z1").z)


def test_the_layer_of_one_latent_is_that_latent() -> None:
    model, x = built(VAE(latent_dim=3, hidden=(8,))), examples(1)
    plain, named = traversal(model, x[0], [2]), traversal(model, x[0], [2], layer="z")
    assert torch.equal(plain.z, named.z)
    assert torch.equal(plain.draw, named.draw)


@BOTH
def test_unknown_layers_and_dimensions_are_refused(recipe: Any) -> None:
    model, x = built(recipe), examples(1)
    with pytest.raises(UnknownName, match=r"no layer of latents 'z4'(.|\n)*z1, z2, z3"):
        traversal(model, x[0], [0], layer="z4")
    with pytest.raises(UnknownName, match="z4"):
        quantiles(model, LEVELS, layer="z4")
    with pytest.raises(UsageError, match=r"out of range(.|\n)*0 \.\.\. 1"):
        traversal(model, x[0], [2], layer="z3")


def test_quantiles_of_a_layer_are_those_of_its_prior() -> None:
    exact = torch.distributions.Normal(0.0, 1.0).icdf(LEVELS)
    chain = built(CHAIN)
    torch.testing.assert_close(quantiles(chain, LEVELS, layer="z3"), exact.unsqueeze(1).expand(3, 2))
    torch.testing.assert_close(quantiles(built(PACKED), LEVELS, layer="z1"), exact.unsqueeze(1).expand(3, 32))
    with fixed_noise(1):
        drawn = chain().sample_layers((40_000,))
    for layer in ("z1", "z2"):
        found, told = quantiles(chain, LEVELS, layer=layer), drawn[layer].quantile(LEVELS, dim=0)
        torch.testing.assert_close(found, told, atol=0.15, rtol=0)
    torch.testing.assert_close(quantiles(chain, LEVELS), quantiles(chain, LEVELS, layer="z1"))


def test_a_walk_in_a_layer_is_given_the_condition() -> None:
    data = tb.load_data("digits")
    model = CVAE(latent_dim=2, hidden=(8,)).build(data.spec)
    x, c = model.see(data.test.batch(torch.arange(2), model.device))
    assert c is not None
    plain, named = (traversal(model, x[0], [1], c=c[0], layer=layer) for layer in (None, "z"))
    assert torch.equal(plain.mean, named.mean)
    assert not torch.equal(plain.mean, traversal(model, x[0], [1], c=c[1], layer="z").mean)


@BOTH
def test_an_interpolation_ends_at_the_reconstructions(recipe: Any) -> None:
    model, x = built(recipe), examples(4)
    walk, space = interpolation(model, x[:2], x[2:], steps=4), model.space
    for at, ends in ((0, x[:2]), (-1, x[2:])):
        torch.testing.assert_close(walk.z[:, at], model().representative(ends))
    moving = {name: z[:, 0].ne(z[:, -1]).any().item() for name, z in space.split(walk.z).items()}
    assert [*moving] == (["z1"] if isinstance(space, Layers) else ["z1", "z2", "z3"])
    assert space.taken == ("z1" if isinstance(space, Layers) else "all layers")


# -- encoding ---------------------------------------------------------------------------------------------------------


def test_a_chain_is_encoded_layer_by_layer() -> None:
    data, model = tb.load_data("digits"), built(CHAIN)
    some = data.test.subset(7)
    arrays = encode(model, some, seed=3)
    names = ("mean", "sample", "standard_deviation")
    own = {"labels", *names, *(f"{layer}_{name}" for layer in ("z2", "z3") for name in names)}
    assert set(arrays) == own
    x, _ = model.see(some.batch(torch.arange(7), model.device))
    q = cast(LatentVariableModel, model.prior).posterior
    with torch.no_grad():
        torch.testing.assert_close(arrays["mean"], model().posterior(x).mean)
        torch.testing.assert_close(arrays["z2_mean"], q(arrays["mean"]).mean)
        torch.testing.assert_close(arrays["z2_standard_deviation"], q(arrays["mean"]).stddev)
    assert arrays["z2_sample"].shape == (7, 3)
    assert arrays["z3_sample"].shape == (7, 2)
    assert torch.equal(arrays["z3_sample"], encode(model, some, seed=3)["z3_sample"])
    assert not torch.equal(arrays["z3_sample"], encode(model, some, seed=4)["z3_sample"])


def test_samples_of_a_chain_belong_together() -> None:
    """z2 is drawn given the sample of z1, not given its mean."""
    data, model = tb.load_data("digits"), built(CHAIN)
    prior = cast(LatentVariableModel, model.prior)
    with torch.no_grad():
        for parameter in prior.posterior.parameters():
            parameter.mul_(3.0)
    arrays = encode(model, data.test.subset(300))
    with torch.no_grad():
        given, wrong = prior.posterior(arrays["sample"]), prior.posterior(arrays["mean"])
        z = arrays["z2_sample"]
        assert given.log_prob(z).mean() > wrong.log_prob(z).mean() + 0.5


@BOTH
def test_the_means_of_layers_are_those_of_the_latent_that_is_decoded(recipe: Any) -> None:
    data, model = tb.load_data("digits"), built(recipe)
    some = data.test.subset(7)
    layers, whole = layer_means(model, some), posterior_means(model, some)[0]
    assert [*layers] == ["z1", "z2", "z3"]
    torch.testing.assert_close(model.space.joined(layers), whole)
    x, _ = model.see(some.batch(torch.arange(7), model.device))
    for name, z in model.space.latents(x).items():
        torch.testing.assert_close(layers[name], z.detach())


def test_dimensions_are_named_by_their_layers() -> None:
    packed = built(PACKED).space
    assert packed.layer_of_each(66) == ["z3"] * 2 + ["z2"] * 32 + ["z1"] * 32
    assert packed.dimension_names(66)[:4] == ["z3[0]", "z3[1]", "z2[0]", "z2[1]"]
    assert built(CHAIN).space.dimension_names(5) == [f"z1[{i}]" for i in range(5)]
    assert built(VAE(latent_dim=2, hidden=(8,))).space.dimension_names(2) == ["z0", "z1"]
