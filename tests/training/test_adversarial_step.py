"""Two players in one backward pass do what the published scheme does in three."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tightbound import checkpoint
from tightbound.data import Data
from tightbound.errors import ObjectiveError, UsageError
from tightbound.models import LatentVariableModel
from tightbound.networks.perceptual import PerceptualNetwork
from tightbound.objectives import Elbo, elbo, reconstruction, vq
from tightbound.options.adversarial import Adversarial
from tightbound.options.objectives import Objective, Quantized
from tightbound.options.published import PublishedQuantized, WeakKL
from tightbound.options.training import TrainingOptions
from tightbound.recipes import VAE, VQVAE, KLAutoencoder, Recipe, VQAutoencoder
from tightbound.runs import RunFolder
from tightbound.training import features
from tightbound.training.clock import Clock
from tightbound.training.engine import Engine
from tightbound.training.loop import train, train_on
from tightbound.training.start import build_seeded
from tightbound.training.steps.adversarial import AdversarialStep
from tightbound.training.steps.choice import two_players

SMALL = VAE(latent_dim=4, network="convolutional", channels=(8, 16), likelihood="gaussian", scale="shared")
CODES = VQVAE(codes=8, code_dim=4, channels=(8,), blocks=1, revive=0)
GRID = KLAutoencoder(factor=4, channels=(8, 16), groups=4)
GRID_CODES = VQAutoencoder(factor=4, channels=(8, 16), groups=4, codes=16, likelihood="gaussian", revive=0)
GAME = Adversarial(base=Elbo(beta=1e-3), perceptual="features", width=8, start=0.25, ramp=0.25)
QUICK = TrainingOptions(
    steps=16, batch_size=16, evaluate_every=6, log_every=2, beta_warmup=0, pictures=False, device="cpu"
)


def pictures(n: int, side: int = 16, channels: int = 3) -> np.ndarray:
    """Soft coloured discs somewhere."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    centres, radii = random.uniform(4, side - 4, (n, 2, 1, 1)), random.uniform(2, 5, (n, 1, 1))
    discs = np.clip(radii - np.hypot(y - centres[:, 0], x - centres[:, 1]), 0, 1)
    return (255 * discs[..., None] * random.uniform(0.3, 1, (n, 1, 1, channels))).astype(np.uint8)


@pytest.fixture(scope="module")
def data() -> Data:
    found = pictures(56)
    return Data.from_arrays(found[:40], found[48:], found[40:48])


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "STEPS", 8)


def step_of(data: Data, objective: Adversarial = GAME, recipe: Recipe = SMALL, **changes: Any) -> AdversarialStep:
    model = build_seeded(recipe, data.spec, 0)
    return two_players(model, dataclasses.replace(objective, **changes), data.spec, len(data.train))


def at(step: AdversarialStep, share: float, data: Data) -> None:
    """Sets the clock to a share of the run."""
    clock = Clock(dataclasses.replace(QUICK, steps=100), len(data.train))
    step.before_step(clock.at(round(100 * share)))


def gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in module.parameters()]


def norm(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors]).norm()


# -- the published scheme ---------------------------------------------------------------------------------------------


