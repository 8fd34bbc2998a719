"""Training of diffusion models: weights, times, learned schedules, recipes; interrupted and resumed."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tightbound as tb
from tightbound.conditions import Given
from tightbound.data import Data, DataSpec
from tightbound.diffusion import (
    PATHS,
    FlowTime,
    GaussianOracle,
    Learned,
    Linear,
    LogNormal,
    Moments,
    Preconditioned,
    Schedule,
)
from tightbound.diffusion.bound import Bound, GaussianDecoder
from tightbound.diffusion.classifier import GuidedDiffusion
from tightbound.diffusion.objective import training_rows
from tightbound.diffusion.paths import predicted
from tightbound.diffusion.times import DECAY, EVEN, Times
from tightbound.diffusion.weights import MIN_SNR, weight
from tightbound.distributions import Sampling
from tightbound.errors import ObjectiveError, UsageError
from tightbound.options.direct import WeightName
from tightbound.recipes import DDPM, EDM, VDM, NoisyClassifierRecipe, Recipe, RectifiedFlow, ScoreSDE
from tightbound.runs import RunFolder
from tightbound.training import TrainingOptions, train
from tightbound.training.start import build_seeded, start_model
from tightbound.training.steps.bound import BoundStep

DIGITS = DataSpec("digits", shape=(1, 8, 8), levels=17)
SMALL: dict[str, Any] = {"channels": (8, 8), "blocks": 1}


# -- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [LogNormal(-9.0, 8.0), FlowTime(-9.0, 8.0), Learned(-9.0, 8.0)])
def test_a_slope_is_the_derivative(schedule: Schedule) -> None:
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    schedule.double()
    step = 1e-6
    measured = (schedule(t + step) - schedule(t - step)) / (2 * step)
    torch.testing.assert_close(schedule.slope(t), measured.detach(), rtol=1e-6, atol=1e-6)


def test_even_times_of_a_log_normal_schedule_have_that_law() -> None:
    gamma = LogNormal(-40.0, 40.0)((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    assert (gamma / 2).mean().item() == pytest.approx(-1.2, abs=1e-6)
    assert (gamma / 2).std().item() == pytest.approx(1.2, abs=1e-3)


def test_even_times_of_a_flow_are_even_on_the_linear_path() -> None:
    gamma = FlowTime(-30.0, 30.0)(torch.linspace(0, 1, 11, dtype=torch.float64))
    torch.testing.assert_close(
        PATHS["linear"].sigma(gamma), torch.linspace(0, 1, 11, dtype=torch.float64), atol=1e-6, rtol=0
    )


def _second_moment(schedule: Learned, loss: Any, t: Tensor) -> Tensor:
    r"""Of :math:`\gamma'(t) h(\gamma(t))`, at even times."""
    return (schedule.slope(t) * loss(schedule(t))).square().mean()


def test_the_gradient_of_a_learned_schedule_is_that_of_the_variance() -> None:
    """Its estimate needs no gradient of the loss by the noise level; here this is known, and both agree."""
    torch.manual_seed(0)
    schedule = Learned(-5.0, 4.0, hidden=8).double()
    for p in schedule.parameters():
        nn.init.normal_(p)
    t = ((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000).unsqueeze(0).squeeze(0)
    loss = lambda gamma: 0.2 + torch.exp(-((gamma - 1) ** 2))
    parameters = list(schedule.parameters())
    moment = _second_moment(schedule, loss, t)
    exact = torch.autograd.grad(moment, parameters)
    nats = (schedule.slope(t) * loss(schedule(t))).detach()
    value = schedule.variance_gradient(t, nats)
    assert (value == 0).all()
    found = torch.autograd.grad(value.mean(), parameters)
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a * moment.detach(), -b, rtol=1e-4, atol=1e-7)


def test_a_learned_schedule_lowers_the_variance_and_not_the_mean() -> None:
    torch.manual_seed(0)
    schedule, loss = Learned(-5.0, 4.0), lambda gamma: 0.2 + 3 * torch.exp(-4 * (gamma - 1) ** 2)
    optimizer, t = torch.optim.Adam(schedule.parameters(), lr=0.02), torch.linspace(0, 1, 2000)
    before = schedule.slope(t) * loss(schedule(t))
    for _ in range(300):
        u = torch.rand(512)
        nats = (schedule.slope(u) * loss(schedule(u))).detach()
        optimizer.zero_grad()
        (-schedule.variance_gradient(u, nats).mean()).backward()
        optimizer.step()
    after = schedule.slope(t) * loss(schedule(t))
    assert after.std() < 0.3 * before.std()
    assert after.mean().item() == pytest.approx(before.mean().item(), rel=5e-3)


# -- times ------------------------------------------------------------------------------------------------------------


def test_adaptive_times_are_drawn_where_the_loss_is_large_and_stay_unbiased() -> None:
    torch.manual_seed(0)
    times, loss = Times(adaptive=True, intervals=8), lambda t: 1 + 20 * torch.exp(-200 * (t - 0.8) ** 2)
    for _ in range(300):
        t, _ = times.draw(64)
        times.learn(t, loss(t))
    even, drawn = torch.rand(500, 64), [times.draw(64) for _ in range(500)]
    exact = loss(torch.linspace(0, 1, 100_001)).mean()
    weighted = torch.stack([(loss(t) / q).mean() for t, q in drawn])
    assert weighted.mean().item() == pytest.approx(exact.item(), rel=0.02)
    assert weighted.std() < 0.2 * loss(even).mean(1).std()
    assert times.density.mean().item() == pytest.approx(1, abs=1e-5)
    assert times.density.min() >= EVEN


def test_times_learn_from_the_parts_of_a_batch_as_from_the_whole() -> None:
    whole, parted = (Times(adaptive=True, intervals=4) for _ in range(2))
    t, loss = torch.rand(90), torch.rand(90)
    whole.learn(t, loss)
    for i, part in enumerate((slice(40), slice(40, 90), slice(3))):
        with parted.part_of_batch(number=i, of=3, more=i < 2, empty=i == 2):
            parted.learn(t[part], loss[part])
    torch.testing.assert_close(whole.squares, parted.squares)
    torch.testing.assert_close(whole.seen, parted.seen)
    assert whole.seen.sum().item() == pytest.approx(90 * (1 - DECAY))


def test_in_evaluation_times_learn_nothing() -> None:
    times = Times(adaptive=True).eval()
    times.learn(torch.rand(9), torch.rand(9))
    assert times.seen.sum() == 0
    assert torch.equal(times.density, torch.ones(64))


def test_a_loss_that_is_not_finite_is_not_learned() -> None:
    times = Times(adaptive=True, intervals=2)
    times.learn(torch.tensor([0.1, 0.9]), torch.tensor([torch.nan, 1.0]))
    assert times.density.isfinite().all()
    assert times.seen[0] == 0


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "output"), [("simple", "vp", "noise"), ("edm", "vp", "v"), ("velocity", "linear", "velocity")]
)
def test_a_weight_is_the_error_of_another_output(name: WeightName, path: str, output: Any) -> None:
    x, guess, noise = torch.randn(3, 40, 2, dtype=torch.float64).unbind()
    gamma = torch.linspace(-9, 9, 40, dtype=torch.float64)
    alpha, sigma = (f(gamma).unsqueeze(-1) for f in (PATHS[path].alpha, PATHS[path].sigma))
    z = alpha * x + sigma * noise
    right, wrong = (predicted(output, x0, (z - alpha * x0) / sigma, alpha, sigma) for x0 in (x, guess))
    factor = weight(name, gamma, torch.full_like(gamma, torch.nan), torch.ones(()))
    torch.testing.assert_close((right - wrong).square().sum(1), factor * (x - guess).square().sum(1))


def test_min_snr_and_sigmoid_are_bounded_where_the_bound_is_not() -> None:
    gamma, one = torch.linspace(-14, 14, 57, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    rate = (-gamma).exp()
    assert weight("min-snr", gamma, rate, one).max() == MIN_SNR
    sigmoid = weight("sigmoid", gamma, rate, one)
    torch.testing.assert_close(sigmoid, math.exp(2) * torch.sigmoid(-gamma - 2))
    assert torch.equal(weight("bound", gamma, rate, one), rate)


def _rows(recipe: Recipe, x: Tensor, draws: int = 1) -> Tensor:
    model = build_seeded(recipe, DIGITS, 0)
    model.train()
    torch.manual_seed(0)
    with torch.no_grad():
        return torch.stack(
            [training_rows(recipe.training_objective, model(), x, torch.ones(()), 1) for _ in range(draws)]
        )  # pyright: ignore[reportArgumentType]


def test_the_objective_of_the_bound_is_its_diffusion_term() -> None:
    x = tb.load_data("digits").train.batch(torch.arange(32), torch.device("cpu")).x
    objective, bound, reconstruction, kl = _rows(VDM(**SMALL), x)[0]
    torch.testing.assert_close(bound, reconstruction - kl)
    model = build_seeded(VDM(**SMALL), DIGITS, 0)
    torch.testing.assert_close(
        objective - bound, model.bound.prior(model.units(x)) - reconstruction, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("recipe", [ScoreSDE(**SMALL), VDM(schedule="linear", adaptive_times=True, **SMALL)])
def test_whatever_is_trained_the_reported_bound_is_the_same(recipe: Recipe) -> None:
    """A new network corrects nothing, so that every recipe with the same output has the same bound."""
    x = tb.load_data("digits").train.batch(torch.arange(64), torch.device("cpu")).x
    of = lambda each: dataclasses.replace(each, predicts="edm", path="vp")
    here, plain = (_rows(of(each), x, 60)[:, 1].mean(1) for each in (recipe, VDM(schedule="linear", **SMALL)))
    error = (here.var() / 60 + plain.var() / 60) ** 0.5
    assert abs(here.mean() - plain.mean()) < 4 * error


def test_the_uncertainty_of_edm2_starts_as_the_weight_of_edm() -> None:
    x = torch.rand(8, 1, 8, 8)
    torch.testing.assert_close(_rows(EDM(weight="edm2", **SMALL), x)[0, 0], _rows(EDM(**SMALL), x)[0, 0])


# -- parts ------------------------------------------------------------------------------------------------------------


def test_a_new_network_is_exact_for_independent_gaussian_entries() -> None:
    torch.manual_seed(0)
    mean, std = torch.tensor([0.5, -1.0]), torch.tensor([0.6, 1.5])
    moments = Moments(torch.zeros(2), torch.ones(2))
    moments.initialise(mean + std * torch.randn(100_000, 2))
    denoiser, x = Preconditioned(lambda z, gamma, c: torch.zeros_like(z), moments=moments), torch.randn(50, 2)
    oracle = GaussianOracle(mean, std**2)
    torch.testing.assert_close(denoiser(x, torch.tensor(0.7)), oracle(x, torch.tensor(0.7)), rtol=0, atol=0.02)


def test_entries_that_never_vary_do_not_blow_up_inputs() -> None:
    moments = Moments(torch.zeros(3), torch.ones(3))
    x = torch.randn(1000, 3) * torch.tensor([1.0, 1.0, 0.0])
    moments.initialise(x)
    assert moments.std[2] > 0.05
    moments.initialise(torch.ones(10, 3))
    assert torch.equal(moments.std, torch.ones(3))


def test_the_gaussian_decoder_is_exact_for_gaussian_entries() -> None:
    moments, sigma = Moments(torch.tensor([0.5]), torch.tensor([0.7])), torch.tensor(0.4)
    decoded = GaussianDecoder(moments)(torch.tensor([[1.3]]), sigma)
    joint = torch.distributions.Normal
    x = torch.linspace(-1, 2, 7).unsqueeze(-1)
    likelihood = joint(x, sigma).log_prob(torch.tensor(1.3))
    evidence = joint(0.5, (0.7**2 + 0.4**2) ** 0.5).log_prob(torch.tensor(1.3))
    torch.testing.assert_close(decoded.log_prob(x), joint(0.5, 0.7).log_prob(x) + likelihood - evidence)


def test_a_schedule_gets_no_gradient_of_the_bound() -> None:
    schedule = Learned(-9.0, 8.0)
    bound = Bound(GaussianOracle(torch.zeros(2), torch.ones(2)), schedule, PATHS["vp"], GaussianDecoder(Moments()))
    assert not bound.diffusion(torch.randn(5, 2), torch.rand(5), torch.randn(5, 2)).requires_grad


# -- recipes ----------------------------------------------------------------------------------------------------------

RECIPES = [
    VDM(**SMALL),
    DDPM(**SMALL),
    ScoreSDE(**SMALL),
    EDM(**SMALL),
    EDM(weight="edm2", network="mlp", **SMALL),
    RectifiedFlow(network="dit", channels=(16,), blocks=1),
    RectifiedFlow(last_gamma="pure-noise", **SMALL),
    VDM(schedule="cosine", predicts="v", weight="min-snr", adaptive_times=True, condition="class", **SMALL),
    VDM(schedule="zero-terminal", predicts="v", weight="sigmoid", **SMALL),
    VDM(timesteps=10, schedule="linear", **SMALL),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_recipe_trains_and_samples(recipe: Recipe, tmp_path: Path) -> None:
    data = tb.load_data("digits")
    model = build_seeded(recipe, data.spec, 0)
    options = TrainingOptions(steps=4, batch_size=32, evaluate_every=2, log_every=2, pictures=False, device="cpu")
    result = train(model, data, out=tmp_path, options=options)
    assert result.best_bits_per_dim is not None
    assert math.isfinite(result.best_bits_per_dim)
    loaded = tb.load(tmp_path)
    c = None if loaded.condition is None else loaded.condition.to_show()
    shape = (2,) if c is None else ()
    assert loaded(c).sample(shape).isfinite().all()
    assert RunFolder(tmp_path).config().recipe == recipe


def test_everything_that_is_trained_gets_a_gradient() -> None:
    """Otherwise several processes would wait for each other."""
    for recipe in RECIPES:
        model = build_seeded(recipe, DataSpec("digits", shape=(1, 8, 8), levels=17, classes=tuple("0123456789")), 0)
        model.train()
        for p in model.denoiser.network.leave.parameters() if recipe.network != "dit" else ():  # pyright: ignore[reportAttributeAccessIssue]
            nn.init.normal_(p, std=0.1)
        c = None if model.condition is None else model.condition.to_show()[torch.zeros(8).long()]
        training_rows(recipe.training_objective, model(c), torch.rand(8, 1, 8, 8), torch.ones(()), 1)[
            0
        ].sum().backward()  # pyright: ignore[reportArgumentType]
        assert all(p.grad is not None for p in model.parameters()), recipe


@pytest.mark.parametrize("recipe", [VDM(**SMALL), VDM(schedule="linear", adaptive_times=True, **SMALL)], ids=str)
def test_interrupted_and_resumed_equals_uninterrupted(recipe: Recipe, tmp_path: Path) -> None:
    data = tb.load_data("digits")
    options = TrainingOptions(steps=12, batch_size=32, evaluate_every=4, log_every=2, pictures=False, device="cpu")
    train(build_seeded(recipe, data.spec, 0), data, out=tmp_path / "whole", options=options)
    short = dataclasses.replace(options, steps=6, evaluate_every=4)
    stopped = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tightbound.training.loop._Run._ended",
            lambda run, stop: "SIGTERM" if run.progress.step >= short.steps else "",
        )
        train(build_seeded(recipe, data.spec, 0), data, out=stopped, options=options)
    train(build_seeded(recipe, data.spec, 0), data, out=stopped, options=options, resume=True)
    whole, resumed = (RunFolder(tmp_path / name) for name in ("whole", "stopped"))
    assert whole.weights.read_bytes() == resumed.weights.read_bytes()
    assert whole.checkpoint("last").read_bytes() == resumed.checkpoint("last").read_bytes()


BAD: list[tuple[Any, str]] = [
    (lambda: VDM(timesteps=0), "two steps"),
    (lambda: VDM(timesteps=1), "two steps"),
    (lambda: VDM(dropout=1.0), "probability"),
    (lambda: VDM(channels=()).build(DIGITS), "halved"),
    (lambda: VDM(channels=(0,)), "unit"),
    (lambda: VDM(schedule="learned", adaptive_times=True), "learned schedule"),
    (lambda: VDM(schedule="linear", last_gamma="pure-noise"), "pure noise"),
    (lambda: VDM(schedule="cosine", last_gamma="pure-noise", timesteps=10), "pure noise"),
    (lambda: VDM(schedule="scaled-linear", first_gamma=-9.0), "rates"),
    (lambda: VDM(first_gamma=3.0, last_gamma=-3.0).build(DIGITS), "rise"),
    (lambda: VDM(network="unet").build(DataSpec("moons", shape=(2,), levels=None)), "images"),
    (lambda: VDM(condition="class").build(DIGITS), "condition"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_what_does_not_fit_is_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def test_units_follow_from_the_data(tmp_path: Path) -> None:
    x = torch.randn(200, 3) * torch.tensor([1.0, 5.0, 0.1]) + 7
    data = Data.from_arrays(x.numpy(), validation=0.2)
    model = build_seeded(VDM(channels=(8,)), data.spec, 0)
    start_model(model, data.train)
    torch.testing.assert_close(model.moments.mean, data.train.values.mean(0))
    assert model.levels is None
    assert build_seeded(VDM(**SMALL), DIGITS, 0).levels == 17
    assert build_seeded(VDM(**SMALL), dataclasses.replace(DIGITS, dequantized=True), 0).levels is None
    assert isinstance(build_seeded(VDM(schedule="linear", **SMALL), DIGITS, 0).schedule, Linear)


# -- compiling --------------------------------------------------------------------------------------------------------


@pytest.mark.compiles
@pytest.mark.parametrize(
    "options", [{}, {"schedule": "cosine", "predicts": "v"}, {"schedule": "linear", "adaptive_times": True}], ids=str
)
def test_a_training_step_is_one_graph(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    step = BoundStep(VDM(**SMALL, dropout=0.0, **options).build(DIGITS), None, 100)
    step, x = step.double(), torch.randint(0, 17, (6, 1, 8, 8)).double() / 16
    start = copy.deepcopy(step.state_dict())
    step(x, torch.ones(()))  # what torch looks up at its first call cannot be compiled
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    found = []
    for each in (step, compiled):
        step.load_state_dict(start)
        step.zero_grad()
        torch.manual_seed(1)
        rows = each(x, torch.ones(()))
        rows[0].sum().backward()
        trained, _, likelihood, kl = rows.detach()
        assert likelihood.isfinite().all()  # its noise is drawn after the network, in which a compiled dropout draws
        found.append([trained, kl, *(p.grad for p in step.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_a_classifier_of_noised_data_learns_and_guides(tmp_path: Path) -> None:
    data = tb.load_data("digits")
    model = build_seeded(NoisyClassifierRecipe(channels=(16, 16)), data.spec, 0)
    options = TrainingOptions(steps=80, lr=3e-3, batch_size=64, pictures=False, device="cpu")
    result = train(model, data, out=tmp_path, options=options)
    assert "log p(class | noised data)" in result.best_in_words
    valid = [record for record in RunFolder(tmp_path).records() if record["split"] == "valid"]
    assert valid[-1]["log_class"] > -math.log(10) + 0.1
    assert valid[-1]["accuracy"] > 0.2
    classifier = tb.load(tmp_path)
    guided = GuidedDiffusion(build_seeded(VDM(**SMALL), data.spec, 0), classifier)
    assert guided(Given({"class": torch.tensor([[3], [7]])})).sample((), Sampling(steps=4)).isfinite().all()
    with pytest.raises(UsageError, match="samples"):
        classifier(None).sample()
    with pytest.raises(ObjectiveError, match="likelihood"):
        tb.evaluate(classifier, data.test.subset(5))


def test_an_image_as_a_condition_is_seen_where_it_lies(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = torch.randint(2, (300, 1, 4, 4)).numpy().astype("float32")
    np.savez(tmp_path / "finer.npz", x=(255 * small.repeat(2, 2).repeat(2, 3)).astype("uint8"), c=small)
    data = tb.load_data(tmp_path / "finer.npz")
    model = VDM(condition="image", channels=(8,), blocks=1, heads=0, dropout=0.0).build(data.spec)
    train(
        model,
        data,
        steps=150,
        batch_size=32,
        lr=5e-3,
        ema=0.0,
        evaluate_every=150,
        out=tmp_path / "run",
        pictures=False,
    )
    unseen = torch.randint(2, (20, 1, 4, 4)).float()
    x = model(Given({"image": unseen.flatten(1)})).sample(how=Sampling(steps=10), seed=0)
    agreed = ((x[..., ::2, ::2] > 0.5) == (unseen > 0.5)).float().mean()
    assert agreed > 0.95  # 0.5 where the network is told the image as a whole, but not where its pixels lie
