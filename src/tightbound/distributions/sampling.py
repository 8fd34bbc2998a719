"""How samples are drawn: temperature, top-k, top-p, guidance and the number of steps."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from ..errors import UsageError
from ..runtime.modes import at_least_float32
from .contract import Value

__all__ = ["COLDEST", "Sampling", "Steered", "drawn", "tempered"]

COLDEST = 1e-30
"""Below this temperature the most probable is chosen: scaled differences of logits would overflow."""


def tempered(logits: Tensor, temperature: float) -> Tensor:
    r"""Logits over a temperature, :math:`(\eta - \max_k \eta_k) / T`, with maximum 0 for any T.

    Args:
        logits: ``(*batch, K)``.
        temperature: T; 0 keeps only the most probable.

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
    then truncated (top-k, top-p).

    References:
        The Curious Case of Neural Text Degeneration (Holtzman et al., 2020).
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022).

    Args:
        temperature: Divides the logits; 0 chooses the most probable. For vectors, a factor on the distance from their
            mean.
        top_k: Sample from the k most probable only; ties go to the first.
        top_p: Sample from the smallest set of most probable choices with this total probability.
        guidance: s; 1 means no guidance.
        layers: In a hierarchy, a temperature for each layer from the data up; empty: the same for all.
        sampler: Of diffusion: the name of its steps; its own default if left out.
        steps: Number of steps of a model that is sampled in several; None for its default.
        interval: Of diffusion: ratios of noise to signal between which guidance acts.
        rescale: Of diffusion: share by which the deviation of guided data is set to that of unguided data.

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
    layers: tuple[float, ...] = ()
    sampler: str | None = None
    steps: int | None = None
    interval: tuple[float, float] = (0.0, math.inf)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        for temperature in (self.temperature, *self.layers):
            if not 0 <= temperature < math.inf:
                raise UsageError("A temperature must be at least 0.", got=temperature, remedy="Try --temperature 1.")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError("top-k must keep at least one choice.", got=f"top-k {self.top_k}", expected="1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError("top-p must be a probability.", got=self.top_p, expected="0 < top-p <= 1")
        if not 0 <= self.guidance < math.inf:
            raise UsageError("Guidance must be at least 0.", got=self.guidance, expected="1 for none, 2 to 5 for more")
        if self.steps is not None and self.steps < 1:
            raise UsageError("Sampling takes at least one step.", got=f"steps {self.steps}", expected="1 or more")

    def of_layers(self, n: int) -> list[Sampling]:
        """How each of n layers is drawn, from the data up, each with one temperature.

        Raises:
            UsageError: If there are several temperatures, but not one for each layer.

        Example:
            >>> [how.temperature for how in Sampling(layers=(0.5, 1.0)).of_layers(2)]
            [0.5, 1.0]
        """
        self.require_layers(n)
        if not self.layers:
            return [self] * n
        return [dataclasses.replace(self, temperature=each, layers=()) for each in self.layers]

    def choose(self, logits: Tensor, null: Tensor | None = None) -> Tensor:
        """One index for each row.

        Args:
            logits: Given the condition, ``(n, K)``.
            null: Without it, ``(n, K)``, for guidance.

        Probabilities keep the precision of the logits, of at least float32.
        """
        self.require_one_temperature()
        if null is not None:
            logits = null + self.guidance * (logits - null)
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = at_least_float32(logits)
        logits = logits if self.temperature == 1 else tempered(logits, self.temperature)
        if (self.top_k or math.inf) >= logits.shape[-1] and (self.top_p or 1) >= 1:
            return torch.multinomial(logits.softmax(-1), 1).squeeze(-1)
        ordered, places = logits.sort(dim=-1, descending=True, stable=True)
        left = ordered[..., : self.top_k].softmax(-1)
        if self.top_p is not None:
            left = left.masked_fill(left.cumsum(-1) - left >= self.top_p, 0)
        return places.gather(-1, torch.multinomial(left, 1)).squeeze(-1)

    def require_layers(self, n: int) -> None:
        """Refuses temperatures of another number of layers; one for all is always right.

        Raises:
            UsageError: If there are some, but not n.
        """
        if len(self.layers) in (0, n):
            return
        if n == 1:
            self.require_one_temperature()
        raise UsageError(
            "There must be one temperature, or one for each layer of latents.",
            got=f"{len(self.layers)} temperatures for {n} layers",
            expected=f"1, or {n}: from the layer next to the data up",
            remedy="Try --temperature 0.7.",
        )

    def require_one_temperature(self) -> None:
        """Refuses temperatures of layers where there are none.

        Raises:
            UsageError: If there are some.
        """
        if self.layers:
            raise UsageError(
                "Only a hierarchy of latents has a temperature for each layer.",
                got=f"temperatures {', '.join(f'{each:g}' for each in self.layers)}",
                expected="one temperature",
                remedy="Try --temperature 0.7, or a model of recipe hvae, ladder or vdvae.",
            )

    def require_diffusion(self) -> None:
        """Refuses options of other models than those by diffusion.

        Raises:
            UsageError: If one of them is set.
        """
        self.require_one_temperature()
        if (self.temperature, self.top_k, self.top_p) != (1.0, None, None):
            raise UsageError(
                "Samples of diffusion have no temperature, and choose among no codes.",
                got="--temperature, --top-k or --top-p",
                expected="--sampler, --steps or --guidance",
                remedy="Leave them out.",
            )

    def require_no_sampler(self) -> None:
        """Refuses the options of diffusion's samplers.

        Raises:
            UsageError: If one of them is set.
        """
        if (self.sampler, self.interval, self.rescale) != (None, (0.0, math.inf), 0.0):
            raise UsageError(
                "Only diffusion from noise has a choice of samplers, and of noise levels for guidance.",
                got="--sampler, --guidance-interval or --guidance-rescale",
                expected="a run of recipe vdm, ddpm, score-sde, edm or rectified-flow",
                remedy="Leave them out.",
            )

    def require_no_steps(self) -> None:
        """Refuses a number of steps where it has no meaning.

        Raises:
            UsageError: If there is one.
        """
        self.require_no_sampler()
        if self.steps is not None:
            raise UsageError(
                "This model is not sampled in a number of steps that can be chosen.",
                got=f"steps {self.steps}",
                expected="a model sampled in steps, such as one with a masked prior",
                remedy="Leave it out.",
            )

    @property
    def plain(self) -> bool:
        """Whether all options have their defaults."""
        return self == Sampling()

    def require_temperature_alone(self) -> None:
        """Refuses options that need sequential sampling of codes.

        Raises:
            UsageError: If one of them is set, or temperatures of layers are.
        """
        self.require_one_temperature()
        self.require_no_steps()
        if (self.top_k, self.top_p, self.guidance) != (None, None, 1.0):
            raise UsageError(
                "This model does not draw its codes sequentially.",
                got="--top-k, --top-p or --guidance",
                expected="--temperature alone",
                remedy="Leave them out, or fit a prior over codes: tightbound fit-prior RUN --prior pixelcnn.",
            )


def indifferent(temperature: float) -> UsageError:
    """The error for a temperature on uniform codes."""
    return UsageError(
        "All codes are equally probable under this prior, so a temperature has no effect.",
        got=f"temperature {temperature:g} with uniform codes",
        expected="temperature 1",
        remedy="Leave it out, or fit a prior to the codes: tightbound fit-prior RUN --prior pixelcnn --out RUN2.",
    )


class Steered(Value):
    """Abstract: a distribution whose sampling accepts a :class:`Sampling`."""

    def sample(self, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:
        """Samples, ``(*sample_shape, *batch, *event)``."""
        raise NotImplementedError


def drawn(distribution: Distribution, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:
    """Samples of any distribution; for vectors the temperature scales their distance from the mean.

    Raises:
        UsageError: If the distribution does not support these options.

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
