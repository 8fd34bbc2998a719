"""The three terms of the bound on data whose entropy is known, by quadrature instead of draws."""

from __future__ import annotations

import math

import numpy as np
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
    Schedule,
    first_gamma,
)
from tightbound.diffusion.bound import Bound, GaussianDecoder, LevelDecoder
from tightbound.diffusion.denoiser import Moments
from tightbound.diffusion.times import stratified
from tightbound.errors import UsageError

MEAN, STD = 0.3, 0.7
ENTROPY = 0.5 * math.log(2 * math.pi * math.e * STD**2)
ORACLE = GaussianOracle(torch.tensor([MEAN], dtype=torch.float64), torch.tensor([STD**2], dtype=torch.float64))
DECODER = GaussianDecoder(Moments(torch.tensor([MEAN], dtype=torch.float64), torch.tensor([STD], dtype=torch.float64)))


def normal_nodes(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a standard normal."""
    places, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.tensor(places), torch.tensor(weights / weights.sum())


def uniform_nodes(schedule: Schedule, n: int, pieces: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a uniform variable in [0, 1], by Gauss and Legendre, in pieces of even gamma."""
    fine = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    if isinstance(schedule, Cosine):
        fine = fine**4  # it is steep at the beginning
    gamma = schedule(fine).detach()
    wanted = torch.linspace(schedule.start, schedule.end, pieces + 1, dtype=torch.float64)
    edges = fine[torch.searchsorted(gamma, wanted).clamp(0, len(fine) - 1)].numpy()
    edges[0], edges[-1] = 0.0, 1.0
    places, weights = np.polynomial.legendre.leggauss(n)
    width = np.diff(edges)[:, None]
    nodes, shares = edges[:-1, None] + width * (places + 1) / 2, width * weights / 2
    return torch.tensor(nodes.ravel()), torch.tensor(shares.ravel())


def expected(
    bound: Bound, x: Tensor, px: Tensor, noise: tuple[Tensor, Tensor], nodes: tuple[int, int] = (12, 40)
) -> tuple[float, float, float]:
    """Prior, diffusion and reconstruction terms in nats, averaged over data and noise on nodes, and over all times."""
    (e, pe), n = noise, len(x)
    pair = x.repeat_interleave(len(e)).unsqueeze(-1), e.repeat(n).unsqueeze(-1)
    weights = torch.outer(px, pe).flatten()
    if bound.steps is None:
        t, pt = uniform_nodes(bound.schedule, *nodes)
    else:
        t = (torch.arange(bound.steps, dtype=torch.float64) + 0.5) / bound.steps
        pt = torch.full_like(t, 1 / bound.steps)
    total = 0.0
    for place, share in zip(t, pt, strict=True):
        total += share * (weights * bound.diffusion(pair[0], place.expand(len(pair[0])), pair[1]).detach()).sum()
    reconstruction = -(weights * bound.reconstruction(*pair)).sum()
    return (px * bound.prior(x.unsqueeze(-1))).sum().item(), float(total), reconstruction.item()


def gaussian(schedule: Schedule, steps: int | None = None, path: str = "vp") -> tuple[float, float, float]:
    z, weights = normal_nodes(8)
    return expected(Bound(ORACLE, schedule, PATHS[path], DECODER, steps), MEAN + STD * z, weights, (z, weights))


def information(gamma: float) -> float:
    return 0.5 * math.log1p(STD**2 * math.exp(-gamma))


SCHEDULES = {
    "linear": Linear(-13.3, 5.0),
    "cosine": Cosine(-13.3, 5.0),
    "learned": Learned(-13.3, 5.0).double(),
}


@pytest.mark.parametrize("path", PATHS)
def test_three_terms_are_the_entropy_of_gaussian_data(path: str) -> None:
    """But for the KL of the exact law of the last z from the Gaussian that stands for it, whose mean is 0."""
    prior, diffusion, reconstruction = gaussian(Linear(-13.3, 5.0), path=path)
    end, whole = PATHS[path].end(torch.tensor(5.0, dtype=torch.float64)).item() ** 2, STD**2 + math.exp(5.0)
    stand_in = 0.5 * ((whole + MEAN**2) / end - 1 - math.log(whole / end))
    assert prior + diffusion + reconstruction == pytest.approx(ENTROPY + stand_in, abs=1e-10)
    assert diffusion == pytest.approx(information(-13.3) - information(5.0), abs=1e-10)
    assert reconstruction == pytest.approx(ENTROPY - information(-13.3), abs=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_continuous_term_depends_on_the_ends_alone(name: str) -> None:
    _, diffusion, _ = gaussian(SCHEDULES[name])
    assert diffusion == pytest.approx(information(-13.3) - information(5.0), abs=1e-9)


def test_a_chain_costs_what_theory_says() -> None:
    """T (L_T - L_inf) tends to half the range of gamma times half the fall of the error of the noise, plus L_inf."""
    limit = information(-13.3) - information(5.0)
    excess = {steps: steps * (gaussian(Linear(-13.3, 5.0), steps)[1] - limit) for steps in (100, 1000, 10_000)}
    assert excess[100] / 100 == pytest.approx(0.5624, abs=1e-4)
    assert excess[1000] / 1000 == pytest.approx(0.05332, abs=1e-5)
    assert excess[10_000] == pytest.approx(53.009, rel=0.01)


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_the_bridge_an_hvae_of_fixed_gaussian_encoders_has_the_same_bound(steps: int) -> None:
    """By moments: KL(q(z_s | z_t, x) || p(z_s | z_t)) of the chain, with z on the variance-preserving path."""
    schedule, path = Linear(-13.3, 5.0), PATHS["vp"]
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    gamma = schedule(t)
    alpha, sigma = path.alpha(gamma), path.sigma(gamma)
    total = 0.0
    for i in range(1, steps + 1):
        a, s, before, less = alpha[i], sigma[i], alpha[i - 1], sigma[i - 1]
        gain = STD**2 / (STD**2 + (s / a) ** 2)  # of the optimal denoiser
        step = a / before  # z_t = step z_s + noise of variance s^2 - step^2 less^2
        added = s**2 - (step * less) ** 2
        variance = added * less**2 / s**2  # of q(z_s | z_t, x), and of p(z_s | z_t)
        pull = before * added / s**2  # of its mean, by x
        error = (1 - gain) ** 2 * STD**2 + gain**2 * (s / a) ** 2  # of the denoiser, in the mean
        total += 0.5 * float(pull**2 / variance * error)
    assert gaussian(schedule, steps)[1] == pytest.approx(total, abs=1e-8)


# -- discrete data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_bound_of_discrete_data_is_their_entropy_with_the_default_ends(levels: int) -> None:
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    weights = torch.linspace(1, 3, levels, dtype=torch.float64)
    weights = weights / weights.sum()
    entropy = -(weights * weights.log()).sum().item()
    oracle = MixtureOracle(values.unsqueeze(-1), 0.0, weights)
    spacing = 2 / (levels - 1)
    schedule = Linear(first_gamma(spacing), 10.0)
    bound = Bound(oracle, schedule, PATHS["vp"], LevelDecoder(values))
    e = torch.linspace(-5.5, 5.5, 41, dtype=torch.float64)
    density = (-0.5 * e.square()).exp()
    prior, diffusion, reconstruction = expected(bound, values, weights, (e, density / density.sum()), (6, 14))
    assert prior + diffusion + reconstruction == pytest.approx(entropy, abs=1e-3)
    assert reconstruction < 2e-3
    assert prior < 1e-3


def test_the_decoder_of_levels_sums_to_one() -> None:
    values = torch.linspace(-1, 1, 17, dtype=torch.float64)
    decoder, noised = LevelDecoder(values), torch.randn(5, 1, dtype=torch.float64)
    decoded = decoder(noised, torch.tensor(0.3))
    every = torch.stack([decoded.log_prob(v.expand(5, 1)) for v in values])
    torch.testing.assert_close(every.exp().sum(0), torch.ones(5, 1, dtype=torch.float64))


# -- times ------------------------------------------------------------------------------------------------------------


def test_every_stratum_is_drawn_once_over_all_parts() -> None:
    found = torch.cat([stratified(8, part=part, parts=4) for part in range(4)])
    assert torch.equal((found * 32).long().sort().values, torch.arange(32))


def test_stratified_times_are_uniform_and_vary_little_in_the_mean() -> None:
    torch.manual_seed(0)
    means = torch.stack([stratified(128, dtype=torch.float64).exp().mean() for _ in range(200)])
    each = torch.stack([stratified(4)[0] for _ in range(4000)])
    assert means.mean().item() == pytest.approx(math.e - 1, abs=1e-4)
    assert means.std() < 1e-3
    assert each.mean().item() == pytest.approx(0.5, abs=0.02)
    assert each.var().item() == pytest.approx(1 / 12, rel=0.1)


@pytest.mark.parametrize("make", [lambda: stratified(3, part=2, parts=2), lambda: stratified(-1)])
def test_parts_that_do_not_exist_are_refused(make: object) -> None:
    with pytest.raises(UsageError, match="part"):
        make()  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("schedule", "steps"), [(Cosine(-10.0, math.inf), None), (Linear(-10.0, 5.0), 0), (Linear(-10.0, 5.0), -3)]
)
def test_bounds_that_mean_nothing_are_refused(schedule: Schedule, steps: int | None) -> None:
    with pytest.raises(UsageError):
        Bound(ORACLE, schedule, PATHS["vp"], DECODER, steps).prior(torch.zeros(1, 1, dtype=torch.float64))


@pytest.mark.parametrize("sigma", [0.001, 0.02, 0.3])
def test_far_values_can_be_left_out_of_the_decoder(sigma: float) -> None:
    torch.manual_seed(0)
    values = torch.linspace(-1, 1, 256, dtype=torch.float64)
    x = values[torch.randint(256, (40, 3))]
    noised, s = x + sigma * torch.randn_like(x), torch.tensor(sigma, dtype=torch.float64)
    noised[0] = torch.tensor([-1.5, 1.5, 0.0])  # beyond the ends, and far from its value
    every, near = LevelDecoder(values), LevelDecoder(values, largest=sigma)
    by_hand = torch.distributions.Categorical(logits=-0.5 * ((noised.unsqueeze(-1) - values) / s).square())
    wanted, e = by_hand.log_prob(((x + 1) * 127.5).round().long()), torch.randn_like(x)
    for decoder in (every, near):
        torch.testing.assert_close(decoder(noised, s).log_prob(x), wanted, rtol=1e-12, atol=1e-12)
    drawn = [decoder.draw(decoder(noised, s), e) for decoder in (every, near)]
    assert torch.equal(*drawn)
    assert sigma > 0.1 or near.reach < 30


@pytest.mark.parametrize("values", [[0.0], [0.0, 1.0, 3.0], [1.0, 0.0]])
def test_values_that_do_not_rise_evenly_are_refused(values: list[float]) -> None:
    with pytest.raises(UsageError):
        LevelDecoder(torch.tensor(values))


def test_the_noise_by_itself_is_taken_out_of_an_estimate() -> None:
    """Its mean is zero at every level, and without it an estimate varies far less."""
    torch.manual_seed(0)
    schedule = Linear(-12.0, 10.0)
    moments = Moments(torch.zeros(50, dtype=torch.float64), torch.ones(50, dtype=torch.float64))
    oracle = GaussianOracle(moments.mean, moments.std)
    bound = Bound(oracle, schedule, PATHS["vp"], GaussianDecoder(moments))
    x, noise = torch.randn(2, 20_000, 50, dtype=torch.float64).unbind()
    t = stratified(20_000, dtype=torch.float64)
    gamma, rate = bound.levels(t)
    control = bound.control(gamma, rate, noise)
    assert abs(control.mean()) < 4 * control.std() / 20_000**0.5
    whole = bound.diffusion(x, t, noise)
    at_first = (gamma < -4).nonzero().flatten()
    assert whole[at_first].std() < 0.3 * (whole + control)[at_first].std()
