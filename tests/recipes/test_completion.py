"""Structured output: what is missing given what is seen, its baseline, and latents from the conditional prior."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

import tightbound as tb
from instances import double, within_error
from tightbound.cli import walks as walk_commands
from tightbound.data import Batch, Data, DataSpec
from tightbound.distributions import Partial, independent
from tightbound.errors import ObjectiveError, ShapeError, UsageError
from tightbound.evaluation import diagnose, evaluate
from tightbound.models import PixelModel
from tightbound.objectives import Elbo, Gsnn, Hybrid, elbo, gsnn, hybrid, reconstruction
from tightbound.options.choices import changed
from tightbound.pictures import sheets
from tightbound.recipes import CVAE, VAE, Completion, CompletionBaseline
from tightbound.runs import RunFolder
from tightbound.training.start import start_model
from tightbound.training.steps.bound import BoundStep
from tightbound.views import samples as pictures

QUICK: Any = {"steps": 3, "batch_size": 20, "pictures": False, "device": "cpu"}


@pytest.fixture(scope="module")
def data() -> Data:
    images = np.random.default_rng(0).integers(0, 2, (80, 4, 6)).astype(np.uint8)
    images[:, 2:, 3:] = images[:, :2, :3]  # the bottom right repeats the top left
    return Data.from_arrays(images, levels=2)


def completion(data: Data, **options: Any) -> Any:
    return Completion(latent_dim=3, hidden=(8,), **options).build(data.spec)


# -- a distribution over what is missing ------------------------------------------------------------------------------


def test_what_is_seen_counts_nothing_and_stays_what_it_is() -> None:
    base = Normal(double(5, 2, 3), double(5, 2, 3).exp())
    observed = torch.where(torch.rand(5, 2, 3) < 0.5, double(5, 2, 3), torch.nan)
    p, x = Partial(independent(base, 2), observed), double(4, 5, 2, 3)
    expected = torch.where(observed.isnan(), base.log_prob(x), 0).sum((-2, -1))
    torch.testing.assert_close(p.log_prob(x), expected)
    seen = ~observed.isnan()
    for value in (p.sample((4,)), p.mean):
        assert torch.equal(value[..., seen], observed[seen].expand_as(value[..., seen]))
    assert within_error(p.sample((4000,))[:, 0], p.mean[0])
    gradient = torch.autograd.grad(
        Partial(independent(Normal(x.requires_grad_(), 1.0), 2), observed).log_prob(x.detach() + 1).sum(), x
    )[0]
    assert not gradient[:, seen].any()
    assert gradient[:, ~seen].all()


def test_only_independent_entries_can_be_seen_in_part() -> None:
    with pytest.raises(ShapeError, match="independent entries"):
        Partial(MultivariateNormal(torch.zeros(3), torch.eye(3)), torch.zeros(3))


# -- latents from the prior -------------------------------------------------------------------------------------------


def test_the_gsnn_objective_is_the_likelihood_at_latents_of_the_prior() -> None:
    """With a linear Gaussian likelihood its expectation has a closed form."""
    torch.manual_seed(0)
    spec = DataSpec("x", (3,), levels=None)
    model = VAE(latent_dim=2, hidden=(), likelihood="gaussian", variance=0.3).build(spec).double()
    network: Any = next(m for m in model.likelihood.modules() if isinstance(m, torch.nn.Linear))
    x = double(1, 3)
    generated = model().generated(x, k=40_000)
    mean = Independent(Normal(network.bias, 0.3**0.5), 1).log_prob(x) - network.weight.square().sum() / (2 * 0.3)
    assert within_error(generated.log_likelihood, mean)
    assert torch.equal(gsnn(generated), reconstruction(generated))
    assert generated.kl().abs().max() < 1e-12  # the prior is its own posterior


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_hybrid_is_a_share_of_both(data: Data, alpha: float) -> None:
    model = completion(data)
    batch = data.test.batch(torch.arange(6))
    px = model(model.conditions(batch))
    terms, generated = px.terms(batch.x, k=3), px.generated(batch.x, k=3)
    expected = alpha * elbo(terms, 0.7) + (1 - alpha) * gsnn(generated)
    torch.testing.assert_close(hybrid(terms, generated, alpha, 0.7), expected)
    for wrong in (-0.1, 1.5):
        with pytest.raises(UsageError, match="between 0 and 1"):
            hybrid(terms, generated, wrong)


@pytest.mark.parametrize("prior", ["diagonal", "coupling", "spline"])
def test_gradients_of_gsnn_reach_every_prior_that_the_hybrid_takes(data: Data, prior: Any) -> None:
    model = VAE(latent_dim=3, hidden=(8,), prior=prior, objective=Hybrid(share=0.5)).build(data.spec)
    generated = model().generated(data.test.batch(torch.arange(6)).x, k=2)
    gsnn(generated).sum().backward()
    assert model.prior is not None
    assert any(p.grad is not None and p.grad.any() for p in model.prior.parameters())
    assert generated.log_likelihood.shape == (2, 6)
    assert generated.kl().abs().max() < 1e-4


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_the_hybrid_refuses_priors_whose_draws_have_no_gradient(prior: Any) -> None:
    with pytest.raises(UsageError, match=r"no gradient(?s:.*)remedy"):
        VAE(prior=prior, objective=Hybrid(share=0.5))
    VAE(prior=prior)


def test_the_prior_of_the_hybrid_is_learned_without_a_kl() -> None:
    assert CVAE(objective=Hybrid(beta=0.0)).training_objective.teaches_prior
    with pytest.raises(UsageError, match="is not trained"):
        CVAE(objective=Elbo(beta=0.0))


@pytest.mark.parametrize("objective", [Gsnn(), Hybrid(share=0.5)])
def test_a_step_of_the_hybrid_computes_the_prior_once(data: Data, objective: Any) -> None:
    model, calls = completion(data, objective=objective), list[int]()
    model.prior.register_forward_hook(lambda *_: calls.append(1))
    batch = data.train.batch(torch.arange(5))
    BoundStep(model)(batch.x, torch.ones(()), model.conditions(batch))[0].sum().backward()
    assert len(calls) == 1


def test_gsnn_selects_by_its_own_bound_for_its_posterior_stays_untrained(data: Data, tmp_path: Path) -> None:
    """The posterior is as it was and drives the ELBO down while what is maximised rises."""
    model = completion(data, objective=Gsnn())
    before = {name: p.clone() for name, p in model.posterior.named_parameters()}
    quick = QUICK | {"steps": 150, "evaluate_every": 10, "lr": 2e-2}
    result = tb.train(model, data, out=tmp_path, **quick)
    assert all(torch.equal(p, before[name]) for name, p in model.posterior.named_parameters())
    readings = [r for r in RunFolder(tmp_path).records() if r["split"] == "valid"]
    assert all(r["bound"] == r["objective"] for r in readings)
    assert result.best_bound == max(r["bound"] for r in readings)
    elbos = [r["reconstruction"] - r["kl"] for r in readings]
    assert elbos.index(max(elbos)) != [r["bound"] for r in readings].index(result.best_bound)
    found = evaluate(model, data.test, k=5)
    assert any("method prior suits" in note for note in found.notes)
    assert not any("suits" in note for note in evaluate(model, data.test, k=5, method="prior").notes)
    assert not any("objective gsnn" in note for note in evaluate(completion(data), data.test, k=5).notes)


def test_gradients_of_gsnn_reach_prior_and_likelihood_and_not_the_posterior(data: Data) -> None:
    model = completion(data, objective=Gsnn())
    batch = data.test.batch(torch.arange(6))
    gsnn(model(model.conditions(batch)).generated(batch.x)).sum().backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"prior", "likelihood"}


def test_gradients_of_the_hybrid_reach_all_networks_but_the_baseline(data: Data, tmp_path: Path) -> None:
    tb.train(CompletionBaseline(hidden=(8,)).build(data.spec), data, out=tmp_path, steps=2, pictures=False)
    model = completion(data, objective=Hybrid(share=0.5), baseline=str(tmp_path), baseline_hidden=(8,))
    start_model(model, data.train)
    batch = data.test.batch(torch.arange(6))
    px = model(model.conditions(batch))
    hybrid(px.terms(batch.x), px.generated(batch.x), 0.5).sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in reached} == {"prior", "likelihood", "posterior"}
    assert not any(p.requires_grad for p in prediction(model).parameters())


def test_what_gsnn_leaves_untrained_is_frozen_and_not_diagnosed(data: Data) -> None:
    """So that several processes wait for no gradient of it."""
    model = completion(data, objective=Gsnn())
    batch = data.test.batch(torch.arange(6))
    BoundStep(model)(batch.x, torch.ones(()), model.conditions(batch))[0].sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in reached} == {"prior", "likelihood"}
    with pytest.raises(ObjectiveError, match="The posterior of this model was not trained"):
        diagnose(model, data.test)


# -- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quadrants", [1, 2, 3])
@pytest.mark.parametrize("likelihood", ["auto", "gaussian", "categorical"])
def test_the_likelihood_is_of_the_missing_pixels_alone(data: Data, quadrants: int, likelihood: Any) -> None:
    model = completion(data, quadrants=quadrants, likelihood=likelihood)
    batch = data.test.batch(torch.arange(5))
    px, z = model(model.conditions(batch)), torch.zeros(5, 3)
    other = torch.where(px.c["part"].view_as(batch.x).isnan(), batch.x, 1 - batch.x)
    torch.testing.assert_close(px.likelihood(z).log_prob(batch.x), px.likelihood(z).log_prob(other))
    changed = torch.where(px.c["part"].view_as(batch.x).isnan(), 1 - batch.x, batch.x)
    assert (px.likelihood(z).log_prob(batch.x) != px.likelihood(z).log_prob(changed)).all()
    missing = {1: 18, 2: 12, 3: 6}[quadrants]
    assert model.likelihood.measure(data.spec).dimensions == missing
    if likelihood == "auto":
        found = evaluate(model, data.test, k=5)
        assert found.nll is not None
        assert found.bits_per_dim is not None
        assert found.bits_per_dim.value == pytest.approx(found.nll.value / (missing * np.log(2)))


def test_the_baseline_is_a_model_without_a_latent(data: Data) -> None:
    model = CompletionBaseline(hidden=(8,)).build(data.spec)
    batch = data.test.batch(torch.arange(5))
    x, c = model.see(batch)
    px = model(c)
    found = evaluate(model, data.test.subset(torch.arange(5)), k=1000)
    assert (found.method, found.trusted, found.active_units) == ("exact", True, 0)
    assert found.nll is not None
    assert (found.elbo, found.kl, found.reconstruction) == (None, None, None)
    assert found.nll.value == pytest.approx(-px.log_prob(x).mean().item(), abs=1e-4)
    assert found.squared_error is not None
    assert found.squared_error.value == pytest.approx((px.mean - x).square().flatten(1).sum(1).mean().item(), rel=1e-5)
    assert px.sample((2,)).shape == (2, 5, 1, 4, 6)


def test_the_prior_sees_the_pretrained_prediction_which_stays_as_it_is(data: Data, tmp_path: Path) -> None:
    quick: Any = {"steps": 30, "batch_size": 20, "pictures": False, "evaluate_every": 30}
    baseline = CompletionBaseline(hidden=(8,)).build(data.spec)
    tb.train(baseline, data, out=tmp_path / "baseline", **quick)
    recipe = Completion(latent_dim=3, hidden=(8,), baseline=str(tmp_path / "baseline"), baseline_hidden=(8,))
    model = recipe.build(data.spec)
    start_model(model, data.train)
    batch = data.test.batch(torch.arange(5))
    c = model.conditions(batch)
    assert c is not None
    filled: Any = model.prior.given  # pyright: ignore[reportOptionalMemberAccess]
    expected = baseline(c).mean.flatten(1)
    torch.testing.assert_close(filled(c["part"])[:, :24], expected)
    before = {n: p.clone() for n, p in filled.named_parameters()}
    tb.train(model, data, out=tmp_path / "run", **quick)
    assert all(torch.equal(p, before[n]) for n, p in filled.named_parameters())
    again = tb.load(tmp_path / "run")
    torch.testing.assert_close(again.prior.given(c["part"]), filled(c["part"]))  # pyright: ignore
    shutil.rmtree(tmp_path / "baseline")  # the run has its own copy
    assert torch.equal(tb.load(tmp_path / "run").prior.given(c["part"]), filled(c["part"]))  # pyright: ignore


@pytest.fixture(scope="module")
def trained(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline's run."""
    run = tmp_path_factory.mktemp("runs") / "baseline"
    tb.train(CompletionBaseline(hidden=(8,)).build(data.spec), data, out=run, **QUICK)
    return run


