"""The tensors in a file of ``torch.save``, read by an unpickler that knows tensors only and runs nothing.

A pickle names functions and calls them. Here a name is looked up in a closed list: the functions that build tensors,
which are replaced by ones that check every size against the file, and the types of storages. Any other name becomes a
placeholder, which takes any arguments and does nothing, so that files with the state of a training library can be read.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import require_file
from ..errors import CheckpointError, reading

__all__ = ["read_state"]

MOST_PICKLE = 2**26
"""A larger pickle is refused: it holds names and sizes only, tensors lie beside it."""
TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
SAFE = "Convert it to safetensors, where you trust it: safetensors.torch.save_file(torch.load(PATH), OUT)."


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of ``torch.save``, by name: of its ``state_dict`` if it has one.

    Nothing that the file names is imported or called.

    Args:
        path: The file.

    Raises:
        CheckpointError: If it is not such a file, is a TorchScript program, or is damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.ckpt"
        >>> torch.save({"state_dict": {"w": torch.ones(2)}, "epoch": 3}, path)
        >>> read_state(path)
        {'w': tensor([1., 1.])}
    """
    require_file(path)
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} is not a file of torch.save, as written since torch 1.6.",
            expected="a zip archive with tensors, or a safetensors file",
            remedy=SAFE,
        )
    with reading(path, CheckpointError, expected="a file of torch.save"), zipfile.ZipFile(path) as archive:
        return _tensors_of(path, _loaded(path, archive))


def _loaded(path: Path, archive: zipfile.ZipFile) -> object:
    names = archive.namelist()
    root = next((name.removesuffix("data.pkl") for name in names if name.endswith("data.pkl")), None)
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise CheckpointError(
            f"{path} is a TorchScript program, which would have to be run.",
            got="TorchScript",
            expected="a file of weights",
            remedy="Use the weights that the program was made from.",
        )
    if root is None:
        raise CheckpointError(f"{path} holds no tensors.", got=", ".join(names[:5]), expected="data.pkl")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise CheckpointError(f"{path} is compressed, as torch.save never does.", remedy=SAFE)
    if (size := archive.getinfo(f"{root}data.pkl").file_size) > MOST_PICKLE:
        raise CheckpointError(f"The pickle in {path} is too large.", got=f"{size:,} bytes", expected=MOST_PICKLE)
    return _Unpickler(archive, root).load()


def _tensors_of(path: Path, found: object) -> dict[str, Tensor]:
    state = found.get("state_dict", found) if isinstance(found, Mapping) else found
    named = state.items() if isinstance(state, Mapping) else ()
    tensors = {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no named tensors.", got=type(state).__name__, expected="a state_dict")
    return tensors


class _Placeholder:
    """Anything that is not a tensor: takes all arguments, and keeps nothing."""

    def __new__(cls, *args: object, **options: object) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __call__(self, *args: object, **options: object) -> _Placeholder:
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Keeps nothing."""

    def extend(self, values: object) -> None:
        """Keeps nothing."""

    def add(self, value: object) -> None:
        """Keeps nothing."""


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, texts and tensors; everything else becomes a placeholder."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")), encoding="utf-8", errors="replace")
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in TYPES:
            return TYPES[name]
        return _KNOWN.get((module, name), _Placeholder)

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, entries = pid
        content = bytearray(self.archive.read(f"{self.root}data/{key}"))
        if kind != "storage" or not isinstance(dtype, torch.dtype) or len(content) != entries * dtype.itemsize:
            raise CheckpointError("A tensor has another size than its storage.", got=f"{len(content):,} bytes")
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *more: object) -> Tensor:
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(each, int) and each >= 0 for each in numbers):
        raise CheckpointError("A tensor has an invalid shape.", got=f"{tuple(size)} with strides {tuple(stride)}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if 0 not in size else -1
    entries = 1
    for n in size:
        entries *= n
    if last >= len(storage) or entries > len(storage):
        raise CheckpointError("A tensor is larger than its storage.", got=f"{tuple(size)} of {len(storage)} entries")
    return storage.as_strided(tuple(size), tuple(stride), offset).clone()


def _parameter(data: Tensor, *more: object) -> Tensor:
    return data


_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
