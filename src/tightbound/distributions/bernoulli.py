"""The Bernoulli distribution, with fewer passes over memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent
from torch.nn import functional as F

__all__ = ["Bernoulli", "BernoulliVector"]

FACTORS = 100
"""How many numbers between 1 and 2 can be multiplied within float32's range."""


class Bernoulli(torch.distributions.Bernoulli):
    r"""torch's Bernoulli, unvalidated, with a log-probability that makes fewer passes over memory.

    .. math:: \log p(x) = x \eta - \log(1 + e^{\eta})

    for the logit :math:`\eta`; on the thousands of decoded samples of an importance-weighted likelihood this takes a
    third of the time of torch's own. A grey value in :math:`[0, 1]` gives a cross-entropy.

    Args:
        logits: :math:`\eta`, any shape.

    Example:
        >>> Bernoulli(torch.zeros(5)).log_prob(torch.ones(5)).exp()
        tensor([0.5000, 0.5000, 0.5000, 0.5000, 0.5000])
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits=logits, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        logits, x = torch.broadcast_tensors(self.logits, value)
        # Above the threshold softplus(η) is η itself; at 40 the difference is below float64's resolution.
        return (x * logits).sub_(F.softplus(logits, threshold=40))


class BernoulliVector(Independent):
    r"""Independent :class:`Bernoulli` entries, whose compiled joint density takes fewer logarithms.

    .. math:: \log p(x) = \sum_i x_i \eta_i - \max(\eta_i, 0) - \log \prod_i (1 + e^{-|\eta_i|})

    Every factor of the product lies between 1 and 2, so many can be multiplied before one logarithm is taken. This is
    faster only in one fused loop, so it is used only under ``torch.compile`` without gradients.

    Args:
        base_distribution: The :class:`Bernoulli` of the entries, ``(*batch, *event)``.
        reinterpreted_batch_ndims: Number of trailing event dimensions.
        validate_args: Whether values are checked.

    Example:
        >>> BernoulliVector(Bernoulli(torch.zeros(5, 3, 3)), 2, validate_args=False).log_prob(torch.ones(3, 3)).shape
        torch.Size([5])
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() or torch.is_grad_enabled():
            return super().log_prob(value)
        first = -self.reinterpreted_batch_ndims
        logits, x = (t.flatten(first) for t in torch.broadcast_tensors(self.base_dist.logits, value))
        entries = logits.shape[-1]
        factors = max(n for n in range(1, FACTORS) if entries % n == 0)
        product = (1 + torch.exp(-logits.abs())).unflatten(-1, (entries // factors, factors)).prod(-1)
        return (x * logits - F.relu(logits)).sum(-1) - product.log().sum(-1)
