"""Sprites are what their factors say: their mass, its centre and its main axis are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tightbound.data import DATASETS, DataOptions, load_data
from tightbound.data.sources.sprites import FACTORS, GRID, RADIUS, SHAPES, factors, split_factors, sprites
from tightbound.errors import ShapeError, UsageError

SIDE = 64
PIXEL = (torch.arange(SIDE).double() + 0.5) / SIDE


@pytest.fixture(scope="module")
def grid() -> tuple[Tensor, Tensor]:
    return factors(), sprites(factors(), SIDE)[:, 0]


def centre(images: Tensor) -> Tensor:
    """Centre of mass, x and y, ``(n, 2)``."""
    return torch.stack([images.sum(1) @ PIXEL, images.sum(2) @ PIXEL], dim=1) / images.sum((1, 2))[:, None]


def test_every_shape_of_one_scale_covers_the_same(grid: tuple[Tensor, Tensor]) -> None:
    values, images = grid
    torch.testing.assert_close(images.mean((1, 2)), 2 * (RADIUS * values[:, 1]) ** 2, rtol=0.02, atol=0.0)


def test_the_centre_of_mass_is_the_place(grid: tuple[Tensor, Tensor]) -> None:
    values, images = grid
    place = RADIUS + values[:, 3:] * (1 - 2 * RADIUS)
    torch.testing.assert_close(centre(images), place, rtol=0.0, atol=0.15 / SIDE)


def test_the_orientation_is_the_main_axis_of_the_ellipse(grid: tuple[Tensor, Tensor]) -> None:
    values, images = (part[grid[0][:, 0] == SHAPES.index("ellipse")] for part in grid)
    dx, dy = ((PIXEL - middle[:, None]) for middle in centre(images).T)
    xx, yy = ((images.sum(1) * dx**2).sum(1), (images.sum(2) * dy**2).sum(1))
    angle = 0.5 * torch.atan2(2 * torch.einsum("nij,ni,nj->n", images, dy, dx), xx - yy)
    assert torch.remainder(angle - values[:, 2] + math.pi / 2, math.pi).sub(math.pi / 2).abs().max() < 0.05


def test_no_shape_leaves_the_picture_even_in_a_corner() -> None:
    places = torch.tensor([0.0, 1.0], dtype=torch.float64)
    angles = torch.linspace(0, 2 * math.pi, 25, dtype=torch.float64)
    corners = torch.cartesian_prod(torch.arange(3).double(), torch.ones(1).double(), angles, places, places)
    shares = sprites(corners, SIDE).mean((1, 2, 3))
    torch.testing.assert_close(shares, torch.full_like(shares, 2 * RADIUS**2), rtol=0.02, atol=0.0)


def test_no_two_pictures_are_the_same() -> None:
    levels = (255 * sprites(factors())).round().byte().flatten(1)
    assert len(levels.unique(dim=0)) == len(levels) == math.prod(map(len, GRID.values()))


@pytest.mark.parametrize(("shape", "turn"), [(0, math.pi / 2), (1, math.pi), (2, 2 * math.pi)])
def test_each_shape_repeats_after_its_own_turn_and_not_before(shape: int, turn: float) -> None:
    here = torch.tensor([[shape, 0.9, 0.2, 0.4, 0.6]], dtype=torch.float64)
    after = lambda angle: sprites(here + angle * torch.eye(5, dtype=torch.float64)[2])
    torch.testing.assert_close(after(turn), sprites(here))
    assert (after(turn / 2) - sprites(here)).abs().max() > 0.2


def test_a_shape_is_drawn_alike_at_every_size_and_in_every_precision() -> None:
    values = factors()[::100]
    coarse = torch.nn.functional.avg_pool2d(sprites(values, 128), 4)
    assert (coarse - sprites(values, 32)).abs().mean() < 0.004
    torch.testing.assert_close(sprites(values.float()).double(), sprites(values), rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_factors_of_a_split_draw_its_pictures(seed: int) -> None:
    data = load_data("sprites", split_seed=seed, image_size=16)
    assert data.spec.shape == (1, 16, 16)
    found = split_factors(data.options)
    for split in (data.train, data.valid, data.test):
        x, labels, *_ = split.batch(torch.arange(len(split)))
        torch.testing.assert_close(x.double(), sprites(found[split.name], 16), rtol=0.0, atol=0.51 / 255)
        assert labels is not None
        assert torch.equal(labels, found[split.name][:, 0].long())
    assert len(torch.cat(list(found.values())).unique(dim=0)) == len(factors())


def test_the_catalogue_tells_what_is_loaded() -> None:
    data = load_data("sprites")
    assert (data.spec.shape, data.spec.levels, data.spec.classes) == (DATASETS["sprites"].shape, 256, SHAPES)
    assert sum(data.summary()["examples"].values()) == int(DATASETS["sprites"].examples.replace(",", ""))
    assert load_data("sprites").fingerprint == data.fingerprint


@pytest.mark.parametrize(
    "row", [[3, 1, 0, 0.5, 0.5], [0, 0, 0, 0.5, 0.5], [0, 1, math.nan, 0.5, 0.5], [0, 1, 0, 1.1, 0.5]]
)
def test_factors_out_of_range_are_refused(row: list[float]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        sprites(torch.tensor([row]))


def test_other_bad_input_is_refused() -> None:
    assert sprites(torch.zeros(0, len(FACTORS))).shape == (0, 1, 32, 32)
    with pytest.raises(ShapeError, match="five factors"):
        sprites(torch.zeros(5))
    with pytest.raises(UsageError, match="floats"):
        sprites(torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(UsageError, match="size of an image"):
        sprites(factors()[:1], size=0)
    with pytest.raises(UsageError, match="Only sprites"):
        split_factors(DataOptions("digits"))