class Published:
    """Three passes: the two gradients of the last layer, the generator's backward, the discriminator's backward.

    As Esser, Rombach and Ommer (2021): every loss is the mean over the batch, the perceptual distance is added to the
    absolute or squared error of every entry, and lambda is taken from the gradients at the last layer's weight.
    Here all of it times the nats of a unit of error.
    """

    def __init__(self, step: AdversarialStep, base: Callable[[Any], Tensor], nats: float) -> None:
        self.step, self.base, self.nats = step, base, nats
        self.entries = 3 * 16 * 16

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The likelihood's part, the rest of the base, the generator's and the image, each a mean over the batch."""
        model, judge, perceptual = self.step.model, self.step.discriminator, self.step.perceptual
        assert isinstance(model, LatentVariableModel)
        assert judge is not None
        assert perceptual is not None
        torch.manual_seed(0)
        with caught(model) as images:
            terms = model().terms(x)
        image = 2 * images[-1].mean.reshape(x.shape) - 1
        error = -reconstruction(terms) + self.nats * self.entries * perceptual(2 * x - 1, image)
        rest = -self.base(terms) + reconstruction(terms)
        return error.mean(), rest.mean(), -judge(image).mean(), image

    def run(self, x: Tensor, ramp: float) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Lambda, and the gradients of the model and of the discriminator."""
        step, o = self.step, self.step.objective
        judge, weight = step.discriminator, step.layer.get_parameter("weight")
        assert judge is not None
        error, rest, fooling, image = self.losses(x)
        one = torch.autograd.grad(error / self.nats, weight, retain_graph=True)[0]
        other = torch.autograd.grad(fooling, weight, retain_graph=True)[0]
        adaptive = (one.norm() / (other.norm() + o.delta)).clamp(0, o.largest).detach()
        (error + rest + ramp * o.weight * self.nats * adaptive * fooling).backward()
        mine = gradients(step.model)
        judge.zero_grad()
        real, fake = judge(2 * x - 1), judge(image.detach())
        (0.5 * (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean())).backward()
        return adaptive, mine, gradients(judge)


class caught:  # noqa: N801 - reads as a statement
    """The distributions that a model's likelihood returns inside the block."""

    def __init__(self, model: LatentVariableModel) -> None:
        self.likelihood, self.found = model.likelihood, []

    def __enter__(self) -> list[Any]:
        self.handle = self.likelihood.register_forward_hook(lambda m, i, output: self.found.append(output))
        return self.found

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


BASES: dict[str, tuple[Recipe, Objective, Callable[[Any, float], Tensor]]] = {
    "vector": (SMALL, Elbo(beta=1e-3), lambda terms, nats: elbo(terms, 1e-3)),
    "codes": (CODES, Quantized(), lambda terms, nats: vq(terms)),
    "grid": (GRID, WeakKL(), lambda terms, nats: elbo(terms, 1e-6 * nats)),
    "grid of codes": (GRID_CODES, PublishedQuantized(), lambda terms, nats: vq(terms, 12 * nats, 3 * nats)),
}
"""A recipe, an objective, and its value, given the nats of a unit of error; codes of 4 x 4 x 4 entries are a twelfth of
the image."""


@pytest.mark.parametrize("name", BASES)
def test_one_backward_equals_the_published_three(data: Data, name: str) -> None:
    recipe, base, value = BASES[name]
    step = step_of(data, recipe=recipe, base=base, largest=1e9).double()
    step.averages.decay = 0.0
    at(step, 0.3, data)
    x = data.train.batch(torch.arange(16)).x.double()
    step.model.eval()  # codes are not moved
    torch.manual_seed(0)
    step(x, torch.ones(()))  # measures lambda, which the next step uses
    assert step.likelihood.sigma is not None
    kind, sigma = recipe_likelihood(recipe), step.likelihood.sigma[1].item()
    nats = 2**0.5 / (2 * sigma) if kind == "laplace" else 1 / (8 * sigma**2)  # of an error in [-1, 1]
    published = Published(step, lambda terms: value(terms, nats), nats)
    found, mine, theirs = published.run(x, ramp=step.ramp.item())
    assert step.ramp.item() == pytest.approx(6 / 25)
    assert step.averages.weight.item() == pytest.approx(found.item(), rel=1e-10)
    assert 1e-2 < found < step.objective.largest
    step.zero_grad()
    torch.manual_seed(0)
    (-step(x, torch.ones(()))[0].mean()).backward()
    judge = step.discriminator
    assert judge is not None
    for ours, expected in ((gradients(step.model), mine), (gradients(judge), theirs)):
        difference = norm([a - b for a, b in zip(ours, expected, strict=True)])
        assert difference < 1e-10 * norm(expected)
        assert norm(expected) > 0


def recipe_likelihood(recipe: Any) -> str:
    return recipe.likelihood


# -- isolation --------------------------------------------------------------------------------------------------------


