"""Train, measure and explore latent-variable generative models, with likelihoods you can trust.

Names are loaded on first use, so that importing the package costs little over importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .options.building import build_with

if TYPE_CHECKING:
    from . import (
        autoregressive,
        conditions,
        data,
        diffusion,
        distributions,
        encoders,
        evaluation,
        information,
        likelihoods,
        models,
        networks,
        objectives,
        posteriors,
        priors,
        quantizers,
        recipes,
    )
    from .data import load_data
    from .evaluation import evaluate
    from .models import LatentVariableModel, Model
    from .options.data_spec import DataSpec
    from .recipes import Recipe
    from .runs import load
    from .training import fit_prior, train

__version__ = "0.1.0"

__all__ = [
    "LatentVariableModel",
    "autoregressive",
    "conditions",
    "data",
    "diffusion",
    "distributions",
    "encoders",
    "evaluate",
    "evaluation",
    "fit_prior",
    "information",
    "likelihoods",
    "load",
    "load_data",
    "models",
    "networks",
    "objectives",
    "posteriors",
    "priors",
    "quantizers",
    "recipes",
    "train",
]

_homes = {
    "LatentVariableModel": "models",
    "evaluate": "evaluation",
    "fit_prior": "training",
    "load": "runs",
    "load_data": "data",
    "train": "training",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _homes:
        return getattr(importlib.import_module(f".{_homes[name]}", __name__), name)
    return importlib.import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _build(recipe: Recipe, data: DataSpec) -> Model:
    """Builds the model of a recipe; imports torch only when called."""
    from .assembly import build

    return build(recipe, data)


build_with(_build)
