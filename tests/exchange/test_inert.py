"""A file of torch.save is read without running what it names."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._utils import _rebuild_tensor_v2

from tightbound.errors import CheckpointError
from tightbound.exchange import inert
from tightbound.exchange.inert import read_state


class Payload:
    """What a stranger puts in a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


class State:
    """A library's own class, with everything that pickles can do to an object."""

    def __init__(self) -> None:
        self.best = {"a": 1}


class Rows(list):
    """A list of a class of its own."""


def test_a_payload_does_not_run(tmp_path: Path) -> None:
    path, touched = tmp_path / "a.ckpt", tmp_path / "touched"
    state = {"w": torch.randn(3, 4).T, "step": torch.tensor(3), "half": torch.ones(2, dtype=torch.float16)}
    more = {"callbacks": {State: {"x": State()}}, "rows": Rows([1, 2]), "payload": Payload(touched)}
    torch.save({"state_dict": state, **more}, path)
    found = read_state(path)
    assert set(found) == set(state)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert not touched.exists()
    torch.load(path, weights_only=False)  # which shows that the payload is one
    assert touched.exists()


def test_shared_and_parameter_tensors(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    torch.save({"a": whole[2:5], "b": torch.nn.Parameter(whole[::3]), "none": torch.empty(0)}, tmp_path / "a.pt")
    found = read_state(tmp_path / "a.pt")
    assert found["a"].tolist() == [2, 3, 4]
    assert found["b"].tolist() == [0, 3, 6, 9]
    assert found["none"].shape == (0,)


def test_torchscript_is_refused_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:  # as torch.jit.save lays it out
        for name in ("a/data.pkl", "a/constants.pkl", "a/code/__torch__.py", "a/version"):
            archive.writestr(name, b"")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_state(tmp_path / "a.pt")


def altered(source: Path, out: Path, change: Any, compress: int = zipfile.ZIP_STORED) -> Path:
    """A copy of an archive, with other content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w", compress) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"w": torch.randn(3, 4)}, path)
    cut = lambda name, content: content[:-4] if "/data/" in name else content
    with pytest.raises(CheckpointError, match="another size"):
        read_state(altered(path, tmp_path / "cut.ckpt", cut))
    with pytest.raises(CheckpointError, match="compressed"):
        read_state(altered(path, tmp_path / "small.ckpt", lambda _, content: content, zipfile.ZIP_DEFLATED))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(altered(path, tmp_path / "end.ckpt", lambda name, c: c[:20] if name.endswith(".pkl") else c))
    (tmp_path / "text.ckpt").write_text("no archive")
    with pytest.raises(CheckpointError, match="not a file of torch"):
        read_state(tmp_path / "text.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match="no named tensors"):
        read_state(tmp_path / "list.ckpt")


class _Shaped:
    """A tensor of a given shape over a storage of four numbers."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> None:
        self.args = (offset, size, stride)

    def __reduce__(self) -> tuple[Any, ...]:
        offset, size, stride = self.args
        return _rebuild_tensor_v2, (_STORAGE, offset, size, stride, False, {})


_STORAGE = torch.zeros(4).untyped_storage()


@pytest.mark.parametrize(
    "shaped", [_Shaped((5,), (1,)), _Shaped((2, 2), (1, 3)), _Shaped((4,), (1,), 1), _Shaped((9**9,), (0,))]
)
def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path, shaped: _Shaped) -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if obj is _STORAGE else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"w": shaped})
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", buffer.getvalue())
        archive.writestr("a/data/0", bytes(16))
    with pytest.raises(CheckpointError, match="larger than its storage"):
        read_state(tmp_path / "a.pt")


class Grown:
    """A tensor whose pickle ends in a state that would make it larger than its storage."""

    def __reduce__(self) -> tuple[Any, ...]:
        storage = torch.storage.TypedStorage(
            wrap_storage=torch.ones(2).untyped_storage(), dtype=torch.float32, _internal=True
        )
        return _rebuild_tensor_v2, (storage, 0, (2,), (1,), False, {}), (storage, 0, (2**20,), (0,))


def test_a_state_does_not_reach_a_tensor(tmp_path: Path) -> None:
    torch.save({"w": Grown()}, tmp_path / "a.pt")
    assert read_state(tmp_path / "a.pt")["w"].tolist() == [1, 1]


def rewritten(path: Path, content: bytes) -> Path:
    torch.save({"w": torch.ones(2)}, path)
    return altered(path, path.with_name("b.pt"), lambda name, old: content if name.endswith("data.pkl") else old)


@pytest.mark.parametrize("name", ["torch._utils\n_rebuild_parameter", "collections\nOrderedDict", "os\nsystem"])
def test_a_state_does_not_reach_what_a_pickle_names(tmp_path: Path, name: str) -> None:
    before = dict(vars(inert))
    state = pickle.dumps((None, {"function": "hacked", "__doc__": "hacked"}), protocol=2)[2:-1]
    path = rewritten(tmp_path / "a.pt", b"\x80\x02c" + name.encode() + b"\n" + state + b"b.")
    with pytest.raises(CheckpointError):
        read_state(path)  # there are no tensors in it
    assert "hacked" not in repr(inert._KNOWN)
    assert dict(vars(inert)) == before


def test_a_pickle_gets_no_more_memory_than_its_size(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a.pt", b"\x80\x02N" + pickle.LONG_BINPUT + (2**31 - 1).to_bytes(4, "little") + b".")
    with pytest.raises(CheckpointError, match="memory larger than itself"):
        read_state(path)


def test_a_storage_is_read_once(tmp_path: Path) -> None:
    whole = torch.arange(1000.0)
    torch.save({str(i): whole[i:] for i in range(100)}, tmp_path / "a.pt")
    found = read_state(tmp_path / "a.pt")
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == 1
