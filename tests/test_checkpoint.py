"""Checkpoints: everything comes back bit for bit, nothing in them can run, and the last good one survives."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from instances import GREY
from tightbound import checkpoint
from tightbound.checkpoint import (
    digest,
    load_into,
    read,
    read_json,
    read_with_digest,
    tensors_of,
    write,
    write_json,
)
from tightbound.errors import CheckpointError
from tightbound.recipes import VAE
from tightbound.runs import RunConfig, RunFolder, load
from tightbound.runtime import files
from tightbound.runtime.files import write_atomically
from tightbound.training import TrainingOptions

RECIPE = VAE(latent_dim=2, hidden=(4,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.safetensors"


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(equal, one, other))
    return one == other and type(one) is type(other)


def test_a_nested_state_comes_back(path: Path) -> None:
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    state = {
        "step": 3,
        "bound": -83.25,
        "none": None,
        "yes": True,
        "text": "a/b ü",
        "a/b": {"c": torch.ones(1)},
        "a": {"b/c": torch.zeros(1)},
        "": torch.ones(2),
        "list": [1, [torch.arange(3), {"x": torch.tensor(2.0)}], {}],
        "dtypes": [torch.ones(2, 3).to(dtype) for dtype in dtypes],
        "empty": torch.zeros(0, 3),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "expanded": torch.ones(1).expand(3),
    }
    write(path, state)
    assert equal(read(path), state)


def test_integer_keys_come_back(path: Path) -> None:
    """An optimiser's state has them."""
    parameter = nn.Parameter(torch.ones(3))
    optimiser = torch.optim.AdamW([parameter], lr=0.1)
    parameter.sum().backward()
    optimiser.step()
    write(path, {"optimiser": optimiser.state_dict()})
    state = read(path)["optimiser"]
    assert list(state["state"]) == [0]
    optimiser.load_state_dict(state)
    assert torch.equal(optimiser.state[parameter]["exp_avg"], torch.full((3,), 0.1))


@pytest.mark.parametrize("keep", [0, 1, 4, 8, 20, 0.5, -1])
def test_a_truncated_file_is_refused(path: Path, keep: float) -> None:
    write(path, {"w": torch.randn(100)})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match=r"state\.safetensors"):
        read(path)


