"""Diffusion as a model: the bound in the units of the data, samples, and training like any other model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tightbound as tb
from tightbound.conditions import Given
from tightbound.data import Data, DataSpec
from tightbound.diffusion import (
    PATHS,
    Cosine,
    Diffusion,
    GaussianOracle,
    Linear,
    MixtureOracle,
    Moments,
    Preconditioned,
    first_gamma,
)
from tightbound.diffusion.denoiser import Denoiser
from tightbound.diffusion.paths import expanded
from tightbound.distributions import Sampling
from tightbound.errors import ObjectiveError, ShapeError, UsageError
from tightbound.networks import ClassEmbedding
from tightbound.networks.denoising import VectorDenoiser
from tightbound.objectives import elbo, iwae

MEAN, STD = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([0.6, 1.5], dtype=torch.float64)


def gaussian(**options: object) -> Diffusion:
    """Data of mean 3 + 2 MEAN and deviation 2 STD, which the denoiser sees as MEAN and STD."""
    return Diffusion(
        GaussianOracle(MEAN, STD**2),
        Linear(-12.0, 12.0),
        (2,),
        shift=3.0,
        scale=2.0,
        moments=Moments(MEAN, STD),
        **options,  # pyright: ignore[reportArgumentType]
    )


def data(n: int) -> Tensor:
    return 3 + 2 * (MEAN + STD * torch.randn(n, 2, dtype=torch.float64))


@pytest.mark.parametrize("path", PATHS)
def test_the_bound_is_the_entropy_in_the_units_of_the_data(path: str) -> None:
    torch.manual_seed(0)
    bound = gaussian(path=PATHS[path])().lower_bound(data(20_000))
    entropy = (0.5 * math.log(2 * math.pi * math.e) + (2 * STD).log()).sum()
    assert abs(bound.mean() + entropy) < 4 * bound.std() / len(bound) ** 0.5


def test_more_draws_average_the_same_bound() -> None:
    torch.manual_seed(0)
    x = data(1)
    few = torch.stack([gaussian()().lower_bound(x) for _ in range(2000)])
    many = elbo(gaussian()().terms(x, k=20_000))
    assert abs(few.mean() - many) < 4 * few.std() / 2000**0.5


def test_it_has_three_terms_and_no_importance_weights() -> None:
    terms = gaussian()().terms(data(5), k=3)
    assert terms.estimated == ("prior", "diffusion")
    assert terms.log_likelihood.shape == (3, 5)
    assert elbo(terms).shape == (5,)
    with pytest.raises(ObjectiveError):
        iwae(terms)


def test_discrete_data_cost_their_entropy() -> None:
    torch.manual_seed(0)
    levels, weights = 17, torch.linspace(1, 3, 17, dtype=torch.float64)
    weights = weights / weights.sum()
    values = torch.linspace(-1, 1, levels, dtype=torch.float64).unsqueeze(-1)
    schedule = Linear(first_gamma(2 / (levels - 1)), 10.0)
    model = Diffusion(MixtureOracle(values, 0.0, weights), schedule, (1,), levels=levels, shift=0.5, scale=0.5).double()
    x = torch.multinomial(weights, 20_000, replacement=True).unsqueeze(-1) / 16
    bound = model().lower_bound(x.double())
    assert abs(bound.mean() + -(weights * weights.log()).sum()) < 4 * bound.std() / len(bound) ** 0.5
    assert model.measure(DataSpec("few", shape=(1,), levels=17)).kind == "mass"
    drawn = model().sample((4000,), Sampling(sampler="ancestral", steps=100))
    counts = torch.bincount((drawn.squeeze(-1) * 16).round().long(), minlength=17)
    assert ((counts - 4000 * weights).square() / (4000 * weights)).sum() < 45  # 16 degrees of freedom
    assert torch.equal((drawn * 16).round() / 16, drawn)


@pytest.mark.parametrize(("sampler", "steps"), [("ancestral", 400), ("2m", 40), ("heun", 40)])
def test_samples_have_the_law_of_the_data(sampler: str, steps: int) -> None:
    x = gaussian()().sample((3000,), Sampling(sampler=sampler, steps=steps), seed=0).double()
    torch.testing.assert_close(x.mean(0), 3 + 2 * MEAN, rtol=0, atol=0.2)
    torch.testing.assert_close(x.std(0), 2 * STD, rtol=0.06, atol=0)


def test_a_schedule_that_ends_in_pure_noise_can_be_sampled_and_has_the_same_bound() -> None:
    model = Diffusion(GaussianOracle(MEAN, STD**2), Cosine(-12.0, math.inf), (2,), moments=Moments(MEAN, STD))
    x = model().sample((2000,), Sampling(steps=100), seed=0).double()
    torch.testing.assert_close(x.mean(0), MEAN, rtol=0, atol=0.15)
    torch.testing.assert_close(x.std(0), STD, rtol=0.1, atol=0)
    torch.manual_seed(0)
    x = MEAN + STD * torch.randn(20_000, 2, dtype=torch.float64)
    bound, entropy = model().lower_bound(x), (0.5 * math.log(2 * math.pi * math.e) + STD.log()).sum()
    assert abs(bound.mean() + entropy) < 4 * bound.std() / len(bound) ** 0.5


def test_a_sample_does_not_depend_on_how_many_are_drawn() -> None:
    px = gaussian()()
    torch.testing.assert_close(px.sample((7,), seed=3)[:2], px.sample((2,), seed=3), rtol=1e-12, atol=1e-12)
    torch.manual_seed(0)
    first = px.sample((2,))
    torch.manual_seed(0)
    assert torch.equal(px.sample((2,)), first)


class Network(nn.Module):
    """Two numbers and the noise level to two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, z: Tensor, gamma: Tensor, c: object) -> Tensor:
        return self.layers(torch.cat([z, gamma.unsqueeze(-1) / 8], dim=-1))


