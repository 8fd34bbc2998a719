"""The dVAE: its grid of codes, the published weights in this project's units, and bounds with discrete codes."""

from __future__ import annotations

import dataclasses
import math
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from instances import examples, objective_of, terms_with, without_gradient
from tightbound.annealing import weight
from tightbound.data import Data, DataSpec, load_data
from tightbound.errors import UsageError
from tightbound.evaluation import evaluate
from tightbound.evaluation.collapse.relaxation import relaxation_gap
from tightbound.evaluation.latents.codes import code_usage
from tightbound.likelihoods import LogitLaplaceLikelihood
from tightbound.models import LatentVariableModel
from tightbound.objectives import elbo
from tightbound.posteriors import categorical
from tightbound.recipes import DVAE
from tightbound.reporting.command import changed
from tightbound.spec import from_json, to_json
from tightbound.training import train

RGB = DataSpec("rgb", (3, 16, 24), levels=256)
DALLE = DataSpec("the paper's images", (3, 256, 256), levels=256)
SMALL = DVAE(codes=5, channels=(6, 8), blocks=1, activation="tanh")
LAPLACE = dataclasses.replace(SMALL, likelihood="logit-laplace")


def build(recipe: DVAE = SMALL, spec: DataSpec = RGB) -> LatentVariableModel:
    return recipe.build(spec).double()


# -- the paper's numbers ----------------------------------------------------------------------------------------------


def test_the_papers_weight_of_the_divergence_in_these_units() -> None:
    """The paper divides the sum over 256 x 256 x 3 entries and the sum over 32 x 32 positions both by the former.

    What it then calls the KL term's weight, 6.6 / 192, stands before the mean over the positions.
    """
    recipe = DVAE.dalle()
    entries, positions = 256 * 256 * 3, 32 * 32
    assert entries / positions == 192
    assert recipe.weight_of_means(DALLE) == pytest.approx(6.6 / 192)
    log_likelihood, kl = torch.tensor(-1.7 * entries).double(), torch.full((positions,), 4.2).double()
    paper = -log_likelihood / entries + 6.6 / 192 * kl.mean()
    here = -(log_likelihood - recipe.beta * kl.sum())
    torch.testing.assert_close(here / entries, paper)
    assert recipe.beta == 6.6


@pytest.mark.parametrize("beta", [1.0, 6.6])
def test_the_objective_divided_by_the_entries_is_the_papers(beta: float) -> None:
    recipe = DVAE(codes=5, channels=(6, 8), blocks=1, beta=beta)
    terms = build(recipe)().terms(examples(RGB, 3))
    kl = terms.latents[0].kl()
    assert kl.shape == (3, 4 * 6)
    means = -terms.log_likelihood.mean(0) / RGB.dimensions + recipe.weight_of_means(RGB) * kl.mean(1)
    torch.testing.assert_close(-objective_of(recipe, terms, 1.0) / RGB.dimensions, means)


def test_the_papers_codes_and_temperatures() -> None:
    recipe = DVAE.dalle()
    assert recipe.codes == 8192
    assert recipe.prior == "uniform"
    assert not recipe.straight_through
    temperatures = [recipe.temperature_at(step, 3_000_000) for step in (0, 75_000, 150_000, 2_999_999)]
    assert temperatures == pytest.approx([1.0, (1 + 1 / 16) / 2, 1 / 16, 1 / 16])
    training = DVAE.dalle_training()
    assert (training.steps, training.batch_size, training.lr) == (3_000_000, 512, 1e-4)
    assert (training.weight_decay, training.ema, training.beta_schedule) == (1e-4, 0.999, "cosine")
    rise = [weight(step, training.warmup_steps(1_000_000), training.beta_schedule) for step in (0, 2499, 4999, 100_000)]
    assert rise == pytest.approx([0, 0.5, 1, 1], abs=1e-3)


def test_the_printed_command_has_the_papers_numbers() -> None:
    words = iter(shlex.split((DVAE.__doc__ or "").split("$ ")[1].split("\n\n")[0]))
    assert [next(words) for _ in range(3)] == ["tightbound", "train", "dvae"]
    given: dict[str, list[str]] = {}
    values: list[str] = []
    for word in words:
        if word.startswith("--"):
            values = given.setdefault(word[2:].replace("-", "_"), [])
        else:
            values.append(word)
    images = {name: given.pop(name) for name in ("data", "image_size", "color", "out")}
    assert (images["image_size"], images["color"]) == (["256"], ["rgb"])
    wanted = {**changed(DVAE.dalle()), **changed(DVAE.dalle_training())}
    assert {name: tuple(map(as_number, values)) for name, values in given.items()} == {
        name: value if isinstance(value, tuple) else (value,) for name, value in wanted.items()
    }


