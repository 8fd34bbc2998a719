"""Guidance: exact where theory says what it is, an identity where it should do nothing."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from tightbound.diffusion import ExampleNoise, GaussianOracle, Linear, MixtureOracle, Sampler, grid
from tightbound.diffusion.denoiser import score_of
from tightbound.diffusion.guidance import Classified, Guided, Measured
from tightbound.errors import ShapeError, UsageError

MEANS = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.3, -2.0]], dtype=torch.float64)
WHOLE = MixtureOracle(MEANS, 0.5, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64))
CLASS = MixtureOracle(MEANS[1:2], 0.5)
LEVELS = [0.01, 0.3, 1.0, 4.0, 80.0]


def points(n: int = 20) -> Tensor:
    return 2 * torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def class_log_probability(x: Tensor, sigma: Tensor) -> Tensor:
    return (WHOLE.log_joint(x, sigma) - WHOLE.log_prob(x, sigma).unsqueeze(-1))[:, 1]


@pytest.mark.parametrize("level", LEVELS)
def test_a_classifier_at_strength_one_gives_the_conditional_score(level: float) -> None:
    sigma = torch.tensor(level, dtype=torch.float64)
    found = score_of(Classified(WHOLE, class_log_probability), points(), sigma)
    torch.testing.assert_close(found, score_of(CLASS, points(), sigma), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("strength", [0.0, 0.7, 2.0])
def test_classifier_free_guidance_is_that_of_the_exact_classifier(level: float, strength: float) -> None:
    """(1 - strength) s_u + strength s_c = s_u + strength grad log p(c | x)."""
    sigma = torch.tensor(level, dtype=torch.float64)
    free, by_classifier = Guided(CLASS, WHOLE, strength), Classified(WHOLE, class_log_probability, strength)
    torch.testing.assert_close(free(points(), sigma), by_classifier(points(), sigma), rtol=1e-9, atol=1e-9)


def test_no_strength_is_the_weak_model_and_one_the_strong() -> None:
    x, sigma = points(), torch.tensor(0.7, dtype=torch.float64)
    assert torch.equal(Guided(CLASS, WHOLE, 0.0)(x, sigma), WHOLE(x, sigma))
    assert torch.equal(Guided(CLASS, WHOLE, 1.0)(x, sigma), CLASS(x, sigma))
    assert torch.equal(Classified(WHOLE, class_log_probability, 0.0)(x, sigma), WHOLE(x, sigma))


def test_guidance_acts_in_its_interval_only() -> None:
    x, guided = points(3), Guided(CLASS, WHOLE, 3.0, interval=(0.5, 2.0))
    sigma = torch.tensor([0.4, 1.0, 2.5], dtype=torch.float64)
    found, strong, weak = guided(x, sigma), CLASS(x, sigma), WHOLE(x, sigma)
    assert torch.equal(found[[0, 2]], strong[[0, 2]])
    torch.testing.assert_close(found[1], weak[1] + 3 * (strong[1] - weak[1]), rtol=0, atol=1e-12)


def test_rescaling_keeps_the_deviation_of_the_strong_model() -> None:
    x, sigma = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    strong, weak = (lambda x, sigma, factor=factor: factor * x for factor in (0.5, 0.2))
    whole = Guided(strong, weak, 4.0, rescale=1.0)(x, sigma)
    torch.testing.assert_close(whole.flatten(1).std(1), strong(x, sigma).flatten(1).std(1))
    half = Guided(strong, weak, 4.0, rescale=0.5)(x, sigma)
    torch.testing.assert_close(2 * half, whole + Guided(strong, weak, 4.0)(x, sigma))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Guided(CLASS, WHOLE, -0.1), "strength"),
        (lambda: Guided(CLASS, WHOLE, math.nan), "strength"),
        (lambda: Classified(WHOLE, class_log_probability, -1.0), "strength"),
        (lambda: Guided(CLASS, WHOLE, 2.0, interval=(3.0, 1.0)), "interval"),
        (lambda: Guided(CLASS, WHOLE, 2.0, rescale=1.5), "share"),
        (lambda: Measured(WHOLE, lambda x: x, torch.zeros(2), std=0.0), "deviation"),
    ],
)
def test_what_means_nothing_is_refused(make: object, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        make()  # pyright: ignore[reportCallIssue]


# -- measurements -----------------------------------------------------------------------------------------------------

D = 6


def correlated() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(D, D, dtype=torch.float64, generator=generator) / 2
    mean = torch.randn(D, dtype=torch.float64, generator=generator)
    return mean, mixing @ mixing.mT + 0.1 * torch.eye(D, dtype=torch.float64)


def posterior(matrix: Tensor, y: Tensor, std: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the data given their measurement."""
    mean, covariance = correlated()
    pull = (
        covariance
        @ matrix.mT
        @ torch.linalg.inv(matrix @ covariance @ matrix.mT + std**2 * torch.eye(len(matrix), dtype=torch.float64))
    )
    return mean + pull @ (y - matrix @ mean), covariance - pull @ matrix @ covariance


