"""The latents of a data set, encoded once: what the prior of a second stage learns from.

Convention: codes of all levels in a row, ``(N, positions)``; or the moments of Gaussian posteriors, ``(N, 2, d)``:
means and standard deviations. Where the data is mirrored at random, both of an example and of its mirror image, one
after the other in the second dimension.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint
from ..data import Data, DataSpec, Split
from ..data.transform import Transform
from ..distributions import has_density
from ..errors import CheckpointError, UsageError
from ..models.latent import LatentVariableModel
from ..networks.modes import evaluating
from ..progress import progress
from ..randomness import fixed_noise
from ..recipes.two_stage import is_code_space

__all__ = ["encoded_data", "key_of"]

CHUNK = 200
"""Examples encoded at once."""


def key_of(model: LatentVariableModel, data: Data) -> str:
    """A digest of the posterior's weights and of the data: what latents are of.

    Args:
        model: The first stage.
        data: What it encodes.
    """
    digest = hashlib.blake2b(f"{data.fingerprint} {data.options.binarize} {data.options.flip}".encode(), digest_size=16)
    for name, tensor in sorted(checkpoint.tensors_of(model.posterior).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def encoded_data(model: LatentVariableModel, data: Data, path: Path, *, own: bool = True) -> Data:
    """The latents of all splits, from a file if that is of this model and this data, else encoded and written there.

    Args:
        model: The first stage, on the device to compute on.
        data: What to encode.
        path: The file.
        own: Whether a file of other latents may be replaced.

    Raises:
        CheckpointError: If the file is of another model or other data, and may not be replaced.
        UsageError: If the posterior has no latents that a prior could be fitted to.
    """
    key = key_of(model, data)
    found = _cached(path, key, own)
    if found is None:
        splits = {name: _encode(model, data.split(name)) for name in ("train", "valid", "test")}
        found = {"key": key, **splits}
        checkpoint.write(path, found)
    spec = DataSpec(f"latents of {data.spec.name}", tuple(found["train"].shape[1:]), None, classes=data.spec.classes)
    return Data(spec, data.options, *(_split(data.split(n), found[n], spec) for n in ("train", "valid", "test")))


def _cached(path: Path, key: str, own: bool) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = checkpoint.read(path)
    except CheckpointError:
        if own:
            return None
        raise
    if found.get("key") == key:
        return found
    if own:
        return None
    raise CheckpointError(
        f"{path} holds the latents of another model, or of other data.",
        got=f"checksum {found.get('key')}",
        expected=f"checksum {key}",
        remedy="Leave the file out: the latents are then encoded anew.",
    )


def _split(images: Split, values: Tensor, spec: DataSpec) -> Split:
    labels = None if images.labels is None else images.labels.cpu()
    return Split(images.name, spec, values, Transform(None), labels, images.captions, images.conditions)


@torch.no_grad()
def _encode(model: LatentVariableModel, split: Split) -> Tensor:
    parameter, parts = next(model.parameters()), []
    mirrored = split.transform.flip
    split = dataclasses.replace(split, transform=dataclasses.replace(split.transform, flip=False))
    with evaluating(model), progress(f"encoding the {split.name} split", len(split)) as advance:
        for part, indices in enumerate(torch.arange(len(split)).split(CHUNK)):
            with fixed_noise(0, part):
                x = split.batch(indices, parameter.device).x.to(parameter.dtype)
            rows = _latents(model, x)
            parts.append((torch.stack([rows, _latents(model, x.flip(-1))], dim=1) if mirrored else rows).cpu())
            advance(len(indices))
    return torch.cat(parts) if parts else _nothing(model, split)


def _nothing(model: LatentVariableModel, split: Split) -> Tensor:
    x = torch.zeros(1, *split.spec.shape, device=next(model.parameters()).device)
    return _latents(model, x)[:0].cpu()


def _latents(model: LatentVariableModel, x: Tensor) -> Tensor:
    """Codes in a row, in as few bytes as they take, or moments."""
    posterior: Any = model.posterior
    if is_code_space(posterior):
        codes = torch.cat([level.flatten(1) for level in posterior.codes(x)], dim=1)
        return codes.to(torch.uint8 if max(posterior.levels) <= 256 else torch.int32)
    q = posterior(x)
    if not has_density(q):
        return torch.stack([q.mean, torch.zeros_like(q.mean)], dim=1)
    if len(q.event_shape) != 1:
        raise UsageError("A prior is fitted to codes or vectors.", got=f"latents of shape {tuple(q.event_shape)}")
    return torch.stack([q.mean, q.stddev], dim=1)
