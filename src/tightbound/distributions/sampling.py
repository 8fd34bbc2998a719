"""How samples are drawn: temperature, the most probable few, and guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from ..errors import UsageError
from .contract import Value

__all__ = ["COLDEST", "Sampling", "Steered", "drawn", "tempered"]

COLDEST = 1e-30
"""A temperature below this chooses the most probable: differences of logits over it are no numbers any more."""


def tempered(logits: Tensor, temperature: float) -> Tensor:
    r"""Logits over a temperature, :math:`(\eta - \max_k \eta_k) / T`, none above 0 and the largest 0, however low T is.

    Args:
        logits: ``(*batch, K)``.
        temperature: T; 0 leaves nothing but the most probable.

    Example:
        >>> tempered(torch.tensor([1.0, 3.0]), 1e-40).softmax(-1)
        tensor([0., 1.])
    """
    below = logits - logits.amax(-1, keepdim=True)
    return below / temperature if temperature >= COLDEST else below.masked_fill(below < 0, -math.inf)


@dataclass(frozen=True)
class Sampling:
    r"""How to draw: from logits :math:`\eta`, or from a prior over vectors.

    With guidance the logits are :math:`\eta_\emptyset + s (\eta_c - \eta_\emptyset)`, then divided by the temperature,
    then cut to the most probable.

    References:
        The Curious Case of Neural Text Degeneration (Holtzman et al., 2020).
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022).

    Args:
        temperature: Divides the logits; 0 chooses the most probable. Of vectors, a factor on the distance from their
            mean.
        top_k: Only so many of the most probable; of equals the first.
        top_p: Only the most probable whose probabilities add up to this.
        guidance: s; 1 is the plain condition.

    Raises:
        UsageError: If a number is out of range.

    Example:
        >>> Sampling(temperature=0).choose(torch.tensor([[0.0, 2.0, 1.0]]))
        tensor([1])
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError("A temperature is at least 0.", got=self.temperature, remedy="Try --temperature 1.")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError("At least one choice must be left.", got=f"top-k {self.top_k}", expected="1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError("top-p is a probability.", got=self.top_p, expected="0 < top-p <= 1")
        if not 0 <= self.guidance < math.inf:
            raise UsageError("Guidance is at least 0.", got=self.guidance, expected="1 for none, 2 to 5 for more")

    def choose(self, logits: Tensor, null: Tensor | None = None) -> Tensor:
        """One index for each row.

        Args:
            logits: Given the condition, ``(n, K)``.
            null: Without it, ``(n, K)``, for guidance.
        """
        if null is not None:
            logits = null + self.guidance * (logits - null)
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = logits.float() if self.temperature == 1 else tempered(logits.float(), self.temperature)
        if (self.top_k or math.inf) >= logits.shape[-1] and (self.top_p or 1) >= 1:
            return torch.multinomial(logits.softmax(-1), 1).squeeze(-1)
        ordered, places = logits.sort(dim=-1, descending=True, stable=True)
        left = ordered[..., : self.top_k].softmax(-1)
        if self.top_p is not None:
            left = left.masked_fill(left.cumsum(-1) - left >= self.top_p, 0)
        return places.gather(-1, torch.multinomial(left, 1)).squeeze(-1)

    @property
    def plain(self) -> bool:
        """Whether it changes nothing."""
        return self == Sampling()

    def require_temperature_alone(self) -> None:
        """Refuses what only codes that are drawn one after the other have.

        Raises:
            UsageError: If it is asked for.
        """
        if (self.top_k, self.top_p, self.guidance) != (None, None, 1.0):
            raise UsageError(
                "This model does not draw codes one after the other.",
                got="--top-k, --top-p or --guidance",
                expected="--temperature alone",
                remedy="Leave them out, or fit a prior over codes: tightbound fit-prior RUN --prior pixelcnn.",
            )


def indifferent(temperature: float) -> UsageError:
    """What to say of a temperature where all codes are alike."""
    return UsageError(
        "All codes are as probable under this prior, so a temperature, which divides their logits, changes nothing.",
        got=f"temperature {temperature:g} with uniform codes",
        expected="temperature 1",
        remedy="Leave it out, or fit a prior to the codes: tightbound fit-prior RUN --prior pixelcnn --out RUN2.",
    )


class Steered(Value):
    """Abstract: a distribution that can be told how to draw."""

    def sample(self, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:
        """Samples, ``(*sample_shape, *batch, *event)``, drawn as told."""
        raise NotImplementedError


def drawn(distribution: Distribution, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:
    """Samples of any distribution, drawn as told: of one over vectors, nearer to its mean or further from it.

    Raises:
        UsageError: If it cannot draw so.

    Example:
        >>> from torch.distributions import Normal
        >>> drawn(Normal(torch.ones(2), torch.ones(2)), (), Sampling(temperature=0))
        tensor([1., 1.])
    """
    if isinstance(distribution, Steered):
        return distribution.sample(sample_shape, how)
    how.require_temperature_alone()
    if how.temperature == 1:
        return distribution.sample(sample_shape)
    return torch.lerp(distribution.mean, distribution.sample(sample_shape), how.temperature)
