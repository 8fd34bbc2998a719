"""What a training step on latents computes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...recipes.two_stage import is_code_space
from .base import Step

__all__ = ["PriorStep"]


class PriorStep(Step):
    """From a batch of encoded latents to the one row of a training step: log p(z | c), in nats, ``(1, n)``.

    Each visit takes one of an example's views at random, and draws z where a view is the moments of its posterior.

    Args:
        model: The two-stage model.
    """

    rows = ("log_prior",)

    def forward(self, x: Tensor, beta: Tensor, c: Tensor | None = None) -> Tensor:
        return self._log_prior(_one_view(x), c).unsqueeze(0)

    def _log_prior(self, latents: Tensor, c: Tensor | None) -> Tensor:
        prior: Any = self.model(c).prior()
        if not is_code_space(self.model.posterior):
            return prior.log_prob(_drawn(latents) if latents.dim() == 3 else latents)
        grids: Any = self.model.posterior.grids  # pyright: ignore[reportAttributeAccessIssue]
        levels = latents.round().long().split([math.prod(grid) for grid in grids], dim=1)
        return prior.code_log_prob(tuple(k.unflatten(1, grid) for k, grid in zip(levels, grids, strict=True))).sum(-1)


def _one_view(latents: Tensor) -> Tensor:
    n, views = latents.shape[:2]
    chosen = torch.randint(views, (n,), device=latents.device)
    return latents[torch.arange(n, device=latents.device), chosen]


def _drawn(moments: Tensor) -> Tensor:
    mean, std = moments.unbind(1)
    return mean + std * torch.randn_like(std)
