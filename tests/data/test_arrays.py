"""Arrays mean what their shapes and types say, and are refused when they do not keep it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from data_helpers import refused
from tightbound.data import Data, load_data
from tightbound.errors import DataError, UnknownName, UsageError


def random_bytes(*shape: int, levels: int = 256) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, levels, shape, dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIGHTBOUND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((20, 7), (7,)),
        ((20, 8, 9), (1, 8, 9)),
        ((20, 3, 8, 9), (3, 8, 9)),
        ((20, 8, 9, 3), (3, 8, 9)),
        ((20, 8, 9, 1), (1, 8, 9)),
        ((20, 3, 3, 3), (3, 3, 3)),
        ((20, 8, 8, 4), (4, 8, 8)),
        ((20, 4, 8, 8), (4, 8, 8)),
        ((20, 16, 8, 8), (16, 8, 8)),
        ((60, 16, 16, 5), (5, 16, 16)),
        ((20, 8, 8, 16), (16, 8, 8)),
        ((20, 8, 8, 8), (8, 8, 8)),
        ((20, 5, 8, 9), (5, 8, 9)),
        ((20, 16, 8, 9), (16, 8, 9)),
    ],
)
def test_shapes(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert Data.from_arrays(random_bytes(*shape)).spec.shape == expected


@pytest.mark.parametrize("shape", [(20, 8, 9, 5), (20, 9, 8, 7), (20, 12, 9, 6)])
def test_channels_that_cannot_be_told_are_refused_with_what_to_type(shape: tuple[int, ...]) -> None:
    images = random_bytes(*shape)
    with refused(DataError, str(shape), "x.transpose(0, 3, 1, 2)", "x.transpose(0, 1, 3, 2)"):
        Data.from_arrays(images)
    last = Data.from_arrays(images.transpose(0, 3, 1, 2))
    assert last.spec.shape == (shape[3], shape[1], shape[2])
    second = Data.from_arrays(images.transpose(0, 1, 3, 2))
    assert second.spec.shape == (shape[1], shape[3], shape[2])


def test_channels_are_moved_with_their_pixels() -> None:
    images = random_bytes(20, 8, 9, 3)
    batch = Data.from_arrays(images, test=images[:2]).test.batch(torch.tensor([1])).x
    assert torch.equal((batch[0] * 255).round().to(torch.uint8), torch.from_numpy(images[1]).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("dtype", "levels"), [("uint8", 256), ("bool", 2), ("int64", 256), ("float32", None), ("float64", None)]
)
def test_types(dtype: str, levels: int | None) -> None:
    data = Data.from_arrays(np.ones((20, 4), dtype=dtype))
    assert data.spec.levels == levels
    assert data.train.values.dtype == (torch.float32 if levels is None else torch.uint8)


def test_floats_can_be_told_to_be_levels_and_bytes_to_be_continuous() -> None:
    assert Data.from_arrays(np.ones((20, 4)), levels=5).train.batch(torch.tensor([0])).x[0, 0] == 0.25
    data = Data.from_arrays(np.full((20, 4), 7, np.uint8), levels=None)
    assert data.spec.levels is None
    assert data.train.batch(torch.tensor([0])).x[0, 0] == 7


def test_tensors_are_arrays_too() -> None:
    data = Data.from_arrays(torch.zeros(20, 1, 4, 4, dtype=torch.uint8), labels=torch.arange(20) % 2, levels=17)
    assert data.spec.levels == 17
    assert data.spec.classes == ("0", "1")


@pytest.mark.parametrize(
    ("values", "options", "parts"),
    [
        (np.array([[0.0, np.nan], [np.inf, 1.0]] * 5), {}, ["10 of 20 entries", "index (0, 1)", "NaN"]),
        (np.full((5, 2), 1e300), {}, ["10 of 10 entries", "infinite"]),
        (np.full((5, 2), 17, np.uint8), {"levels": 17}, ["10 of 10", "17 at index (0, 0)", "0 ... 16"]),
        (np.full((5, 2), -1), {}, ["-1 at index (0, 0)"]),
        (np.full((5, 2), 256), {}, ["more than 256 levels", "256 ... 256", "--levels 257", "stretch"]),
        (np.full((5, 2), 70_000), {}, ["invalid number of levels", "70001", "floats"]),
        (np.full((5, 2), 0.5), {"levels": 17}, ["0.5 at index (0, 0)", "integers 0 ... 16"]),
        (np.zeros((5, 2), np.uint8), {"levels": 1}, ["invalid number of levels"]),
        (np.zeros((5, 2), np.uint8), {"levels": 65537}, ["65536"]),
        (np.zeros((5, 2), np.complex64), {}, ["complex64"]),
        (np.array([["a"]] * 5), {}, ["does not hold numbers"]),
        (np.array([[{}]] * 5), {}, ["object", "never read"]),
        (np.zeros(5, np.uint8), {}, ["shape (5,)"]),
        (np.zeros((5, 0), np.uint8), {}, ["shape (5, 0)"]),
        (np.zeros((5, 1, 1, 1, 1), np.uint8), {}, ["[N, H, W, C]"]),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, list) else "",
)
def test_wrong_values_are_refused(values: npt.NDArray[Any], options: dict[str, Any], parts: list[str]) -> None:
    with refused(DataError, *parts):
        Data.from_arrays(values, **options)


def test_the_first_wrong_entry_is_found_in_a_later_run_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightbound.data.sources.arrays.CHUNK_BYTES", 64)
    values = np.zeros((100, 4), np.float32)
    values[77, 2] = np.inf
    with refused(DataError, "1 of 400 entries", "index (77, 2)"):
        Data.from_arrays(values)


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        (np.arange(4), ["labels of shape (4,)", "5 examples"]),
        (np.array([0, 1, -1, 0, 0]), ["-1 at index 2"]),
        (np.array([0, 1, 10**9, 0, 0]), ["1000000000 at index 2"]),
        (np.array([0, 0.5, 0, 0, 0]), ["0.5 at index 1"]),
        (np.zeros(5, np.complex64), ["dtype complex64", "np.unique"]),
    ],
)
def test_wrong_labels_are_refused(labels: npt.NDArray[Any], parts: list[str]) -> None:
    with refused(DataError, *parts):
        Data.from_arrays(random_bytes(5, 2), labels=labels)


def test_a_label_without_a_class_and_splits_of_two_shapes() -> None:
    with refused(DataError, "label 2, 2 classes"):
        Data.from_arrays(random_bytes(5, 2), labels=np.array([0, 1, 2, 0, 0]), classes=("a", "b"))
    with refused(DataError, "train (2,), test (3,)"):
        Data.from_arrays(random_bytes(5, 2), random_bytes(5, 3))
    with refused(UnknownName, "'testing'"):
        Data.from_arrays(random_bytes(5, 2), labels={"testing": np.zeros(5)})


ONE_HOT = np.eye(3)[np.arange(20) % 3]


@pytest.mark.parametrize(
    ("labels", "classes", "first"),
    [
        (np.array(["dog", "cat"])[np.arange(20) % 2], ("cat", "dog"), [1, 0, 1]),
        (np.array([b"dog", b"cat"])[np.arange(20) % 2], ("cat", "dog"), [1, 0, 1]),
        (np.array(["ä", "z"])[np.arange(20) % 2][:, None], ("z", "ä"), [1, 0, 1]),
        (ONE_HOT, ("0", "1", "2"), [0, 1, 2]),
        (ONE_HOT.astype(np.bool_), ("0", "1", "2"), [0, 1, 2]),
        (np.arange(20)[:, None] % 2, ("0", "1"), [0, 1, 0]),
    ],
    ids=["words", "bytes", "a column of words", "one-hot", "one-hot booleans", "a column"],
)
def test_labels_of_every_kind(
    labels: npt.NDArray[Any], classes: tuple[str, ...], first: list[int], tmp_path: Path
) -> None:
    train, test = random_bytes(20, 4), random_bytes(3, 4)
    np.savez(tmp_path / "set.npz", train=train, test=test, y_test=labels[:3], y_train=labels)
    data = load_data(tmp_path / "set.npz")
    assert data.spec.classes == classes
    assert data.test.labels is not None
    assert data.test.labels.tolist() == first
    assert len(data.said) == (labels.dtype.kind in "US" or (labels.ndim == 2 and labels.shape[1] > 1))


def test_words_are_numbered_by_the_classes_that_are_given() -> None:
    labels = {"train": np.array(["a", "c"] * 10), "test": np.array(["b"] * 4)}
    data = Data.from_arrays(random_bytes(20, 2), random_bytes(4, 2), labels=labels)
    assert data.spec.classes == ("a", "b", "c")
    data = Data.from_arrays(random_bytes(20, 2), random_bytes(4, 2), labels=labels, classes=("c", "b", "a"))
    assert data.spec.classes == ("c", "b", "a")
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [1] * 4
    with refused(DataError, "test", "'b' at index 0", "one of: a, c"):
        Data.from_arrays(random_bytes(20, 2), random_bytes(4, 2), labels=labels, classes=("a", "c"))


def test_rows_that_are_not_one_hot_are_refused_with_what_to_type() -> None:
    for rows in (ONE_HOT + np.eye(20, 3), ONE_HOT * 0.5, random_bytes(20, 3)):
        with refused(DataError, "labels of shape (20, 3)", "argmax", "save them as c"):
            Data.from_arrays(random_bytes(20, 2), labels=rows)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("faces.mat", ["a MATLAB file", "numpy.save('faces.npy', scipy.io.loadmat('faces.mat')[NAME])"]),
        ("images.pt", ["torch.save", "pickle", "numpy.save('images.npy', torch.load('images.pt', weights_only=True))"]),
        ("images.PTH", ["torch.save"]),
        ("images.pkl", ["pickle", "could run code"]),
        ("images.h5", ["HDF5", "h5py.File('images.h5')[NAME][:]"]),
        ("numbers.json", ["JSON", "json.load"]),
        ("numbers.txt", ["text file", "numpy.loadtxt('numbers.txt')"]),
        ("sheet.xlsx", ["spreadsheet", "Export the sheet as a .csv."]),
        ("images.7z", ["archive", "Unpack it"]),
        ("x.safetensors", ["tensors", "safetensors.numpy.load_file"]),
    ],
)
def test_files_of_others_are_answered_by_what_they_are(name: str, parts: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with refused(DataError, *parts):
        load_data(tmp_path / name)


def test_a_folder_of_arrays_is_answered_by_what_it_is(tmp_path: Path) -> None:
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", random_bytes(4, 4))
    (tmp_path / ".DS_Store").write_bytes(b"")
    with refused(DataError, "a folder of .npy files", "numpy.stack", "numpy.savez"):
        load_data(tmp_path)


@pytest.mark.parametrize(("dimensions", "remedy"), [(1, "x[:, None]"), (5, "x.reshape(len(x), -1)")])
def test_too_few_or_many_dimensions_say_what_to_type(dimensions: int, remedy: str) -> None:
    with refused(DataError, remedy):
        Data.from_arrays(random_bytes(*[8] * dimensions))


def test_labels_follow_their_examples() -> None:
    values = np.arange(100, dtype=np.uint8)[:, None]
    data = Data.from_arrays(values, labels=np.arange(100), validation=0.3)
    for split in (data.train, data.valid, data.test):
        x, labels, *_ = split.batch(torch.arange(len(split)))
        assert labels is not None
        assert (x[:, 0] * 255).round().long().tolist() == labels.tolist()


def test_resized_like_pillow_and_cut_in_the_middle() -> None:
    image = random_bytes(1, 30, 50, 3).repeat(5, axis=0)
    ours = Data.from_arrays(image, image_size=12).test
    theirs = np.asarray(Image.fromarray(image[0]).resize((20, 12), Image.Resampling.BILINEAR).crop((4, 0, 16, 12)))
    assert isinstance(ours.values, torch.Tensor)
    difference = ours.values[0].permute(1, 2, 0).float() - torch.from_numpy(theirs.copy())
    assert difference.abs().max() <= 1


def test_colours_of_arrays() -> None:
    rgb = random_bytes(20, 5, 5, 3)
    grey = Data.from_arrays(rgb, color="grey")
    assert grey.spec.shape == (1, 5, 5)
    again = Data.from_arrays(np.asarray(grey.train.values), color="rgb")
    assert again.spec.shape == (3, 5, 5)
    theirs = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in rgb])
    kept = Data.from_arrays(rgb, test=rgb, color="grey").test.values
    assert np.abs(np.asarray(kept)[:, 0].astype(int) - theirs).max() <= 1


def test_resized_levels_stay_levels() -> None:
    data = load_data("digits", image_size=5)
    assert data.spec.levels == 17
    assert int(data.train.values.max()) <= 16


NPZ = {
    "named": ({"train": 20, "valid": 5, "test": 6}, {}, (20, 5, 6)),
    "x_y": ({"x_train": 20, "x_test": 6}, {"y_train": 20, "y_test": 6}, (18, 2, 6)),
    "medmnist": (
        {"train_images": 20, "val_images": 5, "test_images": 6},
        {"train_labels": 20, "val_labels": 5, "test_labels": 6},
        (20, 5, 6),
    ),
    "single": ({"images": 20}, {"labels": 20}, (16, 2, 2)),
    "any": ({"whatever": 20}, {}, (16, 2, 2)),
}


@pytest.mark.parametrize("kind", NPZ)
def test_npz(kind: str, tmp_path: Path) -> None:
    images, labels, sizes = NPZ[kind]
    arrays = {key: random_bytes(count, 6, 6) for key, count in images.items()}
    arrays |= {key: (np.arange(count) % 3).astype(np.uint8)[:, None] for key, count in labels.items()}
    np.savez_compressed(tmp_path / "set.npz", **arrays)  # pyright: ignore[reportArgumentType]
    data = load_data(tmp_path / "set.npz")
    assert (len(data.train), len(data.valid), len(data.test)) == sizes
    assert data.spec.name == "set"
    assert data.spec.shape == (1, 6, 6)
    assert data.spec.classes == (("0", "1", "2") if labels else ())


def test_npz_with_levels_and_classes(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x=random_bytes(20, 4, levels=17), y=np.zeros(20, np.int64), levels=17, classes=["ink", "paper"])
    assert load_data(path).spec.levels == 17
    assert load_data(path).spec.classes == ("ink", "paper")
    np.savez(path, x=random_bytes(20, 4), levels=0)
    assert load_data(path).spec.levels is None
    np.savez(path, x=random_bytes(20, 4), levels=17)
    with refused(DataError, "0 ... 16"):
        load_data(path)
    np.savez(path, x=random_bytes(20, 4), levels="many")
    with refused(DataError, "many"):
        load_data(path)


def test_npz_without_a_known_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", a=random_bytes(20, 4), b=random_bytes(20, 4))
    with refused(DataError, "arrays a, b", "x_train"):
        load_data(tmp_path / "set.npz")


def test_pickles_are_never_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    objects = np.array([Trap()] * 3, dtype=object)
    np.savez(tmp_path / "set.npz", x=objects)
    np.save(tmp_path / "set.npy", objects)
    (tmp_path / "bare.npy").write_bytes(__import__("pickle").dumps(Trap()))
    for name in ("set.npz", "set.npy"):
        with refused(DataError, "pickle", "never read", "np.stack"):
            load_data(tmp_path / name)
    with refused(DataError, "cannot be read"):
        load_data(tmp_path / "bare.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_truncated_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"set.{suffix}"
    if suffix == "npz":
        np.savez_compressed(path, x=random_bytes(100, 50))
    else:
        np.save(path, random_bytes(100, 50))
    path.write_bytes(path.read_bytes()[:-500])
    with refused(DataError, "cannot be read"):
        load_data(path)
    path.write_bytes(b"")
    with refused(DataError, "cannot be read"):
        load_data(path)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_what_does_not_fit_in_memory_is_mapped(
    suffix: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = random_bytes(100, 6, 6, 3)
    path = tmp_path / f"set.{suffix}"
    if suffix == "npz":
        np.savez_compressed(path, x=values, y=np.arange(100) % 5)
    else:
        np.save(path, values)
    here = load_data(path)
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "2000")
    monkeypatch.setattr("tightbound.data.sources.array_files.CHUNK_BYTES", 1000)
    mapped = load_data(path)
    assert mapped.summary()["memory_mapped"]
    for name in ("train", "valid", "test"):
        ours, theirs = mapped.split(name), here.split(name)
        assert isinstance(ours.values, np.memmap)
        assert len(ours) == len(theirs)
        indices = torch.randperm(len(ours))
        assert torch.equal(ours.batch(indices).x, theirs.batch(indices).x)
        some = ours.subset(torch.tensor([1, 0])).subset(1)
        assert isinstance(some.values, np.memmap)
        assert torch.equal(some.batch(torch.tensor([0])).x, theirs.batch(torch.tensor([1])).x)
        assert ours.to("meta") is ours
    assert not list(cache.rglob("*.tmp"))
    kept = list(cache.rglob("*.npy"))
    assert len(kept) == (suffix == "npz")
    assert load_data(path).test.values.filename == (kept[0] if kept else path)  # pyright: ignore


def test_a_map_can_be_resized_into_another_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "set.npy", random_bytes(50, 8, 8))
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "100")
    data = load_data(tmp_path / "set.npy", image_size=4)
    assert data.spec.shape == (1, 4, 4)
    assert isinstance(data.train.values, np.memmap)


def test_wrong_entries_of_a_map_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.zeros((50, 8))
    values[3, 4] = np.nan
    np.save(tmp_path / "set.npy", values)
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "100")
    with refused(DataError, "1 of 400 entries", "(3, 4)"):
        load_data(tmp_path / "set.npy")
    np.save(tmp_path / "set.npy", values.astype(">f8"))
    with refused(DataError, "byte order"):
        load_data(tmp_path / "set.npy")
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "4 GB")
    with refused(UsageError, "4 GB"):
        load_data(tmp_path / "set.npy")


def test_a_full_disk_is_noticed_before_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "set.npz", x=random_bytes(50, 8, 8))
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "100")
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with refused(DataError, "does not fit in the cache folder", "TIGHTBOUND_CACHE"):
        load_data(tmp_path / "set.npz")
