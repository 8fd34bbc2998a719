"""Training: one readable loop. Importing it does not import torch: names are loaded lazily."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..options.training import TrainingOptions

if TYPE_CHECKING:
    from .classifier import train_classifier
    from .contrastive import train_contrastive
    from .loop import train
    from .second_stage import fit_prior
    from .start import start_model
    from .state import TrainingResult

__all__ = [
    "TrainingOptions",
    "TrainingResult",
    "fit_prior",
    "start_model",
    "train",
    "train_classifier",
    "train_contrastive",
]

_LAZY = {
    "TrainingResult": "state",
    "fit_prior": "second_stage",
    "start_model": "start",
    "train": "loop",
    "train_classifier": "classifier",
    "train_contrastive": "contrastive",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
