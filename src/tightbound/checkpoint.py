"""Tensors and JSON in one file: read strictly, written atomically, without executable content.

A file is safetensors: its tensors, and in the header one JSON text. Nested states (an optimiser's, say) are flattened
to names joined by ``/``, with the structure kept in that JSON, beside a digest of the whole content that is checked
when it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn, uint8

from .errors import CheckpointError, TightboundError, reading
from .runtime.files import write_atomically

__all__ = [
    "digest",
    "load_into",
    "misfits",
    "read",
    "read_json",
    "read_with_digest",
    "require_file",
    "require_finite",
    "stored_shapes",
    "tensors_of",
    "write",
    "write_json",
]

_HEADER, _FORMAT = "tightbound", 1
ANOTHER = "Use another checkpoint of the run (checkpoints/last or best), or train again."
MOST_JSON = 2**26
"""A larger file of JSON is refused: parsed JSON takes many times its size in memory."""


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a nested state of tensors and JSON values atomically.

    Args:
        path: The file, replaced only once the new one is complete.
        state: Dicts and lists with tensors, numbers, strings, booleans or None as leaves.

    Raises:
        CheckpointError: If it cannot be written; ``path`` is then unchanged.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> write(path, {"step": 3, "weights": {"w": torch.ones(2)}})
        >>> read(path)
        {'step': 3, 'weights': {'w': tensor([1., 1.])}}
    """
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, "", tensors)
    header = {"format": _FORMAT, "digest": digest(tensors, json.dumps(tree)), "tree": tree}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, {_HEADER: json.dumps(header)}))


def digest(tensors: Mapping[str, Tensor], *more: str) -> str:
    """A digest of tensors, with their names, types and shapes, and of further texts.

    Args:
        tensors: In any order, on any device.
        *more: Texts.

    Example:
        >>> import torch
        >>> digest({"w": torch.ones(2)}) == digest({"w": torch.ones(2, dtype=torch.float64)})
        False
    """
    found = hashlib.blake2b("".join(more).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(uint8).numpy().data)
    return found.hexdigest()


def read(path: Path) -> dict[str, Any]:
    """Reads what :func:`write` wrote.

    Raises:
        CheckpointError: If the file is missing, truncated, damaged, a pickle, or not of this package.
    """
    return read_with_digest(path)[0]


def read_with_digest(path: Path) -> tuple[dict[str, Any], str]:
    """Reads what :func:`write` wrote, and returns the digest of that content.

    A file that is replaced meanwhile, as by a training, is read again: safetensors opens it twice, for its header and
    for its content.

    Raises:
        CheckpointError: As :func:`read`.
    """
    for _ in range(REPLACED):
        before = _identity(path)
        try:
            return _read(path)
        except CheckpointError:
            if _identity(path) == before:
                raise
    return _read(path)


REPLACED = 10
"""Number of times that a file may be replaced while it is read."""


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError, ValueError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _read(path: Path) -> tuple[dict[str, Any], str]:
    with _opened(path) as file:
        header = (file.metadata() or {}).get(_HEADER)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        tree, kept = (None, None) if header is None else _tree(path, header)
        found = digest(tensors) if tree is None else digest(tensors, json.dumps(tree))
        _check_digest(path, kept, found)
        state = tensors if tree is None else _unflatten(tree, tensors)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no state.", got=type(state).__name__, expected="names and their values")
    return state, found


def stored_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of every tensor in a file, read from its header only.

    Raises:
        CheckpointError: As of :func:`read`.
    """
    with _opened(path) as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dict)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _refuse_pickle(path)
    sound = "a complete safetensors file: this one is truncated or damaged"
    with reading(path, CheckpointError, expected=sound, remedy=ANOTHER), safe_open(path, framework="pt") as file:
        yield file


def _tree(path: Path, header: str) -> tuple[dict[str, Any], str | None]:
    """The structure of a file's content, and its stored digest, which older files lack."""
    content = json.loads(header)
    if content["format"] != _FORMAT:
        raise CheckpointError(
            f"{path} was written by another version.",
            got=f"format {content['format']}",
            expected=f"format {_FORMAT}",
            remedy="Upgrade tightbound.",
        )
    return content["tree"], content.get("digest")