MATRICES = {
    "inpainting": torch.eye(D, dtype=torch.float64)[:2],
    "averages": torch.block_diag(*[torch.full((1, 2), 0.5, dtype=torch.float64)] * 3),
}


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("level", LEVELS)
def test_a_measurement_gives_the_exact_score_of_gaussian_data(kind: str, level: float) -> None:
    matrix, std = MATRICES[kind], 0.2
    y = torch.linspace(-1, 1, len(matrix), dtype=torch.float64)
    guided = Measured(GaussianOracle(*correlated()), lambda x: x @ matrix.mT, y, std)
    x, sigma = torch.randn(7, D, dtype=torch.float64), torch.tensor(level, dtype=torch.float64)
    exact = GaussianOracle(*posterior(matrix, y, std))
    torch.testing.assert_close(guided(x, sigma), exact(x, sigma), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", MATRICES)
def test_measured_samples_reach_the_posterior_as_the_samplers_order_says(kind: str) -> None:
    """The mean and covariance of a linear sampler's outputs, from its outputs for the unit vectors of the noise."""
    matrix, std = MATRICES[kind], 0.2
    y = torch.linspace(-1, 1, len(matrix), dtype=torch.float64)
    guided = Measured(GaussianOracle(*correlated()), lambda x: x @ matrix.mT, y, std)
    mean, covariance = posterior(matrix, y, std)
    errors = []
    for steps in (100, 200, 400):
        ratios = grid(Linear(-12.0, 20.0), steps)
        units = torch.cat([torch.zeros(1, D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)])
        x = Sampler("2m", ratios)(guided, lambda units=units: units)
        spread = (x[1:] - x[0]).mT
        errors.append(((x[0] - mean).abs().max().item(), (spread @ spread.mT - covariance).abs().max().item()))
    assert errors[-1][0] < 2e-3
    assert errors[-1][1] < 2e-3
    assert math.log2(errors[0][1] / errors[1][1]) > 1.5
    assert math.log2(errors[1][1] / errors[2][1]) > 1.5


def test_measurements_may_differ_between_examples_and_do_not_mix() -> None:
    oracle, y = GaussianOracle(*correlated()), torch.randn(4, 2, dtype=torch.float64)
    x, sigma = torch.randn(4, D, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    together = Measured(oracle, lambda x: x[:, :2], y, 0.1)(x, sigma)
    for i in range(4):
        alone = Measured(oracle, lambda x: x[:, :2], y[i : i + 1], 0.1)(x[i : i + 1], sigma)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-9, atol=1e-9)
    with pytest.raises(ShapeError, match="measurement"):
        Measured(oracle, lambda x: x[:, :3], y, 0.1)(x, sigma)


# -- one example, or many ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ancestral", "2m", "2m-sde", "heun", "predictor-corrector", "euler-maruyama"])
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    sampler, denoise = Sampler(name, grid(Linear(-8.0, 8.0), 12)), partial(WHOLE)
    batch = sampler(denoise, ExampleNoise(3, range(64), (2,), dtype=torch.float64))
    for i in (0, 17, 63):
        alone = sampler(denoise, ExampleNoise(3, [i], (2,), dtype=torch.float64))
        torch.testing.assert_close(alone[0], batch[i], rtol=0, atol=1e-12)
