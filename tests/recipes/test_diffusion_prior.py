"""A prior of latent vectors by diffusion: whitened, bounded, fitted, sampled."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

import tightbound as tb
from tightbound.data import Data
from tightbound.diffusion import Diffusion, DiffusionPrior, GaussianOracle, Linear
from tightbound.distributions import Sampling
from tightbound.errors import ObjectiveError, UsageError
from tightbound.options.priors import DiffusionPrior as Options
from tightbound.posteriors.encoded import Draws, Moments
from tightbound.recipes import VAE, VQVAE, TwoStage
from tightbound.runs import RunFolder
from tightbound.training.second_stage import fit_prior
from tightbound.training.start import build_seeded
from tightbound.training.whitening import LEAST_GAMMA, resolved, whiten


def test_a_whitened_prior_is_bounded_by_the_entropy_in_the_units_of_its_latents() -> None:
    torch.manual_seed(0)
    oracle = GaussianOracle(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    prior = DiffusionPrior(Diffusion(oracle, Linear(-12.0, 12.0), (3,))).double()
    mean, std = torch.tensor([1.0, -2.0, 0.0]).double(), torch.tensor([0.1, 5.0, 1.0]).double()
    prior.whiten(mean, std)
    z = mean + std * torch.randn(20_000, 3, dtype=torch.float64)
    bound, entropy = prior().lower_bound(z), (0.5 * math.log(2 * math.pi * math.e) + std.log()).sum()
    assert abs(bound.mean() + entropy) < 4 * bound.std() / len(bound) ** 0.5
    drawn = prior().sample((4000,), Sampling(steps=50))
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.2)
    torch.testing.assert_close(drawn.std(0), std, rtol=0.1, atol=0)
    with pytest.raises(ObjectiveError):
        _ = prior().mean


def test_moments_and_the_least_noise_are_those_of_all_latents() -> None:
    torch.manual_seed(0)
    mean, std = torch.randn(9000, 2) * torch.tensor([1.0, 3.0]), torch.tensor([0.05, 0.3]).expand(9000, 2)
    values = torch.stack([mean, std], dim=1).unsqueeze(1)
    split = Data.from_arrays(values.flatten(1).numpy(), validation=0.1, standardize="none").train
    split = dataclasses.replace(split, values=values[:8100])
    options = resolved(Options(), split, Moments(values))
    assert isinstance(options, Options)
    assert options.first_gamma == pytest.approx(2 * math.log(0.05 / 7), abs=0.05)
    assert resolved(Options(first_gamma=-3.0), split, Moments(values)) == Options(first_gamma=-3.0)
    assert resolved(Options(), split, Draws(values)) == Options(first_gamma=LEAST_GAMMA)
    prior = DiffusionPrior(Diffusion(GaussianOracle(torch.zeros(2), torch.ones(2)), Linear(-9.0, 9.0), (2,)))
    whiten(prior, split, Moments(values))
    torch.testing.assert_close(prior.std, torch.tensor([1.0, 3.0]), rtol=0.05, atol=0)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, out = tb.load_data("digits"), tmp_path_factory.mktemp("first")
    model = build_seeded(VAE(latent_dim=3, hidden=(32,)), data.spec, 0)
    tb.train(model, data, out=out, steps=60, pictures=False, device="cpu")
    return out


def test_it_is_fitted_evaluated_and_sampled(first: Path, tmp_path: Path) -> None:
    result = fit_prior(first, out=tmp_path, prior=Options(width=32, layers=1), steps=12, device="cpu")
    assert result.stopped == "done"
    model, data = tb.load(tmp_path), tb.load_data("digits")
    recipe = RunFolder(tmp_path).config().recipe
    assert isinstance(recipe, TwoStage)
    assert recipe.prior.first_gamma < -2  # pyright: ignore[reportAttributeAccessIssue]
    found = tb.evaluate(model, data.test.subset(40))
    assert found.method == "bound"
    assert found.bits_per_dim is not None
    assert found.elbo is not None
    assert found.nll is not None
    assert found.nll.value == pytest.approx(-found.elbo.value, rel=1e-4)
    assert model().sample((4,)).shape == (4, 1, 8, 8)


def test_a_resumed_fit_ends_alike(first: Path, tmp_path: Path) -> None:
    options = {"prior": Options(width=32, layers=1), "device": "cpu", "evaluate_every": 4}
    fit_prior(first, out=tmp_path / "whole", steps=12, **options)  # pyright: ignore[reportArgumentType]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tightbound.training.loop._Run._ended", lambda run, stop: "SIGTERM" * (run.progress.step >= 6))
        fit_prior(first, out=tmp_path / "stopped", steps=12, **options)  # pyright: ignore[reportArgumentType]
    fit_prior(first, out=tmp_path / "stopped", steps=12, resume=True, **options)  # pyright: ignore[reportArgumentType]
    whole, resumed = (RunFolder(tmp_path / name).weights.read_bytes() for name in ("whole", "stopped"))
    assert whole == resumed


def test_codes_are_refused() -> None:
    data = tb.load_data("digits").spec
    codes = VQVAE(codes=8, channels=(8,), blocks=1)
    with pytest.raises(UsageError, match="vectors"):
        build_seeded(TwoStage(tb.recipes.Stage(codes), Options()), data, 0)