class _Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.sprung,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_not_run(path: Path, tmp_path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps(_Trap(tmp_path / "sprung"), protocol))
    with pytest.raises(CheckpointError, match="pickle" if protocol >= 2 else "damaged"):
        read(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_torchs_pickles_are_refused_and_not_run(path: Path, tmp_path: Path, zipped: bool) -> None:
    torch.save({"w": torch.ones(2), "x": _Trap(tmp_path / "sprung")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="pickle"):
        read(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "header",
    [
        "no json",
        "{}",
        "[]",
        "3",
        '{"format": 1}',
        '{"format": 1, "tree": 3}',
        '{"format": 1, "tree": {"dict": [["w", {"tensor": "other"}]]}}',
        '{"format": 1, "tree": {"dict": 3}}',
        '{"format": 1, "tree": {"unknown": 3}}',
        '{"format": 2, "tree": {"dict": []}}',
        '{"format": 1, "tree": ' + 100_000 * '{"list": [' + "]}",
    ],
    ids=lambda header: header[:40],
)
def test_a_damaged_header_is_refused(path: Path, header: str) -> None:
    save_file({"w": torch.ones(2)}, path, {"tightbound": header})
    with pytest.raises(CheckpointError, match=r"state\.safetensors"):
        read(path)


@pytest.mark.parametrize("where", [-1, -40, -200])
def test_a_changed_byte_is_told(path: Path, where: int) -> None:
    write(path, {"w": torch.randn(50), "step": 3})
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read(path)


@pytest.mark.parametrize("change", [('"value": 3', '"value": 4'), ('["w", ', '["v", ')])
def test_a_changed_structure_is_told(path: Path, change: tuple[str, str]) -> None:
    tensors = {"w": torch.ones(2), "v": torch.ones(2)}
    write(path, {**tensors, "step": 3})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()["tightbound"]
    assert change[0] in header
    save_file(tensors, path, {"tightbound": header.replace(*change)})
    with pytest.raises(CheckpointError, match="damaged"):
        read(path)


def test_a_file_without_a_digest_is_read(path: Path) -> None:
    """Those of old versions."""
    tree = {"dict": [["w", {"tensor": "w"}], ["step", {"value": 3}]]}
    save_file({"w": torch.ones(2)}, path, {"tightbound": json.dumps({"format": 1, "tree": tree})})
    assert equal(read(path), {"w": torch.ones(2), "step": 3})


def test_a_digest_tells_contents_apart(path: Path) -> None:
    w, found = torch.arange(6.0), set[str]()
    others = ({"w": w}, {"v": w}, {"w": w.int()}, {"w": w.view(2, 3)}, {"w": w.view(2, 3).T}, {"w": w + 1}, {})
    for state in (*others, {"w": w, "step": 1}, {"w": w, "step": 2}):
        write(path, state)
        found.add(read_with_digest(path)[1])
    assert len(found) == 9
    assert digest({"w": w[:0], "b": torch.ones((), dtype=torch.bfloat16)})


def test_safetensors_of_others_are_read_as_tensors(path: Path) -> None:
    save_file({"w": torch.ones(2)}, path)
    assert equal(read(path), {"w": torch.ones(2)})


def test_missing_files_and_folders_are_refused(path: Path, tmp_path: Path) -> None:
    for wrong in (path, tmp_path, tmp_path / "no" / "such"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read(wrong)
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_json(wrong)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"text"', b"\xff\xfe", b"null", 100_000 * b'{"a":'])
def test_damaged_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_json(tmp_path / "config.json")


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None]}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("0.bias"), "missing: 0.bias"),
        (lambda t: t.update(extra=torch.ones(1)), "unexpected: extra"),
        (lambda t: t.update({"0.weight": torch.ones(2, 3)}), "wrong shape: 0.weight"),
        (lambda t: t.clear(), "missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_leave_the_model_alone(
    change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    module = network()
    tensors = {name: tensor + 1 for name, tensor in tensors_of(module).items()}
    change(tensors)
    before = {name: tensor.clone() for name, tensor in tensors_of(module).items()}
    with pytest.raises(CheckpointError, match=message):
        load_into(module, tensors, "model.safetensors")
    assert equal(tensors_of(module), before)


def test_something_that_is_no_tensor_is_refused() -> None:
    module = network()
    with pytest.raises(CheckpointError):
        load_into(module, {**tensors_of(module), "0.bias": [1.0, 2.0, 3.0]})  # pyright: ignore[reportArgumentType]


def test_buffers_come_back(path: Path) -> None:
    module, again = network(), network()
    module(torch.randn(10, 2))
    write(path, tensors_of(module))
    load_into(again, read(path))
    assert equal(dict(again.state_dict()), dict(module.state_dict()))
    assert again.state_dict()["1.num_batches_tracked"] == 1


def test_shared_parameters_are_written_once_and_stay_shared(path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.weight = self.one.weight
            self.alias = self.one

    module, again = Tied(), Tied()
    write(path, tensors_of(module))
    assert set(read(path)) == {"one.weight", "one.bias", "two.bias", "three.weight", "three.bias"}
    load_into(again, read(path))
    assert equal(dict(again.state_dict()), dict(module.state_dict()))
    assert again.two.weight is again.one.weight
    assert again.alias is again.one


def test_equal_parameters_are_not_mistaken_for_shared_ones() -> None:
    module = nn.ModuleList([nn.LayerNorm(3), nn.LayerNorm(3)])
    assert len(tensors_of(module)) == 4


# The last good file survives.


def no_space(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["save_file", "fsync", "replace", "mkdtemp", "write halfway"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, {"w": torch.ones(2)})
    with monkeypatch.context() as patch:
        if where == "write halfway":

            def halfway(_: object, temporary: str, __: object) -> None:
                Path(temporary).write_bytes(b"half")
                no_space()

            patch.setattr(checkpoint, "save_file", halfway)
        elif where == "save_file":
            patch.setattr(checkpoint, "save_file", no_space)
        elif where == "mkdtemp":
            patch.setattr("tempfile.mkdtemp", no_space)
        else:
            patch.setattr(os, where, no_space)
        with pytest.raises(CheckpointError, match="No space left"):
            write(path, {"w": torch.zeros(2)})
    assert equal(read(path), {"w": torch.ones(2)})
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    write(path, {"w": torch.ones(2)})

    def interrupted(temporary: str) -> None:
        Path(temporary).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert equal(read(path), {"w": torch.ones(2)})
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB, where the machine lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("there is no mount command")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run([umount, disk], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    path = small_disk / "state.safetensors"
    write(path, {"w": torch.ones(2)})
    with pytest.raises(CheckpointError, match="could not be written"):
        write(path, {"w": torch.zeros(100_000)})
    assert equal(read(path), {"w": torch.ones(2)})
    assert [p.name for p in small_disk.iterdir()] == [path.name]
    write(path, {"w": torch.zeros(3)})
    assert equal(read(path), {"w": torch.zeros(3)})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_device_without_space() -> None:
    with pytest.raises(OSError, match="No space"), open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        full.write(b"x")


def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    (path / "kept").touch()
    for save in (lambda: write(path, {"w": torch.ones(2)}), lambda: write_json(path, {})):
        with pytest.raises(CheckpointError, match="could not be written"):
            save()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert (path / "kept").exists()


def test_a_file_in_place_of_the_folder_is_refused(path: Path) -> None:
    path.touch()
    with pytest.raises(CheckpointError, match="could not be written"):
        write(path / "state.safetensors", {})


# A run folder.


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.write_config(RunConfig(GREY, TrainingOptions(), RECIPE))
    write(folder.weights, tensors_of(RECIPE.build(GREY)))
    return folder


def test_a_run_is_loaded_ready_to_use(run: RunFolder) -> None:
    model = load(run.path)
    assert not model.training
    assert (model.recipe, model.data_spec) == (RECIPE, GREY)
    assert equal(tensors_of(model), read(run.weights))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run.path), "does not exist"),
        (lambda run: run.config_file.unlink(), r"no config\.json"),
        (lambda run: run.weights.unlink(), r"no model\.safetensors"),
        (lambda run: truncate(run.weights), "truncated"),
        (lambda run: truncate(run.config_file), "cannot be read"),
        (lambda run: run.weights.write_bytes(b""), "truncated"),
        (lambda run: torch.save({}, run.weights), "pickle"),
        (lambda run: write(run.weights, {"w": torch.ones(2)}), "does not fit"),
        (lambda run: (run.weights.unlink(), run.weights.mkdir()), r"model\.safetensors"),
        (lambda run: run.config_file.write_text("[]"), "JSON object"),
    ],
)
def test_a_damaged_run_says_what_is_wrong(run: RunFolder, damage: Callable[[RunFolder], Any], message: str) -> None:
    damage(run)
    with pytest.raises(CheckpointError, match=message):
        load(run.path)


def test_a_model_put_together_by_hand_is_loaded_into_its_like(run: RunFolder) -> None:
    run.write_config(RunConfig(GREY, TrainingOptions()))
    with pytest.raises(CheckpointError, match="by hand"):
        load(run.path)
    model = RECIPE.build(GREY)
    assert load(run.path, model) is model
    assert equal(tensors_of(model), read(run.weights))


def test_the_line_that_was_being_written_is_left_out(run: RunFolder) -> None:
    assert run.records() == []
    run.metrics.write_text('{"step": 1, "split": "train"}\n{"step": 2, "split": "train"}\n{"st')
    assert [record["step"] for record in run.records()] == [1, 2]
    assert json.loads(run.config_file.read_text())["kind"] == "run"


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a training that saves: safetensors opens a file twice, and the two may be different files."""
    checkpoint.write(path, {"step": 1, "w": torch.zeros(3)})
    sound, replaced = checkpoint._check_digest, list[int]()

    def once_late(path: Path, kept: str | None, found: str) -> None:
        if not replaced:
            replaced.append(1)
            checkpoint.write(path, {"step": 2, "w": torch.ones(3)})
            found = "of another file"
        sound(path, kept, found)

    monkeypatch.setattr(checkpoint, "_check_digest", once_late)
    assert checkpoint.read(path)["step"] == 2
    monkeypatch.setattr(checkpoint, "_check_digest", lambda path, kept, found: sound(path, kept, "damaged"))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read(path)


@pytest.mark.parametrize("held", [True, False])
def test_a_temporary_folder_that_another_process_took_for_a_leftover_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    lock, taken = files.try_lock, list[Path]()

    def taken_once(handle: int) -> bool | None:
        if taken:
            return lock(handle)
        taken.append(next(path.parent.glob(f".{path.name}.*")))
        taken[0].rmdir()  # as clear_leftovers does, between the folder's making and its lock
        return False if held else lock(handle)

    monkeypatch.setattr(files, "try_lock", taken_once)
    write_atomically(path, lambda temporary: Path(temporary).write_text("whole", encoding="utf8"))
    assert path.read_text(encoding="utf8") == "whole"
    assert not list(path.parent.glob(f".{path.name}.*"))
