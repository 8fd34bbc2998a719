"""What a training step on data computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...models.latent import LatentVariableModel, Terms
from ...objectives import elbo, reconstruction
from ..clock import Clock
from .base import Step

__all__ = ["BoundStep"]


class BoundStep(Step):
    """From a batch to the rows ``objective, bound, reconstruction, kl`` of its examples, in nats, ``(4, n)``.

    Args:
        model: The model.
        objective: What training maximises, ``(terms, beta) -> (n,)``; None for what the model's recipe says.
        examples: Size of the training split.
    """

    rows = ("objective", "bound", "reconstruction", "kl")
    """What the rows are; the first is maximised, and "bound" selects the model, or the first where there is none."""

    def __init__(
        self, model: LatentVariableModel, objective: Callable[[Terms, Any], Tensor] | None = None, examples: int = 1
    ) -> None:
        super().__init__(model)
        recipe = model.recipe
        of_recipe = partial(recipe.training_objective, examples=examples) if recipe else elbo
        self.objective: Callable[[Terms, Any], Tensor] = objective or of_recipe
        self.bound = recipe.bound if recipe else _bound
        self.samples = recipe.training_samples if recipe else 1
        self.pathwise = recipe.pathwise if recipe and objective is None else True
        self.generates = recipe is not None and recipe.generates

    def before_step(self, clock: Clock) -> None:
        if self.model.recipe is not None:
            self.model.recipe.anneal(self.model, clock.step, clock.steps)

    def forward(self, x: Tensor, beta: Tensor, c: Tensor | None = None) -> Tensor:
        terms = self.model(c).terms(x, k=self.samples, pathwise=self.pathwise, generate=self.generates)
        objective = self.objective(terms, beta)
        with torch.no_grad():  # what is only read needs no gradient
            likelihood = reconstruction(terms)
            kl = terms.kl() if terms.bounded else torch.zeros_like(likelihood)
            readings = torch.stack([self.bound(terms), likelihood, kl])
        return torch.cat([objective.unsqueeze(0), readings])


def _bound(terms: Terms) -> Tensor:
    return elbo(terms) if terms.bounded else reconstruction(terms)
