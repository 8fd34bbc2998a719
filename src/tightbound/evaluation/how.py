"""How a model is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from .log_likelihood.annealed import Annealing
from .log_likelihood.methods import Method
from .passes import Precision

__all__ = ["BUDGET", "How"]

BUDGET = 120.0
"""Default time budget for the likelihood, in seconds."""


@dataclass(frozen=True)
class How:
    """How a model is evaluated: the arguments of :func:`evaluate`.

    Raises:
        UsageError: If the budget is negative.
    """

    k: int | None = None
    method: Method | Literal["auto", "ode"] = "auto"
    annealing: Annealing | None = None
    budget: float = BUDGET
    precision: Precision = "float32"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.budget >= 0:
            got, remedy = self.budget, "Try 120."
            raise UsageError("The budget must be at least 0 seconds.", got=got, expected="0 or more", remedy=remedy)
