"""Steps of samplers on Gaussian data: the law of their samples is a recursion, and their order the stated one."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tightbound.diffusion import STEPS, ExampleNoise, GaussianOracle, Linear, Sampler, grid
from tightbound.diffusion.steps import dpm_2m, euler

MEAN, STD = 0.3, 0.7
ORACLE = GaussianOracle(torch.tensor([MEAN], dtype=torch.float64), torch.tensor([STD**2], dtype=torch.float64))


class Impulses:
    """For a batch, noise that is one in the j-th draw of example j, and 0 otherwise; example 0 has none."""

    def __init__(self, draws: int) -> None:
        self.draws, self.drawn = draws, 0

    def __call__(self) -> Tensor:
        self.drawn += 1
        out = torch.zeros(self.draws + 1, 1, dtype=torch.float64)
        out[self.drawn] = 1.0
        return out


def law(sampler: Sampler, draws: int = 3000) -> tuple[float, float]:
    """Mean and variance of the samples: every sample is linear in all noise that is drawn."""
    x = sampler(ORACLE, Impulses(min(draws, 2 * len(sampler.grid)))).squeeze(1)
    return x[0].item(), (x[1:] - x[0]).square().sum().item()


# -- the same laws, by hand -------------------------------------------------------------------------------------------


def gain(sigma: float) -> float:
    """Of the denoiser, D = m + gain (x - m); below, factors on x - m and on the noise."""
    return STD**2 / (STD**2 + sigma**2)


def ddim_by_hand(s: float, t: float) -> tuple[float, float]:
    return gain(s) + t / s * (1 - gain(s)), 0.0


def ancestral_by_hand(s: float, t: float) -> tuple[float, float]:
    return gain(s) * (1 - t**2 / s**2) + t**2 / s**2, t * math.sqrt(1 - t**2 / s**2)


def heun_by_hand(s: float, t: float) -> tuple[float, float]:
    whole = 1 + (t - s) * (1 - gain(s)) / s
    return 1 + (t - s) / 2 * ((1 - gain(s)) / s + whole * (1 - gain(t)) / t), 0.0


def euler_maruyama_by_hand(s: float, t: float) -> tuple[float, float]:
    return 1 - (s**2 - t**2) / s**2 * (1 - gain(s)), math.sqrt(s**2 - t**2)


BY_HAND = {
    "ddim": ddim_by_hand,
    "ancestral": ancestral_by_hand,
    "heun": heun_by_hand,
    "euler-maruyama": euler_maruyama_by_hand,
}


def recursion(name: str, ratios: list[float], start: float) -> tuple[float, float]:
    """From N(0, start^2): x - m has a mean of its own, which no sampler forgets at once."""
    mean, variance = -MEAN, start**2
    for s, t in pairwise(ratios):
        if name == "predictor-corrector":
            factor, noise = ancestral_by_hand(s, t)
            mean, variance = factor * mean, factor**2 * variance + noise**2
            kept = 1 - 0.05 * (1 - gain(t))
            mean, variance = kept * mean, kept**2 * variance + 0.1 * t**2
        else:
            factor, noise = BY_HAND[name](s, t)
            mean, variance = factor * mean, factor**2 * variance + noise**2
    return MEAN + mean, variance


def multistep(ratios: list[float], start: float, *, sde: bool) -> tuple[float, float]:
    """As the weights of the start and of every noise, by the two terms that a step looks back on."""
    weights = torch.zeros(len(ratios) + 1, dtype=torch.float64)
    offset = torch.tensor(-MEAN, dtype=torch.float64)
    weights[0] = start
    state, old, before = torch.cat([offset[None], weights]), None, 0.0
    for i, (s, t) in enumerate(pairwise(ratios)):
        expected = gain(s) * state
        mid = expected if old is None else expected + math.log(s / t) / (2 * math.log(before / s)) * (expected - old)
        kept = (t / s) ** (2 if sde else 1)
        state = kept * state + (1 - kept) * mid
        if sde:
            state[i + 2] += t * math.sqrt(1 - t**2 / s**2)
        old, before = expected, s
    return MEAN + state[0].item(), state[1:].square().sum().item()


def ratios_of(steps: int, start: float = -8.0, end: float = 5.0) -> Tensor:
    return grid(Linear(start, end), steps)


@pytest.mark.parametrize("name", [*BY_HAND, "predictor-corrector"])
@pytest.mark.parametrize("steps", [2, 3, 7, 50])
def test_the_law_of_the_samples_is_its_recursion(name: str, steps: int) -> None:
    ratios, start = ratios_of(steps), math.sqrt(1 + math.exp(5.0))
    found = law(Sampler(name, ratios, start))
    assert found == pytest.approx(recursion(name, ratios.tolist(), start), abs=1e-10)


@pytest.mark.parametrize("name", ["2m", "2m-sde"])
@pytest.mark.parametrize("steps", [2, 3, 7, 50])
def test_the_law_of_multistep_samples_is_its_recursion(name: str, steps: int) -> None:
    ratios, start = ratios_of(steps), math.exp(2.5)
    found = law(Sampler(name, ratios))
    assert found == pytest.approx(multistep(ratios.tolist(), start, sde=name == "2m-sde"), abs=1e-10)


def test_eulers_step_turns_by_the_angle() -> None:
    """On the variance-preserving path, z' = z + (angle) v: by hand for one step."""
    s, t, x = 2.0, 0.5, torch.tensor([[1.7]], dtype=torch.float64)
    z, x0 = x / math.sqrt(1 + s * s), ORACLE(x, torch.tensor(s))
    v = ((x - x0) / s - s * x0) / math.sqrt(1 + s * s)
    expected = (z + (math.atan(t) - math.atan(s)) * v) * math.sqrt(1 + t * t)
    found, _ = euler(lambda x, s: ORACLE(x, torch.tensor(s)), x, s, t, lambda: x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


PUBLISHED = {
    ("ancestral", 10): 0.2250, ("ancestral", 50): 0.4103, ("ancestral", 1000): 0.4856,
    ("ddim", 10): 0.3116, ("ddim", 50): 0.4488, ("ddim", 1000): 0.4894,
}  # fmt: skip
"""Variances on the linear schedule from -13.3 to 5, of data with variance 0.49, computed without this library."""


@pytest.mark.parametrize(("name", "steps"), PUBLISHED)
def test_variances_are_those_computed_elsewhere(name: str, steps: int) -> None:
    ratios, start = ratios_of(steps, start=-13.3), math.sqrt(1 + math.exp(5.0))
    assert round(law(Sampler(name, ratios, start))[1], 4) == PUBLISHED[name, steps]


# -- orders -----------------------------------------------------------------------------------------------------------


def exact(ratios: Tensor) -> tuple[float, float]:
    """The law of the data with the last noise, from the exact law at the first ratio."""
    return MEAN, STD**2 + ratios[-1].item() ** 2


def error_of_mean(name: str, steps: int) -> float:
    """Of the ODE's map: it moves x - m by the ratio of the deviations."""
    ratios = ratios_of(steps, start=-4.0, end=4.0)
    x = torch.tensor([[1.0]], dtype=torch.float64)
    found = Sampler(name, ratios, 1.0)(ORACLE, lambda: x).item()
    deviations = [math.sqrt(STD**2 + ratios[i].item() ** 2) for i in (0, -1)]
    return abs(found - (MEAN + (1.0 - MEAN) * deviations[1] / deviations[0]))


def error_of_variance(name: str, steps: int) -> float:
    """Of the law that starts from the exact variance at the first ratio."""
    ratios = ratios_of(steps, start=-4.0, end=4.0)
    start = math.sqrt(STD**2 + ratios[0].item() ** 2)
    return abs(law(Sampler(name, ratios, start))[1] - exact(ratios)[1])


@pytest.mark.parametrize("name", [name for name in STEPS if name != "predictor-corrector"])
def test_the_order_is_the_one_that_is_stated(name: str) -> None:
    """Of all but the predictor-corrector, which ends at the stationary law of its corrector."""
    rule, error = STEPS[name], error_of_variance if STEPS[name].random else error_of_mean
    orders = [math.log2(error(name, steps) / error(name, 2 * steps)) for steps in (200, 400)]
    assert orders[-1] == pytest.approx(rule.order, abs=0.1), orders


def test_langevin_dynamics_is_stationary_where_it_says() -> None:
    """Variance V / (1 - size t^2 / 2 V) of x, whose own variance is V."""
    t, size = 0.8, 0.05
    whole = STD**2 + t**2
    kept, variance = 1 - size * (1 - gain(t)), 0.0
    for _ in range(5000):
        variance = kept**2 * variance + 2 * size * t**2
    assert variance == pytest.approx(whole / (1 - size * t**2 / (2 * whole)), rel=1e-10)


def test_a_multistep_sampler_forgets_nothing_between_runs() -> None:
    ratios, x = ratios_of(5), torch.ones(3, 1, dtype=torch.float64)
    sampler = Sampler(dpm_2m, ratios)
    assert torch.equal(sampler(ORACLE, lambda: x), sampler(ORACLE, lambda: x))


# -- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (2,), (300,), (3, 16, 16)])
def test_noise_of_an_example_depends_on_its_number_alone(shape: tuple[int, ...]) -> None:
    together, alone = ExampleNoise(5, range(7), shape), ExampleNoise(5, [4], shape)
    for _ in range(300 if shape == (2,) else 3):  # more than are drawn at once
        assert torch.equal(together()[4:5], alone())


def test_all_draws_of_noise_are_standard_and_different() -> None:
    noise = ExampleNoise(0, range(50), (2,))
    drawn = torch.stack([noise() for _ in range(400)])
    assert len(drawn.unique()) > 0.999 * drawn.numel()
    assert abs(drawn.mean()) < 4 / drawn.numel() ** 0.5
    assert abs(drawn.square().mean() - 1) < 4 * (2 / drawn.numel()) ** 0.5


@pytest.mark.parametrize("name", STEPS)
def test_a_step_leaves_what_it_is_given(name: str) -> None:
    torch.manual_seed(0)
    x, old, drawn = torch.randn(3, 4, 2)
    copies = [value.clone() for value in (x, old, drawn)]
    first = STEPS[name].step(lambda x, sigma: x, x, 2.0, 1.0, lambda: drawn, None)[0]
    STEPS[name].step(lambda x, sigma: x, x, 2.0, 1.0, lambda: drawn, (3.0, old))
    assert all(torch.equal(value, copy) for value, copy in zip((x, old, drawn), copies, strict=True))
    assert first.data_ptr() != x.data_ptr()
