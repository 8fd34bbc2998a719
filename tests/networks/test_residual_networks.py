"""Residual networks between images and grids: shapes, what reaches what, and the grids that they cannot make."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from instances import CONDITION, double, without_gradient
from tightbound.data import DataSpec
from tightbound.errors import UsageError
from tightbound.likelihoods import Gaussian
from tightbound.networks.residual import GridDecoder, GridEncoder, ResidualBlock, grid_of

SHAPES = [(1, 8, 8), (3, 16, 8), (2, 4, 12)]
CHANNELS = [(4,), (4, 6)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"blocks": 0},
    {"blocks": 1, "hidden": 3},
    {"norm": True, "activation": "silu"},
    {"condition_dim": CONDITION},
    {"condition_dim": CONDITION, "norm": True, "blocks": 1},
]
CASES = list(itertools.product(SHAPES, CHANNELS, OPTIONS))


def named(value: Any) -> str:
    return str(value).replace(" ", "")


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(named, case)))
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


def pair(case: Any) -> tuple[GridEncoder, GridDecoder]:
    shape, channels, options = case
    options = {"activation": "tanh", **options}  # few rectified units may all be off
    encoder = GridEncoder(shape, 5, channels, **options).double()
    return encoder, GridDecoder(5, shape, channels, parameters=2, **options).double()


def inputs(case: Any, n: int = 3) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """An image, a grid and what else the networks take."""
    shape, channels, options = case
    given = (double(n, dim),) if (dim := options.get("condition_dim", 0)) else ()
    return double(n, *shape), double(n, 5, *grid_of(shape, len(channels))), given


def test_shapes(case: Any) -> None:
    shape, channels, _ = case
    (encoder, decoder), (x, z, c) = pair(case), inputs(case)
    height, width = shape[1] // 2 ** len(channels), shape[2] // 2 ** len(channels)
    assert encoder(x, *c).shape == (3, 5, height, width)
    assert decoder(z, *c).shape == (3, 2 * shape[0], *shape[1:])
    assert encoder.grid == decoder.grid == (height, width)


def test_gradients_reach_every_parameter(case: Any) -> None:
    (encoder, decoder), (x, z, c) = pair(case), inputs(case)
    (encoder(x, *c).square().sum() + decoder(z, *c).square().sum()).backward()
    assert without_gradient(encoder) == without_gradient(decoder) == []


def test_an_example_is_alone_in_its_batch(case: Any) -> None:
    (encoder, decoder), (x, z, c) = pair(case), inputs(case)
    some = tuple(t[:1] for t in c)
    torch.testing.assert_close(encoder(x, *c)[:1], encoder(x[:1], *some))
    torch.testing.assert_close(decoder(z, *c)[:1], decoder(z[:1], *some))


def test_positions_in_a_row_are_the_grid(case: Any) -> None:
    (_, decoder), (_, z, c) = pair(case), inputs(case)
    torch.testing.assert_close(decoder(z.flatten(2).mT, *c), decoder(z, *c))


def test_a_condition_reaches_every_output() -> None:
    for network, x in (
        (GridEncoder((1, 8, 8), 5, (4, 6), activation="tanh", condition_dim=CONDITION), double(1, 1, 8, 8)),
        (GridDecoder(5, (1, 8, 8), (4, 6), activation="tanh", condition_dim=CONDITION), double(1, 5, 2, 2)),
    ):
        c = double(1, CONDITION).requires_grad_()
        out = network.double()(x, c)
        for entry in out.flatten():
            (gradient,) = torch.autograd.grad(entry, c, retain_graph=True)
            assert (gradient != 0).all()


def test_without_blocks_each_level_sees_the_image_through_its_kernels() -> None:
    """Three more pixels for each strided kernel: the receptive field is 4, then 10, then 3 of those, of stride 4."""
    encoder = GridEncoder((1, 32, 32), 1, (4, 6), blocks=0, activation="tanh").double()
    x = double(1, 1, 32, 32).requires_grad_()
    (gradient,) = torch.autograd.grad(encoder(x)[0, 0, 4, 4], x)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (4 * 4 - 7, 4 * 4 + 10)


def test_a_block_starts_from_the_identity_of_its_input() -> None:
    block, x = ResidualBlock(4, 3, norm=True).double(), double(2, 4, 5, 5)
    nn.init.zeros_(block.layers[-1].weight)  # pyright: ignore
    nn.init.zeros_(block.layers[-1].bias)  # pyright: ignore
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("hidden", [4, 6, 8])
def test_a_block_says_something_of_a_grid_of_one_position(hidden: int) -> None:
    """Normalised alone, a single value would be zero whatever it was."""
    block, x = ResidualBlock(8, hidden, activation="tanh", norm=True).double(), double(50, 8, 1, 1)
    assert (block(x) - x).std(0).min() > 1e-3


def test_a_likelihood_starts_the_last_layer_where_the_data_lies() -> None:
    spec = DataSpec("rgb", (3, 8, 8), levels=256)
    decoder: Any = GridDecoder(5, spec.shape, (4, 6), parameters=2)
    likelihood = Gaussian(decoder, (4, 5), spec.shape, "network")
    x = torch.rand(50, *spec.shape) * torch.tensor([0.2, 0.5, 1.0])[:, None, None]
    likelihood.initialise(x)
    assert decoder.last_layer.bias is not None
    torch.testing.assert_close(decoder.last_layer.bias[:3], x.mean((0, 2, 3)))
    assert likelihood(torch.zeros(7, 4, 5)).mean.shape == (7, *spec.shape)


def test_the_last_layer_is_the_last() -> None:
    for network, x in (
        (GridEncoder((1, 8, 8), 5, (4,)), torch.zeros(2, 1, 8, 8)),
        (GridDecoder(5, (1, 8, 8), (4,)), torch.zeros(2, 5, 4, 4)),
    ):
        before = network(x)
        with torch.no_grad():
            next(p for p in network.last_layer.parameters() if p.dim() == 1).add_(1.0)
        torch.testing.assert_close(network(x), before + 1)


@pytest.mark.parametrize(
    ("shape", "levels", "says"),
    [
        ((1, 28, 28), 3, ["28 x 28 with 3 levels", "divisible by 8", "1 entry gives 14 x 14", "2 entries gives 7 x 7"]),
        ((1, 28, 28), 3, ["to 32 x 32"]),
        ((3, 32, 20), 4, ["32 x 20 with 4 levels", "2 entries gives 8 x 5", "to 32 x 32"]),
        ((1, 7, 8), 1, ["Resize or pad the images to 8 x 8"]),
        ((64,), 2, ["examples of shape (64,)", "height, width"]),
        ((1, 8, 8), 0, ["at least one level"]),
    ],
)
def test_grids_that_cannot_be_made_are_refused_with_those_that_can(
    shape: tuple[int, ...], levels: int, says: list[str]
) -> None:
    for make in (
        lambda: grid_of(shape, levels),
        lambda: GridEncoder(shape, 5, (4,) * levels),
        lambda: GridDecoder(5, shape, (4,) * levels),
    ):
        with pytest.raises(UsageError) as error:
            make()
        assert all(words in str(error.value) for words in says)


def test_names_only_grids_that_it_can_make() -> None:
    for height, width in itertools.product([3, 6, 8, 12, 28], repeat=2):
        with pytest.raises(UsageError) as error:
            grid_of((1, height, width), 4)
        named = str(error.value).count("gives")
        possible = [levels for levels in (1, 2, 3) if height % 2**levels == width % 2**levels == 0]
        assert named == len(possible)
        for levels in possible:
            rows, columns = grid_of((1, height, width), levels)
            assert f"gives {rows} x {columns}" in str(error.value)
