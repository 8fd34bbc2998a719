r"""Relaxed discrete latents: samples that gradients pass through.

Convention: as for the exact ones, logits ``(*batch, positions, K)`` for classes and ``(*batch, positions)`` for bits.
The KL divergence of a relaxed distribution is that of the discrete one, in nats per position; it has no log_prob.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.distributions.kl import register_kl
from torch.nn import functional as F
from torch.types import _size

from ..errors import ObjectiveError, UsageError
from ..runtime.modes import at_least_float32
from .bernoulli import Bernoulli
from .contract import Value
from .one_hot import Bits, Choice, OneHot, exponential, kl_of_bits, kl_of_choices, one_hot

__all__ = ["RelaxedBernoulli", "RelaxedCategorical"]


class _Relaxed(Value):
    """Abstract: noise, a temperature, and the choice between a relaxed sample and a straight-through discrete one.

    Args:
        logits: Of the discrete distribution.
        event_dims: Number of trailing dimensions of one position.
        temperature: Positive number, or a tensor of one.
        hard: Whether samples are discrete, with the gradient of the relaxed ones.
    """

    has_rsample = True

    def __init__(self, logits: Tensor, event_dims: int, temperature: float | Tensor, hard: bool) -> None:
        if not isinstance(temperature, Tensor) and not temperature > 0:  # reading a tensor would block on its device
            raise UsageError("A temperature must be positive.", got=temperature, remedy="Use a floor, such as 0.5.")
        self.logits, self.temperature, self.hard = logits, temperature, hard
        split = logits.dim() - event_dims
        super().__init__(logits.shape[:split], logits.shape[split:], validate_args=False)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        noisy = self.logits + self.noise((*sample_shape, *self.logits.shape))
        relaxed = self.squash(noisy / self.temperature)
        if not self.hard:
            return relaxed
        return self.discrete(noisy.detach()) + (relaxed - relaxed.detach())  # the difference is exactly 0

    def log_prob(self, value: Tensor) -> Tensor:
        raise ObjectiveError(
            "A relaxed latent has a density on another space than its discrete prior: their ratio bounds nothing.",
            got=f"log q(z) of a relaxed sample, temperature {float(self.temperature):.3g}",
            expected="the closed form of the KL divergence between the discrete distributions, or discrete samples",
            remedy="Train on objectives.elbo with its closed-form KL; model.eval() gives hard samples, exact bounds.",
        )

    def noise(self, shape: _size) -> Tensor:
        raise NotImplementedError

    def squash(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def discrete(self, noisy: Tensor) -> Tensor:
        raise NotImplementedError


class _RelaxedChoice(_Relaxed):
    """One relaxed one-hot vector."""

    domain = constraints.simplex

    def __init__(self, logits: Tensor, temperature: float | Tensor, hard: bool) -> None:
        super().__init__(F.log_softmax(at_least_float32(logits), dim=-1), 1, temperature, hard)

    def noise(self, shape: _size) -> Tensor:
        return exponential(shape, self.logits).log_().neg_()

    def squash(self, logits: Tensor) -> Tensor:
        return F.softmax(logits, dim=-1)

    def discrete(self, noisy: Tensor) -> Tensor:
        return one_hot(noisy.argmax(-1), noisy)


class _RelaxedBit(_Relaxed):
    """One relaxed bit."""

    domain = constraints.unit_interval

    def __init__(self, logits: Tensor, temperature: float | Tensor, hard: bool) -> None:
        super().__init__(at_least_float32(logits), 0, temperature, hard)

    def noise(self, shape: _size) -> Tensor:
        first, second = exponential((2, *shape), self.logits).log_()
        return first - second

    def squash(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def discrete(self, noisy: Tensor) -> Tensor:
        return (noisy > 0).to(noisy.dtype)


class RelaxedCategorical(Independent):
    r"""Independent relaxed classes at several positions (Gumbel-softmax, Concrete).

    .. math:: z_i = \operatorname{softmax}\!\left( (\log \operatorname{softmax}(\eta_i) + g_i) / \tau \right), \qquad
        g_{ik} \sim \operatorname{Gumbel}(0, 1)

    The largest entry of each :math:`z_i` is a sample of the categorical distribution at any temperature; as
    :math:`\tau \to 0`, :math:`z_i` is its one-hot vector. With ``hard`` the value is that one-hot vector and the
    gradient the relaxed one's (straight through).

    The KL divergence from a :class:`OneHot` prior is that of the **categorical** distributions, as in the literature.
    With hard samples, value (but not gradient) of such an ELBO is an estimate of the true ELBO; with relaxed samples it
    is only a training objective, not a bound. So ``log_prob`` raises, and reported bounds use :attr:`categorical`.

    References:
        Categorical Reparameterization with Gumbel-Softmax (Jang, Gu and Poole, 2017).
        The Concrete Distribution: A Continuous Relaxation of Discrete Random Variables (Maddison, Mnih and Teh, 2017).

    Args:
        logits: Finite :math:`\eta`, of shape ``(*batch, positions, K)``.
        temperature: :math:`\tau > 0`.
        hard: Whether samples are one-hot.

    Raises:
        UsageError: If the temperature is a number that is not positive.
        ObjectiveError: If its density is requested.

    Example:
        >>> q = RelaxedCategorical(torch.zeros(5, 20, 10), temperature=0.5)
        >>> q.rsample((3,)).sum(-1).shape
        torch.Size([3, 5, 20])
        >>> torch.distributions.kl_divergence(q, OneHot(torch.zeros(20, 10)))
        tensor([0., 0., 0., 0., 0.])
    """

    def __init__(self, logits: Tensor, temperature: float | Tensor, hard: bool = False) -> None:
        super().__init__(_RelaxedChoice(logits, temperature, hard), 1, validate_args=False)

    @property
    def categorical(self) -> OneHot:
        """The exact distribution over one-hot vectors that is relaxed here."""
        return OneHot(self.base_dist.logits)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> RelaxedCategorical:
        base = self.base_dist
        return RelaxedCategorical(base.logits.expand(*batch_shape, *self.event_shape), base.temperature, base.hard)


class RelaxedBernoulli(Independent):
    r"""Independent relaxed bits (binary Concrete).

    .. math:: z_i = \sigma\!\left( (\eta_i + l_i) / \tau \right), \qquad l_i \sim \operatorname{Logistic}(0, 1)

    :math:`z_i > 1/2` means a bit that is set, with probability :math:`\sigma(\eta_i)` at any temperature. Hard samples,
    the KL divergence and the density are as for :class:`RelaxedCategorical`.

    References:
        The Concrete Distribution: A Continuous Relaxation of Discrete Random Variables (Maddison, Mnih and Teh, 2017).

    Args:
        logits: :math:`\eta`, of shape ``(*batch, positions)``.
        temperature: :math:`\tau > 0`.
        hard: Whether samples are 0 or 1.

    Raises:
        UsageError: If the temperature is a number that is not positive.
        ObjectiveError: If its density is requested.

    Example:
        >>> RelaxedBernoulli(torch.zeros(5, 20), temperature=0.5, hard=True).rsample().unique()
        tensor([0., 1.])
    """

    def __init__(self, logits: Tensor, temperature: float | Tensor, hard: bool = False) -> None:
        super().__init__(_RelaxedBit(logits, temperature, hard), 1, validate_args=False)

    @property
    def categorical(self) -> Bits:
        """The exact distribution over bits that is relaxed here."""
        return Bits(self.base_dist.logits)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> RelaxedBernoulli:
        base = self.base_dist
        return RelaxedBernoulli(base.logits.expand(*batch_shape, *self.event_shape), base.temperature, base.hard)


@register_kl(_RelaxedChoice, Choice)
def _kl_relaxed_choice(q: _RelaxedChoice, p: Choice) -> Tensor:
    return kl_of_choices(q.logits, p.logits)


@register_kl(_RelaxedBit, Bernoulli)
def _kl_relaxed_bit(q: _RelaxedBit, p: Bernoulli) -> Tensor:
    return kl_of_bits(q.logits, p.logits)
