"""What a training step on data computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...models.latent import LatentVariableModel, Terms
from ...objectives.rows import ROWS, OfTerms, rows
from ...options.objectives import Elbo, Objective
from ..clock import Clock
from .base import Step

__all__ = ["BoundStep"]


class BoundStep(Step):
    """From a batch to the rows ``objective, bound, reconstruction, kl`` of its examples, in nats, ``(4, n)``.

    Args:
        model: The model.
        objective: What training maximises, or a function ``(terms, beta) -> (n,)`` of it; None for what the model's
            recipe says, the ELBO of a model without.
        examples: Size of the training split.
    """

    rows = ROWS
    """What the rows are; the first is maximised, and "bound" selects the model, or the first where there is none."""

    def __init__(
        self,
        model: LatentVariableModel,
        objective: Objective | Callable[[Terms, Any], Tensor] | None = None,
        examples: int = 1,
    ) -> None:
        super().__init__(model)
        own = model.recipe.training_objective if model.recipe else Elbo()
        if objective is not None:
            own = objective if isinstance(objective, Objective) else OfTerms(own.samples, objective)
        self.objective, self.examples = own, examples
        self._rows = rows.dispatch(type(own))  # once: a compiled step cannot look it up

    def before_step(self, clock: Clock) -> None:
        if self.model.recipe is not None:
            self.model.recipe.anneal(self.model, clock.step, clock.steps)

    def forward(self, x: Tensor, beta: Tensor, c: Tensor | None = None) -> Tensor:
        return self._rows(self.objective, self.model(c), x, beta, self.examples)