def prediction(model: Any) -> PixelModel:
    return next(m for m in model.modules() if isinstance(m, PixelModel))


def assert_taken_over(model: Any, run: Path) -> None:
    own, theirs = dict(prediction(model).likelihood.named_parameters()), tb.load(run).likelihood.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_the_baseline_is_taken_over_without_a_start_model_too(data: Data, trained: Path, tmp_path: Path) -> None:
    model = completion(data, baseline=str(trained), baseline_hidden=(8,))
    tb.train(model, data, out=tmp_path, data_start=False, initial_weights="xavier", ema=0.9, **QUICK)
    assert_taken_over(model, trained)
    assert_taken_over(tb.load(tmp_path), trained)


def test_the_baseline_is_taken_over_in_a_loop_written_by_hand(data: Data, trained: Path) -> None:
    model, batch = completion(data, baseline=str(trained), baseline_hidden=(8,)), data.train.batch(torch.arange(4))
    with pytest.raises(UsageError, match="start_model"):
        model(model.conditions(batch))
    start_model(model, data.train)
    model(model.conditions(batch)).lower_bound(batch.x).sum().backward()
    assert_taken_over(model, trained)
    kept = {name: tensor / 2 for name, tensor in model.state_dict().items()}
    other = completion(data, baseline=str(trained), baseline_hidden=(8,))
    other.load_state_dict(kept)
    other(other.conditions(batch)).sample()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"quadrants": 3}, r"--quadrants 1(?s:.*)--quadrants 3"),
        ({"likelihood": "gaussian"}, r"--likelihood auto(?s:.*)--likelihood gaussian"),
        ({"activation": "tanh"}, r"--activation relu(?s:.*)--activation tanh"),
        ({"baseline_hidden": (9, 8)}, r"--baseline-hidden 8(?s:.*)--baseline-hidden 9 8"),
    ],
)
def test_the_baseline_of_another_network_is_refused(
    data: Data, trained: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    model = completion(data, **{"baseline": str(trained), "baseline_hidden": (8,), **options})
    with pytest.raises(UsageError, match=says):
        tb.train(model, data, out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_baseline_of_other_data_is_refused(data: Data, trained: Path) -> None:
    for change in ({"name": "others"}, {"levels": 2, "classes": ("a", "b")}, {"shape": (1, 6, 4)}):
        spec = dataclasses.replace(data.spec, **change)  # pyright: ignore[reportArgumentType]
        model = Completion(latent_dim=3, hidden=(8,), baseline=str(trained), baseline_hidden=(8,)).build(spec)
        with pytest.raises(UsageError, match=f"other data(?s:.*){list(change)[-1]}"):
            start_model(model, data.train)


def test_a_baseline_is_a_run_of_its_recipe(data: Data, tmp_path: Path) -> None:
    tb.train(VAE(latent_dim=2, hidden=(8,)).build(data.spec), data, out=tmp_path / "vae", **QUICK)
    for run, says in (("vae", "a run of vae"), ("none", "no run")):
        model = completion(data, baseline=str(tmp_path / run))
        with pytest.raises(UsageError, match=says):
            start_model(model, data.train)


def test_a_trained_model_uses_what_it_sees(data: Data, tmp_path: Path) -> None:
    """The bottom right repeats the top left, which is seen with three quadrants: six pixels for nothing."""
    model = CompletionBaseline(hidden=(64,), quadrants=3).build(data.spec)
    tb.train(model, data, out=tmp_path, epochs=200, batch_size=16, lr=5e-3, pictures=False)
    found = evaluate(model, data.train, k=1)
    assert found.nll is not None
    assert found.nll.value < 1.0  # unseen: 6 ln 2 = 4.2


def test_completions_are_drawn_beside_the_truth(data: Data, tmp_path: Path) -> None:
    model = completion(data)
    batch = data.test.batch(torch.arange(4))
    drawn = pictures.completions(model, batch.x, model.conditions(batch), 5)
    assert [tuple(images.shape[:2]) for images in drawn.values()] == [(4, 1), (4, 5), (4, 1)]
    seen = ~model.conditions(batch)["part"].view_as(batch.x).isnan()
    assert torch.equal(drawn["completions"][:, 2][seen], batch.x[seen])
    assert not torch.equal(drawn["completions"][:, 0], drawn["completions"][:, 1])
    x, c = model.see(batch)
    sheets.training_picture(model, x, c, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").is_file()
    plain = VAE(latent_dim=2, hidden=(8,)).build(data.spec)
    with pytest.raises(UsageError, match="does not complete"):
        pictures.completions(plain, batch.x, None, 5)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "hybrid", "share": 1.5},
        {"objective": "iwae", "share": 0.5},
        {"baseline_hidden": (0,)},
        {"latent_dim": 0},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        changed(Completion(), options)


@pytest.mark.parametrize(
    "options", [{"objective": "hybrid", "share": -0.1}, {"drop_condition": 1.1}, {"condition_dim": 0}]
)
def test_options_of_cvae_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        changed(CVAE(), options)


def test_a_condition_without_features_is_told_by_its_option() -> None:
    with pytest.raises(UsageError, match="--condition-dim 0"):
        CVAE(condition_dim=0)


def test_vectors_have_no_quadrants() -> None:
    with pytest.raises(UsageError, match="quadrants"):
        Completion().build(DataSpec("x", (10,), levels=2))


def test_a_conditional_models_prediction_is_measured_beside_its_reconstruction(data: Data) -> None:
    model = completion(data)
    found = evaluate(model, data.test, k=5)
    assert found.prediction is not None
    batch = Batch(data.test.batch(torch.arange(len(data.test))).x, None)
    with torch.no_grad():
        expected = gsnn(model(model.conditions(batch)).generated(batch.x, k=2000)).mean().item()
    assert found.prediction.value == pytest.approx(expected, abs=0.3)
    assert evaluate(VAE(latent_dim=2, hidden=(8,)).build(data.spec), data.test, k=5).prediction is None


@pytest.mark.parametrize("kind", ["class", "part"])
def test_a_walk_between_conditions_has_each_end_given_its_own(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = tb.load_data("digits")
    recipe = CVAE(latent_dim=2, hidden=(8,)) if kind == "class" else Completion(latent_dim=2, hidden=(8,))
    tb.train(recipe.build(digits.spec), digits, out=tmp_path, **QUICK)
    written: dict[str, Any] = {}
    monkeypatch.setattr(walk_commands, "write", lambda parts, path, spec, **more: written.update(parts=parts, **more))
    walk_commands.interpolate(tmp_path, n=3, steps=4, device="cpu")
    model, batch = tb.load(tmp_path), digits.test.batch(digits.test.representative(6))
    with torch.no_grad():
        c: Any = model.conditions(batch)
        px = model(c)
        z = px.posterior(batch.x).mean
        ends = px.likelihood(z).mean
        (title, mean), latents = *written["parts"].items(), written["latents"]
        middle = [model(each).likelihood(latents[:, i]).mean for i, each in ((1, c[::2]), (2, c[1::2]))]
    assert "given the condition of the nearer one" in title
    torch.testing.assert_close(latents[:, [0, -1]].flatten(0, 1), z)
    torch.testing.assert_close(latents[:, 1], (2 * z[::2] + z[1::2]) / 3)
    torch.testing.assert_close(mean[:, [0, -1]].flatten(0, 1), ends)
    torch.testing.assert_close(mean[:, 1:3], torch.stack(middle, dim=1))
    with pytest.raises(UsageError, match="at least two steps"):
        walk_commands.interpolate(tmp_path, n=3, steps=1, device="cpu")
