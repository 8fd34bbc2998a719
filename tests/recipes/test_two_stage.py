"""The second stage: priors over codes and vectors, fitted to encoded latents and put in the prior's place."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Distribution, Independent, Normal

import tightbound as tb
from instances import within_error
from tightbound import checkpoint
from tightbound.assembly.second_stage import new_prior
from tightbound.autoregressive import AutoregressivePrior
from tightbound.cli.main import main
from tightbound.conditions import Given
from tightbound.data import Data, DataOptions, DataSpec
from tightbound.distributions import CodePoint, Sampling
from tightbound.errors import UsageError
from tightbound.evaluation import evaluate
from tightbound.models import LatentVariableModel
from tightbound.objectives import elbo
from tightbound.options.priors import FlowPrior, MixturePrior, PixelCNNPrior, SecondPrior, TransformerPrior
from tightbound.options.training import TrainingOptions
from tightbound.posteriors import Draws
from tightbound.recipes import CVAE, VAE, GumbelVAE, PixelCNNRecipe, Stage, TransformerRecipe, TwoStage
from tightbound.recipes.vq_vae import VQVAE, VQVAE2
from tightbound.reporting import reproduction_command
from tightbound.reporting.material import gather
from tightbound.reporting.visuals import curves
from tightbound.runs import RunFolder
from tightbound.spec import _kinds, from_json, register, to_json  # pyright: ignore[reportPrivateUsage]
from tightbound.training.encoded import encoded_data, kept_as
from tightbound.training.second_stage import fit_prior
from tightbound.training.steps.prior import PriorStep

QUICK: dict[str, Any] = {"steps": 30, "batch_size": 20, "pictures": False, "evaluate_every": 15, "save_every": 1e9}
SMALL: dict[str, SecondPrior] = {
    "pixelcnn": PixelCNNPrior(layers=2, channels=8, kernel=3, heads=2, dropout=0.0),
    "transformer": TransformerPrior(layers=2, width=16, heads=2, dropout=0.0),
    "mixture": MixturePrior(components=5),
    "flow": FlowPrior(transforms=1),
}


def images(n: int = 80, **options: Any) -> Data:
    generator = np.random.default_rng(0)
    values = np.zeros((n, 8, 8), np.uint8)
    labels = generator.integers(0, 2, n)
    values[labels == 0, :, :4] = 6
    values[labels == 1, :4, :] = 6
    values += generator.integers(0, 2, values.shape).astype(np.uint8)
    return Data.from_arrays(values, labels=labels, levels=8, **options)


def vq() -> VQVAE:
    return VQVAE(codes=6, code_dim=4, channels=(8,), blocks=1, likelihood="categorical")


def gumbel() -> GumbelVAE:
    return GumbelVAE(positions=6, classes=4, hidden=(8,), likelihood="categorical")


def two_level() -> VQVAE2:
    return VQVAE2(codes=5, code_dim=4, channels=(8,), blocks=0, likelihood="categorical")


@pytest.fixture(scope="module")
def data() -> Data:
    return images()


@pytest.fixture(scope="module")
def first(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first")
    tb.train(vq().build(data.spec), data, out=out, **QUICK)
    return out


@pytest.fixture(scope="module")
def vectors(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vectors")
    tb.train(VAE(latent_dim=2, hidden=(8,)).build(data.spec), data, out=out, **QUICK)
    return out


def small(kind: str, **options: Any) -> SecondPrior:
    return dataclasses.replace(SMALL[kind], **options)


def of_kind(kind: str, first: Any = None, **options: Any) -> Any:
    return TwoStage(Stage(first or vq()), small(kind, **options)).build(images().spec).eval()


# -- the prior --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pixelcnn", "transformer"])
@pytest.mark.parametrize("recipe", [vq(), two_level(), gumbel()])
def test_the_masses_of_all_codes_sum_to_one_level_by_level(kind: str, recipe: Any) -> None:
    """Exactly for the first codes of each level: what follows is summed out by the chain rule."""
    model = of_kind(kind, recipe).double()
    prior: Any = model.prior()
    posterior: Any = model.posterior
    codes = tuple(torch.randint(k, (1, *g)) for k, g in zip(posterior.levels, posterior.grids, strict=True))
    place = 0
    for level, k in enumerate(posterior.levels):
        for position in (0, 1, math.prod(posterior.grids[level]) - 1):
            varied = tuple(c.expand(k, *c.shape[1:]).clone() for c in codes)
            varied[level].flatten(1)[:, position] = torch.arange(k)
            each = prior.code_log_prob(varied)[:, place + position]
            assert each.exp().sum().item() == pytest.approx(1.0, abs=1e-10)
        place += math.prod(posterior.grids[level])


@pytest.mark.parametrize("kind", ["pixelcnn", "transformer"])
@pytest.mark.parametrize("recipe", [vq(), gumbel()])
def test_samples_follow_the_masses(kind: str, recipe: Any) -> None:
    model: Any = of_kind(kind, recipe)
    (grid,), (levels,) = model.posterior.grids, model.posterior.levels
    torch.manual_seed(0)
    codes = model.prior().sample_codes((1500,))
    log_probs = model.prior().code_log_prob(codes).sum(1)
    own = model.prior().log_prob(model.posterior.embed(codes))
    torch.testing.assert_close(own, log_probs, rtol=1e-4, atol=1e-3)
    first = codes[0].flatten(1)[:, 0]
    codes = [torch.full((1, *grid), k) for k in range(levels)]
    masses = torch.stack([model.prior().code_log_prob((each,))[0, 0] for each in codes]).exp()
    for k in range(levels):
        assert within_error((first == k).double().unsqueeze(1), masses[k].detach().double(), errors=5)


@pytest.mark.parametrize("kind", ["pixelcnn", "transformer"])
def test_the_lower_level_is_given_the_one_above_and_not_the_other_way(kind: str) -> None:
    model = of_kind(kind, two_level())
    with torch.no_grad():
        for p in model.prior.grids.parameters():
            p.add_(0.3 * torch.randn_like(p))
    (gt, gb), (kt, kb) = model.posterior.grids, model.posterior.levels
    top, bottom = torch.randint(kt, (1, *gt)), torch.randint(kb, (1, *gb))
    n = math.prod(gt)
    plain = model.prior().code_log_prob((top, bottom))
    other = model.prior().code_log_prob(((top + 1) % kt, bottom))
    below = model.prior().code_log_prob((top, (bottom + 1) % kb))
    assert (plain[:, n:] != other[:, n:]).all()
    torch.testing.assert_close(plain[:, :n], below[:, :n])


@pytest.mark.parametrize("kind", ["pixelcnn", "transformer"])
def test_the_condition_reaches_the_prior_alone_and_guidance_follows_it(kind: str) -> None:
    model = of_kind(kind, condition="class")
    with torch.no_grad():
        for p in model.prior.grids.parameters():
            p.add_(0.3 * torch.randn_like(p))
    batch = images().test.batch(torch.arange(6))
    zero, one = (model(Given({"class": torch.full((6, 1), label)})) for label in (0, 1))
    assert torch.equal(zero.posterior(batch.x).mean, one.posterior(batch.x).mean)
    z = zero.posterior(batch.x).mean
    assert torch.equal(zero.likelihood(z).sample().shape and zero.likelihood(z).mean, one.likelihood(z).mean)
    assert not torch.equal(zero.prior().log_prob(z), one.prior().log_prob(z))
    assert model(Given({"class": torch.tensor([[0]])})).sample((3,)).shape == (3, 1, 1, 8, 8)
    c = Given({"class": torch.zeros(400, 1).long()})
    scores = []
    for guidance in (0.0, 1.0, 4.0):
        torch.manual_seed(0)
        codes = model(c).prior().sample_codes(how=Sampling(guidance=guidance))
        ratio = model(c).prior().code_log_prob(codes) - model(c.missing()).prior().code_log_prob(codes)
        scores.append(ratio.sum(1).mean().item())
    assert scores[0] < scores[1] < scores[2]


def test_the_bound_is_the_likelihood_and_the_mass_of_the_codes(data: Data) -> None:
    model = of_kind("pixelcnn")
    batch = data.test.batch(torch.arange(5))
    terms = model().terms(batch.x, k=2)
    codes = model.posterior.codes(batch.x)
    expected = model().likelihood(model.posterior.embed(codes)).log_prob(batch.x) + (
        model.prior().code_log_prob(codes).sum(1)
    )
    torch.testing.assert_close(elbo(terms), expected)
    found = evaluate(model, data.test, k=1000)
    assert found.k == 1
    assert found.trusted is False  # other codes than the nearest give some probability to x too
    assert "NLL ≤" in found.headline
    assert found.nll is not None
    assert found.elbo is not None
    assert found.nll.value == pytest.approx(-found.elbo.value, rel=1e-4)
    assert found.bits_per_dim is not None


def test_the_latents_of_a_categorical_posterior_are_the_codes_at_its_mode(data: Data) -> None:
    """So that with uniform codes both figures are one, and the cached codes are the evaluated ones."""
    model: Any = of_kind("pixelcnn", gumbel())
    with torch.no_grad():
        for p in model.prior.grids.parameters():
            p.zero_()
    found = evaluate(model, data.test, k=1000)
    assert (found.k, found.trusted) == (1, False)
    x = data.test.batch(torch.arange(len(data.test))).x
    z = model.posterior.embed(model.posterior.codes(x))
    expected = 6 * math.log(4) - model().likelihood(z).log_prob(x).mean().item()
    assert found.nll is not None
    assert found.nll.value == pytest.approx(expected, rel=1e-5)
    assert found.bits_per_dim is not None
    assert found.uniform_bits_per_dim is not None
    assert found.uniform_bits_per_dim.value == pytest.approx(found.bits_per_dim.value, rel=1e-6)
    assert f"{6 * math.log(4):.2f} with uniform codes" in " ".join(found.notes)
    assert found.relaxation_gap is None
    assert isinstance(model.train()().posterior(x), CodePoint)


@pytest.mark.parametrize("latents", ["categorical", "binary"])
def test_a_prior_learns_and_is_judged_on_the_same_codes(latents: Any, data: Data, tmp_path: Path) -> None:
    first = dataclasses.replace(gumbel(), latents=latents)
    tb.train(first.build(data.spec), data, out=tmp_path / "first", **QUICK)
    result = fit_prior(tmp_path / "first", out=tmp_path / "second", prior=small("pixelcnn"), data=data, **QUICK)
    found = evaluate(tb.load(tmp_path / "second"), data.valid, k=10)
    assert found.kl is not None
    assert -found.kl.value == pytest.approx(result.best_bound, rel=1e-5)


@pytest.mark.parametrize("kind", ["pixelcnn", "mixture"])
def test_every_visit_takes_a_view_and_draws_what_is_left_to_draw(kind: str) -> None:
    codes = kind == "pixelcnn"
    model = of_kind(kind, None if codes else VAE(latent_dim=2, hidden=(8,)))
    step, one = PriorStep(model, kept_as(model, model.data_spec) if codes else Draws(torch.zeros(1, 2))), torch.ones(())
    views = torch.randint(6, (1, 3, 16)).to(torch.uint8) if codes else torch.randn(1, 3, 2)  # of codes; draws
    each = {round(step(views[:, i : i + 1], one).item(), 3) for i in range(3)}
    seen = step(views.expand(200, *views.shape[1:]), one)[0].tolist()
    assert {round(value, 3) for value in seen} == each
    moments = torch.stack([torch.zeros(1, 1, 2), torch.ones(1, 1, 2)], dim=2)
    if not codes:
        step = PriorStep(model, kept_as(model, model.data_spec))
        assert step(moments, one) != step(moments, one)


# -- fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pixelcnn", "transformer"])
def test_a_fitted_prior_beats_the_uniform_one_and_leaves_the_first_stage_alone(
    data: Data, first: Path, tmp_path: Path, kind: Any
) -> None:
    prior = small(kind, condition="class")
    quick = {**QUICK, "steps": 120, "lr": 1e-2, "evaluate_every": 40}
    result = fit_prior(first, out=tmp_path, prior=prior, data=data, **quick)
    assert result.stopped == "done"
    before, after = tb.load(first), tb.load(tmp_path)
    for part in ("posterior", "likelihood"):
        own, was = getattr(after, part).state_dict(), getattr(before, part).state_dict()
        assert all(torch.equal(own[name], was[name]) for name in was)
    uniform, fitted = evaluate(before, data.test, k=1), evaluate(after, data.test, k=1)
    assert uniform.kl is not None
    assert uniform.kl.value == pytest.approx(16 * math.log(6), rel=1e-5)
    assert fitted.kl is not None
    assert fitted.kl.value < 0.7 * uniform.kl.value
    assert fitted.reconstruction is not None
    assert uniform.reconstruction is not None
    assert fitted.reconstruction.value == pytest.approx(uniform.reconstruction.value, rel=1e-4)
    assert after(Given({"class": torch.tensor([[0], [1]])})).sample((2,)).shape == (2, 2, 1, 8, 8)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf8"))
    assert config["recipe"]["first"]["recipe"]["kind"] == "vq-vae"


@pytest.mark.parametrize("kind", ["mixture", "flow"])
def test_priors_over_vectors(data: Data, vectors: Path, tmp_path: Path, kind: Any) -> None:
    fit_prior(vectors, out=tmp_path, prior=small(kind), data=data, **QUICK)
    found = evaluate(tb.load(tmp_path), data.test, k=50)
    assert found.nll is not None


@pytest.mark.parametrize("options", [{"flip": True}, {"binarize": "dynamic"}, {"validation": 0.0}])
@pytest.mark.parametrize("kind", ["mixture", "pixelcnn"])
def test_a_prior_is_fitted_to_data_that_differs_from_visit_to_visit(
    options: dict[str, Any], kind: Any, tmp_path: Path
) -> None:
    data = images(**options)
    recipe = vq() if kind == "pixelcnn" else VAE(latent_dim=2, hidden=(8,), posterior="cholesky")
    recipe = dataclasses.replace(recipe, likelihood="auto")
    tb.train(recipe.build(data.spec), data, out=tmp_path / "first", **QUICK)
    prior = small(kind)
    fit_prior(tmp_path / "first", out=tmp_path / "second", prior=prior, data=data, **{**QUICK, "pictures": True})
    assert evaluate(tb.load(tmp_path / "second"), data.test, k=5).nll is not None
    with pytest.raises(UsageError, match="does not exist"):
        fit_prior(tmp_path / "first", out=tmp_path / "third", latents=tmp_path / "typo", data=data, **QUICK)


def test_the_places_of_a_text_can_be_rotary(data: Data) -> None:
    spec = dataclasses.replace(data.spec, captioned=True)
    like: dict[str, Any] = {"condition": "text", "text_positions": "rotary"}
    second = small("transformer", caption_length=5, **like)
    recipes = (
        TwoStage(Stage(two_level()), second),
        TransformerRecipe(width=16, heads=2, layers=2, caption_length=5, **like),
    )
    for recipe in recipes:
        model: Any = recipe.build(spec).eval()
        pixels = recipe is recipes[1]
        grids = [model.likelihood.grid] if pixels else model.prior.grids
        assert [grid.network.rotary_prefix for grid in grids] == ([5] if pixels else [5, 9])  # a text; and 2 x 2 above
        assert all(grid.embedding.places is None for grid in grids)
        c = Given({"text": torch.tensor([[3, 1, 4, -1, -1]])})
        assert model(c).sample((2,)).shape == (2, 1, 1, 8, 8)


def test_a_fit_that_stopped_goes_on_bit_for_bit(data: Data, first: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit_prior(first, out=whole, prior=small("pixelcnn"), data=data, **QUICK)
    step, calls = PriorStep.forward, 0

    def interrupted(self: PriorStep, *args: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 23:
            raise KeyboardInterrupt
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PriorStep, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_prior(first, out=parts, prior=small("pixelcnn"), data=data, **QUICK)
    fit_prior(first, out=parts, prior=small("pixelcnn"), data=data, resume=True, **QUICK)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_fitted_prior_can_be_fitted_anew(data: Data, first: Path, tmp_path: Path) -> None:
    fit_prior(first, out=tmp_path / "a", prior=small("pixelcnn"), data=data, **QUICK)
    other = small("transformer")
    fit_prior(tmp_path / "a", out=tmp_path / "b", prior=other, data=data, **QUICK)
    recipe = tb.load(tmp_path / "b").recipe
    assert isinstance(recipe, TwoStage)
    assert recipe.first.recipe == vq()
    assert isinstance(tb.load(tmp_path / "b").prior, AutoregressivePrior)


def test_a_first_stage_that_is_given_a_condition_is_refused_before_it_encodes(data: Data, tmp_path: Path) -> None:
    model = CVAE(latent_dim=2, hidden=(8,)).build(data.spec)
    tb.train(model, data, out=tmp_path / "first", steps=1, pictures=False)
    with pytest.raises(UsageError, match="do not depend on a condition") as caught:
        fit_prior(tmp_path / "first", out=tmp_path / "second", data=data, **QUICK)
    assert caught.value.got == "a first stage conditioned on class"
    assert not (tmp_path / "first" / "latents.safetensors").exists()


def test_what_does_not_suit_is_refused(data: Data, tmp_path: Path) -> None:
    vae = VAE(latent_dim=2, hidden=(8,))
    for first, second, says in (
        (vq(), "flow", "latents are codes"),
        (vae, "pixelcnn", "latents are real-valued"),
        (CVAE(latent_dim=2, hidden=(8,)), "flow", "do not depend on a condition"),
        (PixelCNNRecipe(channels=8, layers=2), "flow", "has no latent"),
    ):
        with pytest.raises(UsageError, match=says):
            TwoStage(Stage(first), small(second)).build(data.spec)
    for kind, wrong in (
        ("pixelcnn", {"layers": 0}),
        ("pixelcnn", {"dropout": 1.0}),
        ("transformer", {"drop_condition": -0.1}),
        ("transformer", {"text_positions": "rotated"}),
        ("mixture", {"components": 0}),
    ):
        with pytest.raises(UsageError):
            small(kind, **wrong)
    model = vq().build(data.spec)
    model.recipe = None
    tb.train(model, data, out=tmp_path, **QUICK)
    with pytest.raises(UsageError, match="by hand"):
        fit_prior(tmp_path, out=tmp_path / "b", data=data, **QUICK)


# -- pixels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe", [PixelCNNRecipe(channels=8, layers=2, kernel=3), TransformerRecipe(width=16, heads=2, layers=2)]
)
@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 2, 1)])
def test_models_of_pixels_are_exact(recipe: Any, shape: tuple[int, ...]) -> None:
    spec = DataSpec("x", shape, levels=2)
    model = recipe.build(spec).double().eval()
    size = math.prod(shape)
    every = torch.tensor([[(i >> j) & 1 for j in range(size)] for i in range(2**size)]).double().view(-1, *shape)
    mass = model().log_prob(every).exp()
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-10)
    drawn = model().sample((4000,))
    assert drawn.shape == (4000, *shape)
    counts = (drawn.flatten(1).long() * 2 ** torch.arange(size)).sum(1)
    for i in (0, 3, 2**size - 1):
        assert within_error((counts == i).double().unsqueeze(1), mass[i].detach(), errors=5)


def test_a_model_of_pixels_given_a_class_learns_it(data: Data, tmp_path: Path) -> None:
    model = PixelCNNRecipe(channels=8, layers=2, kernel=3, condition="class", drop_condition=0.2).build(data.spec)
    tb.train(model, data, out=tmp_path, **{**QUICK, "steps": 60, "lr": 1e-2})
    found = evaluate(model, data.test, k=100)
    assert (found.k, found.trusted) == (1, True)
    batch = data.test.batch(torch.arange(len(data.test)))
    x, c = model.see(batch)
    with torch.no_grad():
        assert model(c).log_prob(x).mean() > model(Given({"class": 1 - c["class"]})).log_prob(x).mean()


def test_a_second_stage_goes_on_and_is_reproduced_by_its_own_command(
    data: Data, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_prior(first, out=tmp_path, prior=small("transformer"), data=data, **QUICK)
    config = RunFolder(tmp_path).config()
    assert reproduction_command(config, "again") is None  # its data was passed in Python
    recipe: Any = config.recipe
    assert recipe.first.training == RunFolder(first).config().training
    digits = DataOptions("digits")
    named = dataclasses.replace(
        config, data=digits, recipe=TwoStage(dataclasses.replace(recipe.first, data=digits), recipe.prior)
    )
    one, two = (reproduction_command(named, "again") or "").splitlines()
    assert one.startswith("tightbound train vq-vae --data digits --out FIRST ")
    assert "--codes 6 --code-dim 4" in one
    assert "--steps 30" in one
    assert two.startswith("tightbound fit-prior FIRST --out again --prior transformer")
    checkpoint.write_json(tmp_path / "config.json", to_json(named))
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 2
    assert "fit-prior" in capsys.readouterr().err


def test_a_fit_tells_the_log_probability_of_the_latents_by_its_name(
    data: Data, first: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = fit_prior(first, out=tmp_path / "fit", prior=small("pixelcnn"), data=data, **QUICK)
    assert re.search(r"validation \S+ bits/code \(log p\(z\) -\d+", capfd.readouterr().err)
    readings = RunFolder(tmp_path / "fit").records()
    assert all({"bound", "reconstruction", "kl", "beta"}.isdisjoint(reading) for reading in readings)
    valid = [reading["log_prior"] for reading in readings if reading["split"] == "valid"]
    assert result.best_bound == max(valid)
    assert [reading["lr"] for reading in readings if reading["split"] == "train"]
    assert "log-probability of the latents" in curves(gather(tmp_path / "fit", data=data, k=2))


@pytest.mark.parametrize("kind", ["pixelcnn", "transformer", "mixture", "flow"])
def test_the_second_stage_teaches_the_prior_alone_and_all_of_it(
    data: Data, first: Path, vectors: Path, tmp_path: Path, kind: str
) -> None:
    vector = kind in ("mixture", "flow")
    recipe = VAE(latent_dim=2, hidden=(8,)) if vector else two_level()
    model = of_kind(kind, recipe, **({} if vector else {"condition": "class"})).train()
    with torch.no_grad():
        for p in model.parameters():  # away from zeros at which a gradient may vanish
            p.add_(0.05 * torch.randn(p.shape))
    examples = encoded_data(model, data, tmp_path / "latents.safetensors").train.batch(torch.arange(20))
    step = PriorStep(model, kept_as(model, data.spec))
    step(examples.x, torch.ones(()), model.conditions(examples)).sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.split(".")[0] for name in reached} == {"prior"}
    left = {name for name, p in model.named_parameters() if p.requires_grad and p.numel()} - reached
    assert not left


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it imports its compiler
def test_a_compiled_density_keeps_conditions_to_the_prior(data: Data) -> None:
    model = TwoStage(Stage(vq()), small("pixelcnn", condition="class")).build(data.spec)
    plain, compiled = (evaluate(model, data.test, k=1, compile=compile).nll for compile in (False, True))
    assert plain is not None
    assert compiled is not None
    assert compiled.value == pytest.approx(plain.value, abs=1e-3)


# -- which prior ------------------------------------------------------------------------------------------------------

WIDE: dict[str, Any] = {
    "kind": "prior-options",
    "version": 1,
    "condition": "class",
    "vocabulary": 2048,
    "caption_length": 32,
    "drop_condition": 0.1,
    "text_positions": "learned",
    "layers": 3,
    "channels": 16,
    "kernel": 5,
    "attention_every": 0,
    "width": 256,
    "heads": 8,
    "dropout": 0.2,
    "components": 7,
    "transforms": 4,
}
"""The options of all priors at once, as version 1 wrote them."""


@pytest.mark.parametrize(
    ("name", "first", "expected"),
    [
        ("auto", vq(), PixelCNNPrior(condition="class", layers=3, channels=16, dropout=0.2)),
        ("auto", gumbel(), PixelCNNPrior(condition="class", layers=3, channels=16, dropout=0.2)),
        ("auto", VAE(latent_dim=2), FlowPrior(transforms=4)),
        ("transformer", vq(), TransformerPrior(condition="class", layers=3, dropout=0.2)),
        ("mixture", VAE(latent_dim=2), MixturePrior(components=7)),
    ],
)
def test_a_second_stage_of_version_1_is_read(name: str, first: Any, expected: SecondPrior) -> None:
    training = TrainingOptions(epochs=3)
    old = {"first": to_json(first), "second": {**WIDE, "prior": name}, "first_training": to_json(training)}
    found = from_json({"kind": "two-stage", "version": 1, **old, "first_data": None}, TwoStage)
    assert found == TwoStage(Stage(first, training=training), expected)


def test_the_prior_that_is_fitted_unless_one_is_named_suits_the_latents(
    data: Data, first: Path, vectors: Path, tmp_path: Path
) -> None:
    for run, expected in ((first, PixelCNNPrior()), (vectors, FlowPrior())):
        out = tmp_path / expected.latent_space
        fit_prior(run, out=out, data=data, **{**QUICK, "steps": 2})
        assert RunFolder(out).config().recipe.prior == expected  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]


def test_the_command_offers_the_options_of_the_prior_that_suits_the_run(
    first: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[SecondPrior] = []
    monkeypatch.setattr("tightbound.training.second_stage.fit_prior", lambda run, **given: found.append(given["prior"]))
    monkeypatch.setattr("tightbound.cli.learning._conclude", lambda *_: None)
    for words in (
        [str(first), "--layers", "4"],
        ["--transforms", "2", "--out", str(first), str(vectors)],
        [str(first), "--prior", "transformer", "--width", "64", "--condition", "class"],
        [str(vectors), "--prior=mixture", "--components", "3"],
    ):
        assert main(["fit-prior", *words, "--out", "out"]) == 0, capsys.readouterr().err
    assert found == [
        PixelCNNPrior(layers=4),
        FlowPrior(transforms=2),
        TransformerPrior(width=64, condition="class"),
        MixturePrior(components=3),
    ]
    assert main(["fit-prior", str(vectors), "--layers", "4", "--out", "out"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    offered = "--layers is an option of --prior pixelcnn or --prior transformer or --prior masked or --prior diffusion."
    assert f"{offered} got: --prior flow" in told
    assert "expected: its options: --transforms" in told
    assert told.endswith("remedy: Leave --layers out, or add --prior diffusion.")  # a pixelcnn does not suit vectors
    assert main(["fit-prior", str(first), "--width", "64", "--out", "out"]) == 2
    assert "or add --prior transformer" in capsys.readouterr().err
    assert main(["fit-prior", str(vectors), "--help"]) == 0
    told = capsys.readouterr().out
    assert "RUN" in told.splitlines()[0]
    assert " prior options " in told


@dataclass(frozen=True)
class WidePrior(SecondPrior):
    """Of a user's own: as wide as is said, and not learned."""

    latent_space: ClassVar[Any] = "vector"

    width: float = 1.0
    """Standard deviation."""


