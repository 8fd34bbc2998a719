r"""Pixels whose channels are a mixture of discretised logistics.

Convention: a value with :math:`L` levels is :math:`l / (L - 1) \in [0, 1]`; an image is ``(C, H, W)``, and parameters
of the K components of every pixel have K as the dimension before that.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.types import _size

from .clipped_logistic import ClippedLogistic
from .contract import Value
from .discretized_logistic import DiscretizedLogistic

__all__ = ["DiscretizedLogisticMixture"]

SUMMED = 64
"""Maximum number of levels that the moments are summed over; with more they are those of the clipped logistic."""


class DiscretizedLogisticMixture(Value):
    r"""Independent pixels, each a mixture over all its channels, which depend linearly on each other.

    .. math:: P(x) = \prod_{\text{pixels}} \sum_{k=1}^K \pi_k \prod_{j=1}^C
        P\bigl(x_j \mid m_{kj}(x), s_{kj}\bigr), \qquad
        m_{kj}(x) = \mu_{kj} + \sum_{i < j} a_{kji} (x_i - \mu_{ki})

    Each factor is a :class:`DiscretizedLogistic`, whose outermost levels have the tails, so the masses of all values of
    a pixel sum to one. The published form has :math:`a_{kji} x_i`: the same family with other :math:`\mu`, which here
    are the means of the channels where nothing is clipped.

    ``mean`` and ``variance`` of a channel are those of the mixture, exact (with many levels, within half a level) for
    the first channel. For the others they follow the linear dependence: exact where clipping at the ends of the
    interval does not break it; otherwise the mean of the mixture given the means of the channels before.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications
        (Salimans, Karpathy, Chen and Kingma, 2017).

    Args:
        logits: Unnormalised :math:`\log \pi`, ``(*batch, K, H, W)``.
        location: :math:`\mu`, ``(*batch, K, C, H, W)``.
        log_scale: :math:`\log s`, ``(*batch, K, C, H, W)``.
        coefficients: :math:`a`, ``(*batch, K, C (C - 1) / 2, H, W)``, in the order 21, 31, 32, ...
        levels: Number of levels, at least 2.

    Example:
        >>> location, coefficients = torch.rand(4, 3, 1, 1), torch.ones(4, 3, 1, 1)
        >>> p = DiscretizedLogisticMixture(torch.zeros(4, 1, 1), location, torch.zeros(4, 3, 1, 1), coefficients, 5)
        >>> every = torch.cartesian_prod(*[torch.arange(5) / 4] * 3).reshape(125, 3, 1, 1)
        >>> p.log_prob(every).exp().sum().round(decimals=4)
        tensor(1.)
    """

    domain = constraints.unit_interval

    def __init__(self, logits: Tensor, location: Tensor, log_scale: Tensor, coefficients: Tensor, levels: int) -> None:
        self.logits, self.location, self.log_scale = logits, location, log_scale
        self.coefficients, self.levels = coefficients, levels
        self._each = location.unbind(-3), log_scale.unbind(-3), coefficients.unbind(-3)  # one gradient for all slices
        super().__init__(location.shape[:-4], location.shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        components = self.logits.log_softmax(-3)
        before: list[Tensor] = []  # not list[Tensor](), which torch.compile cannot trace
        for x, location in zip(value.unsqueeze(-4).unbind(-3), self._each[0], strict=True):
            components = components + DiscretizedLogistic(*self._next(before), self.levels).log_prob(x)
            before.append(x - location)
        return components.logsumexp(-3).sum((-2, -1))

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            chosen, found, before = self._chosen(sample_shape), list[Tensor](), list[Tensor]()
            for location in chosen._each[0]:
                found.append(DiscretizedLogistic(*chosen._next(before), self.levels).sample())
                before.append(found[-1] - location)
            return torch.stack(found, dim=-3).squeeze(-4)

    @property
    def mean(self) -> Tensor:
        return (self._weights * self._component_means).sum(-4)

    @property
    def variance(self) -> Tensor:
        second = self._component_variances() + self._component_means.square()
        mean = self.mean
        variance = (self._weights * second).sum(-4) - mean.square()
        return variance.clamp(min=0).minimum(mean * (1 - mean))  # the largest on [0, 1]

    @property
    def _weights(self) -> Tensor:
        return self.logits.softmax(-3).unsqueeze(-3)

    def _next(self, before: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Location and log scale of the next channel, given the deviations of those before it."""
        channel, (locations, log_scales, _) = len(before), self._each
        location = locations[channel]
        for a, deviation in zip(self._coefficients_of(channel), before, strict=True):
            location = location + a * deviation
        return location, log_scales[channel]

    def _coefficients_of(self, channel: int) -> tuple[Tensor, ...]:
        """How a channel depends on each of those before it."""
        first = channel * (channel - 1) // 2
        return self._each[2][first : first + channel]

    def _chosen(self, sample_shape: _size) -> DiscretizedLogisticMixture:
        """A random component of every pixel, as a mixture of one."""
        logits = self.logits.expand(*sample_shape, *self.logits.shape)
        k = (logits - torch.empty_like(logits).exponential_().log()).argmax(-3, keepdim=True)  # by Gumbel noise
        taken = [_taken(p, k.unsqueeze(-3)) for p in (self.location, self.log_scale, self.coefficients)]
        return DiscretizedLogisticMixture(torch.zeros_like(logits[..., :1, :, :]), *taken, levels=self.levels)

    def _margin(self, before: list[Tensor]) -> DiscretizedLogistic | ClippedLogistic:
        """The next channel of each component given those before it, for its moments."""
        parameters = self._next(before)
        return DiscretizedLogistic(*parameters, self.levels) if self.levels <= SUMMED else ClippedLogistic(*parameters)

    @cached_property
    def _component_means(self) -> Tensor:
        found, before = list[Tensor](), list[Tensor]()
        for location in self._each[0]:
            found.append(self._margin(before).mean)
            before.append(found[-1] - location)
        return torch.stack(found, dim=-3)

    def _component_variances(self) -> Tensor:
        r"""The diagonal of :math:`M D M^\top` with :math:`M = (I - A)^{-1}` and D the variance given those before."""
        before = list((self._component_means - self.location).unbind(-3))
        own = torch.stack([self._margin(before[:channel]).variance for channel in range(len(before))], dim=-3)
        rows = list[Tensor]()
        for channel in range(len(before)):
            row = torch.zeros_like(own)
            row[..., channel, :, :] = 1
            for a, above in zip(self._coefficients_of(channel), rows, strict=True):
                row = row + a.unsqueeze(-3) * above
            rows.append(row)
        return torch.stack([(row.square() * own).sum(-3) for row in rows], dim=-3)


def _taken(parameters: Tensor, k: Tensor) -> Tensor:
    """The parameters of the chosen components, ``(..., 1, n, H, W)``."""
    n = parameters.shape[-3]
    wide = parameters.expand(*k.shape[:-4], *parameters.shape[-4:])
    return wide.gather(-4, k.expand(*k.shape[:-3], n, *k.shape[-2:]))
