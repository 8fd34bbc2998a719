"""Paths, schedules and what networks predict: one process in many coordinates."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from tightbound.diffusion import (
    PATHS,
    Cosine,
    GaussianOracle,
    Learned,
    Linear,
    MixtureOracle,
    Moments,
    Preconditioned,
    ScaledLinear,
    Schedule,
    first_gamma,
    grid,
)
from tightbound.diffusion.paths import Prediction, denoised, expanded, find_path, predicted
from tightbound.errors import ShapeError, TightboundError, UsageError

GAMMAS = torch.linspace(-20, 20, 81, dtype=torch.float64)
SCHEDULES: list[Schedule] = [Linear(-13.3, 5.0), Cosine(-13.3, 5.0), ScaledLinear(), Learned(-13.3, 5.0)]


# -- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATHS)
def test_the_ratio_of_a_path_is_its_gamma(name: str) -> None:
    path = PATHS[name]
    ratio = 2 * (path.sigma(GAMMAS) / path.alpha(GAMMAS)).log()
    torch.testing.assert_close(ratio, GAMMAS, rtol=1e-12, atol=1e-12)


def test_paths_are_what_their_names_say() -> None:
    factors = {name: (path.alpha(GAMMAS), path.sigma(GAMMAS)) for name, path in PATHS.items()}
    one = torch.ones_like(GAMMAS)
    a, s = factors["vp"]
    torch.testing.assert_close(a**2 + s**2, one, rtol=1e-12, atol=0)
    assert torch.equal(factors["ve"][0], one)
    a, s = factors["sub-vp"]
    torch.testing.assert_close(a**2 + s, one, rtol=1e-9, atol=1e-12)
    a, s = factors["linear"]
    torch.testing.assert_close(a + s, one, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PATHS)
def test_float32_keeps_both_factors(name: str) -> None:
    path = PATHS[name]
    for factor in (path.alpha, path.sigma):
        torch.testing.assert_close(factor(GAMMAS.float()).double(), factor(GAMMAS), rtol=3e-6, atol=0)


@pytest.mark.parametrize("name", PATHS)
def test_the_start_of_a_sampler_has_the_deviation_of_the_stand_in(name: str) -> None:
    gamma, path = torch.tensor(4.0, dtype=torch.float64), PATHS[name]
    z = 1.0 if path.unit else path.sigma(gamma).item()
    assert (path.end(gamma) * path.alpha(gamma)).item() == pytest.approx(z, rel=1e-12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", get_args(Prediction))
def test_all_predictions_are_the_same_denoiser(path: str, name: Prediction) -> None:
    """To 1e-12 relative, wherever the conversion does not divide by nearly nothing."""
    torch.manual_seed(0)
    x0, e = torch.randn(2, 81, dtype=torch.float64)
    a, s = PATHS[path].alpha(GAMMAS), PATHS[path].sigma(GAMMAS)
    found = denoised(name, predicted(name, x0, e, a, s), a * x0 + s * e, a, s)
    lost = 1 + (s / a if name in ("noise", "score") else 0)  # digits lost to the noise
    assert ((found - x0).abs() / lost).max() < 1e-12


@pytest.mark.parametrize("predicts", ["edm", *get_args(Prediction)])
@pytest.mark.parametrize("path", PATHS)
def test_a_network_that_predicts_well_is_the_oracle(predicts: str, path: str) -> None:
    """Every parameterisation of the optimal network gives the same expectation, at the infinite end too."""
    mean, std = torch.tensor([0.3, -1.0], dtype=torch.float64), torch.tensor([0.7, 2.0], dtype=torch.float64)
    oracle = GaussianOracle(mean, std**2)
    if predicts == "edm":
        torch.testing.assert_close(_edm(mean, std)(*_noised()), oracle(*_noised()), rtol=1e-12, atol=1e-12)
        return

    def network(z: Tensor, gamma: Tensor, c: object) -> Tensor:
        g = gamma.unsqueeze(-1)
        a, s = PATHS[path].alpha(g), PATHS[path].sigma(g)
        x = z / a
        x0 = oracle(x, (gamma / 2).exp())
        return predicted(predicts, x0, (z - a * x0) / s, a, s)  # pyright: ignore[reportArgumentType]

    found = Preconditioned(network, predicts=predicts, path=PATHS[path])(*_noised())
    torch.testing.assert_close(found, oracle(*_noised()), rtol=1e-9, atol=1e-9)


def _noised() -> tuple[Tensor, Tensor]:
    sigma = torch.tensor([0.05, 0.5, 3.0, 20.0], dtype=torch.float64)
    return 2 * sigma.unsqueeze(-1) * torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2), sigma


def _edm(mean: Tensor, std: Tensor) -> Preconditioned:
    return Preconditioned(lambda z, gamma, c: torch.zeros_like(z), moments=Moments(mean, std))


def test_pure_noise_is_an_input_like_others() -> None:
    mean, std = torch.tensor([0.3, -1.0], dtype=torch.float64), torch.tensor([0.7, 2.0], dtype=torch.float64)
    noise, sigma = torch.randn(3, 2, dtype=torch.float64), torch.full((3,), torch.inf, dtype=torch.float64)
    torch.testing.assert_close(_edm(mean, std)(noise, sigma), mean.expand(3, 2))
    seen = list[Tensor]()

    def network(z: Tensor, gamma: Tensor, c: object) -> Tensor:
        seen.append(z)
        return -torch.ones_like(z)

    found = Preconditioned(network, predicts="v")(noise, sigma)
    assert torch.equal(seen[0], noise)
    assert torch.equal(found, torch.ones(3, 2, dtype=torch.float64))


# -- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules_rise_between_their_ends(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    gamma = schedule.double()(t)
    assert gamma[0].item() == pytest.approx(schedule.start, abs=1e-9)
    assert gamma[-1].item() == pytest.approx(schedule.end, abs=1e-9)
    assert (gamma.diff() > 0).all()
    t, h = torch.linspace(0.01, 0.99, 99, dtype=torch.float64), 1e-6
    slope = (schedule(t + h) - schedule(t - h)).detach() / (2 * h)
    torch.testing.assert_close(schedule.slope(t).detach(), slope, rtol=1e-3, atol=1e-5)
    schedule.float()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules_are_as_good_in_float32(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 101)
    single, double = schedule(t), schedule.double()(t.double())
    schedule.float()
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-3)


@pytest.mark.parametrize("schedule", [Cosine(-10.0, math.inf), ScaledLinear(zero_terminal=True)])
def test_a_schedule_may_end_in_pure_noise(schedule: Schedule) -> None:
    ratios = grid(schedule, 10, "time")
    assert ratios[0].item() == math.inf
    assert ratios[1:].isfinite().all()
    with pytest.raises(UsageError, match="pure noise"):
        grid(schedule, 10)


def test_gradients_reach_a_learned_schedule() -> None:
    schedule, t = Learned(-8.0, 5.0), torch.rand(5)
    (schedule(t).sum() + schedule.slope(t).square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in schedule.parameters())


@pytest.mark.parametrize("spacing", ["log-snr", "karras", "time"])
@pytest.mark.parametrize("to_zero", [False, True])
def test_grids_fall_from_end_to_start(spacing: str, to_zero: bool) -> None:
    found = grid(Cosine(-10.0, 6.0), 7, spacing, to_zero=to_zero)  # pyright: ignore[reportArgumentType]
    assert len(found) == 8 + to_zero
    assert found[0].item() == pytest.approx(math.exp(3.0))
    assert found[7].item() == pytest.approx(math.exp(-5.0))
    assert (found.diff() < 0).all()


def test_karras_grid_is_that_of_the_paper() -> None:
    """(max^(1/7) + i / (N - 1) (min^(1/7) - max^(1/7)))^7, with N ratios before the 0."""
    schedule = Linear(2 * math.log(0.002), 2 * math.log(80))
    found = grid(schedule, 17, "karras", to_zero=True)
    i = torch.arange(18, dtype=torch.float64) / 17
    expected = (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(found[:-1], expected)
    assert found[-1] == 0


BAD = {
    "falls": lambda: Linear(5.0, -5.0),
    "no start": lambda: Linear(-math.inf, 5.0),
    "nan": lambda: Cosine(math.nan, 5.0),
    "no end to learn": lambda: Learned(-5.0, math.inf),
    "rates fall": lambda: ScaledLinear(0.02, 0.01),
    "too many": lambda: ScaledLinear(steps=10**9),
    "no steps": lambda: grid(Linear(-5.0, 5.0), 0),
    "a million steps": lambda: grid(Linear(-5.0, 5.0), 10**6),
    "no spacing": lambda: first_gamma(0.0),
    "no path": lambda: find_path("straight"),
    "covariance": lambda: GaussianOracle(torch.zeros(2), torch.eye(3)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(TightboundError) as caught:
        BAD[name]()
    assert caught.value.expected or caught.value.got or isinstance(caught.value, ShapeError)


# -- oracles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.05, 1.0, 30.0])
def test_the_score_of_an_oracle_is_the_gradient_of_its_density(level: float) -> None:
    sigma = torch.tensor(level, dtype=torch.float64)
    means = torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=torch.float64)
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    for oracle in (GaussianOracle(means[0], covariance), MixtureOracle(means, 0.3), MixtureOracle(means)):
        x = (level * torch.linspace(-2, 2, 10, dtype=torch.float64).reshape(5, 2)).requires_grad_()
        (slope,) = torch.autograd.grad(oracle.log_prob(x, sigma).sum(), x)
        found = (oracle(x, sigma) - x) / expanded(sigma, x).square()
        torch.testing.assert_close(found, slope, rtol=1e-9, atol=1e-9)


def test_an_oracle_takes_one_ratio_for_each_example_and_events_of_any_shape() -> None:
    torch.manual_seed(0)
    points = MixtureOracle(torch.randn(3, 1, 2, 2, dtype=torch.float64))
    gaussian = GaussianOracle(torch.zeros(1, 2, 2, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    x, sigma = torch.randn(5, 1, 2, 2, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    for oracle in (points, gaussian):
        each = torch.stack([oracle(x[i : i + 1], sigma[i])[0] for i in range(5)])
        torch.testing.assert_close(oracle(x, sigma), each)
        assert oracle.sample(7).shape == (7, 1, 2, 2)
        assert torch.isfinite(oracle(x, torch.full((5,), torch.inf, dtype=torch.float64))).all()
