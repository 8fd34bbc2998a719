"""Sizes are checked before memory is taken, and what cannot be is refused before anything is written."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tightbound as tb
from data_helpers import grey, refused
from instances import GREY
from tightbound import checkpoint
from tightbound.cli.main import main
from tightbound.conditions.tokenizer import Tokenizer
from tightbound.data import DataOptions, load_data
from tightbound.data.sources.formats import read_content
from tightbound.errors import CheckpointError, DataError, TightboundError, TrainingError, UsageError
from tightbound.evaluation.kept import read_evaluation
from tightbound.objectives import Elbo
from tightbound.recipes import VAE
from tightbound.runs import RunFolder, load
from tightbound.runtime.budget import budget
from tightbound.training import TrainingOptions
from tightbound.training.device import among_peers

QUICK: dict[str, Any] = {"steps": 2, "batch_size": 16, "pictures": False, "device": "cpu"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8))
    data = load_data(tmp_path / "data.npy")
    tb.train(VAE(latent_dim=2, hidden=(4,)).build(data.spec), data, out=tmp_path / "run", **QUICK)
    return RunFolder(tmp_path / "run")


def most_memory() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# -- data -------------------------------------------------------------------------------------------------------------


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.png", "b.png", "c.png", "d.png", "e.png"):
            with archive.open(name, "w") as file:
                file.write(bytes(2**24))


def npz_bomb(path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (64, 2**10, 2**10)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("train.npy", "w") as file:
        file.write(head.getvalue())
        for _ in range(64):
            file.write(bytes(2**20))


def tar_bomb(path: Path) -> None:
    member = tarfile.TarInfo("a.png")
    member.size = 2**40
    path.write_bytes(gzip.compress(member.tobuf() + bytes(10**6)))


def long_name(path: Path) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.size, member.type = 2**26, tarfile.GNUTYPE_LONGNAME
    path.write_bytes(gzip.compress(member.tobuf() + bytes(2**26)))


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("a.zip", zip_bomb, "bomb"),
        ("a.npz", npz_bomb, "bomb"),
        ("a.tar.gz", tar_bomb, "bomb"),
        ("b.tar.gz", long_name, "not a supported kind of data"),
    ],
)
def test_what_an_archive_holds_together_is_bounded(
    name: str, write: Callable[[Path], None], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tightbound.data.store.MOST_UNPACKED", 2**24)
    write(tmp_path / name)
    before = most_memory()
    with refused(DataError, name, says):
        load_data(tmp_path / name)
    assert most_memory() - before < 2**25


def test_a_packed_file_holds_no_more_than_a_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightbound.data.sources.formats.MOST_BYTES", 2**20)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(2**20 + 1)))
    with refused(DataError, "a.gz", "too large"):
        read_content(tmp_path / "a.gz")


def test_a_pipe_and_a_device_are_no_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    with refused(DataError, "not a file", "a pipe"):
        load_data(tmp_path / "pipe.npy")
    with refused(DataError, "not a file", "a device"):
        load_data("/dev/zero")
    with refused(CheckpointError, "a pipe"):
        checkpoint.read(tmp_path / "pipe.npy")


def test_a_large_picture_is_laid_on_white_in_strips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    for name in ("a", "b", "c"):
        Image.fromarray(pixels).save(tmp_path / "set" / f"{name}.png")
    whole = load_data(tmp_path / "set").train.values
    monkeypatch.setattr("tightbound.data.sources.images.STRIP", 14)
    monkeypatch.setattr("tightbound.data.sources.images.LARGE", 1)
    assert torch.equal(load_data(tmp_path / "set").train.values, whole)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("damage", ["type", "shape", "order", "cut"])
def test_a_decoded_array_that_is_another_is_decoded_anew(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "10")
    monkeypatch.setenv("TIGHTBOUND_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    for i in range(10):
        (tmp_path / "set" / f"{i}.png").write_bytes(grey(i))
    sound = load_data(tmp_path / "set").fingerprint
    (kept,) = (tmp_path / "cache" / "decoded").glob("*.npy")
    array = np.load(kept)
    other = {"type": array.astype(np.int16), "shape": array[:5], "order": np.asfortranarray(array), "cut": array}
    np.save(kept, other[damage])
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:-1])
    assert load_data(tmp_path / "set").fingerprint == sound
    assert np.array_equal(np.load(kept), array)


def test_names_that_are_no_text_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set\udcff"
    for name in ("a\udcfe", "b"):
        try:
            (folder / name).mkdir(parents=True)
        except OSError:
            pytest.skip("this file system wants names that are text")
        for i in range(8):
            (folder / name / f"{i}.png").write_bytes(grey(20 * i))
    out, words = tmp_path / "run", ["--steps", "1", "--latent-dim", "2", "--hidden", "4", "--device", "cpu"]
    assert load_data(folder).spec.classes == ("a?", "b")
    assert main(["train", "vae", "--data", str(folder), "--out", str(out), *words]) == 0
    assert main(["report", str(out), "-k", "2", "--device", "cpu"]) == 0
    assert main(["data", str(folder)]) == 0
    assert main(["compare", str(out), str(out), "-k", "2", "--device", "cpu", "--out", str(tmp_path / "c.png")]) == 0
    assert main(["train", "vae", "--data", str(folder), "--out", f"{out}\udcff", *words]) == 2


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"latent_dim": 10**9}, {"latent_dim": 10**30}, {"hidden": [10**5, 10**5]}, {"hidden": [3] * 500}, {"hidden": [0]}],
)
@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_a_config_asks_for_no_more_than_the_weights_hold(
    change: dict[str, Any], command: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    values = json.loads(run.config_file.read_text())
    values["recipe"] |= change
    run.config_file.write_text(json.dumps(values))
    before = most_memory()
    words = [command, str(run.path)] if command == "evaluate" else [command, "--resume", "--out", str(run.path)]
    assert main(words) in (1, 2)
    assert "error: " in capsys.readouterr().err
    assert most_memory() - before < 2**28


def test_what_a_build_makes_is_bounded() -> None:
    def refusal(got: str) -> UsageError:
        return UsageError("too large", got=got)

    for make in (
        lambda: torch.zeros(2**12, 2**12),
        lambda: torch.randn(2**40),
        lambda: [torch.zeros(2**20) for _ in range(20)],
        lambda: torch.arange(10**5)[:, None] < torch.arange(10**5),
        lambda: torch.zeros(1).expand(10**9).clone(),
        lambda: [torch.zeros(1) for _ in range(10**5)],
    ):
        with pytest.raises(UsageError, match="too large"), budget(100, 2, refusal):
            make()
    with budget(100, 2, refusal):
        assert VAE(latent_dim=2, hidden=(4,)).build(GREY) is not None


def damaged(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    state = checkpoint.read(path)
    change(state)
    checkpoint.write(path, state)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["optimizer"]["state"][0].pop("exp_avg"),
        lambda s: s["optimizer"]["state"][0].update(more=torch.zeros(1)),
        lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)),
        lambda s: s["optimizer"]["state"].update({99: {}}),
        lambda s: s["optimizer"].pop("state"),
        lambda s: s.update(optimizer=[]),
        lambda s: s["progress"].update(step="2"),
        lambda s: s["progress"].update(window=[torch.zeros(())]),
        lambda s: s["progress"].update(more=1),
        lambda s: s.update(average={"w": torch.zeros(1)}),
        lambda s: s.update(scaler=3),
        lambda s: s.update(model=[1]),
        lambda s: s["model"].update({name: t.long() for name, t in s["model"].items()}),
    ],
)
def test_a_damaged_state_is_not_gone_on_from(
    change: Callable[[dict[str, Any]], object], run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged(run.checkpoint("last"), change)
    assert main(["train", "--resume", "--out", str(run.path)]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "rmsprop", "sgd"])
def test_the_state_of_every_optimiser_is_taken_up(optimizer: Any, run: RunFolder, tmp_path: Path) -> None:
    data = load_data(tmp_path / "data.npy")
    model = VAE(latent_dim=2, hidden=(4,)).build(data.spec)
    options = TrainingOptions(optimizer=optimizer, **QUICK)
    tb.train(model, data, out=tmp_path / "other", options=options)
    before = RunFolder(tmp_path / "other").checkpoint("last").read_bytes()
    tb.train(model, data, out=tmp_path / "other", options=options, resume=True)
    assert RunFolder(tmp_path / "other").checkpoint("last").read_bytes() == before


def test_a_checkpoint_whose_tree_is_no_mapping_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for tree in ({"value": 3}, {"list": []}, "tensor", {"tensor": "w"}):
        header = {"tightbound": json.dumps({"format": 1, "tree": tree})}
        save_file({"w": torch.zeros(1)}, tmp_path / "a.safetensors", header)
        with pytest.raises(CheckpointError):
            checkpoint.read(tmp_path / "a.safetensors")


def test_joins_that_grow_without_end_are_refused() -> None:
    doubling = [(97, 97), *((256 + i, 256 + i) for i in range(60))]
    with pytest.raises(UsageError, match="tokens are too long"):
        Tokenizer(doubling)
    with pytest.raises(UsageError, match="1 to"):
        Tokenizer(length=10**12)


def test_an_evaluation_with_other_entries_is_read_without_them(run: RunFolder) -> None:
    assert main(["evaluate", str(run.path), "-k", "2", "--device", "cpu"]) == 0
    found = json.loads(run.evaluation.read_text())
    before = read_evaluation(run)
    assert before is not None
    found["reconstruction"]["more"] = 1
    run.evaluation.write_text(json.dumps(found | {"more": [[[]]]}))
    assert read_evaluation(run) == before


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "RUN", "-n", "1000000000000"],
        ["sample", "RUN", "--temperature", "1e99"],
        ["sample", "RUN", "--temperature", "nan"],
        ["sample", "RUN", "--seed", "99999999999999999999999999"],
        ["sample", "RUN", "--out", ""],
        ["interpolate", "RUN", "-n", "2", "--steps", "1000000000000"],
        ["interpolate", "RUN", "-n", "2", "--steps", "200000"],
        ["traverse", "RUN", "-n", "2", "--steps", "1000000000000"],
        ["evaluate", "RUN", "--data="],
        ["train", "vae", "--data", "", "--out", "NEW"],
        ["train", "vae", "--out", ""],
        ["train", "vae", "--out", "NEW", "--lr", "1e99"],
        ["train", "vae", "--out", "NEW", "--free-bits", "1e99"],
        ["train", "vae", "--out", "NEW", "--accumulate", "1000000000000"],
        ["train", "vae", "--out", "NEW", "--batch-size", "99999999999999999999999999"],
        ["train", "vae", "--out", "NEW", "--latent-dim", "1000000000000"],
        ["train", "vae", "--out", "NEW", "--hidden", "99999999999999999999999999"],
        ["train", "vae", "--out", "NEW", "--image-size", "1000000000000"],
        ["train", "vq-vae", "--out", "NEW", "--blocks", "1000000000000"],
        ["train", "pixelcnn", "--out", "NEW", "--kernel", "1000000000000"],
        ["train", "pixelcnn", "--out", "NEW", "--layers", "1000000000000"],
    ],
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_written(
    words: list[str],
    run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tightbound.runtime.budget.MOST_TENSORS", 50)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    put = {"RUN": str(run.path), "NEW": str(tmp_path / "new")}
    assert main([put.get(word, word) for word in words]) == 2
    assert "error" in capsys.readouterr().err.lower()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_option_of_python_is_refused_likewise() -> None:
    for make in (
        lambda: VAE(objective=Elbo(beta=1e99)),
        lambda: TrainingOptions(lr=float("nan")),
        lambda: DataOptions(image_size=10**6),
    ):
        with pytest.raises(TightboundError):
            make()


def test_a_peer_that_ended_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        with among_peers():
            raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")

    with pytest.raises(RuntimeError, match="gloo"):
        lost()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="Another process"):
        lost()


def test_weights_of_another_kind_are_refused(run: RunFolder) -> None:
    tensors = checkpoint.read(run.weights)
    checkpoint.write(run.weights, {name: tensor.long() for name, tensor in tensors.items()})
    with pytest.raises(CheckpointError, match="wrong type"):
        load(run.path)
