"""A run guided by another, for the command that samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from .arguments import model_of

if TYPE_CHECKING:
    from ..models import Model

__all__ = ["guided_by"]


def guided_by(model: Model, run: Path, device: str) -> Model:
    """A diffusion model guided by a classifier of noised data, or by a weaker model.

    Args:
        model: The diffusion model.
        run: The run that guides.
        device: The device to compute on.

    Raises:
        UsageError: If they are of other kinds, or of other data.
        CheckpointError: If the folder holds no complete run.
    """
    from ..diffusion import Diffusion
    from ..diffusion.classifier import GuidedDiffusion, NoisyClassifier

    guide = model_of(run, device)
    if not isinstance(model, Diffusion):
        raise UsageError(
            "Only diffusion models are guided by another run.",
            got=model.origin,
            expected="a run of recipe vdm, ddpm, score-sde, edm or rectified-flow",
            remedy="Leave --guide-with out.",
        )
    if not isinstance(guide, NoisyClassifier | Diffusion):
        raise UsageError(
            "This run cannot guide.",
            got=f"{guide.origin} in {run}",
            expected="a run of recipe noisy-classifier, or of diffusion",
            remedy="Train one: tightbound train noisy-classifier --data DATA --out RUN.",
        )
    return GuidedDiffusion(model, guide)
