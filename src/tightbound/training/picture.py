"""Images written during training."""

from __future__ import annotations

from pathlib import Path

from ..data import Data
from ..models import Model
from ..pictures import sheets
from ..runtime.progress import silent

__all__ = ["draw_progress"]

EXAMPLES = 8
"""Number of examples drawn."""


def draw_progress(model: Model, data: Data, path: Path) -> None:
    """Draws reconstructions of a few validation examples above samples, if the data are images.

    Args:
        model: The model, in evaluation mode.
        data: The data; without a validation split the training split is used.
        path: The PNG to write.
    """
    if not data.spec.image:
        return
    split = data.valid if len(data.valid) else data.train
    batch = split.batch(split.representative(min(EXAMPLES, len(split))), model.device)
    with silent():
        sheets.training_picture(model, *model.see(batch), path, data.spec)
