"""The training step on data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...conditions import Given
from ...errors import UsageError
from ...models import Model, Terms
from ...objectives.rows import OfTerms, rows
from ...options.direct import LogLikelihood
from ...options.objectives import Elbo, Objective
from ..clock import Clock
from ..crops import Crops, crops_of
from .base import Step

__all__ = ["BoundStep"]


class BoundStep(Step):
    """From a batch to the rows ``objective, bound, reconstruction, kl`` of its examples, in nats, ``(4, n)``.

    A model without a latent has only the first two.

    Args:
        model: The model.
        objective: The objective, or a function ``(terms, beta) -> (n,)``; None for that of the model's recipe, or the
            ELBO.
        examples: Size of the training split.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective | Callable[[Terms, Any], Tensor] | None = None,
        examples: int = 1,
    ) -> None:
        super().__init__(model)
        bare = model.space is None
        own = model.recipe.training_objective if model.recipe else LogLikelihood() if bare else Elbo()
        if objective is not None:
            own = objective if isinstance(objective, Objective) else OfTerms(own.samples, objective)
        if bare and own.needs_latent:
            raise UsageError(
                "A model without a latent has no terms: training maximises its log-likelihood, or its bound.",
                got=f"an objective, {type(own).__name__}",
                remedy="Leave the objective out.",
            )
        self.rows = own.rows
        self.objective, self.examples = own, examples
        self._rows = rows.dispatch(type(own))  # once, since a compiled step cannot look it up

        self.crops: Crops | None = None

    def before_step(self, clock: Clock) -> None:
        self.crops = self.crops or crops_of(self.model)  # on the device to which the model has come
        if self.model.recipe is not None:
            self.model.recipe.anneal(self.model, clock.step, clock.steps)

    def forward(self, x: Tensor, beta: Tensor, c: Given | None = None) -> Tensor:
        if self.crops is not None and self.model.training:
            found = self._rows(self.objective, self.crops.model(c), self.crops.of(x), beta, self.examples)
            return found * self.crops.share
        return self._rows(self.objective, self.model(c), x, beta, self.examples)
