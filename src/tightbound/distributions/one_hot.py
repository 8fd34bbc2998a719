r"""Discrete latents: one of K classes, or one bit, at each position.

Convention: logits have shape ``(*batch, positions, K)``, a value is a one-hot vector for each position. For bits, both
have shape ``(*batch, positions)``. Positions are independent; log-densities are in nats, summed over them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.distributions.kl import register_kl
from torch.nn import functional as F
from torch.types import _size

from ..runtime.modes import at_least_float32
from .bernoulli import Bernoulli, BernoulliVector
from .contract import Value
from .sampling import COLDEST, Sampling, Steered, indifferent, tempered

__all__ = ["Bits", "Choice", "OneHot", "exponential", "kl_of_bits", "kl_of_choices", "one_hot"]

SURE = 1e4
"""A bit with a larger logit is certain."""


def exponential(shape: _size, like: Tensor) -> Tensor:
    r"""Noise from :math:`\operatorname{Exp}(1)`, never 0, so its logarithm is finite.

    Its :math:`-\log` is standard Gumbel noise.

    Example:
        >>> bool((exponential((5,), torch.zeros(3)) > 0).all())
        True
    """
    noise = torch.empty(shape, dtype=like.dtype, device=like.device).exponential_()
    return noise.clamp_(min=torch.finfo(like.dtype).tiny)


def one_hot(index: Tensor, like: Tensor) -> Tensor:
    """One-hot vectors along the last dimension, in the shape and type of another tensor.

    Args:
        index: Index of each one; the shape of ``like`` without its last dimension.
        like: Gives shape, type and device.

    Example:
        >>> one_hot(torch.tensor([2, 0]), torch.zeros(2, 3))
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    return torch.zeros_like(like, requires_grad=False).scatter_(-1, index.unsqueeze(-1), 1.0)


class Choice(Value):
    r"""One class of K as a one-hot vector: one position of :class:`OneHot`.

    .. math:: \log p(z) = \langle z, \log \operatorname{softmax}(\eta) \rangle

    Args:
        logits: Finite :math:`\eta`, of shape ``(*batch, K)``; stored as normalised log-probabilities.

    Example:
        >>> Choice(torch.zeros(5, 4)).log_prob(torch.tensor([0.0, 1.0, 0.0, 0.0])).exp()
        tensor([0.2500, 0.2500, 0.2500, 0.2500, 0.2500])
    """

    domain = constraints.one_hot

    def __init__(self, logits: Tensor) -> None:
        self.logits = F.log_softmax(at_least_float32(logits), dim=-1)
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return (value * self.logits).sum(-1)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """The first of K exponential clocks with rates softmax(η) to ring."""
        with torch.no_grad():
            noise = exponential((*sample_shape, *self.logits.shape), self.logits).log_()
            return one_hot((self.logits - noise).argmax(-1), noise)

    def entropy(self) -> Tensor:
        return -(self.logits.exp() * self.logits).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The probabilities of the classes."""
        return self.logits.exp()

    @property
    def mode(self) -> Tensor:
        return one_hot(self.logits.argmax(-1), self.logits)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)


class OneHot(Independent, Steered):
    r"""Independent one-hot vectors at several positions.

    .. math:: \log p(z) = \sum_i \langle z_i, \log \operatorname{softmax}(\eta_i) \rangle

    Its mean is the class probabilities. The KL divergence has a closed form at every position, :math:`\mathrm{KL}(q
    \,\|\, p) = \sum_i \sum_k q_{ik} (\log q_{ik} - \log p_{ik})`.

    Args:
        logits: Finite :math:`\eta`, of shape ``(*batch, positions, K)``.

    Example:
        >>> p = OneHot(torch.zeros(5, 20, 10))
        >>> p.sample((3,)).shape
        torch.Size([3, 5, 20, 10])
        >>> p.entropy()[0] / 20  # ln 10 for each
        tensor(2.3026)
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(Choice(logits), 1, validate_args=False)

    @property
    def logits(self) -> Tensor:
        """Log-probabilities of the classes, ``(*batch, positions, K)``."""
        return self.base_dist.logits

    def sample(self, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:  # noqa: B008
        how.require_temperature_alone()
        if how.temperature == 1:
            return super().sample(sample_shape)
        if not (self.logits != self.logits[..., :1]).any():
            raise indifferent(how.temperature)
        return OneHot(tempered(self.logits, how.temperature)).sample(sample_shape)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> OneHot:
        return OneHot(self.logits.expand(*batch_shape, *self.event_shape))


class Bits(BernoulliVector, Steered):
    r"""Independent bits: :math:`\log p(z) = \sum_i z_i \eta_i - \log(1 + e^{\eta_i})`.

    Args:
        logits: :math:`\eta`, of shape ``(*batch, positions)``.

    Example:
        >>> Bits(torch.zeros(5, 20)).sample((3,)).shape
        torch.Size([3, 5, 20])
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(Bernoulli(at_least_float32(logits)), 1, validate_args=False)

    @property
    def logits(self) -> Tensor:
        """``(*batch, positions)``."""
        return self.base_dist.logits

    @property
    def mode(self) -> Tensor:
        """The more probable value of each bit; 0 where both are equally probable (torch returns NaN)."""
        return (self.logits > 0).to(self.logits.dtype)

    def sample(self, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:  # noqa: B008
        how.require_temperature_alone()
        if how.temperature == 1:
            return super().sample(sample_shape)
        if not self.logits.any():
            raise indifferent(how.temperature)
        return Bits((self.logits / max(how.temperature, COLDEST)).clamp(-SURE, SURE)).sample(sample_shape)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> Bits:
        return Bits(self.logits.expand(*batch_shape, *self.event_shape))


def kl_of_choices(log_q: Tensor, log_p: Tensor) -> Tensor:
    r"""KL of categorical distributions, :math:`\sum_k q_k (\log q_k - \log p_k)`, in nats.

    Args:
        log_q: Log-probabilities of q, ``(*batch, K)``.
        log_p: Log-probabilities of p.

    Example:
        >>> kl_of_choices(torch.tensor([0.5, 0.5, 1e-30]).log(), torch.tensor([0.25, 0.25, 0.5]).log())  # ln 2
        tensor(0.6931)
    """
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def kl_of_bits(q: Tensor, p: Tensor) -> Tensor:
    r"""KL of Bernoulli distributions in nats, finite where torch's own saturates to infinity.

    .. math:: \sigma(q) \left( \log \sigma(q) - \log \sigma(p) \right)
        + \sigma(-q) \left( \log \sigma(-q) - \log \sigma(-p) \right)

    Args:
        q: Logits of q, any shape.
        p: Logits of p.

    Example:
        >>> kl_of_bits(torch.tensor(200.0), torch.tensor(-200.0))
        tensor(200.)
    """
    ones = torch.sigmoid(q) * (F.logsigmoid(q) - F.logsigmoid(p))
    return ones + torch.sigmoid(-q) * (F.logsigmoid(-q) - F.logsigmoid(-p))


@register_kl(Choice, Choice)
def _kl_choice_choice(q: Choice, p: Choice) -> Tensor:
    return kl_of_choices(q.logits, p.logits)


@register_kl(Bernoulli, Bernoulli)
def _kl_bernoulli_bernoulli(q: Bernoulli, p: Bernoulli) -> Tensor:
    return kl_of_bits(q.logits, p.logits)
