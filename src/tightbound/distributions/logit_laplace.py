r"""The logit-Laplace distribution: Laplace noise mapped into the unit interval.

Convention: ``x`` lies in :math:`[0, 1]`; :math:`y = (1 - 2\epsilon) x + \epsilon` keeps it away from the ends, where a
logit is infinite. The density is that **of x**, in nats: the published density of y, plus :math:`\ln(1 - 2\epsilon)`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.types import _size

from ..errors import UsageError
from .contract import Value

__all__ = ["LogitLaplace"]


def _rule(nodes: int) -> list[tuple[float, float]]:
    """Places u and weights on the unit interval: Gauss-Legendre for the root of u, as x is a power of u near 0."""
    rule = zip(*np.polynomial.legendre.leggauss(nodes), strict=True)
    return [(float(0.5 * (root + 1)) ** 2, float(0.5 * (root + 1) * weight)) for root, weight in rule]


_NODES = _rule(12)


class LogitLaplace(Value):
    r"""Values in the unit interval whose logit is Laplace.

    .. math:: p(x) = \frac{1 - 2\epsilon}{2 b \, y (1 - y)} \exp\!\left( -\frac{|\operatorname{logit} y - \mu|}{b}
        \right), \qquad y = (1 - 2\epsilon) x + \epsilon

    It integrates to one over :math:`y \in (0, 1)`, so a little beyond :math:`x \in [0, 1]` on either side; over
    :math:`[0, 1]` it integrates to less, so its log-likelihood is never overestimated. Samples outside are clamped.

    References:
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

    Args:
        mean: :math:`\mu`, the centre of the Laplace distribution of logits, any shape.
        log_scale: :math:`\log b`, broadcast with ``mean``.
        eps: :math:`\epsilon`.

    Raises:
        UsageError: If :math:`\epsilon` is not between 0 and one half.

    Example:
        >>> p = LogitLaplace(torch.tensor(0.0), torch.tensor(-1.0))
        >>> p.mean, p.log_prob(torch.tensor(0.5)).exp()
        (tensor(0.5000), tensor(4.3493))
    """

    domain = constraints.unit_interval

    def __init__(self, mean: Tensor, log_scale: Tensor, eps: float = 0.1) -> None:
        if not 0 < eps < 0.5:
            raise UsageError("The margin of a logit-Laplace is out of range.", got=eps, expected="0 < eps < 0.5")
        self.location, self.log_scale, self.eps = mean, log_scale, eps
        super().__init__(torch.broadcast_shapes(mean.shape, log_scale.shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        inside = math.log(1 - 2 * self.eps)
        log_y, log_rest = self.squeezed(value).log(), self.squeezed(1 - value).log()
        distance = (log_y - log_rest - self.location).abs() * torch.exp(-self.log_scale)
        return inside - math.log(2) - self.log_scale - log_y - log_rest - distance

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            shape = (2, *sample_shape, *self.batch_shape)
            first, second = torch.empty(shape, dtype=self.location.dtype, device=self.location.device).exponential_()
            return self._to_unit(self.location + self.log_scale.exp() * (first - second))

    @property
    def mean(self) -> Tensor:
        r"""The mean of the samples, by quadrature over the probability :math:`u` of the logit on either side.

        .. math:: \mathbb{E} x = \tfrac{1}{2} \int_0^1 x(\mu + b \ln u) + x(\mu - b \ln u) \, du

        The mass clamped to the ends of the unit interval is exact; only the rest is approximated.
        """
        b, end = self.log_scale.exp(), math.log(1 / self.eps - 1)
        below, above = self._tail(self.location, b, end), self._tail(-self.location, b, end)
        return (0.5 * (below + 1 - above)).clamp(0, 1)

    @property
    def median(self) -> Tensor:
        r"""The median of the samples, :math:`\sigma(\mu)` mapped back to x, as shown by its authors."""
        return self._to_unit(self.location)

    @property
    def mode(self) -> Tensor:
        r"""The median: the mode if :math:`b \le 1`; for larger b the density also rises towards the ends."""
        return self.median

    def _tail(self, centre: Tensor, b: Tensor, end: float) -> Tensor:
        r""":math:`\int_0^1 x(\mu + b \ln u) \, du`, between the u where the logit passes the ends of the interval."""
        first, last = (((edge - centre) / b).clamp(max=0).exp() for edge in (-end, end))
        total = 1 - last
        for node, weight in _NODES:
            u = (first + (last - first) * node).clamp(min=torch.finfo(b.dtype).tiny)
            total = total + weight * (last - first) * self._to_unit(centre + b * u.log())
        return total

    def squeezed(self, x: Tensor) -> Tensor:
        r""":math:`y = (1 - 2\epsilon) x + \epsilon`."""
        return (1 - 2 * self.eps) * x + self.eps

    def _to_unit(self, logit: Tensor) -> Tensor:
        x = (torch.sigmoid(logit) - self.eps) / (1 - 2 * self.eps)
        return x.expand(torch.broadcast_shapes(x.shape, self.batch_shape)).clamp(0, 1)
