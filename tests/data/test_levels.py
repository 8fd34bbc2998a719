"""Grey levels: what 1, 8, 12, 16 bits and floats become, what is said of it, and what is grey."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from data_helpers import flat, grey, image_bytes, refused, write_files
from tightbound.data import Data, DataOptions, load_data
from tightbound.errors import DataError, UsageError
from tightbound.recipes import VAE
from tightbound.training import train

DARK = "--levels stretch scales them to the full range"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGHTBOUND_CACHE", str(tmp_path / "cache"))


def discs(top: float, n: int = 20, dtype: Any = np.uint16) -> npt.NDArray[Any]:
    """Ramps from 0 to the top, each turned by one pixel more."""
    ramp = np.linspace(0, 1, 64) * top
    return np.stack([np.roll(ramp, i) for i in range(n)]).astype(dtype).reshape(n, 8, 8)


def folder(path: Path, pixels: npt.NDArray[Any], kind: str = "png") -> Path:
    return write_files(path, {f"{i:02}.{kind}": image_bytes(image, kind) for i, image in enumerate(pixels)})


def stored(data: Data) -> npt.NDArray[Any]:
    """All stored values, in the order of the splits."""
    return np.concatenate([np.asarray(split.values) for split in (data.train, data.valid, data.test)])


def same_values(found: Data, values: npt.NDArray[Any]) -> bool:
    rows = [sorted(map(bytes, np.ascontiguousarray(x).reshape(len(x), -1))) for x in (stored(found), values)]
    return rows[0] == rows[1]


@pytest.mark.parametrize("kind", ["png", "tiff", "npy"])
@pytest.mark.parametrize("memory", ["1000000", "100"])
@pytest.mark.parametrize(
    ("top", "levels", "scale", "dark"),
    [
        (65535, "auto", 65535, False),
        (4095, "auto", 65535, True),
        (4095, 4096, 4095, False),
        (4095, "stretch", 4095, False),
        (4000, 4096, 4095, False),
        (4095, "0:8000", 8000, False),
    ],
)
def test_sixteen_bits(
    top: int, levels: Any, scale: int, dark: bool, memory: str, kind: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """The nearest of 256 levels, of all images together, in memory and in the cache; and what was done is said."""
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", memory)
    pixels = discs(top)
    if kind == "npy":
        np.save(source := tmp_path / "scans.npy", pixels)
    else:
        source = folder(tmp_path / "scans", pixels, kind)
    data = load_data(source, levels=levels)
    assert data.spec.levels == 256
    assert f"Values 0 ... {scale} were scaled to 256 levels." in data.notes
    assert any("only 0 ... 4095 are in use: --levels 4096" in note and DARK in note for note in data.notes) == dark
    if memory != "100":
        assert same_values(data, np.rint(pixels / scale * 255).astype(np.uint8))
    again = load_data(data.options)
    assert again.fingerprint == data.fingerprint
    assert again.options == data.options


def test_what_is_stretched_is_kept_in_the_options(tmp_path: Path) -> None:
    """New data goes through the same numbers, not through its own."""
    data = load_data(folder(tmp_path / "a", discs(4000) + 95), levels="stretch")
    assert data.options.levels == "95:4095"
    other = load_data(folder(tmp_path / "b", discs(8000)), levels=data.options.levels)
    assert same_values(other, np.rint((discs(8000) - 95.0).clip(0, 4000) / 4000 * 255).astype(np.uint8))
    assert any("values outside 95 ... 4095 were clipped" in note for note in other.notes)


def test_more_levels_than_declared_are_refused(tmp_path: Path) -> None:
    with refused(DataError, "scans", "0 ... 999 (1000 levels)"):
        load_data(folder(tmp_path / "scans", discs(4095)), levels=1000)
    with refused(DataError, "a single value".capitalize(), "stretch"):
        load_data(folder(tmp_path / "flat", discs(0)), levels="stretch")


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "uint32"])
def test_whole_numbers_of_no_known_range_are_refused_with_the_option(dtype: str) -> None:
    with refused(DataError, "more than 256 levels", "integers 0 ... 999", "--levels 1000", "floats"):
        Data.from_arrays(discs(999, dtype=dtype))
    assert same_values(Data.from_arrays(discs(255, dtype=dtype)), discs(255, dtype="uint8"))
    data = Data.from_arrays(discs(999, dtype=dtype), levels=1000)
    assert same_values(data, np.rint(discs(999) / 999 * 255).astype(np.uint8))


@pytest.mark.parametrize("levels", ["0", "x", "5:5", "9:1", "nan:1", "0:inf", "1:2:3", 1, 65537, -2])
def test_levels_that_are_none_are_refused(levels: Any) -> None:
    with refused(UsageError, "levels are invalid", "stretch", "LOW:HIGH"):
        DataOptions(levels=levels)


@pytest.mark.parametrize("kind", ["folder", "npy"])
def test_masks_of_zero_and_one(kind: str, tmp_path: Path) -> None:
    masks = (discs(1, dtype=float) > 0.5).astype(np.uint8)
    if kind == "npy":
        np.save(source := tmp_path / "masks.npy", masks)
    else:
        source = folder(tmp_path / "masks", masks)
    data = load_data(source)
    assert data.summary()["levels_in_use"] == {"lowest": 0, "highest": 1, "count": 2}
    assert any("only 0 ... 1 are in use: --levels 2" in note and DARK in note for note in data.notes)
    binary = load_data(source, levels=2)
    assert (binary.spec.levels, binary.notes[:1]) == (2, ())
    assert set(stored(binary).flatten().tolist()) == {0, 1}
    white = load_data(source, levels="stretch")
    assert set(stored(white).flatten().tolist()) == {0, 255}
    assert "Only two levels are in use, 0 and 255 of 256: --binarize threshold makes them 0 and 1." in white.notes


@pytest.mark.parametrize(
    ("binarize", "value"), [("threshold", 1), ("threshold", 200), ("dynamic", 0), ("dynamic", 255)]
)
def test_binarizing_to_one_value_is_refused_before_anything_is_written(
    binarize: str, value: int, tmp_path: Path
) -> None:
    data = Data.from_arrays(np.full((20, 8), value, np.uint8), binarize=binarize)
    with refused(UsageError, "all values of 'arrays' are the same", "--levels 2", "stretch", f"levels {value}"):
        train(VAE(latent_dim=1).build(data.spec), data, steps=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_of_one_value_is_told() -> None:
    assert "All values are the same: level 0 of 256." in Data.from_arrays(np.zeros((20, 4), np.uint8)).notes


def png_of_sixteen_bits(pixel: list[int]) -> bytes:
    """A PNG of 2 x 2 equal pixels, each of three channels of two bytes, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head, rows = (2).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0]), zlib.compress(bytes([0, *pixel * 2]) * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_colours_of_sixteen_bits_are_told(tmp_path: Path) -> None:
    """Pillow reads their upper 8 bits."""
    files = {f"{i}.ppm": b"P6 2 2 65535\n" + bytes([i, 7] * 12) for i in range(4)}
    files |= {f"{i}.png": png_of_sixteen_bits([i, 7] * 3) for i in range(4)}
    data = load_data(write_files(tmp_path / "f", files), color="rgb")
    assert data.spec.shape == (3, 2, 2)
    assert sorted(set(stored(data).flatten().tolist())) == [0, 1, 2, 3]
    assert "8 images have more than 8 bits per colour; the upper 8 are read." in data.notes


def test_floats_are_continuous_unless_levels_are_made_of_them(tmp_path: Path) -> None:
    pixels = discs(3.5, dtype=np.float32)
    source = folder(tmp_path / "cells", pixels, "tiff")
    data = load_data(source)
    assert data.spec.levels is None
    assert same_values(data, pixels)
    assert "these are continuous" in data.notes[0]
    levels = load_data(source, levels="stretch")
    assert levels.spec.levels == 256
    assert same_values(levels, np.rint(pixels.astype(np.float64) / 3.5 * 255).astype(np.uint8))
    pixels[3, 2, 1] = np.nan
    with refused(DataError, "NaN", "1 of 1280 entries"):
        load_data(folder(tmp_path / "broken", pixels, "tiff"))
    mixed = {"a.tiff": image_bytes(pixels[0], "tiff"), "b.png": grey(1)}
    with refused(DataError, "a.tiff", "no fixed range", "floats"):
        load_data(write_files(tmp_path / "mixed", mixed))


def test_eight_and_sixteen_bits_together(tmp_path: Path) -> None:
    files = {f"{i}.png": grey(10 * i) for i in range(6)}
    files |= {f"w{i}.png": image_bytes(np.full((8, 8), 2570 * i, np.uint16)) for i in range(6)}
    data = load_data(write_files(tmp_path / "f", files))
    assert sorted(stored(data)[:, 0, 0, 0].tolist()) == sorted([*range(0, 60, 10)] * 2)


def grey_kinds() -> dict[str, bytes]:
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    alpha = Image.merge("RGBA", [picture] * 3 + [Image.new("L", (8, 8), 255)])
    return {
        "gif": image_bytes(picture, "gif"),
        "palette": image_bytes(picture.convert("P")),
        "rgb": image_bytes(picture.convert("RGB")),
        "rgba": image_bytes(alpha),
        "jpeg": image_bytes(picture.convert("RGB"), "jpeg", quality=100),
        "webp": image_bytes(picture.convert("RGB"), "webp", lossless=True),
        "la": image_bytes(picture.convert("LA")),
        "pgm": image_bytes(picture, "ppm"),
    }


@pytest.mark.parametrize("kind", grey_kinds())
@pytest.mark.parametrize("memory", ["1000000", "100"])
def test_grey_is_grey_in_every_container(kind: str, memory: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", memory)
    suffix = {"palette": "png", "rgb": "png", "rgba": "png", "la": "png"}.get(kind, kind)
    source = write_files(tmp_path / "f", {f"{i}.{suffix}": grey_kinds()[kind] for i in range(5)})
    data = load_data(source)
    assert data.spec.shape == (1, 8, 8)
    pixels = data.test.batch(torch.tensor([0])).x.flatten() * 255
    assert (pixels - torch.arange(64) * 4).abs().max() <= (2 if kind == "jpeg" else 1e-4)
    assert any("--color rgb" in note for note in data.notes) == (kind not in ("la", "pgm"))
    assert load_data(source, color="rgb").spec.shape == (3, 8, 8)


def test_one_colour_among_grey_keeps_three_channels(tmp_path: Path) -> None:
    coloured = np.zeros((8, 8, 3), np.uint8)
    coloured[7, 7, 2] = 1
    files = {f"{i}.gif": grey_kinds()["gif"] for i in range(5)} | {"x.png": image_bytes(coloured)}
    assert load_data(write_files(tmp_path / "f", files)).spec.shape == (3, 8, 8)


def test_more_formats_are_read(tmp_path: Path) -> None:
    """JFIF and the portable any-maps, of text and of bytes, each with its own highest value."""
    files = {
        "a.png": grey(100),
        "b.pgm": b"P5 8 8 255\n" + bytes([100] * 64),
        "c.PGM": b"P2 8 8 10\n" + b"4 " * 64,
        "d.pnm": b"P5 8 8 1020\n" + bytes([1, 144] * 64),
        "e.ppm": b"P6 8 8 255\n" + bytes([100] * 192),
        "f.pbm": b"P4 8 8\n" + bytes(8),
    }
    file = io.BytesIO()
    Image.new("L", (8, 8), 100).save(file, "jpeg")
    files["g.jfif"] = file.getvalue()
    data = load_data(write_files(tmp_path / "f", files), color="grey")
    assert data.said[:1] != ("Ignored",)
    assert sorted(flat(stored(data)[:, 0, 0].tolist()))[:8] == [100] * 8
    assert sorted(set(stored(data).flatten().tolist())) == [100, 102, 255]
