r"""Discrete priors :math:`p(z)` with independent positions: uniform, or with learned probabilities.

Convention: z has event ``(positions, classes)``, one-hot, or ``(positions,)``, bits; batch shape ``()`` without a
condition, else that of the condition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..conditions import Given
from ..distributions import Bits, OneHot

__all__ = ["BernoulliPrior", "CategoricalPrior"]


class _Logits(nn.Module):
    """Abstract: logits that are zero, or learned starting at zero."""

    logits: Tensor

    def __init__(self, shape: tuple[int, ...], learned: bool) -> None:
        super().__init__()
        if learned:
            self.logits = nn.Parameter(torch.zeros(shape))
        else:
            self.register_buffer("logits", torch.zeros(shape), persistent=False)

    def expanded(self, c: Given | None) -> Tensor:
        batch = () if c is None else c.shape
        return self.logits.expand(*batch, *self.logits.shape)


class CategoricalPrior(_Logits):
    r"""A class at each position, :math:`p(z) = \prod_i \operatorname{Cat}(z_i; \eta_i)`, independent of the condition.

    If uniform, the KL divergence from it is :math:`\sum_i \ln K - \mathrm{H}(q_i)`, at most ``positions`` · ln K nats.

    References:
        Categorical Reparameterization with Gumbel-Softmax (Jang, Gu and Poole, 2017).

    Args:
        positions: Number of positions.
        classes: K.
        learned: Whether the probabilities are learned, starting uniform.

    Example:
        >>> CategoricalPrior(20, 10)().sample((5,)).shape
        torch.Size([5, 20, 10])
    """

    def __init__(self, positions: int, classes: int, learned: bool = False) -> None:
        super().__init__((positions, classes), learned)

    def forward(self, c: Given | None = None) -> Distribution:
        return OneHot(self.expanded(c))


class BernoulliPrior(_Logits):
    r"""A bit at each position, :math:`p(z) = \prod_i \operatorname{Bernoulli}(z_i; \sigma(\eta_i))`.

    Args:
        positions: Number of positions.
        learned: Whether the probabilities are learned, starting at one half.

    Example:
        >>> BernoulliPrior(20)().sample((5,)).shape
        torch.Size([5, 20])
    """

    def __init__(self, positions: int, learned: bool = False) -> None:
        super().__init__((positions,), learned)

    def forward(self, c: Given | None = None) -> Distribution:
        return Bits(self.expanded(c))
