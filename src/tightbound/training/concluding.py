"""What a model measures of its training data once its weights are selected."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from ..data import Split
from ..models import Model
from ..runtime.modes import evaluating
from ..runtime.parts import MeasuresLatents
from ..runtime.progress import progress
from ..runtime.randomness import fixed_noise

__all__ = ["measure_latents", "measures_latents"]

CHUNK = 250
"""Examples encoded at once."""


def measures_latents(model: Model) -> list[MeasuresLatents]:
    """The parts of a model whose latents are to be measured: its own, but none that is frozen and has statistics, on
    which other models may rely.
    """
    taken = {part for parts in model.taken.values() for part in parts.values()}
    own = [part for part in model.modules() if isinstance(part, MeasuresLatents) and part not in taken]
    frozen = model.recipe is not None and "encoder" in model.recipe.frozen
    return [part for part in own if not (frozen and part.measured)]


@torch.no_grad()
def measure_latents(model: Model, train: Split) -> None:
    """Measures the latents of the complete training split, in its order, without flips.

    Args:
        model: The model, with its final weights.
        train: The training split.
    """
    with evaluating(model):
        for part in measures_latents(model):
            part.measure_latents(_batches(model, train))


def _batches(model: Model, train: Split) -> Iterator[Tensor]:
    still = dataclasses.replace(train, transform=dataclasses.replace(train.transform, flip=False))
    with progress("measuring the latents", len(train)) as advance:
        for part, indices in enumerate(torch.arange(len(train)).split(CHUNK)):
            with fixed_noise(part=part):
                yield still.batch(indices, model.device).x.to(model.dtype)
            advance(len(indices))