def as_number(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


def test_the_likelihood_is_logit_laplace_with_the_papers_margin() -> None:
    assert DVAE.dalle().likelihood == "logit-laplace"
    likelihood: Any = build(LAPLACE).likelihood
    assert isinstance(likelihood, LogitLaplaceLikelihood)
    assert likelihood.eps == 0.1
    assert likelihood.features(build(LAPLACE)().sample_latent((4,))).shape == (4, 2, *RGB.shape), "6 output maps"


# -- the grid ---------------------------------------------------------------------------------------------------------


def test_shapes() -> None:
    model, x = build(), examples(RGB, 7)
    q: Any = model.posterior
    assert (q.grids, q.levels) == (((4, 6),), (5,))
    (codes,) = q.codes(x)
    assert codes.shape == (7, 4, 6)
    z = q.embed((codes,))
    assert z.shape == (7, 4 * 6, 5)
    assert torch.equal(q.codes_of(z)[0], codes)
    assert model.likelihood(z).mean.shape == (7, *RGB.shape)
    assert model().sample((2,)).shape == (2, *RGB.shape)
    assert from_json(to_json(SMALL), DVAE) == SMALL


@torch.no_grad()
def test_a_code_lies_where_its_part_of_the_image_is() -> None:
    """Encoder and decoder agree on rows and columns."""
    spec = DataSpec("wide", (1, 32, 64), levels=256)
    model = build(DVAE(codes=5, channels=(6, 8), blocks=0), spec).eval()
    q: Any = model.posterior
    logits, changed = q.features(torch.zeros(1, *spec.shape).double()), torch.zeros(1, *spec.shape).double()
    changed[..., 8:12, 40:44] = 1  # position (2, 10) of 8 x 16
    moved = (q.features(changed) - logits)[0].abs().sum(-1).view(8, 16)
    rows, columns = (moved > 0).nonzero(as_tuple=True)
    assert (set(rows.tolist()), set(columns.tolist())) == ({0, 1, 2, 3, 4}, {8, 9, 10, 11, 12})
    codes = torch.zeros(1, 8, 16, dtype=torch.int64)
    before = model.likelihood(q.embed((codes,))).mean
    codes[0, 2, 10] = 3
    difference = (model.likelihood(q.embed((codes,))).mean - before)[0, 0].abs()
    inside = torch.zeros_like(difference, dtype=torch.bool)
    inside[4:16, 36:48] = True  # of that position, and a kernel's reach
    assert difference[8:12, 40:44].sum() > 0
    assert difference[~inside].sum() == 0


@pytest.mark.parametrize(("shape", "channels"), [((3, 30, 32), (4, 4)), ((1, 28, 28), (4, 4, 4)), ((20,), (4,))])
def test_a_grid_that_cannot_be_made_is_refused(shape: tuple[int, ...], channels: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="halv"):
        DVAE(channels=channels).build(DataSpec("odd", shape, levels=256))


@pytest.mark.parametrize("options", [{"codes": 1}, {"channels": (0,)}, {"blocks": -1}, {"beta": -1.0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DVAE(**options)


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("straight_through", [False, True])
def test_the_gradient_reaches_every_parameter(straight_through: bool) -> None:
    recipe = DVAE(codes=5, channels=(6, 8), blocks=1, activation="tanh", straight_through=straight_through)
    model = build(recipe)
    objective_of(recipe, model().terms(examples(RGB, 3)), 1.0).sum().backward()
    assert without_gradient(model) == []


def test_the_loss_of_an_example_does_not_depend_on_its_batch() -> None:
    model, x = build(), examples(RGB, 4)
    terms = model().terms(x)
    together = objective_of(SMALL, terms)
    z = terms.latents[0].z.detach()
    alone = objective_of(SMALL, terms_with(model, x[[2]], z[:, [2]]))
    torch.testing.assert_close(alone, together[[2]])


def rows_of(data: Data) -> Tensor:
    return data.test.batch(torch.arange(len(data.test))).x


def test_it_learns_the_digits_and_its_bound_is_of_discrete_codes(tmp_path: Path) -> None:
    data = load_data("digits")
    recipe = DVAE(
        codes=16, channels=(16, 16), blocks=1, norm=True, activation="silu", likelihood="discretized-logistic"
    )
    model = recipe.build(data.spec)
    before = evaluate(model, data.test.subset(100), k=5)
    train(model, data, steps=300, lr=5e-3, out=tmp_path / "run", pictures=False)
    after = evaluate(model, data.test.subset(100), k=5)
    assert before.elbo is not None
    assert after.elbo is not None
    assert after.elbo.value > before.elbo.value + 60
    assert after.kl is not None
    assert 1 < after.kl.value < 4 * math.log(16)
    posterior: Any = model.posterior
    assert posterior.temperature.item() < 1
    found = relaxation_gap(model, data.test.subset(100), samples=20)
    assert found.hard.value == pytest.approx(after.elbo.value, abs=3)
    with torch.no_grad():
        assert set(model.eval()().terms(rows_of(data)).latents[0].z.unique().tolist()) == {0.0, 1.0}


def test_the_defaults_use_their_codes_on_the_digits(tmp_path: Path) -> None:
    data = load_data("digits")
    model = DVAE().build(data.spec)
    train(model, data, steps=300, out=tmp_path / "run", pictures=False)
    found = evaluate(model, data.test, k=1)
    assert found.kl is not None
    assert found.codebook_usage is not None
    assert found.kl.value > 1
    assert found.codebook_usage > 0.05


@torch.no_grad()
def test_a_start_holds_no_more_logits_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DVAE(codes=16, channels=(8,)).build(load_data("digits").spec)
    posterior: Any = model.posterior
    assert posterior.examples_wanted == 20_000 // 16
    monkeypatch.setattr(categorical, "AT_ONCE", 3 * 16 * 16)
    sizes, features = list[int](), posterior.features
    monkeypatch.setattr(posterior, "features", lambda x: sizes.append(len(x)) or features(x))
    posterior.initialise(torch.rand(10, 1, 8, 8))
    assert sizes == [3, 3, 3, 1]


@torch.no_grad()
def test_logits_start_with_one_spread_for_every_class() -> None:
    data = load_data("digits")
    model = DVAE(codes=16, channels=(8,)).build(data.spec)
    x = data.train.batch(torch.arange(600)).x
    posterior: Any = model.posterior
    posterior.initialise(x)
    logits = posterior.features(x).flatten(0, -2)
    torch.testing.assert_close(logits.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(logits.std(0), torch.ones(16), atol=1e-3, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "likelihood", ["logit-laplace", "gaussian", "discretized-logistic", "categorical", "bernoulli"]
)
def test_every_likelihood_of_pixels(likelihood: Any) -> None:
    spec = DataSpec("grey", (1, 8, 8), levels=5)
    model = build(DVAE(codes=5, channels=(6, 8), blocks=1, likelihood=likelihood), spec)
    x = examples(spec, 3)
    assert elbo(model().terms(x)).shape == (3,)
    model.likelihood.initialise(x)  # pyright: ignore
    assert model().terms(x).log_likelihood.isfinite().all()


@pytest.mark.parametrize(
    ("likelihood", "dequantize", "named"),
    [
        ("logit-laplace", False, True),
        ("logit-laplace", True, False),
        ("auto", False, False),
    ],
)
def test_the_remedy_of_a_collapse_names_the_likelihood_where_it_applies(
    likelihood: Any, dequantize: bool, named: bool
) -> None:
    data = load_data("digits", dequantize=dequantize)
    model = DVAE(codes=500, channels=(4, 4), blocks=0, likelihood=likelihood).build(data.spec)
    with torch.no_grad():
        model.posterior.network.last_layer.weight.zero_()  # pyright: ignore
    (note,) = code_usage(model, data.train.subset(200)).notes
    assert "collapsed to 1 of 500" in note
    assert ("--likelihood auto" in note) == named


def test_a_density_of_pixels_becomes_a_bound_on_their_probability_by_dequantisation() -> None:
    likelihood: Any = build(LAPLACE).likelihood
    assert likelihood.measure(RGB).kind == "density"
    assert likelihood.measure(DataSpec("rgb", RGB.shape, levels=256, dequantized=True)).kind == "bound"
