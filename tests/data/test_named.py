"""Named data sets: strict formats, where files are looked for, and downloads from a server on loopback."""

from __future__ import annotations

import dataclasses
import gc
import gzip
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from data_helpers import (
    amat,
    idx,
    image_bytes,
    make_zip,
    mnist_files,
    real_data,
    refused,
    served,
    sha256,
    write_files,
)
from tightbound.data import DATASETS, load_data
from tightbound.data.sources.formats import read_amat, read_idx
from tightbound.data.sources.named import READERS
from tightbound.errors import DataError


@pytest.fixture(autouse=True)
def sockets_are_collected() -> Iterator[None]:
    """Pooch leaves the socket of a refused download to the garbage collector, which warns here, not in a later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and neither data nor a mirror of the user."""
    monkeypatch.setenv("TIGHTBOUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TIGHTBOUND_DATA", raising=False)
    monkeypatch.delenv("TIGHTBOUND_MIRROR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A small MNIST, and the catalogue with its checksums."""
    files = mnist_files()
    entries = [
        dataclasses.replace(file, checksum=sha256(files[file.name.removesuffix(".gz")]))
        for file in DATASETS["mnist"].files
    ]
    monkeypatch.setitem(DATASETS, "mnist", dataclasses.replace(DATASETS["mnist"], files=tuple(entries)))
    return files


def drawings(alphabets: tuple[str, ...]) -> dict[str, bytes]:
    image = Image.new("1", (105, 105), 1)
    image.paste(0, (40, 40, 60, 60))
    return {f"top/{a}/character{c:02}/000{c}_{i:02}.png": image_bytes(image) for a in alphabets
            for c in (1, 2) for i in range(3)}  # fmt: skip


def test_every_entry_of_the_catalogue_has_a_reader() -> None:
    assert set(READERS) == set(DATASETS)


def test_idx(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array)))
    (tmp_path / "a").write_bytes(idx(array))
    assert (read_idx(tmp_path / "a.gz") == array).all()
    assert (read_idx(tmp_path / "a") == array).all()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not an idx file"),
        (b"\x00\x00\x08", "not an idx file"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01", "00 00 0d 01"),
        (b"\x00\x00\x08\x03\x00\x00", "not an idx file"),
        (idx(np.zeros(5, np.uint8))[:-1], "4 bytes"),
        (idx(np.zeros(5, np.uint8)) + b"x", "6 bytes"),
        (b"\x00\x00\x08\x04" + b"\xff" * 16, "does not have the length"),
    ],
)
def test_wrong_idx_files(content: bytes, part: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with refused(DataError, str(tmp_path / "a"), part):
        read_idx(tmp_path / "a")


def test_a_truncated_or_false_gz(tmp_path: Path) -> None:
    packed = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)))
    for content in (packed[:-100], b"no gz", packed[:-8] + b"\0" * 8):
        (tmp_path / "a.gz").write_bytes(content)
        with refused(DataError, "a.gz cannot be read", "complete"):
            read_idx(tmp_path / "a.gz")
    with refused(DataError, "missing.gz"):
        read_idx(tmp_path / "missing.gz")


def test_large_digits_are_the_digits_in_their_order_with_a_margin() -> None:
    small, large = load_data("digits", split_seed=3), load_data("large-digits", split_seed=3)
    assert (large.spec.shape, large.spec.levels, large.spec.classes) == ((1, 28, 28), 256, small.spec.classes)
    every = torch.arange(len(small.test))
    x, y = large.test.batch(every), small.test.batch(every)
    assert torch.equal(x.labels, y.labels)  # pyright: ignore
    assert x.x.count_nonzero() == x.x[..., 3:-3, 3:-3].count_nonzero() > 0
    back = functional.interpolate(x.x[..., 3:-3, 3:-3], (8, 8), mode="area")
    assert (back - y.x).square().mean() < 0.1 * y.x.var()


