"""Training: one readable loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .options import TrainingOptions

if TYPE_CHECKING:
    from .loop import train

__all__ = ["TrainingOptions", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from .loop import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
