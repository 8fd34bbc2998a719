"""Weights of published networks, read from files without running what they may hold.

A file is safetensors, or a state dict that ``torch.save`` wrote, of which only tensors are read. The name of many such
files ends in the first digits of their sha256, as in ``vgg16-397923af.pth``; where it does, they are compared.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..checkpoint import require_file
from ..errors import CheckpointError, reading

__all__ = ["family_of", "hash_in_name", "read_weights", "require_family", "require_hash"]

LARGEST = 2**34
"""Bytes; a larger file is refused."""
_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Args:
        path: A safetensors file, or a state dict as ``torch.save`` writes it.

    Raises:
        CheckpointError: If the file is missing, damaged or TorchScript, holds something other than tensors, or is not
            the one that the hash in its name says.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> path = Path(tempfile.mkdtemp()) / "net.safetensors"
        >>> save_file({"w": torch.ones(2)}, path)
        >>> read_weights(path)
        {'w': tensor([1., 1.])}
    """
    path = Path(path).expanduser()
    require_file(path, LARGEST)
    require_hash(path)
    _refuse_torchscript(path)
    with reading(path, CheckpointError, expected="a state dict: names and their tensors", remedy=_ANOTHER):
        return _tensors(load_file(path) if path.suffix == ".safetensors" else _unpickled(path))


_ANOTHER = "Download it again, or save its state dict as safetensors."


def _unpickled(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(found: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, also where it lies in an outer dict as ``state_dict``."""
    state = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(
            "The file holds no state dict.",
            got=type(found).__name__,
            expected="names and their tensors",
            remedy=_ANOTHER,
        )
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def hash_in_name(path: str | Path) -> str:
    """The first digits of its sha256 that the name of a file ends in; empty if there are none.

    Example:
        >>> hash_in_name("models/vgg16-397923af.pth"), hash_in_name("model.safetensors")
        ('397923af', '')
    """
    found = _IN_NAME.search(Path(path).name)
    return found[1] if found else ""


def require_hash(path: Path) -> str:
    """The sha256 of a file, which begins as its name says, if that says so.

    Raises:
        CheckpointError: If it does not, or the file cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "w-e3b0c442.pth")
        >>> path.touch()
        >>> require_hash(path)[:8]
        'e3b0c442'
    """
    with reading(path, CheckpointError, remedy="Check the path."), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected := hash_in_name(path)):
        raise CheckpointError(
            f"{path} is not the file that its name says: it is damaged, or another.",
            got=f"sha256 {digest[: max(len(expected), 8)]}...",
            expected=f"sha256 {expected}...",
            remedy="Download it again; if you changed it on purpose, give it a name without a hash.",
        )
    return digest


def _refuse_torchscript(path: Path) -> None:
    with reading(path, CheckpointError, remedy="Check the path."), path.open("rb") as file:
        archive = zipfile.is_zipfile(file)
        names = zipfile.ZipFile(file).namelist() if archive else []
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise CheckpointError(
            f"{path} is TorchScript, a program: reading it would run what it holds.",
            got="a TorchScript archive",
            expected="a state dict, or safetensors",
            remedy="Use the state dict of that network; many are published beside it.",
        )


# -- families ---------------------------------------------------------------------------------------------------------

_Signs = Callable[[Mapping[str, Tensor]], bool]


def _has(*names: str) -> _Signs:
    return lambda state: all(any(key.startswith(name) for key in state) for name in names)


_FAMILIES: dict[str, _Signs] = {
    "the first stage of a CompVis checkpoint": _has("first_stage_model."),
    "a CompVis autoencoder": _has("encoder.down.", "decoder.up."),
    "a diffusers autoencoder": _has("encoder.down_blocks.", "decoder.up_blocks."),
    "LPIPS heads": lambda state: bool(state) and all(key.startswith("lin") for key in state),
    "a ResNet": _has("layer1.0.conv1."),
    "an EfficientNet": _has("_conv_stem.", "_blocks.0."),
    "an Inception network": _has("Conv2d_1a_3x3."),
    "a CLIP model": _has("visual."),
    "a VGG with batch normalisation": _has("features.0.weight", "features.1.running_mean"),
    "VGG-19": _has("features.0.weight", "features.34.weight"),
    "VGG-16": _has("features.0.weight", "features.28.weight"),
    "AlexNet, or another small VGG": _has("features.0.weight"),
}


def family_of(state: Mapping[str, Tensor]) -> str:
    """What a state dict looks like, from the names of its tensors.

    Example:
        >>> family_of({"layer1.0.conv1.weight": torch.zeros(1)}), family_of({"w": torch.zeros(1)})
        ('a ResNet', 'an unknown network')
    """
    return next((name for name, signs in _FAMILIES.items() if signs(state)), "an unknown network")


def require_family(source: object, state: Mapping[str, Tensor], shapes: Mapping[str, Iterable[int]], name: str) -> None:
    """Refuses a state dict without certain tensors of certain shapes, and says what it looks like.

    Args:
        source: Where it is from, such as a path.
        state: The state dict.
        shapes: The shape of each tensor that must be there.
        name: The family that is wanted, such as "VGG-16".

    Raises:
        CheckpointError: If one is missing or has another shape.
    """
    for key, shape in shapes.items():
        found = tuple(state[key].shape) if key in state else None
        if found != tuple(shape):
            raise CheckpointError(
                f"{source} does not hold {name}.",
                got=f"{family_of(state)}: {key} is {'missing' if found is None else f'of shape {found}'}",
                expected=f"{name}, with {key} of shape {tuple(shape)}",
                remedy=f"Name a file with the weights of {name}.",
            )
