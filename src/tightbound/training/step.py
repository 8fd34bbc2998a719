"""What a training step computes, and where a model starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..data import DataSpec
from ..models.latent import LatentVariableModel, Terms
from ..objectives import elbo, reconstruction
from ..randomness import mix
from ..recipes import Recipe

__all__ = ["ROWS", "Step", "build_seeded"]

ROWS = ("objective", "bound", "reconstruction", "kl")


class Step(nn.Module):
    """From a batch to the rows ``objective, bound, reconstruction, kl`` of its examples, in nats, ``(4, n)``.

    Args:
        model: The model.
        objective: What training maximises, ``(terms, beta) -> (n,)``; None for what the model's recipe says.
    """

    def __init__(self, model: LatentVariableModel, objective: Callable[[Terms, Any], Tensor] | None = None) -> None:
        super().__init__()
        recipe = model.recipe
        self.model = model
        self.objective = objective or (recipe.training_objective if recipe else elbo)
        self.bound = recipe.bound if recipe else _bound
        self.samples = recipe.training_samples if recipe else 1

    def forward(self, x: Tensor, beta: Tensor) -> Tensor:
        terms = self.model().terms(x, k=self.samples)
        objective = self.objective(terms, beta)
        with torch.no_grad():  # what is only read needs no gradient
            likelihood = reconstruction(terms)
            kl = terms.kl() if terms.bounded else torch.zeros_like(likelihood)
            readings = torch.stack([self.bound(terms), likelihood, kl])
        return torch.cat([objective.unsqueeze(0), readings])


def _bound(terms: Terms) -> Tensor:
    return elbo(terms) if terms.bounded else reconstruction(terms)


def build_seeded(recipe: Recipe, spec: DataSpec, seed: int) -> LatentVariableModel:
    """A new model whose initial weights follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed))
        return recipe.build(spec)
