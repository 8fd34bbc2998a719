"""The tensors in a file of ``torch.save``, read by an unpickler that knows tensors only and runs nothing.

A pickle names functions and calls them. Here a name is looked up in a closed list: the functions that build tensors,
which are replaced by ones that note their arguments, and the types of storages. Any other name becomes a
placeholder, which takes any arguments and does nothing, so that files with the state of a training library can be read.
No object that the pickle sees keeps a state that it is given; tensors are made when it has been read.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..checkpoint import require_file
from ..errors import CheckpointError, reading

__all__ = ["read_state", "read_tensors"]

MOST_PICKLE = 2**24
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
        root = _root_of(path, archive)
        return _tensors_of(path, _loaded(archive.read(f"{root}data.pkl")), _Storages(archive, root))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name: of torch.save, read without running what it holds, or of safetensors.

    Args:
        path: The file.

    Raises:
        CheckpointError: If it is neither, or damaged.
    """
    if path.suffix != ".safetensors":
        return read_state(path)
    require_file(path)
    with reading(path, CheckpointError, expected="a safetensors file"):
        return load_file(path)


def _root_of(path: Path, archive: zipfile.ZipFile) -> str:
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
    return root


def _loaded(content: bytes) -> object:
    for operation, index, _ in pickletools.genops(content):
        if "PUT" in operation.name and index is not None and index > len(content):
            raise CheckpointError("The pickle asks for a memory larger than itself.", got=f"{index:,} places")
    return _Unpickler(content).load()


def _tensors_of(path: Path, found: object, storages: _Storages) -> dict[str, Tensor]:
    state = found.get("state_dict", found) if isinstance(found, Mapping) else found
    named = state.items() if isinstance(state, Mapping) else ()
    noted = {name: value for name, value in named if isinstance(name, str) and isinstance(value, _Noted)}
    tensors = {name: storages.tensor(note) for name, note in noted.items()}
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


@dataclass(frozen=True)
class _Noted:
    """The arguments of a tensor."""

    storage: object
    offset: object
    size: object
    stride: object

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class _Builder:
    """A function that a pickle may call; unlike a function it has no attributes that a pickle could set."""

    function: Callable[..., object]

    def __call__(self, *args: object) -> object:
        return self.function(*args)

    def __setstate__(self, state: object) -> None:
        pass


_KNOWN = {
    ("collections", "OrderedDict"): _Builder(OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2"): _Builder(
        lambda storage, at, size, stride, *more: _Noted(storage, at, size, stride)
    ),
    ("torch._utils", "_rebuild_parameter"): _Builder(lambda data, *more: data),
}


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, texts and notes of tensors; everything else becomes a placeholder."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", errors="replace")

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in TYPES:
            return name
        return _KNOWN.get((module, name), _Placeholder)

    def persistent_load(self, pid: object) -> object:
        return pid


class _Storages:
    """The numbers beside a pickle, each storage read once."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self.archive, self.root, self.read = archive, root, dict[tuple[str, str], Tensor]()

    def tensor(self, note: _Noted) -> Tensor:
        """A tensor, which shares its storage with others of the file."""
        storage, size, stride = self._storage(note.storage), note.size, note.stride
        if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
            raise CheckpointError("A tensor has an invalid shape.", got=f"{size} with strides {stride}")
        numbers = [each for each in (note.offset, *size, *stride) if isinstance(each, int) and each >= 0]
        if len(numbers) < 1 + 2 * len(size):
            raise CheckpointError("A tensor has an invalid shape.", got=f"{size} with strides {stride}")
        last = numbers[0] + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if 0 not in size else -1
        if last >= len(storage) or math.prod(size) > len(storage):
            raise CheckpointError("A tensor is larger than its storage.", got=f"{size} of {len(storage)} entries")
        return storage.as_strided(size, stride, numbers[0])

    def _storage(self, noted: object) -> Tensor:
        kind, name, key, _, entries = noted if isinstance(noted, tuple) else ("", "", "", "", 0)
        if kind != "storage" or name not in TYPES or not isinstance(key, str):
            raise CheckpointError("A tensor has no storage that is known.", got=f"{kind} {name}")
        if (key, name) not in self.read:
            dtype, content = TYPES[name], bytearray(self.archive.read(f"{self.root}data/{key}"))
            if len(content) != entries * dtype.itemsize:
                raise CheckpointError("A tensor has another size than its storage.", got=f"{len(content):,} bytes")
            self.read[key, name] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self.read[key, name]
