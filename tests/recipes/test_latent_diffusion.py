"""The autoencoders of latent diffusion as recipes: their weights, crops, sizes and refusals."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import tightbound as tb
from tightbound.assembly.latent_diffusion import of_sides
from tightbound.data import DataSpec
from tightbound.errors import UsageError
from tightbound.objectives.rows import rows
from tightbound.options.objectives import Elbo
from tightbound.options.published import PublishedQuantized, WeakKL
from tightbound.recipes import KLAutoencoder, Recipe, VQAutoencoder
from tightbound.training import loop
from tightbound.training.crops import random_crops
from tightbound.training.start import build_seeded

SPEC = DataSpec("rgb", (3, 8, 12), levels=256)
SMALL: dict[str, Any] = {"factor": 2, "channels": (8, 8), "groups": 4}


def built(recipe: Recipe, spec: DataSpec = SPEC) -> Any:
    torch.manual_seed(0)
    return recipe.build(spec).double()


def batch(n: int = 3, spec: DataSpec = SPEC) -> torch.Tensor:
    return torch.randint(256, (n, *spec.shape)).double() / 255


@pytest.mark.parametrize("likelihood", ["laplace", "gaussian"])
def test_the_published_weight_of_the_kl_is_that_of_its_loss(likelihood: Any) -> None:
    """The gradient is that of the published sum: errors of images in [-1, 1] plus 1e-6 KL."""
    model = built(KLAutoencoder(**SMALL, likelihood=likelihood, spread=0.03))
    x, one = batch(), torch.ones((), dtype=torch.float64)
    network = [*model.posterior.parameters(), *model.likelihood.network.parameters()]
    torch.manual_seed(1)
    objective = rows(WeakKL(weight=1e-2), model(), x, one, 1)[0].sum()
    mine = torch.autograd.grad(objective, network)
    torch.manual_seed(1)
    terms = model().terms(x, 1)
    error = 2 * (x - model.likelihood(terms.latents[0].z).mean)
    loss = (error.abs() if likelihood == "laplace" else error.square()).sum() + 1e-2 * terms.kl().sum()
    theirs = torch.autograd.grad(loss, network)
    unit = 1 / (2 * 0.03) if likelihood == "laplace" else 1 / (8 * 0.03**2)
    for one_of_mine, one_of_theirs in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one_of_mine, -unit * one_of_theirs, rtol=1e-6, atol=1e-6)


def test_the_equivalent_weight_in_nats_is_told() -> None:
    for likelihood, unit in {"laplace": 1 / (2 * 0.03), "gaussian": 1 / (8 * 0.03**2)}.items():
        recipe = KLAutoencoder(**SMALL, likelihood=likelihood, spread=0.03)  # pyright: ignore
        assert recipe.equivalents(built(recipe)) == {"equivalent_beta": pytest.approx(1e-6 * unit)}
    assert KLAutoencoder(**SMALL, kl_weight=0.1).equivalents(built(KLAutoencoder(**SMALL))) == {}


def test_a_weight_in_nats_is_that_of_the_elbo() -> None:
    assert KLAutoencoder(kl_weight=0.5).training_objective == Elbo(beta=0.5)
    assert KLAutoencoder().training_objective == WeakKL(weight=1e-6)


def test_the_published_weight_of_the_commitment_is_between_means() -> None:
    model = built(VQAutoencoder(**SMALL, codes=8, quantizer="gradient", spread=0.03))
    x, one = batch(), torch.ones((), dtype=torch.float64)
    model.posterior.initialise(x)
    model.eval()
    found = rows(PublishedQuantized(codebook=1.0, commitment=0.25), model(), x, one, 1)[0]
    z = model.posterior.network(x)
    vectors = model.posterior.quantizers[0](z).vectors
    distance = (z - vectors).square().mean((1, 2, 3))
    error = (2 * (x - model.likelihood(vectors).mean)).abs().mean((1, 2, 3))
    entries = math.prod(SPEC.shape)
    nats = entries / 0.06 * (error + 1.25 * distance) + entries * math.log(0.06)
    torch.testing.assert_close(found, -nats, rtol=1e-5, atol=1e-4)


def test_the_elbo_of_a_laplace_likelihood_is_its_density() -> None:
    model = built(KLAutoencoder(**SMALL))
    x = batch()
    terms = model().terms(x, 1)
    px = model.likelihood(terms.latents[0].z)
    by_hand = -(x - px.mean).abs().sum((-1, -2, -3)) / 0.1 - math.prod(SPEC.shape) * math.log(0.2)
    torch.testing.assert_close(terms.log_likelihood, by_hand, rtol=1e-5, atol=1e-5)
    assert model.measure(SPEC).kind == "density"
    assert model.measure(DataSpec("rgb", (3, 8, 12), levels=256, dequantized=True)).kind == "bound"
    other = built(KLAutoencoder(**SMALL, likelihood="discretized-logistic", kl_weight=0.1))
    assert other.measure(SPEC).kind == "mass"


def test_latent_noise_is_the_least_deviation_of_the_posterior() -> None:
    model = built(KLAutoencoder(**SMALL, latent_noise=0.3))
    plain = built(KLAutoencoder(**SMALL))
    x = batch()
    q, p = model.posterior(x), plain.posterior(x)
    torch.testing.assert_close(q.variance, p.variance + 0.09)
    torch.testing.assert_close(q.mean, p.mean)


def test_crops_are_cut_out_of_their_images() -> None:
    x = torch.arange(2 * 3 * 6 * 8).view(2, 3, 6, 8)
    torch.manual_seed(0)
    seen = set()
    for _ in range(200):
        for image, crop in zip(x, random_crops(x, (4, 5)), strict=True):
            places = [(i, j) for i in range(3) for j in range(4) if torch.equal(image[:, i : i + 4, j : j + 5], crop)]
            assert len(places) == 1
            seen.update(places)
    assert len(seen) == 12


@pytest.mark.parametrize("recipe", [KLAutoencoder(**SMALL), VQAutoencoder(**SMALL, codes=8)])
def test_a_model_of_other_sides_is_the_same_network(recipe: Any) -> None:
    model = built(recipe).eval()
    small = of_sides(model, (4, 6))
    assert [p.data_ptr() for p in small.parameters()] == [p.data_ptr() for p in model.parameters()]
    again = of_sides(small, SPEC.shape[1:])
    x = batch()
    torch.testing.assert_close(again.posterior(x).mean, model.posterior(x).mean)
    assert small().lower_bound(x[..., :4, :6]).shape == (3,)
    assert model.likelihood.shape == SPEC.shape


@pytest.mark.parametrize("recipe", ["kl", "vq"])
def test_training_on_crops_evaluates_whole_images_and_resumes(recipe: str, tmp_path: Path) -> None:
    data = tb.load_data("digits")
    own = {**SMALL, "train_crop": 4}
    chosen = KLAutoencoder(**own) if recipe == "kl" else VQAutoencoder(**own, codes=8)
    options = {"batch_size": 32, "pictures": False, "device": "cpu", "evaluate_every": 5, "steps": 10}
    model = lambda: build_seeded(chosen, data.spec, 0)
    tb.train(model(), data, out=tmp_path / "whole", **options)
    stop_at_five(model(), data, tmp_path / "parts", options)
    tb.train(model(), data, out=tmp_path / "parts", resume=True, **options)
    one, other = tb.load(tmp_path / "whole"), tb.load(tmp_path / "parts")
    for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def stop_at_five(model: Any, data: Any, out: Path, options: dict[str, Any]) -> None:
    """A training of ten steps that is stopped by a signal after the fifth."""
    before, count = loop.Engine.advance, [0]

    def advance(engine: Any, at: Any) -> Any:
        count[0] += 1
        if count[0] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return before(engine, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Engine, "advance", advance)
        assert tb.train(model, data, out=out, **options).step == 5


def test_sides_that_the_factor_does_not_divide() -> None:
    spec = DataSpec("odd", (1, 7, 9), levels=5)
    recipe = KLAutoencoder(**{**SMALL, "factor": 4, "channels": (8, 8, 8)})
    model = built(recipe, spec)
    x = torch.rand(2, 1, 7, 9).double()
    assert model.posterior(x).event_shape == (4, 2, 3)
    assert model().sample((2,)).shape == x.shape
    assert "images of 7 x 9 are padded to 8 x 12" in " ".join(recipe.chosen(spec))


def test_the_last_width_is_repeated() -> None:
    assert KLAutoencoder(factor=16).widths == (32, 64, 128, 128, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 2, "channels": (8, 8, 8)}, "resolutions"),
        ({"train_crop": 20, "factor": 8}, "multiple of the factor"),
        ({"attention": (3,)}, "no such grid"),
        ({"spread": 0.0}, "positive"),
        ({"kl_weight": "published", "likelihood": "discretized-logistic"}, "published"),
        ({"kl_weight": -1.0}, "out of range"),
        ({"kl_weight": "weak"}, "weight of the KL"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        KLAutoencoder(**options)


def test_data_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="images"):
        built(KLAutoencoder(**SMALL), DataSpec("vectors", (5,), levels=None))
    with pytest.raises(UsageError, match="crops"):
        built(KLAutoencoder(**SMALL, train_crop=64))