def learned(step: AdversarialStep, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients of model and discriminator after one pass."""
    assert step.discriminator is not None
    step.zero_grad()
    torch.manual_seed(0)
    (-step(x, torch.ones(()))[0].sum()).backward()
    return gradients(step.model), gradients(step.discriminator)


def test_each_players_gradient_ignores_the_others_loss(data: Data) -> None:
    """With another weight of the judgement the discriminator learns the same; scaled discriminator losses leave the
    model's gradient as it is."""
    x = data.train.batch(torch.arange(8)).x.double()
    plain, heavy, regular = (step_of(data, weight=w, lecam=l).double() for w, l in ((0.5, 0), (5.0, 0), (0.5, 3.0)))
    for step in (plain, heavy, regular):
        at(step, 0.6, data)
        learned(step, x)
        step.averages.decay = 1.0
    (mine, theirs), (more, same), (kept, other) = (learned(step, x) for step in (plain, heavy, regular))
    assert all(torch.equal(a, b) for a, b in zip(theirs, same, strict=True))
    assert norm([a - b for a, b in zip(mine, more, strict=True)]) > 1e-3 * norm(mine)
    assert all(torch.equal(a, b) for a, b in zip(mine, kept, strict=True))
    assert norm([a - b for a, b in zip(theirs, other, strict=True)]) > 1e-3 * norm(theirs)


def test_before_its_start_the_discriminator_learns_and_nothing_of_it_reaches_the_model(data: Data) -> None:
    x = data.train.batch(torch.arange(8)).x.double()
    step, alone = step_of(data).double(), step_of(data, game="none").double()
    at(step, 0.2, data)
    mine, theirs = learned(step, x)
    alone.zero_grad()
    torch.manual_seed(0)
    (-alone(x, torch.ones(()))[0].sum()).backward()
    assert norm([a - b for a, b in zip(mine, gradients(alone.model), strict=True)]) < 1e-12 * norm(mine)
    assert norm(theirs) > 0
    assert step.averages.weighed == 0


def test_before_its_start_the_discriminator_is_not_differentiated_at_the_image(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, taken = data.train.batch(torch.arange(8)).x, list[object]()
    rule = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: taken.append(a) or rule(*a, **k))
    step = step_of(data)
    counts = list[int]()
    for share in (0.2, 0.3):
        at(step, share, data)
        taken.clear()
        step(x, torch.ones(()))
        counts.append(len(taken))
    assert counts == [2, 7]  # the perceptual distance at the image and back; then judgement and lambda too


# -- the weight of the judgement --------------------------------------------------------------------------------------


def test_the_weight_rises_over_the_ramp_and_a_fixed_one_needs_no_gradients_of_the_last_layer(data: Data) -> None:
    step = step_of(data, adaptive="none")
    shares = list[float]()
    for share in (0.0, 0.24, 0.25, 0.37, 0.49, 0.9):
        at(step, share, data)
        shares.append(step.ramp.item())
    assert shares == pytest.approx([0, 0, 1 / 25, 13 / 25, 1, 1])
    step(data.train.batch(torch.arange(8)).x, torch.ones(()))
    assert step.averages.weighed == 0
    sigma = step.likelihood.sigma
    assert sigma is not None
    assert step._weight().item() == pytest.approx(0.5 * 3 * 16 * 16 / (8 * sigma[1].item() ** 2))


def test_lambda_stays_below_its_largest_value(data: Data) -> None:
    step = step_of(data, largest=0.25)
    at(step, 0.6, data)
    step(data.train.batch(torch.arange(8)).x, torch.ones(()))
    assert step.averages.weight.item() == 0.25


def test_a_batch_in_parts_has_the_averages_of_the_whole(data: Data) -> None:
    x = data.train.batch(torch.arange(24)).x.double()
    whole, parted = (step_of(data, lecam=0.1).double() for _ in range(2))
    for step in (whole, parted):
        at(step, 0.6, data)
    for _ in range(3):
        quiet(whole, x)
        for i, share in enumerate((x[:10], x[10:], x[:1])):
            with parted.averages.part_of_batch(number=i, of=3, more=i < 2, empty=i == 2):
                quiet(parted, share)
    for name, value in whole.averages.state_dict().items():
        torch.testing.assert_close(parted.averages.state_dict()[name], value, rtol=1e-10, atol=1e-12)
    assert whole.averages.weight > 0
    assert whole.averages.judged == 1


def quiet(step: AdversarialStep, x: Tensor) -> None:
    """A step whose latents are the means of the posterior."""
    with pytest.MonkeyPatch.context() as patch:
        mean = lambda self, shape=(): self.mean.expand(*shape, *self.mean.shape)
        patch.setattr(torch.distributions.Normal, "rsample", mean)
        step(x, torch.ones(()))


# -- numbers that are not finite --------------------------------------------------------------------------------------


class Dead(nn.Module):
    """A layer that returns nothing but zeros, with a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_zero_features_and_equal_images_leave_every_gradient_finite(data: Data, precision: torch.dtype) -> None:
    step = step_of(data)
    assert isinstance(step.perceptual, PerceptualNetwork)
    step.perceptual.taps.levels[0].append(Dead())  # pyright: ignore
    at(step, 0.6, data)
    x = torch.zeros(4, 3, 16, 16)
    for _ in range(2):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            rows = step(x, torch.ones(()))
        step.zero_grad()
        (-rows[0].sum()).backward()
        assert rows.isfinite().all()
        assert all(g.isfinite().all() for g in gradients(step))
    assert step.averages.weight.isfinite()


def test_a_weight_that_is_not_finite_is_left_out_of_the_average(data: Data) -> None:
    averages = step_of(data).averages
    sums = {"n": torch.tensor(2.0), "reconstruction": torch.ones(3), "adversarial": torch.ones(3)}
    averages.take(sums, [])
    known = averages.weight.clone()
    averages.take({**sums, "reconstruction": torch.full((3,), torch.nan)}, [])
    assert torch.equal(averages.weight, known)
    assert 0.9 < known < 1


# -- runs -------------------------------------------------------------------------------------------------------------


def trained(data: Data, out: Path, resume: bool = False, **changes: Any) -> AdversarialStep:
    step = step_of(data, lecam=0.01)
    train_on(step, data, data, out=out, options=dataclasses.replace(QUICK, **changes), resume=resume)
    return step


def records(out: Path, split: str) -> list[dict[str, Any]]:
    return [record for record in RunFolder(out).records() if record["split"] == split]


def test_a_killed_run_ends_as_one_that_never_stopped(data: Data, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    trained(data, whole, ema=0.9)
    rule, left = torch.optim.AdamW.step, iter(range(13 + 8))  # of the features, then of the run

    def stopping(self: torch.optim.AdamW, *arguments: Any) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return rule(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            trained(data, killed, ema=0.9)
    assert checkpoint.read(RunFolder(killed).checkpoint("last"))["progress"]["step"] == 12
    trained(data, killed, resume=True, ema=0.9)
    for name in ("last", "best"):
        assert RunFolder(killed).checkpoint(name).read_bytes() == RunFolder(whole).checkpoint(name).read_bytes()
    kept = checkpoint.read(RunFolder(whole).checkpoint("last"))["step"]
    assert {name.partition(".")[0] for name in kept} == {"averages", "discriminator", "perceptual", "ramp"}
    assert kept["averages.weight"] > 0
    assert not any("discriminator" in name for name in checkpoint.read(whole / "model.safetensors"))


def test_the_log_has_the_health_of_both_players(data: Data, tmp_path: Path) -> None:
    trained(data, tmp_path)
    found = records(tmp_path, "train")
    assert [record["ramp"] for record in found] == pytest.approx([0, 0, 0.5, 1, 1, 1, 1, 1])
    assert all(0 <= record["accuracy"] <= 1 for record in found)
    assert found[1]["adversarial"] == 0
    assert found[-1]["adversarial"] != 0
    assert found[-1]["adaptive_weight"] > 0
    assert len(found[-1]["latent_means"]) == len(found[-1]["latent_deviations"]) == 4
    assert min(found[-1]["latent_deviations"]) > 0
    assert found[-1]["largest_activation"] > 0
    assert {"gap", "discriminator", "perceptual"} <= set(found[-1])


def test_the_last_weights_are_kept(data: Data, tmp_path: Path) -> None:
    step = trained(data, tmp_path)
    last = checkpoint.read(RunFolder(tmp_path).checkpoint("last"))
    assert last["progress"]["best_step"] == 16
    for name, weights in checkpoint.tensors_of(step.model).items():
        assert torch.equal(weights, last["model"][name])


def test_a_likelihood_that_is_no_error_is_refused(data: Data) -> None:
    with pytest.raises(ObjectiveError, match=r"absolute or a squared error(?s:.*)laplace or gaussian"):
        step_of(data, recipe=dataclasses.replace(SMALL, likelihood="categorical", scale="auto"), perceptual="none")


def test_a_likelihood_without_a_last_layer_is_refused(data: Data) -> None:
    with pytest.raises(UsageError, match=r"last layer is known(?s:.*)remedy"):
        step_of(data, recipe=VAE(latent_dim=2, likelihood="autoregressive"), perceptual="none")


def test_on_crops_every_sum_stands_for_the_whole_image(data: Data) -> None:
    """Crops as large as the image change nothing; smaller ones are what the discriminator must fit."""
    found = list[Tensor]()
    for recipe in (GRID, dataclasses.replace(GRID, train_crop=16)):
        step = step_of(data, recipe=recipe, base=WeakKL())
        at(step, 0.6, data)
        torch.manual_seed(0)
        found.append(step(data.train.batch(torch.arange(8)).x, torch.ones(())))
    assert torch.equal(*found)
    with pytest.raises(UsageError, match=r"16 x 16 in images of 8 x 8"):
        step_of(data, recipe=dataclasses.replace(GRID, train_crop=8))


def test_crops_are_trained_on_and_whole_images_evaluated() -> None:
    found = pictures(24, side=32)
    data = Data.from_arrays(found[:16], found[20:], found[16:20])
    step = step_of(data, recipe=dataclasses.replace(GRID, train_crop=16), base=WeakKL())
    at(step, 0.6, data)
    x = data.train.batch(torch.arange(8)).x
    rows = step.train()(x, torch.ones(()))
    whole = step_of(data, recipe=GRID, base=WeakKL())(x, torch.ones(()))
    names = step.rows
    for name in ("bound", "reconstruction", "perceptual"):
        a, b = (each[names.index(name)].mean() for each in (rows, whole))
        assert 0.7 < a / b < 1.4


def test_a_recipe_plays_where_its_options_say_so(data: Data, tmp_path: Path) -> None:
    recipe = dataclasses.replace(GRID, perceptual="features", adversarial="hinge", discriminator_width=4)
    assert recipe.training_objective.game == "hinge"  # pyright: ignore[reportAttributeAccessIssue]
    model = build_seeded(recipe, data.spec, 0)
    train(model, data, out=tmp_path, options=dataclasses.replace(QUICK, steps=8))
    assert {"perceptual", "gap", "adaptive_weight"} <= set(records(tmp_path, "train")[-1])
    assert isinstance(GRID.training_objective, WeakKL)


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it imports its compiler
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own, in its tracer
def test_what_is_compiled_computes_the_same(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated ahead of time, but run as it is."""
    compiler = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiler(self, backend="aot_eager"))
    found = list[Tensor]()
    for compiled in (False, True):
        options = dataclasses.replace(QUICK, batch_size=8, compile=compiled)
        engine = Engine(step_of(data, recipe=GRID, base=WeakKL()), data.train, options)
        engine.prepare_compiling()
        found.append(torch.stack([engine.advance(engine.clock.at(i))[0] for i in range(6)]))
        assert ("largest_activation" in engine.step.readings()) is not compiled
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-3)


def test_several_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="one reconstruction"):
        Adversarial(base=Elbo(samples=2))