class Wide(nn.Module):
    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(width))

    def forward(self, c: Any = None) -> Distribution:
        return Independent(Normal(torch.zeros(2), self.width), 1)


def test_a_prior_of_ones_own_is_a_class_of_options_and_a_function(data: Data, vectors: Path, tmp_path: Path) -> None:
    register("wide-prior")(WidePrior)
    new_prior.register(WidePrior, lambda options, first, data: (Wide(options.width), None))
    try:
        fit_prior(vectors, out=tmp_path, prior=WidePrior(2.0), data=data, **{**QUICK, "steps": 2})
        model = tb.load(tmp_path)
        assert model.recipe.prior == WidePrior(2.0)
        assert model.prior.width.item() == pytest.approx(2.0, abs=0.1)
        assert model().sample((3,)).shape == (3, 1, 8, 8)
    finally:
        del _kinds["wide-prior"]


@pytest.mark.parametrize("kind", ["mixture", "flow"])
def test_a_grid_of_real_numbers_is_refused_with_its_shape(kind: str) -> None:
    class Grids(nn.Module):
        def forward(self, x: torch.Tensor, c: Any = None) -> Distribution:
            return Independent(Normal(torch.zeros(len(x), 3, 2, 2), 1.0), 3)

    first = LatentVariableModel(None, nn.Linear(1, 1), Grids())
    with pytest.raises(UsageError, match=r"real-valued grids(?s:.*)\(3, 2, 2\)"):
        new_prior(small(kind), first, images().spec)
