"""The discriminator of a training: new, or that of the run or the checkpoint from which the model starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoint
from ..errors import UsageError
from ..exchange.inert import read_tensors
from ..networks.discriminator import PatchDiscriminator, layers_that_fit
from ..options.adversarial import Adversarial
from ..runs import RunFolder
from ..runtime.randomness import mix

__all__ = ["discriminator_of", "published_discriminator"]

OWN, PUBLISHED = "discriminator.", "loss.discriminator."
"""What the names of its tensors begin with, in the state of a run and in a CompVis checkpoint."""


def discriminator_of(
    objective: Adversarial, shape: tuple[int, ...], seed: int, start: str = ""
) -> PatchDiscriminator | None:
    """The discriminator that an objective asks for; None if none.

    Args:
        objective: The objective.
        shape: Shape ``(channels, H, W)`` of an image, or of a crop.
        seed: Of its weights.
        start: A run, or a CompVis checkpoint, whose discriminator it continues if it has one.

    Raises:
        UsageError: If it is larger than the image, or the run has one of other sizes.
        CheckpointError: If the file cannot be read.

    Example:
        >>> discriminator_of(Adversarial(), (3, 64, 64), seed=0).layers
        2
    """
    if not objective.plays:
        return None
    path = Path(start).expanduser()
    if start and path.is_file() and (found := published_discriminator(read_tensors(path))) is not None:
        return found
    layers = objective.layers or layers_that_fit(shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 1))
        judge = PatchDiscriminator(shape[0], objective.width, layers)
    if start and (last := RunFolder(path).checkpoint("last")).is_file():
        _take(judge, _below(checkpoint.read(last).get("step", {}), OWN), start)
    return judge


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _take(judge: PatchDiscriminator, weights: Mapping[str, Tensor], start: str) -> None:
    if not weights:
        return
    if misfit := checkpoint.misfits(judge.state_dict(), weights):
        raise UsageError(
            f"The discriminator of {start} has other sizes.",
            got=misfit,
            remedy="Use the --discriminator-width and --discriminator-layers of that run.",
        )
    judge.load_state_dict(dict(weights))


def published_discriminator(state: Mapping[str, Tensor]) -> PatchDiscriminator | None:
    """The discriminator in the state dict of a CompVis autoencoder; None if it has none.

    Its batch normalisation keeps the statistics that it has.

    Args:
        state: The state dict.
    """
    weights = _below(state, PUBLISHED)
    convolutions = [tensor for name, tensor in weights.items() if name.endswith("weight") and tensor.dim() == 4]
    if not convolutions:
        return None
    width, channels = convolutions[0].shape[:2]
    judge = PatchDiscriminator(channels, width, len(convolutions) - 2, norm="stored")
    checkpoint.load_into(judge, weights, "the discriminator of the checkpoint")
    return judge
