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
    "FlowTime",
    "Learned",
    "Linear",
    "LogNormal",
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

    suits_bound: bool = False
    """Whether even times on it estimate the bound with little variance."""

    def __init__(self, start: float, end: float) -> None:
        super().__init__()
        if not -math.inf < start < end:
            raise UsageError(
                "A schedule must rise from little noise to much.",
                got=f"gamma from {start:g} to {end:g}",
                expected="a first gamma below the last",
                remedy="Try --first-gamma auto --last-gamma 10.",
            )
        self.start, self.end = float(start), float(end)

    def forward(self, t: Tensor) -> Tensor:
        r""":math:`\gamma(t)`.

        Args:
            t: Times in [0, 1].
        """
        raise NotImplementedError

    def variance_gradient(self, t: Tensor, loss: Tensor) -> Tensor:
        """Zero for each time, whose gradient raises what lowers the variance of a loss at even times.

        Args:
            t: Times, ``(n)``.
            loss: The loss at each, ``(n)``, whose mean is the same for every schedule with these ends.
        """
        return torch.zeros_like(loss)

    def slope(self, t: Tensor) -> Tensor:
        r""":math:`\gamma'(t)`."""
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self(t).sum(), t)
        return slope


class Linear(Schedule):
    r""":math:`\gamma(t) = (1 - t) \gamma_0 + t \gamma_1`: the log signal-to-noise ratio falls evenly.

    References:
        Variational Diffusion Models (Kingma, Salimans, Poole and Ho, 2021).

    Example:
        >>> Linear(-13.3, 5.0)(torch.tensor([0.0, 1.0]))
        tensor([-13.3000,   5.0000])
    """

    suits_bound = True

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


class LogNormal(Schedule):
    r""":math:`\ln \sigma` at even quantiles of :math:`\mathcal{N}(m, s^2)`, cut at both ends.

    Args:
        start: :math:`\gamma(0)`.
        end: :math:`\gamma(1)`.
        mean: m.
        std: s.

    Raises:
        UsageError: If s is not positive.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila and Laine, 2022).

    Example:
        >>> LogNormal(-20.0, 20.0)(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).round(decimals=3)
        tensor([-20.0000,  -2.4000,  20.0000], dtype=torch.float64)
    """

    def __init__(self, start: float, end: float, mean: float = -1.2, std: float = 1.2) -> None:
        super().__init__(start, end)
        if not 0 < std < math.inf:
            raise UsageError("The spread of noise levels must be positive.", got=std, remedy="Try 1.2.")
        self.mean, self.std = mean, std
        ends = torch.tensor([start, end], dtype=torch.float64)
        self._ends: list[float] = torch.special.ndtr((ends / 2 - mean) / std).tolist()

    def forward(self, t: Tensor) -> Tensor:
        inner = (2 * (self.mean + self.std * self._normal(t))).clamp(self.start, self.end)
        return torch.where(t <= 0, self.start, torch.where(t >= 1, self.end, inner)).to(t.dtype)

    def slope(self, t: Tensor) -> Tensor:
        low, high = self._ends
        density = (-self._normal(t).square() / 2).exp() / math.sqrt(2 * math.pi)
        return (2 * self.std * (high - low) / density).to(t.dtype)

    def _normal(self, t: Tensor) -> Tensor:
        low, high = self._ends
        return torch.special.ndtri((low + (high - low) * t.double()).clamp(1e-300, 1 - 1e-16))


class FlowTime(Schedule):
    r""":math:`\gamma = 2 \ln \frac{s}{1 - s}` at even s, the time of the linear path :math:`(1 - s) x_0 + s \epsilon`.

    References:
        Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow (Liu, Gong and Liu, 2023).

    Example:
        >>> FlowTime(-13.3, math.inf)(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-1.3300e+01,  5.1694e-03,         inf])
    """

    def forward(self, t: Tensor) -> Tensor:
        s = self._time(t)
        inner = 2 * (s.log() - torch.log1p(-s))
        return torch.where(t <= 0, self.start, torch.where(t >= 1, self.end, inner)).to(t.dtype)

    def slope(self, t: Tensor) -> Tensor:
        s, (first, last) = self._time(t), self._ends
        return 2 * (last - first) / (s * (1 - s))

    @property
    def _ends(self) -> tuple[float, float]:
        first, last = (1 / (1 + math.exp(-gamma / 2)) for gamma in (self.start, self.end))
        return first, last

    def _time(self, t: Tensor) -> Tensor:
        first, last = self._ends
        return first + (last - first) * t