def test_it_is_trained_like_any_other_model(tmp_path: Path) -> None:
    """Two points with a little noise: the bound rises far above that of independent Gaussian entries."""
    torch.manual_seed(0)
    x = torch.randint(2, (2000, 1)) * 2.0 - 1 + 0.1 * torch.randn(2000, 2)
    std = x.std(0)
    model = Diffusion(
        Preconditioned(Network(), moments=Moments(std=std)), Linear(-9.0, 8.0), (2,), moments=Moments(std=std)
    )
    arrays = Data.from_arrays(x, validation=0.2)
    tb.train(model, arrays, out=tmp_path, steps=600, batch_size=256, lr=3e-3, pictures=False, device="cpu")
    with torch.no_grad():
        bound = model.double()().lower_bound(arrays.valid.batch(torch.arange(200), torch.device("cpu")).x.double())
        independent = torch.distributions.Normal(torch.zeros(2), std).log_prob(x).sum(-1).mean()
    assert bound.mean() > independent + 1.5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="levels"):
        Diffusion(GaussianOracle(MEAN, STD), Linear(-5.0, 5.0), (2,), levels=1)
    with pytest.raises(UsageError, match="levels"):
        Diffusion(GaussianOracle(MEAN, STD), Linear(-5.0, 5.0), (2,), scale=0.0)
    with pytest.raises(UsageError, match="draw"):
        gaussian()().terms(data(2), k=0)
    with pytest.raises(ShapeError):
        gaussian()().terms(torch.zeros(5, 3))


class Shifted(Denoiser):
    """A standard Gaussian around what the condition says."""

    def forward(self, x: Tensor, sigma: Tensor, c: Given | None = None) -> Tensor:
        assert c is not None
        centre = c["vector"]
        return centre + (x - centre) / (1 + expanded(sigma, x).square())


def test_a_condition_reaches_the_denoiser_with_its_example() -> None:
    model = Diffusion(Shifted(), Linear(-12.0, 12.0), (2,)).double()
    centres = torch.tensor([[-8.0, 0.0], [0.0, 5.0], [9.0, 9.0]], dtype=torch.float64)
    c = Given({"vector": centres})
    x = model(c).sample((300,), Sampling(steps=40), seed=0)
    assert x.shape == (300, 3, 2)
    torch.testing.assert_close(x.double().mean(0), centres, rtol=0, atol=0.3)
    torch.manual_seed(0)
    right = model(c).terms(centres.expand(200, 3, 2), k=20)
    assert right.log_likelihood.shape == (20, 200, 3)
    bound = elbo(right)
    assert (bound.mean(0) + 2 * 0.5 * math.log(2 * math.pi)).abs().max() < 1  # the density at the centre
    assert elbo(model(c).terms(centres.roll(1, 0), k=200)).max() < -10


def test_a_class_reaches_a_network_and_may_be_missing() -> None:
    torch.manual_seed(0)
    network = VectorDenoiser(2, hidden=16, condition_dim=4)
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    denoiser = Preconditioned(network, embedding=ClassEmbedding(3, 4))
    x, sigma = torch.randn(1, 2).expand(5, 2), torch.ones(5)
    found = denoiser(x, sigma, Given({"class": torch.tensor([[0], [1], [2], [-1], [0]])}))
    torch.testing.assert_close(found[0], found[4])
    assert len(torch.unique(found[:4, 0])) == 4
    with pytest.raises(ObjectiveError, match="condition"):
        denoiser(x, sigma)
    with pytest.raises(UsageError):
        denoiser(x, sigma, Given({"class": torch.tensor([[3]] * 5)}))


def test_the_cost_of_each_interval_of_noise_levels_is_its_closed_form() -> None:
    torch.manual_seed(0)
    model, x = gaussian(), data(20_000)
    nats = model().terms(x, 4, intervals=6).entries[1].kl()
    lost = lambda gamma: (gamma - (STD**2 + gamma.exp().unsqueeze(-1)).log().T).sum(0) / 2
    assert torch.allclose(nats.mean(0), lost(model.bound.edges(6)).diff(), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("options", [{}, {"steps": 50}, {"path": PATHS["linear"]}])
def test_intervals_of_noise_levels_add_up_to_the_diffusion_term(options: dict[str, object]) -> None:
    x = data(12).reshape(3, 4, 2)
    found = []
    for intervals in (1, 5):
        torch.manual_seed(0)
        found.append(gaussian(**options)().terms(x, 7, intervals=intervals).entries[1].kl())
    whole, parts = found
    assert parts.shape == (3, 4, 5)
    assert (parts.mean((0, 1)) > 0).all()
    assert torch.allclose(whole.squeeze(-1), parts.sum(-1), rtol=1e-12)
