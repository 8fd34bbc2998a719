"""Training objectives of models without a latent as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..spec import register
from .objectives import Objective

__all__ = ["DiffusionBound", "LogLikelihood", "NoisyClassification", "WeightName"]

WeightName = Literal["bound", "simple", "min-snr", "sigmoid", "edm", "edm2", "velocity"]


@register("log-likelihood")
@dataclass(frozen=True)
class LogLikelihood(Objective):
    """The exact log-likelihood, or its bound."""

    needs_latent: ClassVar[bool] = False
    rows: ClassVar[tuple[str, ...]] = ("objective", "bound")


@register("diffusion-bound")
@dataclass(frozen=True)
class DiffusionBound(Objective):
    """The bound of a diffusion model, or the same errors weighted otherwise; the bound still selects the model.

    Example:
        >>> DiffusionBound(weight="simple").weight
        'simple'
    """

    needs_latent: ClassVar[bool] = False

    weight: WeightName = "bound"
    """Weight of each noise level."""


@register("noisy-classification")
@dataclass(frozen=True)
class NoisyClassification(Objective):
    """The log-probability of the class of noised data."""

    needs_latent: ClassVar[bool] = False
    rows: ClassVar[tuple[str, ...]] = ("log_class", "accuracy")
