"""Training: one readable loop. Importing it costs no torch: names load when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..options.training import TrainingOptions

if TYPE_CHECKING:
    from .loop import train
    from .second_stage import fit_prior
    from .start import start_from_data
    from .state import TrainingResult

__all__ = ["TrainingOptions", "TrainingResult", "fit_prior", "start_from_data", "train"]

_LAZY = {"TrainingResult": "state", "fit_prior": "second_stage", "start_from_data": "start", "train": "loop"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
