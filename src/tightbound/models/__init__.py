"""Models: conditional distributions with latent variables, and the encoder that ranks samples by their text.

The latter loads when asked for: it brings what reads weights from files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .latent import Latent, LatentVariableModel, Marginal, Terms

if TYPE_CHECKING:
    from .contrastive import Contrastive, ContrastiveConfig, load_clip

__all__ = ["Contrastive", "ContrastiveConfig", "Latent", "LatentVariableModel", "Marginal", "Terms", "load_clip"]


def __getattr__(name: str) -> Any:
    if name not in ("Contrastive", "ContrastiveConfig", "load_clip"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".contrastive", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
