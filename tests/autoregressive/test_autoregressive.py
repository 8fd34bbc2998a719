"""Pixels that depend on those before them, and on nothing else."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import tightbound as tb
from instances import within_error
from tightbound.data import DataSpec
from tightbound.errors import ShapeError, UsageError
from tightbound.evaluation import likelihood
from tightbound.likelihoods.pixel_decoder import AutoregressiveLikelihood
from tightbound.networks import MaskedConv2d, PixelDecoder
from tightbound.recipes import VAE

LATENT = 2


def decoder(shape: tuple[int, int, int], levels: int = 2, **options: int) -> AutoregressiveLikelihood:
    parameters = 1 if levels == 2 else levels
    sizes: dict[str, Any] = {"channels": 4, "layers": 2, "kernel": 3, "maps": 2, **options}
    network = PixelDecoder(LATENT, shape, parameters, **sizes)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return AutoregressiveLikelihood(network, LATENT, shape, levels).double()


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (2, 3), (3, 5)])
def test_a_pixel_depends_on_those_before_it_within_reach(channels: int, layers: int, kernel: int) -> None:
    shape = (channels, 5, 5)
    network = decoder(shape, layers=layers, kernel=kernel).network
    x = double(1, *shape).requires_grad_()
    out = network(x, double(1, LATENT))
    for i, j in itertools.product(range(5), range(5)):
        (slope,) = torch.autograd.grad(out[:, :, i, j].sum(), x, retain_graph=True)
        seen = slope[0].abs().sum(0) > 0
        before = torch.tensor([[(r, s) < (i, j) for s in range(5)] for r in range(5)])
        reach = torch.tensor([[max(i - r, abs(j - s)) <= network.reach for s in range(5)] for r in range(5)])
        assert not (seen & ~before).any()
        assert not (seen & ~reach).any()
        if (i, j) == (4, 2):
            assert seen.sum() >= 4  # all of the row above that a 3 x 3 kernel covers, and the pixel to the left


def test_every_pixel_depends_on_the_latent() -> None:
    network, z = decoder((1, 4, 4)).network, double(50, LATENT).requires_grad_()
    out = network(double(50, 1, 4, 4), z)
    for i, j in itertools.product(range(4), range(4)):
        assert torch.autograd.grad(out[:, 0, i, j].sum(), z, retain_graph=True)[0].abs().sum() > 0


@pytest.mark.parametrize(("levels", "shape"), [(2, (1, 3, 3)), (2, (2, 2, 2)), (3, (1, 2, 3))])
def test_the_probabilities_of_all_images_sum_to_one(levels: int, shape: tuple[int, int, int]) -> None:
    px = decoder(shape, levels)(double(3, LATENT))
    entries = shape[0] * shape[1] * shape[2]
    values = torch.tensor(list(itertools.product(range(levels), repeat=entries)), dtype=torch.float64) / (levels - 1)
    images = values.reshape(-1, 1, *shape)
    total = px.log_prob(images).logsumexp(0)
    torch.testing.assert_close(total, torch.zeros(3).double(), rtol=0, atol=1e-10)


def test_samples_are_of_that_distribution() -> None:
    px = decoder((1, 2, 2))(double(LATENT))
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64).view(16, 1, 2, 2)
    drawn = px.sample((4000,))
    assert drawn.shape == (4000, 1, 2, 2)
    for image, p in zip(images, px.log_prob(images).exp(), strict=True):
        assert within_error((drawn == image).flatten(1).all(1).double(), p, errors=4)


@pytest.mark.parametrize("levels", [2, 4])
def test_rows_out_of_reach_need_not_be_seen(levels: int) -> None:
    likelihood = decoder((1, 9, 4), levels)
    network, x, z = likelihood.network, torch.rand(3, 1, 9, 4).double(), double(3, LATENT)
    maps = network.maps(z)
    whole = network.rows(x, maps)
    for row in range(9):
        top = max(0, row - network.reach)
        part = network.rows(x[:, :, top : row + 1], maps[:, :, top : row + 1])
        torch.testing.assert_close(part[:, :, -1], whole[:, :, row], rtol=1e-12, atol=1e-12)


def test_leading_dimensions_broadcast() -> None:
    likelihood, z, x = decoder((1, 3, 4)), double(2, 5, LATENT), torch.rand(5, 1, 3, 4).round().double()
    together = likelihood(z).log_prob(x)
    assert together.shape == (2, 5)
    for k, n in itertools.product(range(2), range(5)):
        torch.testing.assert_close(likelihood(z[k, n]).log_prob(x[n]), together[k, n])
    many = likelihood(z).log_prob(x.expand(7, 2, 5, 1, 3, 4))
    torch.testing.assert_close(many, together.expand(7, 2, 5))
    assert likelihood(z).sample((3,)).shape == (3, 2, 5, 1, 3, 4)
    assert likelihood(z).mean.shape == (2, 5, 1, 3, 4)
    assert torch.equal(likelihood(z).mean, likelihood(z).mean)


def test_gradients_reach_every_parameter() -> None:
    likelihood = decoder((2, 4, 4), 3)
    likelihood(double(2, LATENT)).log_prob(torch.rand(2, 2, 4, 4).double()).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in likelihood.parameters())


@pytest.mark.parametrize("levels", [2, 3])
def test_the_last_bias_starts_at_the_frequencies(levels: int) -> None:
    likelihood = decoder((2, 4, 4), levels)
    x = (torch.rand(500, 2, 4, 4, dtype=torch.float64).square() * (levels - 1)).round() / (levels - 1)
    likelihood.initialise(x)
    network = likelihood.network
    with torch.no_grad():
        network.output_layer.weight.zero_()
    mean = likelihood(double(1, LATENT)).mean.mean((0, 2, 3))
    torch.testing.assert_close(mean, x.mean((0, 2, 3)), rtol=0, atol=0.01)


def test_trains_evaluates_and_is_a_mass(tmp_path: Path) -> None:
    data = tb.load_data("digits", binarize="dynamic")
    recipe = VAE(latent_dim=LATENT, hidden=(16,), likelihood="autoregressive", pixel_layers=2, pixel_channels=4)
    torch.manual_seed(0)
    tb.train(recipe.build(data.spec), data, out=tmp_path / "run", steps=60, lr=1e-2)
    found = likelihood(tb.load(tmp_path / "run"), data.test, k=20)
    assert found.measure == "mass"
    assert found.nll.value < 64 * 0.6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ShapeError, match="odd side"):
        MaskedConv2d(1, 1, 4, itself=True)
    with pytest.raises(UsageError, match="two levels"):
        decoder((1, 3, 3), 1)
    recipe = VAE(likelihood="autoregressive")
    with pytest.raises(UsageError, match="images"):
        recipe.build(DataSpec("v", (4,), levels=2))
    with pytest.raises(UsageError, match="discrete levels"):
        recipe.build(DataSpec("v", (1, 4, 4), levels=None))
    with pytest.raises(UsageError, match="no scale"):
        VAE(likelihood="autoregressive", scale="shared").build(DataSpec("v", (1, 4, 4), levels=2))
    assert (
        recipe.build(DataSpec("v", (1, 4, 4), levels=2))
        .likelihood.measure(  # pyright: ignore
            DataSpec("w", (1, 4, 4), levels=256)
        )
        .kind
        == "none"
    )
