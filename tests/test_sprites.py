"""Sprites: pictures that their factors tell, and that tell their factors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tightbound as tb
from tightbound.data.sprites import FACTORS, SHAPES, SIDE, factor_grid, render
from tightbound.errors import ShapeError, UsageError


def test_every_combination_is_another_picture() -> None:
    factors = factor_grid()
    assert len(factors) == np.prod(list(FACTORS.values()))
    assert len(np.unique(factors, axis=0)) == len(factors)
    pictures = render(factors)
    assert pictures.shape == (len(factors), 1, SIDE, SIDE)
    assert len({picture.tobytes() for picture in pictures}) == len(factors)


def test_nothing_is_cut_off() -> None:
    pictures = render(factor_grid())
    border = np.concatenate([pictures[:, 0, 0], pictures[:, 0, -1], pictures[:, 0, :, 0], pictures[:, 0, :, -1]])
    assert border.max() == 0
    assert (pictures.max((1, 2, 3)) == 255).all()


@pytest.mark.parametrize("shape", range(3))
def test_place_and_size_are_seen(shape: int) -> None:
    def at(**changes: int) -> np.ndarray:
        values = {"shape": shape, "scale": 2, "orientation": 0, "x": 4, "y": 4, **changes}
        return render(np.array([[values[name] for name in FACTORS]]))[0, 0].astype(float)

    column, row = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    middle = lambda image: ((image * column).sum() / image.sum(), (image * row).sum() / image.sum())
    left, right = middle(at(x=0)), middle(at(x=9))
    assert right[0] - left[0] == pytest.approx(SIDE - 22, abs=0.1)
    assert abs(right[1] - left[1]) < 0.05
    assert middle(at(y=9))[1] > middle(at(y=0))[1] + 9
    areas = [at(scale=s).sum() for s in range(5)]
    assert areas == sorted(areas)
    assert areas[-1] / areas[0] == pytest.approx(4, rel=0.1)  # twice the radius
    assert all(at(orientation=o).sum() == pytest.approx(areas[2], rel=0.03) for o in range(12))


def test_a_square_is_itself_after_a_quarter_turn_only() -> None:
    turned = render(np.array([[0, 4, o, 5, 5] for o in range(12)])).astype(float)
    differences = np.abs(turned[1:] - turned[0]).mean((1, 2, 3))
    assert differences.min() > 1


def test_it_loads_like_any_data_set() -> None:
    data = tb.load_data("sprites")
    assert (len(data.train) + len(data.valid), len(data.test)) == (16_200, 1_800)
    assert data.spec.shape == (1, SIDE, SIDE)
    assert data.spec.classes == SHAPES
    assert data.train.labels is not None
    assert set(data.train.labels.tolist()) == {0, 1, 2}
    again = tb.load_data("sprites")
    assert torch.equal(torch.as_tensor(data.test.values), torch.as_tensor(again.test.values))


def test_wrong_factors_are_refused() -> None:
    with pytest.raises(ShapeError, match="five factors"):
        render(np.zeros((3, 4)))
    with pytest.raises(UsageError, match="scale is out of range"):
        render(np.array([[0, 5, 0, 0, 0]]))
    assert render(np.zeros((0, 5))).shape == (0, 1, SIDE, SIDE)