class ScaledLinear(Schedule):
    r"""That of latent diffusion, :math:`\alpha^2 = \prod (1 - \beta_i)` with :math:`\sqrt{\beta_i}` rising evenly.

    With a power of 1, :math:`\beta_i` itself rises evenly, as in the first denoising diffusion models. Between steps
    :math:`\alpha` is interpolated.

    Args:
        first: :math:`\beta` of the first step.
        last: That of the last.
        steps: Number of steps.
        zero_terminal: Whether :math:`\alpha` is shifted and scaled to end at 0, pure noise.
        power: The root of :math:`\beta` that rises evenly.

    Raises:
        UsageError: If the rates do not rise, or are not below 1.

    References:
        Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020).
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022).
        Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin, Liu, Li and Yang, 2024).

    Example:
        >>> ScaledLinear()(torch.tensor([0.0, 1.0], dtype=torch.float64))
        tensor([-7.0694,  5.3640], dtype=torch.float64)
        >>> ScaledLinear(zero_terminal=True).end
        inf
    """

    def __init__(
        self,
        first: float = 0.00085,
        last: float = 0.012,
        steps: int = 1000,
        *,
        zero_terminal: bool = False,
        power: float = 2.0,
    ) -> None:
        if not (0 < first < last < 1 and 1 < steps <= MOST_STEPS):
            raise UsageError(
                "The rates of a schedule must rise, and stay below 1.",
                got=f"{first:g} to {last:g} in {steps} steps",
                expected=f"0 < first < last < 1, and 2 to {MOST_STEPS:,} steps",
            )
        roots = torch.linspace(first ** (1 / power), last ** (1 / power), steps, dtype=torch.float64)
        beta = roots**power
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

    The bound does not depend on what lies between the ends, but the variance of its estimate does. With the density
    :math:`q(\gamma) = 1 / \gamma'(t)` of the levels, an estimate :math:`\ell` has the second moment
    :math:`\mathbb{E}_q[\ell^2]`, whose gradient is :math:`-\mathbb{E}_q[\ell^2 \, \nabla \ln q(\gamma)]`.

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

    suits_bound = True

    def __init__(self, start: float, end: float, hidden: int = 64) -> None:
        super().__init__(start, end)
        if not math.isfinite(end):
            raise UsageError("A learned schedule needs a finite end.", got=end, remedy="Try an end of 5.")
        self.slope_in = nn.Parameter(torch.zeros(()))
        self.rates = nn.Parameter(torch.linspace(-1, 3, hidden))
        self.places = nn.Parameter(torch.linspace(0, 1, hidden))
        self.heights = nn.Parameter(torch.full((hidden,), -4.0))

    def forward(self, t: Tensor) -> Tensor:
        w = (self._raw(t)[0] - self._low) / self._range
        return (1 - w) * self.start + w * self.end

    def slope(self, t: Tensor) -> Tensor:
        return (self.end - self.start) * self._raw(t)[1] / self._range

    def variance_gradient(self, t: Tensor, loss: Tensor) -> Tensor:
        gamma, slope = self(t), self.slope(t)
        bend = (self.end - self.start) * self._raw(t)[2] / self._range
        log_density = (bend / slope.square()).detach() * gamma - slope.log()  # its gradient at a fixed level
        squared = loss.detach().square()
        found = (squared / squared.mean() - 1) * log_density
        return found - found.detach()

    @property
    def _low(self) -> Tensor:
        return self._raw(self.places.new_zeros(()))[0]

    @property
    def _range(self) -> Tensor:
        return self._raw(self.places.new_ones(()))[0] - self._low

    def _raw(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A rising function, its slope, and the slope of that."""
        steep, heights, even = F.softplus(self.rates) + 1, F.softplus(self.heights), F.softplus(self.slope_in)
        s = torch.tanh(steep * (t.unsqueeze(-1) - self.places))
        slope = heights * steep * (1 - s.square())
        return even * t + (heights * s).sum(-1), even + slope.sum(-1), (-2 * steep * s * slope).sum(-1)


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
