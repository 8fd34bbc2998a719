r"""A categorical distribution over levels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F
from torch.types import _size

from .contract import Value

__all__ = ["CategoricalLevels"]


class CategoricalLevels(Value):
    r"""Categorical over the levels of a value, :math:`P(x = l / (L - 1)) = \operatorname{softmax}(\eta)_l`.

    Args:
        logits: :math:`\eta`, of shape ``(*batch, L)``.

    Example:
        >>> CategoricalLevels(torch.zeros(5, 17)).log_prob(torch.full((5,), 3 / 16)).exp()
        tensor([0.0588, 0.0588, 0.0588, 0.0588, 0.0588])
    """

    domain = constraints.unit_interval

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.levels = logits, logits.shape[-1]
        super().__init__(logits.shape[:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        level = (value * (self.levels - 1)).round().long().expand(shape)
        log_probs = F.log_softmax(self.logits, dim=-1).expand(*shape, self.levels)
        return log_probs.gather(-1, level.unsqueeze(-1)).squeeze(-1)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            probabilities = F.softmax(self.logits, dim=-1).reshape(-1, self.levels)
            count = torch.Size(sample_shape).numel()
            level = torch.multinomial(probabilities, count, replacement=True).T
            return level.reshape(*sample_shape, *self.batch_shape).to(self.logits.dtype) / (self.levels - 1)

    @property
    def mean(self) -> Tensor:
        levels = torch.arange(self.levels, dtype=self.logits.dtype, device=self.logits.device)
        return F.softmax(self.logits, dim=-1) @ levels / (self.levels - 1)
