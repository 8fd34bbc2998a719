"""A mixture of discretised logistics over the channels of pixels is a distribution, and the one that it says it is."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.distributions import Categorical

from instances import double, is_level, within_error
from tightbound.distributions import DiscretizedLogistic, DiscretizedLogisticMixture
from tightbound.distributions.clipped_logistic import ClippedLogistic

SIZES = [(1, 17), (2, 9), (3, 5), (4, 3)]
"""Channels and levels whose values can all be listed."""
KINDS: dict[str, tuple[float, float, float]] = {
    "ordinary": (0.3, -1.5, 0.7),
    "far away": (40.0, -1.5, 1.0),
    "almost points": (0.5, -12.0, 1.0),
    "almost flat": (0.5, 12.0, 1.0),
    "strong dependence": (0.5, -2.0, 60.0),
    "everything at once": (20.0, -12.0, 60.0),
}
"""Spread of the locations, log scale, and size of the coefficients."""


def mixture(
    kind: str, channels: int, levels: int, k: int = 4, batch: int = 6, **like: Any
) -> DiscretizedLogisticMixture:
    """Random parameters for one row of two pixels."""
    spread, log_scale, coefficient = KINDS[kind]
    size = (batch, k, channels, 1, 2)
    location = 0.5 + spread * double(*size)
    dependence = coefficient * double(batch, k, channels * (channels - 1) // 2, 1, 2)
    parameters = (3 * double(batch, k, 1, 2), location, log_scale + 0.5 * double(*size), dependence)
    return DiscretizedLogisticMixture(*(p.to(**like) for p in parameters), levels=levels)


def every_value(channels: int, levels: int) -> Tensor:
    """All values of a pixel, ``(values, channels)``."""
    return torch.cartesian_prod(*[torch.arange(levels).double() / (levels - 1)] * channels).reshape(-1, channels)


def log_masses(p: DiscretizedLogisticMixture) -> Tensor:
    """Of all values of every pixel, ``(values, batch, pixels)``: the others of its image hold their first value."""
    x = every_value(p.event_shape[0], p.levels).to(p.location.dtype)[:, None, :, None, None]
    pixels = [DiscretizedLogisticMixture(*(t[..., i : i + 1] for t in parts(p)), levels=p.levels) for i in range(2)]
    return torch.stack([pixel.log_prob(x) for pixel in pixels], dim=-1)


def parts(p: DiscretizedLogisticMixture) -> tuple[Tensor, ...]:
    return p.logits, p.location, p.log_scale, p.coefficients


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "levels"), SIZES)
def test_the_masses_of_all_values_of_a_pixel_sum_to_one(channels: int, levels: int, kind: str) -> None:
    total = log_masses(mixture(kind, channels, levels)).exp().sum(0)
    assert total.shape == (6, 2)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["ordinary", "strong dependence"])
@pytest.mark.parametrize(("channels", "levels"), [*SIZES, (3, 256)])
def test_it_is_the_sum_over_components_of_products_of_differences_of_sigmoids(
    channels: int, levels: int, kind: str
) -> None:
    p = mixture(kind, channels, levels, batch=3)
    x = torch.randint(levels, (3, channels, 1, 2)).double() / (levels - 1)
    total, half = torch.zeros(3, 1, 2).double(), 0.5 / (levels - 1)
    weights = torch.softmax(p.logits, 1)
    for k in range(4):
        component, at = weights[:, k], 0
        for j in range(channels):
            location = p.location[:, k, j]
            for i in range(j):
                location = location + p.coefficients[:, k, at] * (x[:, i] - p.location[:, k, i])
                at += 1
            scale = p.log_scale[:, k, j].exp()
            above = torch.where(x[:, j] > 1 - half, 1.0, torch.sigmoid((x[:, j] + half - location) / scale))
            below = torch.where(x[:, j] < half, 0.0, torch.sigmoid((x[:, j] - half - location) / scale))
            component = component * (above - below)
        total = total + component
    got = p.log_prob(x)
    assert got.shape == (3,)
    torch.testing.assert_close(got.exp(), total.flatten(1).prod(1), rtol=1e-6, atol=1e-15)


def test_one_component_without_dependence_is_the_discretized_logistic() -> None:
    p = mixture("ordinary", 3, 17, k=1)
    p = DiscretizedLogisticMixture(p.logits, p.location, p.log_scale, torch.zeros_like(p.coefficients), 17)
    plain = DiscretizedLogistic(p.location.squeeze(1), p.log_scale.squeeze(1), 17)
    x = torch.randint(17, (6, 3, 1, 2)).double() / 16
    torch.testing.assert_close(p.log_prob(x), plain.log_prob(x).flatten(1).sum(1), rtol=1e-13, atol=0)
    torch.testing.assert_close(p.mean, plain.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(p.variance, plain.variance, rtol=1e-10, atol=1e-15)


def test_equal_components_are_one() -> None:
    one = mixture("ordinary", 3, 5, k=1)
    same = DiscretizedLogisticMixture(double(6, 3, 1, 2), *(t.expand(6, 3, -1, 1, 2) for t in parts(one)[1:]), levels=5)
    x = torch.randint(5, (6, 3, 1, 2)).double() / 4
    torch.testing.assert_close(same.log_prob(x), one.log_prob(x), rtol=1e-13, atol=0)


def test_the_published_dependence_is_the_same_family() -> None:
    """Locations that depend on the values before, not on their deviations, are other locations."""
    p, x = mixture("ordinary", 2, 9, k=1), torch.randint(9, (6, 2, 1, 2)).double() / 8
    first, second = p.location[:, 0].unbind(1)
    a = p.coefficients[:, 0, 0]
    published = DiscretizedLogistic((second - a * first) + a * x[:, 0], p.log_scale[:, 0, 1], 9)
    independent = DiscretizedLogistic(first, p.log_scale[:, 0, 0], 9)
    expected = independent.log_prob(x[:, 0]) + published.log_prob(x[:, 1])
    torch.testing.assert_close(p.log_prob(x), expected.flatten(1).sum(1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["ordinary", "strong dependence", "almost flat"])
@pytest.mark.parametrize(("channels", "levels"), [(1, 9), (2, 5), (3, 3)])
def test_samples_are_as_frequent_as_they_are_probable(channels: int, levels: int, kind: str) -> None:
    p, n = mixture(kind, channels, levels, batch=2), 20_000
    samples = p.sample((n,))
    assert samples.shape == (n, 2, channels, 1, 2)
    assert is_level(samples, levels)
    place = (samples.squeeze(-2) * (levels - 1)).round().long()  # (n, batch, channels, pixels)
    index = sum(place[:, :, j] * levels ** (channels - 1 - j) for j in range(channels))
    for image in range(2):
        for pixel in range(2):
            expected = n * log_masses(p)[:, image, pixel].exp()
            observed = torch.as_tensor(index)[:, image, pixel].bincount(minlength=len(expected)).double()
            likely = expected > 10
            cells = [torch.cat([v[likely], v[~likely].sum().reshape(1)]) for v in (observed, expected)]
            keep = cells[1] > 0.5
            observed, expected = cells[0][keep], cells[1][keep]
            expected = expected * observed.sum() / expected.sum()
            assert chisquare(observed.numpy(), expected.numpy()).pvalue > 1e-4


def _moments_by_masses(p: DiscretizedLogisticMixture) -> tuple[Tensor, Tensor]:
    x, masses = every_value(p.event_shape[0], p.levels), log_masses(p).exp()
    mean = torch.einsum("vc,vbp->bcp", x, masses).unsqueeze(-2)
    return mean, torch.einsum("vc,vbp->bcp", x.square(), masses).unsqueeze(-2) - mean.square()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "levels"), SIZES)
def test_moments_of_the_first_channel_are_exact_and_all_are_possible(channels: int, levels: int, kind: str) -> None:
    p = mixture(kind, channels, levels)
    mean, variance = _moments_by_masses(p)
    torch.testing.assert_close(p.mean[:, 0], mean[:, 0], rtol=0, atol=1e-10)
    torch.testing.assert_close(p.variance[:, 0], variance[:, 0], rtol=0, atol=1e-10)
    assert p.mean.shape == p.variance.shape == (6, channels, 1, 2)
    assert ((p.mean >= 0) & (p.mean <= 1) & (p.variance >= 0) & (p.variance <= 0.25)).all()


@pytest.mark.parametrize("levels", [33, 256])  # summed over the levels, and in closed form
def test_moments_of_all_channels_are_exact_where_nothing_is_clipped(levels: int) -> None:
    location = 0.4 + 0.2 * torch.rand(4, 3, 1, 2).double()
    dependence = torch.tensor([0.9, -0.8, 0.6]).double()[:, None, None].expand(4, 3, 1, 2)
    parameters = (double(4, 1, 2), location, torch.full_like(location, -3.9), dependence)
    p = DiscretizedLogisticMixture(*parameters, levels=levels)
    samples = p.sample((100_000,))
    assert within_error(samples, p.mean)
    rounded = 1 / 12 / (levels - 1) ** 2  # the rounding of the channels before is noise of those after
    torch.testing.assert_close(samples.var(0), p.variance, rtol=0.03, atol=2 * rounded)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_and_its_gradient_are_finite_in_float32(kind: str) -> None:
    p = mixture(kind, 3, 256, dtype=torch.float32)
    leaves = [t.requires_grad_() for t in parts(p)]
    p = DiscretizedLogisticMixture(*leaves, levels=256)
    x = torch.randint(256, (50, 6, 3, 1, 2)).float() / 255
    x[0], x[1] = 0.0, 1.0
    log_prob = p.log_prob(x)
    log_prob.sum().backward()
    assert log_prob.dtype == torch.float32
    assert log_prob.isfinite().all()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
    assert p.mean.isfinite().all()
    assert p.variance.isfinite().all()


def test_float32_is_close_to_float64() -> None:
    p = mixture("ordinary", 3, 256)
    x = torch.randint(256, (6, 3, 1, 2)).double() / 255
    rounded = DiscretizedLogisticMixture(*(t.float() for t in parts(p)), levels=256)
    torch.testing.assert_close(rounded.log_prob(x.float()).double(), p.log_prob(x), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(rounded.mean.double(), p.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(rounded.variance.double(), p.variance, rtol=0, atol=1e-5)


def test_samples_and_batches_broadcast() -> None:
    p = mixture("ordinary", 3, 5)
    assert (p.batch_shape, p.event_shape) == ((6,), (3, 1, 2))
    assert p.sample().shape == (6, 3, 1, 2)
    assert p.sample((2, 4)).shape == (2, 4, 6, 3, 1, 2)
    x = p.sample((2, 4))
    assert p.log_prob(x).shape == (2, 4, 6)
    torch.testing.assert_close(p.log_prob(x)[1, 2], p.log_prob(x[1, 2]))
    assert p.log_prob(x[0, 0, 0]).shape == (6,)


def test_components_are_chosen_by_their_weights() -> None:
    p, n = mixture("ordinary", 1, 3, k=3, batch=1), 30_000
    far = torch.tensor([-50.0, 0.5, 50.0]).double().reshape(1, 3, 1, 1, 1).expand(1, 3, 1, 1, 2)
    p = DiscretizedLogisticMixture(p.logits, far, torch.full_like(far, -9.0), p.coefficients, 3)
    frequency = torch.stack([(p.sample((n,)) == level).double().mean(0).squeeze(1) for level in (0.0, 0.5, 1.0)], dim=1)
    expected = Categorical(logits=p.logits.movedim(1, -1)).probs.movedim(-1, 1)
    torch.testing.assert_close(frequency, expected, rtol=0, atol=4 * 0.5 / n**0.5)


# -- the clipped logistic ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("location", [-3.0, -0.1, 0.0, 0.3, 0.99, 1.5])
@pytest.mark.parametrize("log_scale", [-9.0, -4.0, -1.0, 0.0, 2.0, 6.0])
def test_moments_of_the_clipped_logistic_are_those_of_the_integral(location: float, log_scale: float) -> None:
    """E x = ∫ P(X > t) dt and E x² = ∫ 2 t P(X > t) dt over the unit interval."""
    t = ((torch.arange(2_000_000) + 0.5) / 2_000_000).double()
    beyond = torch.sigmoid((location - t) / math.exp(log_scale))
    p = ClippedLogistic(torch.tensor(location, dtype=torch.float64), torch.tensor(log_scale, dtype=torch.float64))
    mean = beyond.mean()
    torch.testing.assert_close(p.mean, mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.variance, (2 * t * beyond).mean() - mean.square(), rtol=0, atol=1e-6)


def test_rounding_moves_the_mean_of_the_clipped_logistic_by_half_a_step_at_most() -> None:
    location, log_scale = 0.5 + double(2000), 2 * double(2000) - 5
    for levels in (5, 65, 256):
        exact, clipped = DiscretizedLogistic(location, log_scale, levels), ClippedLogistic(location, log_scale)
        assert (exact.mean - clipped.mean).abs().max() <= 0.5 / (levels - 1)
        smooth = log_scale.exp() > 1 / (levels - 1)
        assert (exact.mean - clipped.mean)[smooth].abs().max() <= 0.02 / (levels - 1)


def test_moments_of_the_clipped_logistic_are_finite_everywhere() -> None:
    location, log_scale = torch.meshgrid(torch.tensor([-1e4, -1.0, 0.5, 1e4]), torch.arange(-12.0, 13.0), indexing="ij")
    p = ClippedLogistic(location, log_scale)
    assert ((p.mean >= 0) & (p.mean <= 1) & (p.variance >= 0) & (p.variance <= 0.25)).all()