def _check_digest(path: Path, kept: str | None, found: str) -> None:
    if kept not in (None, found):
        raise CheckpointError(
            f"{path} is damaged: its content is not what was written.",
            got=f"digest {found}",
            expected=f"digest {kept}",
            remedy=ANOTHER,
        )


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module, each tensor once and by its shortest path: a shared tensor is stored once."""
    seen: set[tuple[Any, ...]] = set()
    unique: dict[str, Tensor] = {}
    for name, tensor in sorted(module.state_dict().items(), key=lambda item: item[0].count(".")):
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() == 0 or key not in seen:
            unique[name] = tensor.detach()
        seen.add(key)
    return unique


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], source: object = "the checkpoint") -> None:
    """Copies tensors into a module that has exactly these names and shapes.

    Raises:
        CheckpointError: If a name is missing, unexpected, or wrong shape.
    """
    own = tensors_of(module)
    if misfit := misfits(own, tensors):
        raise CheckpointError(
            f"{source} does not fit the model.",
            got=misfit,
            expected="exactly the model's tensors",
            remedy="Use the weights and the config.json of the same run.",
        )
    module.load_state_dict(dict(tensors), strict=False)


def misfits(own: Mapping[str, Tensor], found: object) -> str:
    """How the tensors of a file differ from a module's own: names, shapes, and floats or integers.

    Example:
        >>> import torch
        >>> misfits({"w": torch.zeros(2)}, {"w": torch.zeros(3), 1: None})
        'unexpected: 1; wrong shape: w'
    """
    if not isinstance(found, Mapping):
        return f"{type(found).__name__} instead of tensors"
    both = [name for name in own if name in found]
    problems = {
        "missing": [name for name in own if name not in found],
        "unexpected": [str(name) for name in found if name not in own],
        "wrong shape": [n for n in both if not (isinstance(found[n], Tensor) and found[n].shape == own[n].shape)],
    }
    problems["wrong type"] = [n for n in both if n not in problems["wrong shape"] and not _one_kind(own[n], found[n])]
    return "; ".join(f"{what}: {', '.join(sorted(names)[:5])}" for what, names in problems.items() if names)


def _one_kind(one: Tensor, other: Tensor) -> bool:
    return (one.is_floating_point(), one.is_complex()) == (other.is_floating_point(), other.is_complex())


def require_finite(module: nn.Module) -> None:
    """Refuses a module with weights that are not finite.

    Raises:
        CheckpointError: If there is one.
    """
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(
                "A weight of the model is not finite.",
                got=f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} entries of {name}",
                expected="finite numbers",
                remedy="The training diverged or the file is damaged: train again with a lower --lr, or load another.",
            )


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file atomically."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: Path(temporary).write_text(text, encoding="utf8"))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: If there is none.
    """
    require_file(path, MOST_JSON)
    with reading(path, CheckpointError, expected="a JSON object", remedy="Is this a complete run folder?"):
        value = json.loads(path.read_text(encoding="utf8"))
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.", got=type(value).__name__)
    return value


def require_file(path: Path, most: float = math.inf, kind: type[TightboundError] = CheckpointError) -> None:
    """Refuses anything but a regular file of at most ``most`` bytes: a folder, an endless device, a blocking pipe.

    Args:
        path: The file.
        most: Bytes.
        kind: The error.

    Raises:
        CheckpointError: Or ``kind``, if it is missing, not a file, or larger.
    """
    with reading(path, kind, remedy="Check the path."):
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        what = next((name for name, told in _OTHERS.items() if told(found.st_mode)), "not a file")
        raise kind(
            f"{path} cannot be read: it is not a file.",
            got=what,
            expected="a file",
            remedy="Check the path, or copy it to a file.",
        )
    if found.st_size > most:
        raise kind(
            f"{path} cannot be read: it is too large.", got=f"{found.st_size:,} bytes", expected=f"at most {most:,}"
        )


_OTHERS: dict[str, Callable[[int], bool]] = {
    "a folder": stat.S_ISDIR,
    "a pipe": stat.S_ISFIFO,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    "a socket": stat.S_ISSOCK,
}


def _refuse_pickle(path: Path) -> None:
    require_file(path)
    with reading(path, CheckpointError, remedy="Is this a complete run folder?"), path.open("rb") as file:
        start = file.read(9)
    archive = start.startswith(b"PK\x03\x04")  # torch's zip around a pickle
    bare = start.startswith(b"\x80") and start[8:] != b"{"  # safetensors: the header's length, then its JSON
    if archive or bare:
        raise CheckpointError(
            f"{path} is a pickle, which could run any code when read.",
            got="a pickle",
            expected="safetensors",
            remedy="Only open files that this package wrote, or convert trusted ones to safetensors yourself.",
        )


def _flatten(value: object, name: str, tensors: dict[str, Tensor]) -> dict[str, object]:
    if isinstance(value, Tensor):
        while name in tensors:  # {"a/b": {"c": ...}} and {"a": {"b/c": ...}}
            name += "'"
        tensors[name] = value.detach().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, _flatten(item, f"{name}/{key}".lstrip("/"), tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_flatten(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]}
    return {"value": value}


def _unflatten(tree: dict[str, Any], tensors: Mapping[str, Tensor]) -> object:
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "dict" in tree:
        return {key: _unflatten(item, tensors) for key, item in tree["dict"]}
    if "list" in tree:
        return [_unflatten(item, tensors) for item in tree["list"]]
    return tree["value"]
