"""The latents of a data set, encoded once: the training data of a second-stage prior.

Convention: every example has views, ``(N, views, ...)``: the encodings that different visits could give. A training
example has a flipped view if flips are on, and several views if binarisation, dequantisation or the latent is random; a
validation or test example has one view, as in evaluation. A view is

- the codes of all levels, flattened, ``(positions,)``;
- the means and standard deviations of a diagonal Gaussian posterior, ``(2, d)``, sampled at every visit; or
- a sample of any other posterior over vectors, ``(d,)``.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint
from ..data import Data, DataSpec, Split
from ..data.transform import Transform
from ..errors import CheckpointError, UsageError, reading
from ..models import LatentVariableModel
from ..posteriors import Codes, Encoded
from ..runtime.files import clear_leftovers
from ..runtime.modes import evaluating
from ..runtime.progress import progress
from ..runtime.randomness import fixed_noise

__all__ = ["DRAWS", "encoded_data", "kept_as", "key_of"]

CHUNK = 500
"""Batch size of encoding: the same as in evaluation, so that both use the same noise."""
DRAWS = 8
"""Views of a training example, and of its flipped image, if encoding is random."""
SPLITS = ("train", "valid", "test")


def key_of(model: LatentVariableModel, data: Data) -> str:
    """A digest of the posterior's weights, the data and its random transforms, which identifies latents.

    Args:
        model: The first stage.
        data: What it encodes.
    """
    seen = [repr(data.split(name).transform) for name in SPLITS]
    return checkpoint.digest(checkpoint.tensors_of(model.posterior), f"{data.fingerprint} {seen} {DRAWS} {CHUNK}")


def encoded_data(model: LatentVariableModel, data: Data, path: Path, *, own: bool = True) -> Data:
    """The latents of all splits, from a file if it matches this model and data, else encoded and written there.

    Args:
        model: The first stage, on the device to compute on.
        data: What to encode.
        path: The file.
        own: Whether the file is the model's own, to be written if it is missing, damaged or outdated.

    Returns:
        Splits of views; the spec has the shape of one of them.

    Raises:
        CheckpointError: If a file that is not the model's own is of another model or other data, or damaged.
        UsageError: If the file does not exist, or a prior cannot be fitted to the latents.
    """
    key = key_of(model, data)
    found = _own(path, key, model, data) if own else _given(path, key, model, data)
    if found is None:
        clear_leftovers(path.parent)
        found = {name: _encode(model, data.split(name)) for name in SPLITS}
        checkpoint.write(path, {"key": key, "digest": checkpoint.digest(found), **found})
    spec = DataSpec(f"latents of {data.spec.name}", tuple(found["train"].shape[2:]), None, classes=data.spec.classes)
    train, valid, test = (_split(data.split(name), found[name], spec) for name in SPLITS)
    return Data(spec, data.options, train, valid, test)


def _split(images: Split, values: Tensor, spec: DataSpec) -> Split:
    labels = None if images.labels is None else images.labels.cpu()
    return Split(images.name, spec, values, Transform(None, whole=True), labels, images.captions, images.conditions)


# -- reading ----------------------------------------------------------------------------------------------------------


def _own(path: Path, key: str, model: LatentVariableModel, data: Data) -> dict[str, Tensor] | None:
    """The content of the file; None if it must be written."""
    if not path.is_file():
        return None
    try:
        return _given(path, key, model, data)
    except CheckpointError:
        return None


def _given(path: Path, key: str, model: LatentVariableModel, data: Data) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(
            "The file of latents does not exist.", got=path, remedy="Leave --latents out: they are then encoded."
        )
    found = checkpoint.read(path)
    if str(found.get("key")) != key:
        raise CheckpointError(
            f"{path} holds the latents of another model, of other data, or in an older format.",
            got=f"checksum {found.get('key')}",
            expected=f"checksum {key}",
            remedy="Leave the file out: the latents are then encoded again.",
        )
    with reading(path, CheckpointError):
        damage = _damage(found, model, data)
    if damage:
        raise CheckpointError(
            f"{path} is damaged.",
            got=damage,
            expected="the latents as they were written",
            remedy="Leave the file out: the latents are then encoded again.",
        )
    return {name: found[name] for name in SPLITS}


def _damage(found: dict[str, Any], model: LatentVariableModel, data: Data) -> str | None:
    """The mismatch between latents and this model and data; None if they match."""
    for name in SPLITS:
        values = found.get(name)
        if not isinstance(values, Tensor) or values.dim() < 3:
            return f"no latents of split {name!r}"
        if len(values) != len(data.split(name)):
            return f"latents of {len(values)} examples of split {name!r}, which has {len(data.split(name))}"
        if model.codes is not None and not _are_codes(values, model.codes):
            return f"numbers in split {name!r} that are not codes of the model"
    if found.get("digest") != checkpoint.digest({name: found[name] for name in SPLITS}):
        return "values that do not match the checksum"
    return None


def _are_codes(values: Tensor, space: Codes) -> bool:
    per_level = zip(space.grids, space.levels, strict=True)
    limits = torch.cat([torch.full((math.prod(grid),), k) for grid, k in per_level])
    return values.shape[2:] == limits.shape and bool(((values >= 0) & (values < limits)).all())


# -- encoding ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _encode(model: LatentVariableModel, split: Split) -> Tensor:
    views, device = _views(model, split), model.device
    still = dataclasses.replace(split, transform=dataclasses.replace(split.transform, flip=False))
    parts = list[Tensor]()
    with evaluating(model), progress(f"encoding the {split.name} split", len(split) * len(views)) as advance:
        for part, indices in enumerate(torch.arange(len(split)).split(CHUNK)):
            found = list[Tensor]()
            for seed, mirrored in enumerate(views):
                with fixed_noise(seed, part):
                    x = still.batch(indices, device).x
                    found.append(model.space.encoded((x.flip(-1) if mirrored else x).to(model.dtype)).values.cpu())
                advance(len(indices))
            parts.append(torch.stack(found, dim=1))
    return torch.cat(parts) if len(split) else _view_of_nothing(model, split)


def _views(model: LatentVariableModel, split: Split) -> list[bool]:
    """The views of an example of a split: whether each is flipped."""
    if split.name != "train":
        return [False]
    how = split.transform
    noisy = how.binarize == "dynamic" or how.dequantize or how.anywhere or kept_as(model, split.spec).varied
    return [mirrored for mirrored in (False, True)[: 1 + how.flip] for _ in range(DRAWS if noisy else 1)]


def _view_of_nothing(model: LatentVariableModel, split: Split) -> Tensor:
    return kept_as(model, split.spec).values.unsqueeze(1)[:0].cpu()


@torch.no_grad()
def kept_as(model: LatentVariableModel, spec: DataSpec) -> Encoded:
    """The storage form of a model's latents, from an example of zeros.

    Args:
        model: The first stage, or a model with its posterior.
        spec: Of the data.
    """
    x = torch.zeros(1, *spec.shape, dtype=model.dtype, device=model.device)
    with evaluating(model), fixed_noise():
        return model.space.encoded(x)
