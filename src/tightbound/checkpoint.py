"""Tensors and JSON in one file: read strictly, written atomically, with nothing in it that could run.

A file is safetensors: its tensors, and in the header one JSON text. Nested states (an optimiser's, say) are flattened
to names joined by ``/``, with the structure kept in that JSON, beside a digest of the whole content that is checked
when it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn, uint8

from .errors import CheckpointError
from .lock import try_lock

__all__ = [
    "check_finite",
    "clear_leftovers",
    "digest",
    "load_into",
    "read",
    "read_json",
    "read_with_digest",
    "tensors_of",
    "write",
    "write_atomically",
    "write_json",
    "writing",
]

_HEADER, _FORMAT = "tightbound", 1
ANOTHER = "Use another checkpoint of the run (checkpoints/last or best), or train again."
_LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Names of the temporary files of :func:`write_atomically`."""


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a nested state of tensors and JSON values, all of it or nothing.

    Args:
        path: The file, replaced only once the new one is complete.
        state: Dicts and lists with tensors, numbers, strings, booleans or None as leaves.

    Raises:
        CheckpointError: If it cannot be written; what was at ``path`` is then still there.

    Example:
        >>> import torch
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
    """A digest of tensors, their names, types and shapes, and of what else belongs to them.

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
    """Reads what :func:`write` wrote, and tells the digest of just that content.

    Raises:
        CheckpointError: As :func:`read`.
    """
    _refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if header is None:
            return dict(tensors), digest(tensors)
        tree, kept = _tree(path, header)
        found = digest(tensors, json.dumps(tree))
        _check_digest(path, kept, found)
        return _unflatten(tree, tensors), found
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read: it is truncated or damaged.",
            got=repr(error),
            expected="a complete safetensors file",
            remedy=ANOTHER,
        ) from None


def _tree(path: Path, header: str) -> tuple[dict[str, Any], str | None]:
    """The structure of a file's content, and the digest that it was written with, which older files lack."""
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
    """The state of a module, each tensor once and by its shortest path: parts that share it share it in the file."""
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
        CheckpointError: If a name is missing, unexpected, or of another shape.
    """
    own = tensors_of(module)
    missing, unexpected = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    shapes = [n for n in own if n in tensors and own[n].shape != getattr(tensors[n], "shape", None)]
    if missing or unexpected or shapes:
        problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        raise CheckpointError(
            f"{source} does not fit the model.",
            got="; ".join(f"{what}: {', '.join(names[:5])}" for what, names in problems.items() if names),
            expected="exactly the model's tensors",
            remedy="Use the weights and the config.json of the same run.",
        )
    module.load_state_dict(dict(tensors), strict=False)


def check_finite(module: nn.Module) -> None:
    """Refuses a module of which a weight is not a number.

    Raises:
        CheckpointError: If there is one.
    """
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(
                "A weight of the model is not a number.",
                got=f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} entries of {name}",
                expected="finite numbers",
                remedy="The training diverged or the file is damaged: train again with a lower --lr, or load another.",
            )


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file, all of it or nothing."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: Path(temporary).write_text(text, encoding="utf8"))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: If there is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read.", got=error, expected="a JSON object", remedy="Is this a complete run folder?"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.", got=type(value).__name__)
    return value


def write_atomically(path: Path, save: Callable[[str], object]) -> None:
    """Lets ``save`` fill a temporary file beside ``path`` and moves it there once it is safely on the disk.

    Raises:
        CheckpointError: If that fails, for want of space or of permission; what was at ``path`` is then still there.
    """
    temporary = handle = None
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try_lock(handle)  # tells a file that is being written from what a dead process left
            save(temporary)
            with open(temporary, "rb") as file:  # noqa: PTH123
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # noqa: PTH101
            os.replace(temporary, path)  # noqa: PTH105
    finally:
        if temporary is not None and handle is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            os.close(handle)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a file is written into one error.

    Raises:
        CheckpointError: For want of space or of permission.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written.",
            got=error,
            expected="a writable disk with space left",
            remedy="Free some space, or choose another place.",
        ) from None


def clear_leftovers(folder: Path) -> None:
    """Removes what processes that were killed had begun to write in a folder; what others write now stays."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDWR)
                try:
                    if try_lock(handle):
                        path.unlink()
                finally:
                    os.close(handle)


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened.", got=error, remedy="Is this a complete run folder?") from None
    archive = start.startswith(b"PK\x03\x04")  # torch's zip around a pickle
    bare = start.startswith(b"\x80") and start[8:] != b"{"  # safetensors: the header's length, then its JSON
    if archive or bare:
        raise CheckpointError(
            f"{path} is a pickle, which could run any code when read.",
            got="a pickle",
            expected="safetensors",
            remedy="Only open files that this package wrote, or convert trusted ones to safetensors yourself.",
        )


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
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


def _unflatten(tree: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "dict" in tree:
        return {key: _unflatten(item, tensors) for key, item in tree["dict"]}
    if "list" in tree:
        return [_unflatten(item, tensors) for item in tree["list"]]
    return tree["value"]
