"""The training step on latents."""

from __future__ import annotations

import torch
from torch import Tensor

from ...conditions import Given
from ...data import Batch
from ...models import LatentVariableModel
from ...posteriors import Encoded
from .base import Step

__all__ = ["PriorStep"]


class PriorStep(Step):
    """From a batch of encoded latents to the one row of a training step: log p(z | c), or an estimate of a lower bound
    on it, in nats, ``(1, n)``.

    Each visit uses a random view of an example, and a latent of it.

    Args:
        model: The two-stage model.
        kept: The storage form of its latents, from any example.
        exact: Whether log p(z | c) is exact, not a bound.
    """

    def __init__(self, model: LatentVariableModel, kept: Encoded, exact: bool = True) -> None:
        super().__init__(model)
        self.kept, self.rows = kept, ("log_prior" if exact else "log_prior_bound",)

    def see(self, batch: Batch) -> tuple[Tensor, Given | None]:
        return batch.x, self.model.conditions(batch)

    def forward(self, x: Tensor, beta: Tensor, c: Given | None = None) -> Tensor:
        return self.kept.of(_one_view(x)).log_prob(self.model(c).prior()).unsqueeze(0)


def _one_view(latents: Tensor) -> Tensor:
    n, views = latents.shape[:2]
    chosen = torch.randint(views, (n,), device=latents.device)
    return latents[torch.arange(n, device=latents.device), chosen]
