r"""Schedules: from a time in [0, 1] to :math:`\gamma = -\ln \mathrm{SNR}`, and the levels at which a sampler stops.

Convention: :math:`\gamma` rises with time; :math:`\sigma = e^{\gamma / 2}` is the ratio of noise to signal.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError

__all__ = [
    "Cosine",
    "Learned",
    "Linear",
    "ScaledLinear",
    "Schedule",
    "Spacing",
    "first_gamma",
    "grid",
]

Spacing = Literal["log-snr", "karras", "time"]
SPACINGS = 7.0
"""Standard deviations of the first noise in the spacing of two values, which leave no doubt between them."""
MOST_STEPS = 100_000


class Schedule(nn.Module):
    r"""Abstract: :math:`\gamma(t)`, rising from ``start`` to ``end``.

    Args:
        start: :math:`\gamma(0)`.
        end: :math:`\gamma(1)`.

    Raises:
        UsageError: If it does not rise.
    """

    def __init__(self, start: float, end: float) -> None:
        super().__init__()
        if not -math.inf < start < end:
            raise UsageError(
                "A schedule must rise from little noise to much.",
                got=f"gamma from {start:g} to {end:g}",
                expected="a first gamma below the last",
                remedy="Try Linear(-13.3, 5.0).",
            )
        self.start, self.end = float(start), float(end)

    def forward(self, t: Tensor) -> Tensor:
        r""":math:`\gamma(t)`.

        Args:
            t: Times in [0, 1].
        """
        raise NotImplementedError

    def slope(self, t: Tensor) -> Tensor:
        r""":math:`\gamma'(t)`."""
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            (slope,) = torch.autograd.grad(
                self(t).sum(), t, create_graph=any(p.requires_grad for p in self.parameters())
            )
        return slope


class Linear(Schedule):
    r""":math:`\gamma(t) = (1 - t) \gamma_0 + t \gamma_1`: the log signal-to-noise ratio falls evenly.

    References:
        Variational Diffusion Models (Kingma, Salimans, Poole and Ho, 2021).

    Example:
        >>> Linear(-13.3, 5.0)(torch.tensor([0.0, 1.0]))
        tensor([-13.3000,   5.0000])
    """

    def forward(self, t: Tensor) -> Tensor:
        return torch.lerp(torch.full_like(t, self.start), torch.full_like(t, self.end), t)

    def slope(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.end - self.start)


class Cosine(Schedule):
    r""":math:`\sigma = \tan(\theta)` at an angle that rises evenly; the end may be infinite, pure noise.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021).

    Example:
        >>> Cosine(-13.3, math.inf)(torch.tensor([0.0, 0.5], dtype=torch.float64))
        tensor([-1.3300e+01,  2.5880e-03], dtype=torch.float64)
    """

    def forward(self, t: Tensor) -> Tensor:
        first, last = (math.atan(math.exp(gamma / 2)) for gamma in (self.start, self.end))
        inner = 2 * (first + (last - first) * t).tan().log()
        ends = torch.where(t <= 0, self.start, torch.where(t >= 1, self.end, inner))
        return ends.to(t.dtype)

    def slope(self, t: Tensor) -> Tensor:
        first, last = (math.atan(math.exp(gamma / 2)) for gamma in (self.start, self.end))
        return 4 * (last - first) / (2 * (first + (last - first) * t)).sin()


class ScaledLinear(Schedule):
    r"""That of latent diffusion, :math:`\alpha^2 = \prod (1 - \beta_i)` with :math:`\sqrt{\beta_i}` rising evenly.

    Between its steps :math:`\alpha` is interpolated.

    Args:
        first: :math:`\beta` of the first step.
        last: That of the last.
        steps: Number of steps.
        zero_terminal: Whether :math:`\alpha` is shifted and scaled to end at 0, pure noise.

    Raises:
        UsageError: If the rates do not rise, or are not below 1.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022).
        Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin, Liu, Li and Yang, 2024).

    Example:
        >>> ScaledLinear()(torch.tensor([0.0, 1.0], dtype=torch.float64))
        tensor([-7.0694,  5.3640], dtype=torch.float64)
        >>> ScaledLinear(zero_terminal=True).end
        inf
    """

    def __init__(
        self, first: float = 0.00085, last: float = 0.012, steps: int = 1000, *, zero_terminal: bool = False
    ) -> None:
        if not (0 < first < last < 1 and 1 < steps <= MOST_STEPS):
            raise UsageError(
                "The rates of a schedule must rise, and stay below 1.",
                got=f"{first:g} to {last:g} in {steps} steps",
                expected=f"0 < first < last < 1, and 2 to {MOST_STEPS:,} steps",
            )
        beta = torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64).square()
        self._alpha = torch.log1p(-beta).cumsum(0).mul(0.5).exp()
        if zero_terminal:
            top, bottom = self._alpha[0].clone(), self._alpha[-1].clone()
            self._alpha = (self._alpha - bottom) * top / (top - bottom)
        super().__init__(*(_gamma_of(self._alpha[i]).item() for i in (0, -1)))

    def forward(self, t: Tensor) -> Tensor:
        place = t.double() * (len(self._alpha) - 1)
        below = place.detach().floor().clamp(0, len(self._alpha) - 2).long()
        alpha = self._alpha.to(t.device)
        return _gamma_of(torch.lerp(alpha[below], alpha[below + 1], place - below)).to(t.dtype)


def _gamma_of(alpha: Tensor) -> Tensor:
    return torch.log1p(-alpha.square()) - 2 * alpha.log()


class Learned(Schedule):
    r"""A monotone network with pinned ends, :math:`\gamma_0 + (\gamma_1 - \gamma_0) \frac{g(t) - g(0)}{g(1) - g(0)}`.

    The bound does not depend on what lies between the ends, but the variance of its estimate does.

    Args:
        start: :math:`\gamma(0)`.
        end: :math:`\gamma(1)`.
        hidden: Width of the network.

    References:
        Variational Diffusion Models (Kingma, Salimans, Poole and Ho, 2021).

    Example:
        >>> Learned(-13.3, 5.0)(torch.tensor([0.0, 1.0])).tolist()
        [-13.300000190734863, 5.0]
    """

    def __init__(self, start: float, end: float, hidden: int = 64) -> None:
        super().__init__(start, end)
        if not math.isfinite(end):
            raise UsageError("A learned schedule needs a finite end.", got=end, remedy="Try an end of 5.")
        self.slope_in = nn.Parameter(torch.zeros(()))
        self.rates = nn.Parameter(torch.linspace(-1, 3, hidden))
        self.places = nn.Parameter(torch.linspace(0, 1, hidden))
        self.heights = nn.Parameter(torch.full((hidden,), -4.0))

    def _raw(self, t: Tensor) -> Tensor:
        steep = F.softplus(self.rates) + 1
        steps = F.softplus(self.heights) * torch.tanh(steep * (t.unsqueeze(-1) - self.places))
        return F.softplus(self.slope_in) * t + steps.sum(-1)

    def forward(self, t: Tensor) -> Tensor:
        low, high = self._raw(torch.zeros_like(t)), self._raw(torch.ones_like(t))
        w = (self._raw(t) - low) / (high - low)
        return (1 - w) * self.start + w * self.end


def first_gamma(spacing: float) -> float:
    r""":math:`\gamma_0 = 2 \ln(\text{spacing} / 7)`: noise so small that discrete values are told apart.

    Args:
        spacing: Distance of neighbouring values, in the units of the model.

    Raises:
        UsageError: If it is not positive.

    Example:
        >>> [round(first_gamma(2 / (levels - 1)), 1) for levels in (2, 17, 256)]
        [-2.5, -8.1, -13.6]
    """
    if not spacing > 0:
        raise UsageError("The spacing of values must be positive.", got=spacing, expected="more than 0")
    return 2 * math.log(spacing / SPACINGS)


def grid(
    schedule: Schedule, steps: int, spacing: Spacing = "log-snr", *, rho: float = 7.0, to_zero: bool = False
) -> Tensor:
    r"""The ratios :math:`\sigma` at which a sampler stops, falling from the schedule's end to its start.

    Args:
        schedule: The schedule.
        steps: Number of steps; there is one more ratio than steps.
        spacing: Even in :math:`\ln \sigma`, in :math:`\sigma^{1/\rho}` (karras), or in time.
        rho: The exponent of karras.
        to_zero: Whether a last ratio of 0 is added, at which a sampler returns what it expects of the data.

    Returns:
        Ratios in float64.

    Raises:
        UsageError: If there are no steps, or far too many; or if the end is infinite and the spacing not in time.

    Example:
        >>> grid(Linear(-2.0, 2.0), 2)
        tensor([2.7183, 1.0000, 0.3679], dtype=torch.float64)
    """
    if not 0 < steps <= MOST_STEPS:
        raise UsageError(
            "A sampler needs a number of steps.", got=steps, expected=f"1 to {MOST_STEPS:,}", remedy="Try 20 steps."
        )
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    if spacing == "time":
        with torch.no_grad():
            found = (schedule(t) / 2).exp()
    else:
        first, last = math.exp(schedule.start / 2), _finite_end(schedule, spacing)
        power = rho if spacing == "karras" else 0.0
        low, high = (_even(end, power) for end in (first, last))
        evenly = low + (high - low) * t
        found = evenly**power if power else evenly.exp()
    return torch.cat([found, found.new_zeros(1)]) if to_zero else found


def _even(sigma: float, power: float) -> float:
    """What rises evenly: a root of the ratio, or its logarithm."""
    return sigma ** (1 / power) if power else math.log(sigma)


def _finite_end(schedule: Schedule, spacing: str) -> float:
    if math.isfinite(schedule.end):
        return math.exp(schedule.end / 2)
    raise UsageError(
        "Levels cannot be even in the noise ratio where the schedule ends in pure noise.",
        got=f"spacing {spacing}, an infinite last gamma",
        expected="spacing time",
        remedy="Use spacing 'time', or a finite end.",
    )
