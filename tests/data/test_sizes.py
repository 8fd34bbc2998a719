"""Pictures of one size, square or not, and the parts of them that training sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from data_helpers import grey, image_bytes, refused, write_files
from tightbound.data import Data, DataOptions, load_data
from tightbound.data.load import load_for_learned
from tightbound.data.transform import Transform
from tightbound.errors import DataError, UsageError
from tightbound.spec import from_json, to_json

SIZES = [(8, 8), (12, 7), (7, 12), (16, 16), (5, 30)]
"""Height and width."""
ASKED = [8, 5, (6, 9), (9, 6), (3, 20), (20, 3), (16, 16)]


def ramp(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def every(split: Any) -> Tensor:
    return split.batch(torch.arange(len(split))).x


def covering(image: Image.Image, height: int, width: int) -> Image.Image:
    """By Pillow's own words for it."""
    scale = max(height / image.height, width / image.width)
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_pictures_of_all_sizes_cover_what_is_asked_for_and_lose_their_edges(tmp_path: Path, asked: Any) -> None:
    height, width = (asked, asked) if isinstance(asked, int) else asked
    files = {f"{i:02d}.png": image_bytes(ramp(*SIZES[i % len(SIZES)])) for i in range(10)}
    data = load_data(write_files(tmp_path / "f", files), image_size=asked, validation=0)
    assert data.spec.shape == (3, height, width)
    for name, x in zip(data.train.names, (every(data.train) * 255).round(), strict=True):
        expected = covering(Image.fromarray(ramp(*SIZES[int(name[:2]) % len(SIZES)])), height, width)
        np.testing.assert_array_equal(x.permute(1, 2, 0).numpy(), np.asarray(expected))


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_arrays_become_what_files_become(size: tuple[int, int], asked: Any) -> None:
    height, width = (asked, asked) if isinstance(asked, int) else asked
    array = np.stack([ramp(*size)] * 4)
    data = Data.from_arrays(array, image_size=asked, validation=0)
    assert data.spec.shape == (3, height, width)
    expected = np.asarray(covering(Image.fromarray(array[0]), height, width), np.float32)
    found = (every(data.train)[0] * 255).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1.01


@pytest.mark.parametrize("size", [(24, 40), (40, 24), 20], ids=str)
def test_sprites_are_drawn_at_a_size_and_never_resized(size: Any) -> None:
    """The middle of a rectangle is what the square has there, level by level."""
    data, side = load_data("sprites", image_size=size), max(size if isinstance(size, tuple) else (size,))
    height, width = (size, size) if isinstance(size, int) else size
    whole = every(load_data("sprites", image_size=side).test.subset(20))
    top, left = (side - height) // 2, (side - width) // 2
    assert torch.equal(every(data.test.subset(20)), whole[..., top : top + height, left : left + width])


@pytest.mark.parametrize("name", ["image_size", "crop"])
@pytest.mark.parametrize("size", [0, -4, 2**13 + 1, (0, 5), (5, 0), (5,), (5, 6, 7), (5.0, 6), "64", [5, 6], True])
def test_absurd_sizes_are_refused(name: str, size: Any) -> None:
    with refused(UsageError, f"{name}={size}", f"--{name.replace('_', '-')} 48 64", f"{name}=(48, 64)"):
        DataOptions("digits", **{name: size})


@pytest.mark.parametrize("size", [None, 64, (48, 64)])
def test_sizes_are_kept_in_files(size: Any) -> None:
    options = DataOptions("photos", image_size=size, crop=size)
    assert from_json(to_json(options), DataOptions) == options
    old = {name: value for name, value in to_json(options).items() if name != "crop"}
    assert from_json(old, DataOptions).crop is None


# -- parts ------------------------------------------------------------------------------------------------------------


def numbered(n: int, height: int, width: int) -> Tensor:
    """Pictures whose pixels tell their row, their column and their number."""
    number, row, column = torch.meshgrid(
        torch.arange(n) % 256, torch.arange(height), torch.arange(width), indexing="ij"
    )
    return torch.stack([number, row, column], 1).to(torch.uint8)


