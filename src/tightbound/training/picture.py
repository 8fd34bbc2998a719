"""The picture of a training that goes on."""

from __future__ import annotations

from pathlib import Path

from ..data import Data
from ..models.latent import LatentVariableModel
from ..pictures import sheets
from ..runtime.progress import silent

__all__ = ["draw_progress"]

EXAMPLES = 8
"""Examples that are drawn."""


def draw_progress(model: LatentVariableModel, data: Data, path: Path) -> None:
    """Reconstructions of a few validation examples above samples, where the data are images.

    Args:
        model: The model, in evaluation mode.
        data: With a validation split, or its training split is drawn.
        path: The PNG to write.
    """
    if not data.spec.image:
        return
    split = data.valid if len(data.valid) else data.train
    parameter = next(model.parameters())
    batch = split.batch(split.representative(min(EXAMPLES, len(split))), parameter.device)
    with silent():
        sheets.training_picture(model.given(batch), batch.x.to(parameter.dtype), path, data.spec)
