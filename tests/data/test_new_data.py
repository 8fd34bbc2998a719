"""New data for a trained run: all of it is taken, one picture is enough, and every row can be told."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import tightbound as tb
from tightbound.cli.main import main
from tightbound.data import Data, DataOptions
from tightbound.data.split import joined
from tightbound.errors import DataError, UsageError
from tightbound.options.training import TrainingOptions
from tightbound.recipes import CVAE, VAE
from tightbound.runs import RunConfig, RunFolder, load_run_data

Pixels = npt.NDArray[Any]


def save(path: Path, pixels: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def numbered(folder: Path, numbers: range) -> Path:
    """Pictures whose first pixel tells their number."""
    for i in numbers:
        pixels = np.zeros((8, 8))
        pixels[0, 0] = 5 * i
        save(folder / f"{i}.png", pixels)
    return folder


def noise(path: Path, count: int, shape: tuple[int, ...], seed: int = 0) -> Path:
    """So many pictures in a folder."""
    random = np.random.default_rng(seed)
    for i in range(count):
        save(path / f"{i:02}.png", random.integers(0, 256, shape))
    return path


def config_only(run: Path, data: Data) -> Path:
    """A run folder of which only the data is of interest."""
    run.mkdir(parents=True)
    config = RunConfig(data.spec, TrainingOptions(steps=1), VAE(latent_dim=2), data.options, "", data.fingerprint)
    RunFolder(run).write_config(config)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE of 20 grey pictures."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["train", "vae", "--data", str(noise(folder / "own", 20, (8, 8))), "--out", str(folder / "run")]
    options = ["--steps", "3", "--latent-dim", "3", "--hidden", "8", "--no-pictures", "--device", "cpu"]
    assert main([*words, *options]) == 0
    return folder / "run"


def told(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    return capsys.readouterr()


def encoded(run: Path, data: Path | None, *words: str) -> dict[str, Pixels]:
    out = run.parent / "latents.npz"
    out.unlink(missing_ok=True)
    named = [] if data is None else ["--data", str(data)]
    assert main(["encode", str(run), *named, "--out", str(out), *words]) == 0
    with np.load(out, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


# -- which row is which ------------------------------------------------------------------------------------------------


def test_encode_tells_which_row_is_which_file(run: Path, tmp_path: Path) -> None:
    found = encoded(run, numbered(tmp_path / "numbered", range(40)))
    assert sorted(found["names"]) == sorted(f"{i}.png" for i in range(40))
    assert set(found["split"]) == {"all"}
    model = tb.load(run)
    x = torch.zeros(40, 1, 8, 8)
    x[:, 0, 0, 0] = torch.tensor([int(name.removesuffix(".png")) * 5 / 255 for name in found["names"]])
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found["mean"]), model.posterior(x).mean)


def test_encode_of_the_runs_own_data_tells_the_split_of_every_row(run: Path) -> None:
    found, data = encoded(run, None), load_run_data(run)
    assert [list(found["split"]).count(name) for name in ("train", "valid", "test")] == [16, 2, 2]
    for split in (data.train, data.valid, data.test):
        assert tuple(found["names"][found["split"] == split.name]) == split.names
    assert sorted(found["names"]) == [f"{i:02}.png" for i in range(20)]
    assert set(encoded(run, None, "--split", "test")["split"]) == {"test"}


def test_names_are_relative_to_the_folder_or_archive(run: Path, tmp_path: Path) -> None:
    noise(tmp_path / "set" / "b", 1, (8, 8))
    noise(tmp_path / "set" / "a", 2, (8, 8))
    assert list(encoded(run, tmp_path / "set")["names"]) == ["a/00.png", "a/01.png", "b/00.png"]
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "set")
    names = list(encoded(run, Path(archive))["names"])
    assert [name in zipfile.ZipFile(archive).namelist() for name in names] == [True] * 3


def test_rows_of_arrays_are_told_by_their_number(run: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "new.npy", values)
    assert list(encoded(run, tmp_path / "new.npy")["names"]) == list(map(str, range(30)))
    np.savez(tmp_path / "new.npz", train=values[:20], test=values[20:])
    found = encoded(run, tmp_path / "new.npz")
    assert list(found["names"]) == [*map(str, range(20)), *map(str, range(10))]
    assert list(found["split"]) == ["train"] * 20 + ["test"] * 10
    for split in ("train", "test"):
        loaded = load_run_data(run, tmp_path / "new.npz").split(split)
        for number in loaded.subset(torch.tensor([7, 2])).names:
            row = loaded.batch(torch.tensor([int(number)])).x
            assert torch.equal(row[0, 0] * 255, torch.from_numpy(values[20 * (split == "test") + int(number)]).float())


def test_the_rows_of_divided_arrays_are_told_too() -> None:
    values = np.arange(20, dtype=np.uint8)[:, None]
    data = Data.from_arrays(values)
    for split in (data.train, data.valid, data.test, data.split("all"), data.train.subset(torch.tensor([3, 1]))):
        x = split.batch(torch.arange(len(split))).x[:, 0] * 255
        assert x.round().int().tolist() == list(map(int, split.names))


@pytest.mark.parametrize("official", [False, True])
def test_all_of_mapped_data_is_all_of_it(tmp_path: Path, official: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "10")
    monkeypatch.setenv("TIGHTBOUND_CACHE", str(tmp_path / "cache"))
    values = np.arange(240, dtype=np.uint8).reshape(60, 4)
    parts: dict[str, Any] = {"train": values[:40], "test": values[40:]} if official else {"x": values}
    np.savez(tmp_path / "x.npz", **parts)
    data = tb.load_data(tmp_path / "x.npz")
    every = data.split("all")
    assert not isinstance(every.values, torch.Tensor)
    x = every.batch(torch.arange(60)).x * 255
    assert sorted(x.round().int().tolist()) == values.tolist()
    assert joined("some", [data.test, data.test]).batch(torch.arange(2)).x.shape == (2, 4)


# -- all of it, and one is enough --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("what", ["folder", "file", "array"])
def test_one_picture_is_enough(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, what: str
) -> None:
    new = numbered(tmp_path / "new", range(7, 7 + count))
    if what == "file":
        new, count = new / "7.png", 1
    if what == "array":
        new = tmp_path / "new.npy"
        np.save(new, np.zeros((count, 8, 8), np.uint8))
    found = json.loads(told(capsys, "evaluate", run, "--data", new, "-k", 30, "--json")[0])
    assert (found["n"], found["split"]) == (count, "all")
    assert not RunFolder(run).evaluation.exists()
    assert encoded(run, new)["mean"].shape == (count, 3)
    for command in ("reconstruct", "traverse"):
        path = tmp_path / f"{command}.npz"
        out, errors = told(capsys, command, run, "--data", new, "--out", path)
        assert ("0" if what == "array" else "7.png") in out.removeprefix(str(path))
        assert ("from one example" in errors) == (command == "traverse" and count == 1)
    with np.load(tmp_path / "traverse.npz") as arrays:
        assert arrays["mean"].shape[:2] == (3, 10)
    words = ("interpolate", run, "--data", new, "--out", tmp_path / "i.npz")
    assert "1 pair needs 2 examples" in told(capsys, *words, code=2)[1] if count == 1 else told(capsys, *words)


def test_every_example_is_diagnosed_and_reported(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = noise(tmp_path / "new", 5, (8, 8), seed=3)
    few = ("--gap-examples", 2, "-k", 5, "--json")
    found = json.loads(told(capsys, "diagnose", run, "--data", new, *few)[0])
    assert (found["n"], found["split"]) == (5, "all")
    assert not RunFolder(run).diagnosis.exists()
    told(capsys, "report", run, "--data", new, "-k", 5)
    page = RunFolder(run).report.read_text()
    assert "On 5 examples" in page
    assert "independent pixels" in page, "the baselines are fitted to what the run has learned from"
    found = json.loads(told(capsys, "compare", run, run, "--data", new, "-k", 5, "--json")[0])
    assert (found["n"], found["split"]) == (5, "all")


def test_pictures_show_what_there_is_and_say_which(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = numbered(tmp_path / "new", range(20))
    out, _ = told(capsys, "reconstruct", run, "--data", new, "--out", tmp_path / "a.npz")
    assert "16 of 20 examples of new: 0.png, 1.png, 10.png, 11.png, ..." in out
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert len(arrays["names"]) == len(arrays["mean"]) == 16
    out, _ = told(capsys, "reconstruct", run, "--data", new, "-n", 20, "--out", tmp_path / "c.npz")
    assert "20 of 20 examples" in out
    assert (
        "at most 20"
        in told(capsys, "reconstruct", run, "--data", new, "-n", 21, "--out", tmp_path / "d.npz", code=2)[1]
    )
    out, _ = told(capsys, "sample", run, "-n", 3, "--out", tmp_path / "b.png")
    assert "3 samples" in out
    out, _ = told(capsys, "encode", run, "--out", tmp_path / "z.npz")
    assert "16 train, 2 valid and 2 test examples of own" in out


def test_splits_that_new_data_comes_in(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise(tmp_path / "new" / "train", 4, (8, 8))
    noise(tmp_path / "new" / "test", 3, (8, 8), seed=1)
    for words, n in (((), 7), (("--split", "test"), 3), (("--split", "train"), 4)):
        found = json.loads(told(capsys, "evaluate", run, "--data", tmp_path / "new", *words, "-k", 2, "--json")[0])
        assert found["n"] == n
    undivided = noise(tmp_path / "undivided", 4, (8, 8))
    _, errors = told(capsys, "evaluate", run, "--data", undivided, "--split", "test", code=2)
    assert "not divided" in errors
    assert "--split all" in errors


def test_all_is_a_split_of_the_runs_own_data(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "evaluate", run, "--split", "all", "-k", 2, "--json")[0])
    assert (found["n"], found["split"]) == (20, "all")
    assert not RunFolder(run).evaluation.exists()


def test_the_runs_own_data_in_another_place_is_divided_as_it_was(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = shutil.copytree(run.parent / "own", tmp_path / "moved")
    out, errors = told(capsys, "evaluate", run, "--data", moved, "-k", 2, "--json")
    assert (json.loads(out)["n"], json.loads(out)["split"]) == (2, "test")
    assert "the data that the run was trained on" in errors
    save(moved / "20.png", np.zeros((8, 8)))
    out, _ = told(capsys, "evaluate", run, "--data", moved, "-k", 2, "--json")
    assert (json.loads(out)["n"], json.loads(out)["split"]) == (21, "all")


def test_own_data_that_changed_is_said_when_it_is_named(tmp_path: Path) -> None:
    source = noise(tmp_path / "own", 20, (8, 8))
    run = config_only(tmp_path / "run", tb.load_data(source))
    save(source / "20.png", np.zeros((8, 8)))
    with pytest.raises(UsageError, match="has changed"):
        load_run_data(run)
    found = load_run_data(run, source)
    assert (found.new, len(found.split("all"))) == (True, 21)
    assert "may contain training examples" in found.said[0]
    assert len(load_run_data(run, source, divide=True).test) == 2


def test_one_picture_is_not_enough_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few examples"):
        tb.load_data(numbered(tmp_path / "one", range(7, 8)) / "7.png")


# -- seen as the model's own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "new"), [((8, 8), (8, 8, 3)), ((8, 8, 3), (8, 8))])
def test_colours_become_the_models_and_that_is_said(tmp_path: Path, own: tuple[int, ...], new: tuple[int, ...]) -> None:
    run = config_only(tmp_path / "run", tb.load_data(noise(tmp_path / "own", 20, own)))
    found = load_run_data(run, noise(tmp_path / "new", 3, new) / "00.png")
    assert found.spec.shape == ((1 if len(own) == 2 else 3), 8, 8)
    assert "converted to" in found.said[0]
    with Image.open(tmp_path / "new" / "00.png") as image:
        pixels = np.asarray(image.convert("L" if len(own) == 2 else "RGB"), np.int16)
    shown = (found.split("all").batch(torch.arange(1)).x[0] * 255).round().int().numpy()
    assert np.abs(shown - pixels.reshape(8, 8, -1).transpose(2, 0, 1)).max() <= 1


def test_the_runs_options_are_the_new_datas(tmp_path: Path) -> None:
    options = DataOptions(str(noise(tmp_path / "own", 20, (12, 8))), binarize="threshold", image_size=6, flip=True)
    run = config_only(tmp_path / "run", tb.load_data(options))
    one = load_run_data(run, noise(tmp_path / "new", 1, (40, 20))).split("all")
    assert (one.spec.shape, one.spec.levels) == ((1, 6, 6), 2)
    assert set(one.batch(torch.arange(1)).x.unique().tolist()) == {0.0, 1.0}
    assert not one.transform.flip
    assert not any(part.transform.flip for part in load_run_data(run).parts("all"))


def test_what_does_not_fit_is_refused_with_the_remedy(tmp_path: Path) -> None:
    run = config_only(tmp_path / "run", tb.load_data(noise(tmp_path / "own", 20, (8, 6))))
    with pytest.raises(UsageError, match="Resize the images to 6 x 8"):
        load_run_data(run, noise(tmp_path / "new", 1, (9, 9)))
    np.save(tmp_path / "floats.npy", np.zeros((2, 8, 6), np.float32))
    with pytest.raises(UsageError, match=r"integers 0 \.\.\. 255"):
        load_run_data(run, tmp_path / "floats.npy")


def test_bytes_hold_the_levels_that_the_model_knows(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 17, (20, 4, 4), dtype=np.uint8)
    values[0, 0, 0] = 16
    np.savez(tmp_path / "own.npz", x=values, levels=17)
    run = config_only(tmp_path / "run", tb.load_data(tmp_path / "own.npz"))
    np.save(tmp_path / "new.npy", values[:3])
    found = load_run_data(run, tmp_path / "new.npy")
    assert found.split("all").batch(torch.arange(1)).x.max() == 1
    assert "the 17 levels of the model" in found.said[0]
    np.save(tmp_path / "bright.npy", values[:3] * 15)
    with pytest.raises(DataError, match="more levels"):
        load_run_data(run, tmp_path / "bright.npy")
    binary = config_only(tmp_path / "binary", tb.load_data(tmp_path / "own.npz", binarize="dynamic"))
    assert "nearly all of it is black" in load_run_data(binary, tmp_path / "new.npy").said[0]
    assert not load_run_data(binary, tmp_path / "bright.npy").said


def classes(folder: Path, *names: str) -> Path:
    for name in names:
        noise(folder / name, 10, (8, 8))
    return folder


@pytest.mark.parametrize(
    ("new", "labels", "said"),
    [
        (("cat", "dog"), {"cat": 1, "dog": 2}, ()),
        (("dog",), {"dog": 2}, ()),
        (("ant", "dog"), {"ant": 3, "dog": 2}, ("classes that the model's data did not have: ant",)),
    ],
)
def test_classes_keep_the_numbers_that_the_model_knows(
    tmp_path: Path, new: tuple[str, ...], labels: dict[str, int], said: tuple[str, ...]
) -> None:
    run = config_only(tmp_path / "run", tb.load_data(classes(tmp_path / "own", "bird", "cat", "dog")))
    found = load_run_data(run, classes(tmp_path / "new", *new))
    every = found.split("all")
    assert every.labels is not None
    assert every.labels.tolist() == [labels[name.partition("/")[0]] for name in every.names]
    assert [note.partition(": ")[2].rstrip(".") for note in found.said] == list(said)


def test_numbers_are_classes_without_their_names(tmp_path: Path) -> None:
    run = config_only(tmp_path / "run", tb.load_data(classes(tmp_path / "own", "bird", "cat", "dog")))
    np.savez(tmp_path / "new.npz", x=np.zeros((3, 8, 8), np.uint8), y=[0, 1, 0])
    found = load_run_data(run, tmp_path / "new.npz")
    assert found.spec.classes == ("bird", "cat", "dog")
    assert not found.said


def test_a_class_that_was_never_learned_is_no_condition(tmp_path: Path) -> None:
    data = tb.load_data(classes(tmp_path / "own", "bird", "cat"))
    run = config_only(tmp_path / "run", data)
    model = CVAE(latent_dim=2, hidden=(8,)).build(data.spec).eval()
    known = load_run_data(run, classes(tmp_path / "known", "cat")).split("all")
    given = model.conditions(known.batch(torch.arange(10)))
    assert given is not None
    assert set(given["class"].flatten().tolist()) == {1}
    strange = load_run_data(run, classes(tmp_path / "new", "ant", "bird")).split("all")
    with pytest.raises(DataError, match="was not trained on"):
        model.conditions(strange.batch(torch.arange(20)))


# -- conditions from a file --------------------------------------------------------------------------------------------


def test_every_condition_of_a_file_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = classes(tmp_path / "own", "bird", "cat")
    options = ["--steps", "2", "--latent-dim", "2", "--hidden", "8", "--no-pictures", "--device", "cpu"]
    run, file = tmp_path / "run", tmp_path / "asked.txt"
    assert main(["train", "cvae", "--data", str(source), "--out", str(run), *options]) == 0
    for lines, words, n, note in ((1, (), 64, ""), (70, (), 70, ""), (70, ("-n", "5"), 5, "the first 5 of 70")):
        out = tmp_path / f"{lines}-{n}.npz"
        file.write_text("bird\ncat\n" * (lines // 2) or "cat\n")
        _, errors = told(capsys, "sample", run, "--condition-file", file, "--out", out, *words)
        assert note in errors
        assert bool(errors) == bool(note)
        with np.load(out) as arrays:
            assert len(arrays["mean"]) == n
    said, _ = told(capsys, "sample", run, "--condition", "cat", "-n", 2, "--out", tmp_path / "b.png")
    assert "2 samples given cat" in said


def test_new_data_of_another_depth_is_told(tmp_path: Path) -> None:
    """Pictures of 8 bits for a model of 12 are read by its levels, and so are dark."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "deep.npy", rng.integers(0, 4096, (40, 4, 4)).astype(np.uint16))
    np.save(tmp_path / "bytes.npy", rng.integers(0, 256, (5, 4, 4)).astype(np.uint16))
    data = tb.load_data(tmp_path / "deep.npy", levels=4096)
    model = VAE(latent_dim=2, hidden=(4,)).build(data.spec)
    tb.train(model, data, out=tmp_path / "run", steps=1, pictures=False, device="cpu")
    new = load_run_data(tmp_path / "run", tmp_path / "bytes.npy")
    assert any("reach only 16 of 255" in note for note in new.said)
    assert not any("reach only" in note for note in load_run_data(tmp_path / "run").said)