@pytest.mark.parametrize("crop", [1, 5, (4, 7), (9, 3), (9, 11)], ids=str)
def test_training_sees_parts_anywhere_and_the_rest_the_middle(crop: Any) -> None:
    torch.manual_seed(0)
    height, width = (crop, crop) if isinstance(crop, int) else crop
    values = numbered(2000, 9, 11)
    data = Data.from_arrays(values, values[:30], values[:30], crop=crop)
    assert data.spec.shape == (3, height, width)
    assert f"shape 3 x {height} x {width}, cropped from 3 x 9 x 11" in data.description
    assert data.summary()["cropped_from"] == [3, 9, 11]
    x = (every(data.train) * 255).round().long()
    top, left = x[:, 1, 0, 0], x[:, 2, 0, 0]
    assert torch.equal(x[:, 0], (torch.arange(2000) % 256)[:, None, None].expand_as(x[:, 0]))
    assert torch.equal(x[:, 1] - top[:, None, None], torch.arange(height)[:, None].expand_as(x[:, 1]))
    assert torch.equal(x[:, 2] - left[:, None, None], torch.arange(width).expand_as(x[:, 2]))
    for found, places in ((top, 10 - height), (left, 12 - width)):
        counts = torch.bincount(found, minlength=places).double()
        assert len(counts) == places
        assert ((counts - 2000 / places).abs() < 5 * (2000 / places) ** 0.5).all()
    assert len(torch.stack([top, left]).unique(dim=1).T) == (10 - height) * (12 - width)  # the two are independent
    for held in (data.valid, data.test, data.train.still, data.split("all")):
        part = every(held)[:30]
        t, l = (9 - height) // 2, (11 - width) // 2
        assert torch.equal(part, values[:30, :, t : t + height, l : l + width] / 255)


def test_parts_are_drawn_anew_and_from_the_global_generator() -> None:
    split = Data.from_arrays(numbered(300, 9, 11), crop=(4, 7), flip=True).train
    torch.manual_seed(3)
    first, second = every(split), every(split)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first, every(split))


def test_without_a_crop_nothing_is_drawn() -> None:
    """Runs without one see what they saw before there was one."""
    values = numbered(50, 9, 11)
    torch.manual_seed(3)
    plain = Transform(256, flip=True)(values)
    torch.manual_seed(3)
    coins = torch.rand(50) < 0.5
    assert torch.equal(plain, torch.where(coins[:, None, None, None], values.flip(-1), values) / 255)
    assert "crop" not in repr(Transform(256))  # by which latents in a file are known


@pytest.mark.parametrize("limit", ["0", str(2**30)], ids=["mapped", "in memory"])
def test_a_folder_of_all_sizes_is_resized_and_then_cropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", limit)
    monkeypatch.setenv("TIGHTBOUND_CACHE", str(tmp_path / "cache"))
    files = {f"{i % 2}/{i:02d}.png": image_bytes(ramp(*SIZES[i % len(SIZES)])) for i in range(20)}
    folder = write_files(tmp_path / "f", files)
    with refused(DataError, "different sizes", "--image-size 72"):
        load_data(folder, crop=64)
    with refused(UsageError, "crop 6 x 9 of images of 8 x 8", "--image-size 7 10"):
        load_data(folder, image_size=8, crop=(6, 9))
    data = load_data(folder, image_size=(12, 10), crop=(6, 9))
    assert data.spec.shape == every(data.train).shape[1:] == (3, 6, 9)
    whole = every(load_data(folder, image_size=(12, 10)).test)
    assert torch.equal(every(data.test), whole[:, :, 3:9, :9])
    assert data.fingerprint != load_data(folder, image_size=(12, 10)).fingerprint


def test_new_pictures_for_a_model_of_parts_show_their_middle(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "own", {f"{i:02d}.png": image_bytes(ramp(9, 12)) for i in range(20)})
    own = load_data(folder, image_size=(8, 10), crop=(6, 5))
    other = write_files(tmp_path / "new", {f"{i}.png": image_bytes(ramp(*size)) for i, size in enumerate(SIZES)})
    options = DataOptions(str(other), image_size=(8, 10), crop=(6, 5))
    new = load_for_learned(options, own.spec, own.fingerprint)
    whole = every(load_for_learned(DataOptions(str(other), image_size=(8, 10)), own.spec).train)
    assert torch.equal(every(new.train), whole[:, :, 1:7, 2:7])
    assert torch.equal(every(new.train), every(new.train))


def test_only_pictures_are_cropped() -> None:
    with refused(UsageError, "Only images can be cropped"):
        Data.from_arrays(np.zeros((20, 4)), crop=2)


@pytest.mark.parametrize("name", ["digits", "sprites"])
def test_named_data_is_cropped(name: str) -> None:
    data = load_data(name, image_size=12, crop=(8, 10))
    assert data.spec.shape[1:] == (8, 10)
    assert torch.equal(every(data.test), every(load_data(name, image_size=12).test)[..., 2:10, 1:11])


def test_one_size_is_not_resized(tmp_path: Path) -> None:
    data = load_data(write_files(tmp_path / "f", {f"{i}.png": grey(i, 8) for i in range(9)}), crop=(8, 8))
    assert data.spec.shape == (1, 8, 8)
