"""Data as people have it, from the array to the evaluation: odd sizes, floats that are not scaled, and pure noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import tightbound as tb
from tightbound.data import Data
from tightbound.recipes import VAE

QUICK: dict[str, Any] = {"batch_size": 32, "pictures": False, "device": "cpu", "beta_warmup": 0.0}


@pytest.mark.parametrize("size", [(30, 50), (17, 23), (5, 7), (1, 64), (100, 20)])
def test_pictures_of_odd_sizes_are_learned(size: tuple[int, int], tmp_path: Any) -> None:
    x = np.random.default_rng(0).integers(0, 256, (24, *size)).astype(np.uint8)
    data = Data.from_arrays(x)
    model = VAE(latent_dim=2, network="convolutional", channels=(4, 8)).build(data.spec)
    result = tb.train(model, data, out=tmp_path / "run", steps=2, **QUICK)
    assert result.best_bound is not None
    assert math.isfinite(result.best_bound)
    assert model().sample((3,)).shape == (3, 1, *size)


def test_nothing_is_told_better_than_its_entropy(tmp_path: Any) -> None:
    """Uniform noise of 256 levels has 16 ln 256 nats: less would be a density taken for a probability."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 4, 4)).astype(np.uint8)
    data = Data.from_arrays(noise)
    model = VAE(latent_dim=2, hidden=(32,)).build(data.spec)
    tb.train(model, data, out=tmp_path / "run", steps=150, **QUICK)
    found = tb.evaluate(model, data.test, k=50)
    assert found.measure == "mass"
    assert found.nll is not None
    assert found.nll.standard_error is not None
    entropy = 16 * math.log(256)
    assert entropy - 4 * found.nll.standard_error < found.nll.value < entropy + 8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_up_to_255_are_learned_at_once(dtype: type, tmp_path: Any) -> None:
    x = (255 * np.random.default_rng(0).random((60, 8, 8))).astype(dtype)
    data = Data.from_arrays(x)
    torch.manual_seed(0)
    model = VAE(latent_dim=2, hidden=(16,)).build(data.spec)
    result = tb.train(model, data, out=tmp_path / "run", steps=60, **QUICK)
    assert result.best_bound is not None
    exact = 64 * math.log(255)  # the entropy of the uniform density, in the data's own units
    assert -exact - 64 < result.best_bound < -exact