def test_amat(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 2, (5, 12), dtype=np.uint8)
    (tmp_path / "a.amat").write_bytes(amat(rows))
    assert (read_amat(tmp_path / "a.amat", 12) == rows).all()
    (tmp_path / "a.amat.gz").write_bytes(gzip.compress(amat(rows).replace(b"\n", b" \r\n")))
    assert (read_amat(tmp_path / "a.amat.gz", 12) == rows).all()


@pytest.mark.parametrize(("content", "part"), [(b"", "0 entries"), (b"0 1 1\n", "3 entries"), (b"0 2\n", "'2'"),
                                               (b"0 1\n0 -1\n", "'-'"), (b"0.0 1.0\n", "'.'")])  # fmt: skip
def test_wrong_amat_files(content: bytes, part: str, tmp_path: Path) -> None:
    (tmp_path / "a.amat").write_bytes(content)
    with refused(DataError, "a.amat", part, "rows of 2"):
        read_amat(tmp_path / "a.amat", 2)


@pytest.mark.parametrize("packed", [True, False])
def test_files_that_lie_in_tightbound_data(
    packed: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIGHTBOUND_DATA", str(tmp_path))
    write_files(tmp_path / "mnist", mnist_files(), packed=packed)
    data = load_data("mnist")
    assert (len(data.train), len(data.valid), len(data.test)) == (27, 3, 10)
    assert data.spec.shape == (1, 28, 28)
    assert not cache.exists()


def test_images_and_labels_that_do_not_belong_together(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIGHTBOUND_DATA", str(tmp_path))
    wrong = {
        "train-labels-idx1-ubyte": idx(np.zeros(29, np.uint8)),
        "t10k-labels-idx1-ubyte": idx(np.full(10, 11, np.uint8)),
        "t10k-images-idx3-ubyte": idx(np.zeros((10, 27, 28), np.uint8)),
    }
    for name, content in wrong.items():
        write_files(tmp_path / "mnist", mnist_files() | {name: content}, packed=True)
        with refused(DataError, "do not match"):
            load_data("mnist")


def test_a_download_is_kept(mnist: dict[str, bytes], cache: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "server" / "mnist", mnist, packed=True)
    with served(tmp_path / "server") as address:
        first = load_data("mnist", mirror=address)
    second = load_data("mnist")  # no server any more
    assert torch.equal(first.train.batch(torch.arange(5)).x, second.train.batch(torch.arange(5)).x)
    assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == sorted(f"{name}.gz" for name in mnist)


def test_a_mirror_may_hold_the_other_packing(
    mnist: dict[str, bytes], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "server" / "mnist", mnist)
    with served(tmp_path / "server") as address:
        monkeypatch.setenv("TIGHTBOUND_MIRROR", f"{address}/")
        assert len(load_data("mnist").test) == 10


@pytest.mark.parametrize("damage", ["changed", "truncated", "no gz"])
def test_a_wrong_checksum_leaves_nothing(damage: str, mnist: dict[str, bytes], cache: Path, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "server" / "mnist", mnist, packed=True)
    path = folder / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    damaged = {"changed": gzip.compress(b"other"), "truncated": content[:-50], "no gz": b"<html>"}
    path.write_bytes(damaged[damage])
    with served(tmp_path / "server") as address, refused(DataError, path.name, "not the published file", "try again"):
        load_data("mnist", mirror=address)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_refused_connection_and_a_missing_file(cache: Path, tmp_path: Path) -> None:
    with served(tmp_path) as address, refused(DataError, "cannot be downloaded", "404", "TIGHTBOUND_DATA"):
        load_data("mnist", mirror=address)
    with refused(DataError, "cannot be downloaded", address, "TIGHTBOUND_MIRROR"):
        load_data("fashion-mnist", mirror=address)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("packed", [True, False])
def test_binarized_mnist(packed: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 2, (6, 784), dtype=np.uint8)
    files = {f"binarized_mnist_{name}.amat": amat(rows) for name in ("train", "valid", "test")}
    write_files(tmp_path / "binarized-mnist", files, packed=packed)
    monkeypatch.setenv("TIGHTBOUND_DATA", str(tmp_path))
    data = load_data("binarized-mnist")
    assert (len(data.train), len(data.valid), len(data.test), data.spec.levels) == (6, 6, 6, 2)
    assert torch.equal(data.valid.batch(torch.arange(6)).x, torch.from_numpy(rows).float().view(6, 1, 28, 28))
    assert data.train.labels is None


def test_omniglot(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "omniglot").mkdir()
    make_zip(tmp_path / "omniglot" / "images_background.zip", drawings(("Greek", "Latin")))
    make_zip(tmp_path / "omniglot" / "images_evaluation.zip", drawings(("Arabic", "Hebrew")))
    monkeypatch.setenv("TIGHTBOUND_DATA", str(tmp_path))
    data = load_data("omniglot", validation=0.0)
    assert data.spec.shape == (1, 28, 28)
    assert data.spec.classes == ("Arabic", "Greek", "Hebrew", "Latin")
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [1] * 6 + [3] * 6
    x = data.train.batch(torch.tensor([0])).x[0, 0]
    assert (x[13, 13], x[0, 0]) == (1, 0)
    assert abs(x.mean() - 400 / 105**2) < 0.002
    assert load_data("omniglot", image_size=105).spec.shape == (1, 105, 105)
    make_zip(tmp_path / "omniglot" / "images_evaluation.zip", {"readme.txt": b""})
    with refused(DataError, "images_evaluation.zip", "no drawings"):
        load_data("omniglot")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_mnist(name: str) -> None:
    real_data(name)
    data = load_data(name)
    assert data.summary()["examples"] == {"train": 54_000, "valid": 6_000, "test": 10_000}
    assert data.test.labels is not None
    if name == "mnist":
        assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
        means = [float(batch.x.mean()) for batch in load_data(name, validation=0.0).train.batches(10_000)]
        assert abs(sum(means) / 6 - 0.1307) < 1e-4
    else:
        assert data.test.labels.bincount().tolist() == [1000] * 10


def test_real_binarized_mnist() -> None:
    real_data("binarized-mnist")
    data = load_data("binarized-mnist")
    assert data.summary()["examples"] == {"train": 50_000, "valid": 10_000, "test": 10_000}
    assert isinstance(data.train.values, torch.Tensor)
    assert int(data.train.values.max()) == 1


def test_the_checksums_are_those_of_the_real_files() -> None:
    """What is published is what lies here: through a server, every checksum holds."""
    from tightbound.data.sources.download import _checksum  # pyright: ignore[reportPrivateUsage]

    for name in ("mnist", "fashion-mnist", "binarized-mnist"):
        folder = real_data(name)
        for file in DATASETS[name].files:
            path = next(folder / n for n in file.names if (folder / n).is_file())
            assert _checksum(path, packed=path.suffix == ".gz", algorithm="sha256") == file.checksum


def test_real_omniglot() -> None:
    real_data("omniglot")
    data = load_data("omniglot", validation=0.0)
    assert data.summary()["examples"] == {"train": 19_280, "valid": 0, "test": 13_180}
    assert len(data.spec.classes) == 50
    assert float(data.test.batch(torch.arange(1000)).x.mean()) < 0.2


def test_real_photographs() -> None:
    data = load_data(real_data("eurosat") / "eurosat_rgb.tar")
    assert data.spec.shape == (3, 64, 64)
    assert len(data.spec.classes) == 10
    assert sum(data.summary()["examples"].values()) == 6750


def test_real_captions() -> None:
    data = load_data(real_data("emoji") / "emoji.tar")
    assert data.spec.shape == (3, 72, 72)
    assert sum(data.summary()["examples"].values()) == 3414
    assert data.train.captions is not None
    assert "keycap #" in data.train.captions
    assert (data.train.batch(torch.tensor([0])).x[0, :, 0, 0] == 1).all()
