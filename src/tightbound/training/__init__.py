"""Training: one readable loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .options import TrainingOptions

if TYPE_CHECKING:
    from .loop import train
    from .prior import fit_prior
    from .step import start_from_data

__all__ = ["TrainingOptions", "fit_prior", "start_from_data", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from .loop import train

        return train
    if name == "fit_prior":
        from .prior import fit_prior

        return fit_prior
    if name == "start_from_data":
        from .step import start_from_data

        return start_from_data
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
