"""Splits give the batches that the options promise; draws are right in distribution."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_helpers import flat, grey, refused, write_files
from tightbound.data import DATASETS, Data, DataOptions, Split, load_data
from tightbound.data.transform import Transform
from tightbound.errors import DataError, UnknownName, UsageError
from tightbound.spec import from_json, to_json

LEVELS = torch.arange(17, dtype=torch.uint8).repeat(20_000, 1)


def every(split: Split) -> Tensor:
    return torch.cat([batch.x for batch in split.batches(100)])


def test_the_package_and_its_options_need_no_torch() -> None:
    code = "import sys, tightbound.data as d; d.DataOptions(); d.DATASETS; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    assert "load_data" in dir(sys.modules["tightbound.data"])
    with pytest.raises(AttributeError, match="no attribute"):
        _ = sys.modules["tightbound.data"].nothing


def test_digits() -> None:
    data = load_data("digits")
    assert (len(data.train), len(data.valid), len(data.test)) == (1293, 144, 360)
    assert data.spec.shape == DATASETS["digits"].shape
    assert data.spec.levels == DATASETS["digits"].levels == 17
    assert data.spec.classes == tuple("0123456789")
    x, labels, *_ = data.train.batch(torch.arange(5))
    assert x.shape == (5, 1, 8, 8)
    assert x.dtype == torch.float32
    assert labels is not None
    assert labels.dtype == torch.int64
    levels = every(data.test) * 16
    torch.testing.assert_close(levels, levels.round())
    assert (levels.min(), levels.max()) == (0, 16)


def test_splits_are_seeded_and_disjoint() -> None:
    data = Data.from_arrays(np.arange(200, dtype=np.uint8)[:, None], validation=0.2)
    seen = [split.values.flatten().tolist() for split in (data.train, data.valid, data.test)]  # pyright: ignore
    assert [len(part) for part in seen] == [144, 36, 20]
    assert sorted(flat(seen)) == list(range(200))
    again, other = (
        Data.from_arrays(np.arange(200, dtype=np.uint8)[:, None], validation=0.2, split_seed=s) for s in (0, 1)
    )
    assert again.test.values.tolist() == data.test.values.tolist()
    assert other.test.values.tolist() != data.test.values.tolist()


def test_the_split_of_a_seed_stays_the_same_for_ever() -> None:
    data = Data.from_arrays(np.arange(20, dtype=np.uint8)[:, None], validation=0.2)
    assert data.test.values.flatten().tolist() == [1, 18]
    assert data.valid.values.flatten().tolist() == [2, 7, 9, 11]


def test_a_validation_split_is_at_most_10_000_and_may_be_empty() -> None:
    values = np.zeros((50_000, 1), dtype=np.uint8)
    assert len(Data.from_arrays(values, validation=0.9).valid) == 10_000
    data = Data.from_arrays(values, validation=0.0)
    assert len(data.valid) == 0
    assert list(data.valid.batches(10)) == []
    assert len(data.train) == 45_000


def test_an_official_validation_split_is_kept() -> None:
    part = np.zeros((30, 2), dtype=np.uint8)
    assert len(Data.from_arrays(part, valid=part[:3], test=part[:2], validation=0.5).valid) == 3


def test_levels_are_scaled_to_the_unit_interval() -> None:
    x = Transform(17)(LEVELS[:1])
    torch.testing.assert_close(x[0], torch.linspace(0, 1, 17))


def test_dynamic_binarization_has_the_grey_value_as_its_probability_and_is_drawn_anew() -> None:
    torch.manual_seed(0)
    draw = Transform(17, binarize="dynamic")
    first, second = draw(LEVELS), draw(LEVELS)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    p = torch.arange(17) / 16
    error = (p * (1 - p) / len(LEVELS)).sqrt()
    assert ((first.mean(0) - p).abs() <= 4.5 * error).all()
    both = (first * second).mean(0)
    assert ((both - p**2).abs() <= 4.5 * (p**2 * (1 - p**2) / len(LEVELS)).sqrt()).all()


def test_threshold_binarization_cuts_at_one_half() -> None:
    x = Transform(17, binarize="threshold")(LEVELS[:1])
    assert x[0].tolist() == [0.0] * 9 + [1.0] * 8
    assert Transform(256, binarize="threshold")(torch.tensor([[127, 128]], dtype=torch.uint8)).tolist() == [[0, 1]]


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantized_values_stay_in_their_level_and_fill_it_evenly(levels: int) -> None:
    torch.manual_seed(0)
    stored = torch.tensor([[0, levels // 2, levels - 1]], dtype=torch.uint8).repeat(300_000, 1)
    x = Transform(levels, dequantize=True)(stored).double()
    assert (x > 0).all()
    assert (x < 1).all()
    assert ((x * levels).floor() == stored).all()
    u = (x * levels - stored).sort(dim=0).values
    uniform = (torch.arange(len(u), dtype=torch.float64) + 0.5) / len(u)
    distance = (u - uniform[:, None]).abs().max() * len(u) ** 0.5
    assert distance < 2.2  # Kolmogorov-Smirnov: p about 1e-4


def test_flips_only_training_images_half_of_them_and_whole() -> None:
    torch.manual_seed(0)
    images = np.zeros((4000, 3, 4, 4), dtype=np.uint8)
    images[..., 0] = 255
    data = Data.from_arrays(images, flip=True)
    x = data.train.batch(torch.arange(len(data.train))).x
    left, right = x[..., 0].flatten(1), x[..., 3].flatten(1)
    assert (left + right == 1).all()
    assert (left == left[:, :1]).all()
    assert abs(left[:, 0].mean() - 0.5) < 4.5 * 0.5 / len(left) ** 0.5
    assert (every(data.test)[..., 0] == 1).all()


def test_draws_come_from_the_global_generator() -> None:
    split = load_data("digits", binarize="dynamic").train
    torch.manual_seed(3)
    first = split.batch(torch.arange(50)).x
    torch.manual_seed(3)
    assert torch.equal(first, split.batch(torch.arange(50)).x)
    assert not torch.equal(first, split.batch(torch.arange(50)).x)


@pytest.mark.parametrize("options", [{}, {"binarize": "threshold"}, {"validation": 0.0}, {"color": "rgb"}])
def test_what_a_batch_holds_is_what_the_spec_says(options: dict[str, Any]) -> None:
    data = load_data("digits", **options)
    x = every(data.train)
    assert x.shape == (len(data.train), *data.spec.shape)
    assert data.spec.levels is not None
    levels = x * (data.spec.levels - 1)
    torch.testing.assert_close(levels, levels.round())


def test_binarizing_binary_data_changes_nothing() -> None:
    data = Data.from_arrays(np.eye(20, dtype=np.bool_), binarize="dynamic")
    assert data.spec.levels == 2
    assert torch.equal(every(data.test).sum(1), torch.ones(2))


def test_batches_go_through_a_split_once_in_order() -> None:
    test = load_data("digits").test
    batches = list(test.batches(100))
    assert [len(batch.x) for batch in batches] == [100, 100, 100, 60]
    assert torch.equal(torch.cat([batch.x for batch in batches]), test.batch(torch.arange(360)).x)
    with refused(UsageError, "batch_size=0"):
        test.batches(0)


def test_subset() -> None:
    test = load_data("digits").test
    assert torch.equal(test.subset(7).batch(torch.arange(7)).x, test.batch(torch.arange(7)).x)
    some = test.subset(torch.tensor([5, 3])).batch(torch.tensor([1]))
    assert torch.equal(some.x, test.batch(torch.tensor([3])).x)
    assert some.labels is not None
    assert some.labels.item() == test.batch(torch.tensor([3])).labels.item()  # pyright: ignore
    with refused(UsageError, "361"):
        test.subset(361)


def test_a_split_moves_to_a_device() -> None:
    moved = load_data("digits").test.to("meta")
    assert isinstance(moved.values, Tensor)
    assert moved.values.device.type == "meta"


def test_split_by_name_and_summary() -> None:
    data = load_data("digits")
    assert data.split("valid") is data.valid
    with refused(UnknownName, "'tset'", "Did you mean 'test'"):
        data.split("tset")
    summary = data.summary()
    assert summary["examples"] == {"train": 1293, "valid": 144, "test": 360}
    assert summary["stored_as"] == "uint8"


def test_options_go_through_json() -> None:
    options = DataOptions("mnist", binarize="dynamic", image_size=32)
    assert from_json(to_json(options), DataOptions) == options
    assert load_data(DataOptions(validation=0.2), split_seed=1).options == DataOptions(validation=0.2, split_seed=1)


@pytest.mark.parametrize(
    ("options", "kind", "parts"),
    [
        ({"binarise": "dynamic"}, UnknownName, ["'binarise'", "Did you mean 'binarize'"]),
        ({"binarize": "dynamc"}, UnknownName, ["'dynamc'", "Did you mean 'dynamic'"]),
        ({"color": "gray"}, UnknownName, ["'gray'", "grey"]),
        ({"binarize": "dynamic", "dequantize": True}, UsageError, ["both binarized and dequantized"]),
        ({"image_size": 0}, UsageError, ["image_size=0"]),
        ({"validation": 1.0}, UsageError, ["validation=1.0"]),
        ({"validation": -0.1}, UsageError, ["0 <= validation < 1"]),
        ({"validation": float("nan")}, UsageError, ["validation=nan"]),
        ({"split_seed": -1}, UsageError, ["split_seed=-1"]),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any], kind: type[UsageError], parts: list[str]) -> None:
    with refused(kind, *parts):
        load_data("digits", **options)


@pytest.mark.parametrize("options", [{"binarize": "dynamic"}, {"dequantize": True}], ids=str)
def test_continuous_data_is_neither_binarized_nor_dequantized(options: dict[str, Any]) -> None:
    with refused(UsageError, "Continuous data"):
        Data.from_arrays(np.zeros((9, 4), np.float32), **options)


@pytest.mark.parametrize("options", [{"flip": True}, {"image_size": 8}, {"color": "grey"}], ids=str)
def test_vectors_are_no_images(options: dict[str, Any]) -> None:
    with refused(UsageError, "(4,)"):
        Data.from_arrays(np.zeros((9, 4), np.uint8), **options)


@pytest.mark.parametrize(("count", "kind"), [(0, "test"), (1, "test"), (2, "validation")])
def test_too_few_examples(count: int, kind: str) -> None:
    with refused(DataError, f"too few examples for a {kind} split", "at least 2"):
        Data.from_arrays(np.zeros((count, 4), np.uint8))


def test_an_unknown_name_and_a_missing_path() -> None:
    with refused(UnknownName, "'mnits'", "Did you mean 'mnist'"):
        load_data("mnits")
    for path in ("./photos", "some/where", "photos.tar", Path("photos.npz")):
        with refused(DataError, "The file or folder", str(Path(path).absolute())):
            load_data(path)


def test_the_fingerprint_tells_data_apart() -> None:
    values = np.random.default_rng(0).integers(0, 256, (50, 6), dtype=np.uint8)
    mark = Data.from_arrays(values).fingerprint
    assert mark == Data.from_arrays(values.copy(), binarize="threshold", name="other").fingerprint
    assert mark.startswith("-".join(map(str, _counts(Data.from_arrays(values)))) + "-")
    others = [values[:-1], values[::-1], values.reshape(50, 2, 3), values.astype(np.float32)]
    for index in (0, 25, 49):
        changed = values.copy()
        changed[index, 5] ^= 1
        others.append(changed)
    marks = {Data.from_arrays(other).fingerprint for other in others}
    marks |= {Data.from_arrays(values, split_seed=1).fingerprint, Data.from_arrays(values, validation=0).fingerprint}
    assert len(marks) == len(others) + 2
    assert mark not in marks


def _counts(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.valid), len(data.test)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_the_fingerprint_is_that_of_the_values_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    path = tmp_path / "values.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (50, 6)).astype(dtype))
    in_memory = load_data(path)
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "1")
    mapped = load_data(path)
    assert mapped.summary()["memory_mapped"]
    assert mapped.fingerprint == in_memory.fingerprint


def test_of_a_huge_split_the_fingerprint_sees_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightbound.data.collection.WHOLE", 20)
    monkeypatch.setattr("tightbound.data.collection.SOME", 12)
    values, test = np.zeros((50, 6), dtype=np.uint8), np.zeros((3, 6), dtype=np.uint8)

    def mark(row: int) -> str:
        changed = values.copy()
        changed[row] = 1
        return Data.from_arrays(changed, test, validation=0).fingerprint

    assert mark(1) == mark(2)
    assert len({mark(0), mark(1), mark(49)}) == 3


def test_a_path_is_kept_as_an_absolute_one_and_a_name_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "values.npy", np.zeros((20, 4), dtype=np.uint8))
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in ("values.npy", "./values.npy", "~/values.npy", DataOptions("values.npy"), Path("values.npy")):
        assert load_data(source).options.data == str(tmp_path / "values.npy")
    assert load_data("digits").options.data == "digits"


# -- examples that stand for all --------------------------------------------------------------------------------------


def labelled(labels: list[int]) -> Data:
    numbers = np.arange(len(labels), dtype=np.float32)[:, None].repeat(2, 1)
    return Data.from_arrays(numbers, numbers[:2], numbers[:2], labels={"train": np.array(labels)}, standardize="none")


LABELS: dict[str, list[int]] = {
    "one class after the other": sorted([0] * 30 + [1] * 30 + [2] * 30),
    "in turn": [0, 1, 2, 3] * 9,
    "uneven": [2] * 40 + [0] * 3 + [1] * 11,
    "one each": [3, 1, 0, 2],
    "a class without an example": [0] * 7 + [2] * 5,
    "one class": [0] * 17,
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_representatives_are_of_all_classes_in_turn_at_even_distances(labels: list[int]) -> None:
    split = labelled(labels).train
    classes = sorted(set(labels))
    places = {c: [i for i, label in enumerate(labels) if label == c] for c in classes}
    for n in range(len(labels) + 1):
        chosen = split.representative(n)
        assert torch.equal(chosen, split.representative(n))
        indices = chosen.tolist()
        assert len(indices) == n == len(set(indices))
        turns = dict.fromkeys(classes, 0)
        for label in (labels[i] for i in indices):
            ahead = [c for c in classes if turns[c] < turns[label]]
            assert all(turns[c] == len(places[c]) for c in ahead)  # nobody has a second turn before all had a first
            assert all(turns[c] > turns[label] or turns[c] == len(places[c]) for c in classes if c < label)
            turns[label] += 1
        for c in classes:
            mine = [i for i in indices if labels[i] == c]
            assert mine == sorted(mine)
            ranks = [places[c].index(i) for i in mine]
            gaps = {b - a for a, b in itertools.pairwise([*ranks, len(places[c])])}
            assert max(gaps, default=0) - min(gaps, default=0) <= 1
    assert sorted(split.representative(len(labels)).tolist()) == list(range(len(labels)))


@pytest.mark.parametrize("captions", [None, tuple("abcdefghijk")])
def test_without_classes_representatives_lie_at_even_distances(captions: tuple[str, ...] | None) -> None:
    values = np.arange(11, dtype=np.uint8)[:, None]
    told = None if captions is None else {"train": captions, "test": ("x",) * 2, "valid": ("x",) * 2}
    split = Data.from_arrays(values, values[:2], values[:2], captions=told).train
    assert split.representative(4).tolist() == [0, 2, 5, 8]
    assert split.representative(1).tolist() == [0]
    assert split.representative(11).tolist() == list(range(11))
    assert split.representative(0).tolist() == []
    with refused(UsageError, "fewer examples"):
        split.representative(12)


def test_representatives_are_the_same_of_a_memory_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{name}/{i}.png": grey(i, 8) for name in "abc" for i in range(9)}
    folder = write_files(tmp_path / "f", files)
    plain = load_data(folder).train
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "0")
    monkeypatch.setenv("TIGHTBOUND_CACHE", str(tmp_path / "cache"))
    mapped = load_data(folder).train
    assert not isinstance(mapped.values, torch.Tensor)
    assert torch.equal(plain.representative(5), mapped.representative(5))
    assert [name[0] for name in mapped.subset(mapped.representative(5)).names] == list("abcab")
