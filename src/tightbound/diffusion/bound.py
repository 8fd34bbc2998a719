r"""The variational bound of diffusion, in three terms.

Convention: x is in the units of the denoiser; terms are in nats for each example, summed over its entries. With
:math:`x_\sigma = x + \sigma \epsilon` and :math:`\gamma = 2 \ln \sigma`,

.. math:: -\ln p(x) \le \mathrm{KL}(q(x_{\sigma_1} \mid x) \,\|\, p(x_{\sigma_1}))
    + \frac{1}{2} \int e^{-\gamma} \, \mathbb{E} \| x - D(x_\sigma, \sigma) \|^2 \, d\gamma
    + \mathbb{E} [-\ln p(x \mid x_{\sigma_0})]

are the prior's, the diffusion's and the reconstruction's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from ..conditions import Given
from ..distributions.contract import Value
from ..errors import UsageError
from .denoiser import Denoiser, Moments
from .paths import Path, expanded
from .schedules import Schedule

__all__ = ["Bound", "Decoder", "GaussianDecoder", "LevelDecoder"]

FAR = 10.0
"""Standard deviations beyond which a value has no probability that float64 could hold beside that of the nearest."""
LATEST = 1 - 1e-6
"""The last time in float32 before 1, or nearly."""


class Decoder(nn.Module):
    r"""Abstract: :math:`p(x \mid x_{\sigma_0})`, what is left open at the first noise."""

    @abstractmethod
    def forward(self, noised: Tensor, sigma: Tensor) -> Distribution:
        """The distribution of the data, with batch shape ``(*batch, *event)``.

        Args:
            noised: Data at the first noise, ``(*batch, *event)``.
            sigma: The ratio of the first noise.
        """

    @abstractmethod
    def draw(self, decoded: Distribution, noise: Tensor) -> Tensor:
        """Data, as a function of standard noise, so that every example has its own.

        Args:
            decoded: What the call has returned.
            noise: Standard noise, ``(*batch, *event)``.
        """


class LevelDecoder(Decoder):
    r"""Of discrete values, :math:`p(x = v_k \mid x_{\sigma_0}) \propto \exp(-(x_{\sigma_0} - v_k)^2 / 2 \sigma_0^2)`.

    Of each entry only the values near it are computed, as many as the largest noise can reach.

    Args:
        values: All values of an entry, rising evenly, in the units of the denoiser.
        largest: The largest :math:`\sigma_0` that is asked for.

    Raises:
        UsageError: If the values do not rise evenly.

    References:
        Variational Diffusion Models (Kingma, Salimans, Poole and Ho, 2021).

    Example:
        >>> decoder = LevelDecoder(torch.tensor([-1.0, 1.0]))
        >>> decoder(torch.tensor([0.9]), torch.tensor(0.2)).log_prob(torch.tensor([1.0])).exp()
        tensor([1.])
    """

    values: Tensor

    def __init__(self, values: Tensor, largest: float = math.inf) -> None:
        super().__init__()
        _require_even(values)
        self.register_buffer("values", values)
        self.low, self.spacing = values[0].item(), (values[-1] - values[0]).item() / (len(values) - 1)
        self.reach = int(min(len(values), FAR * largest / self.spacing + 1))

    def forward(self, noised: Tensor, sigma: Tensor) -> Distribution:
        count = min(len(self.values), 2 * self.reach + 1)
        first = (self.place_of(noised) - self.reach).clamp(0, len(self.values) - count)
        near = self.values[first.unsqueeze(-1) + torch.arange(count, device=first.device)]
        return _Levels(self, noised, expanded(sigma, noised), first, near)

    def place_of(self, x: Tensor) -> Tensor:
        """The index of the nearest value, in the shape of x."""
        return ((x - self.low) / self.spacing).round().clamp(0, len(self.values) - 1).long()

    def draw(self, decoded: Distribution, noise: Tensor) -> Tensor:
        levels = cast(_Levels, decoded)
        up_to = levels.logits.double().softmax(-1).cumsum(-1)
        below = (up_to < torch.special.ndtr(noise.double()).unsqueeze(-1)).sum(-1)
        return self.values[levels.first + below.clamp(max=up_to.shape[-1] - 1)]


def _require_even(values: Tensor) -> None:
    gaps = values.diff()
    if len(values) < 2 or not gaps.min() > 0 or gaps.max() > 1.01 * gaps.min():
        raise UsageError(
            "The values of an entry must rise evenly.",
            got=f"{len(values)} values" + (f", {gaps.min():g} to {gaps.max():g} apart" if len(gaps) else ""),
            expected="at least two, equally far apart",
        )


class _Levels(Value):
    """Values of which one is chosen for each entry; only those from the first that is near it can be."""

    def __init__(self, decoder: LevelDecoder, noised: Tensor, sigma: Tensor, first: Tensor, near: Tensor) -> None:
        self.decoder, self.noised, self.sigma, self.first = decoder, noised, sigma, first
        self.logits = -0.5 * ((noised.unsqueeze(-1) - near) / sigma.unsqueeze(-1)).square()
        super().__init__(noised.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        away = (self.noised - self.decoder.values[self.decoder.place_of(value)]) / self.sigma
        return -0.5 * away.square() - self.logits.logsumexp(-1)


class GaussianDecoder(Decoder):
    r"""Of continuous values, as if entries were Gaussian with mean m and deviation s:

    .. math:: p(x \mid x_{\sigma_0}) = \mathcal{N}\!\left( m + \frac{s^2}{s^2 + \sigma_0^2} (x_{\sigma_0} - m), \,
        (s^{-2} + \sigma_0^{-2})^{-1} \right)

    Any data whose density is smooth at the first noise are nearly so.

    Args:
        moments: m and s.

    Example:
        >>> from tightbound.diffusion.denoiser import Moments
        >>> GaussianDecoder(Moments())(torch.ones(1, 1), torch.tensor(1.0)).stddev
        tensor([[0.7071]])
    """

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.moments = moments

    def forward(self, noised: Tensor, sigma: Tensor) -> Distribution:
        mean, std = self.moments.mean, self.moments.std
        precision = std**-2 + expanded(sigma, noised) ** -2
        return Normal(mean + (noised - mean) / (1 + (expanded(sigma, noised) / std) ** 2), precision.rsqrt(), False)

    def draw(self, decoded: Distribution, noise: Tensor) -> Tensor:
        return decoded.mean + decoded.stddev * noise


class Bound:
    """The three terms of examples, for noise and times that are given.

    Args:
        denoiser: The denoiser.
        schedule: From time to noise.
        path: Says which Gaussian stands for the last z.
        decoder: Of the first noise.
        steps: Number of steps of the chain; None for the limit of infinitely many.

    Raises:
        UsageError: If there are no steps.

    Example:
        >>> from tightbound.diffusion import PATHS, GaussianOracle, Linear
        >>> oracle = GaussianOracle(torch.zeros(2), torch.ones(2))
        >>> bound = Bound(oracle, Linear(-8.0, 5.0), PATHS["vp"], GaussianDecoder(Moments()))
        >>> x, e = torch.randn(5, 2), torch.randn(5, 2)
        >>> bound.prior(x).shape, bound.diffusion(x, torch.rand(5), e).shape, bound.reconstruction(x, e).shape
        (torch.Size([5]), torch.Size([5]), torch.Size([5]))
    """

    def __init__(
        self, denoiser: Denoiser, schedule: Schedule, path: Path, decoder: Decoder, steps: int | None = None
    ) -> None:
        if steps is not None and steps < 1:
            raise UsageError("A chain needs at least one step.", got=steps, remedy="Leave steps out: continuous time.")
        self.denoiser, self.schedule, self.path, self.decoder, self.steps = denoiser, schedule, path, decoder, steps

    def prior(self, x: Tensor) -> Tensor:
        """KL of the last noised data from the Gaussian that stands for them, ``(*batch)`` nats.

        Raises:
            UsageError: If the schedule ends in pure noise, which can be sampled from only.
        """
        if not math.isfinite(self.schedule.end):
            raise UsageError(
                "A bound needs a schedule with a finite end.",
                got="pure noise at its end",
                expected="a last gamma of about 5 to 10",
                remedy="Try an end of 5.",
            )
        gamma = torch.tensor(self.schedule.end, dtype=x.dtype, device=x.device)
        sigma, end = (gamma / 2).exp(), self.path.end(gamma)
        per_entry = ((x / end).square() + (sigma / end).square() - 1) / 2 - (sigma / end).log()
        return per_entry.flatten(1).sum(1)

    def diffusion(self, x: Tensor, t: Tensor, noise: Tensor, c: Given | None = None) -> Tensor:
        r"""The terms between both ends at one time for each example, ``(n)`` nats: unbiased for uniform times.

        In continuous time :math:`\tfrac{1}{2} \gamma'(t) e^{-\gamma} \| x - D \|^2`; of T steps, with s before t,
        :math:`\tfrac{T}{2} (e^{-\gamma(s)} - e^{-\gamma(t)}) \| x - D \|^2`.

        Args:
            x: Examples, ``(n, *event)``.
            t: Times in (0, 1), ``(n)``; of a chain they are rounded up to the end of their step.
            noise: Standard noise in the shape of x.
            c: Conditions.
        """
        gamma, rate = self.levels(t)
        return rate / 2 * self.error(x, gamma, noise, c) - self.control(gamma, rate, noise)

    def control(self, gamma: Tensor, rate: Tensor, noise: Tensor) -> Tensor:
        r"""What the noise by itself adds to the cost of a level, ``(n)`` nats with a mean of zero.

        Of Gaussian data with variance 1 the cost depends on :math:`\|\epsilon\|^2`, of known mean d, by

        .. math:: \frac{\gamma' e^{-\gamma}}{2} \, \frac{\sigma^2}{(1 + \sigma^2)^2} \, (\|\epsilon\|^2 - d)

        which is most of its variance where there is little noise, and is taken out of every estimate.

        Args:
            gamma: Noise levels, ``(n)``.
            rate: The bound's factor at each, ``(n)``.
            noise: Standard noise, ``(n, *event)``.
        """
        squares = noise.flatten(1).square().sum(1) - noise[0].numel()
        return rate / 2 * torch.sigmoid(gamma) * torch.sigmoid(-gamma) * squares

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`\gamma` at times, and the rate of lost signal, :math:`-\mathrm{d} e^{-\gamma} / \mathrm{d} t`.

        Neither has a gradient: a schedule does not change the bound.

        Args:
            t: Times in (0, 1), ``(n)``.
        """
        with torch.no_grad():
            if self.steps is None:
                t = t.clamp(max=LATEST)  # a schedule may end in pure noise
                gamma = self.schedule(t)
                return gamma, self.schedule.slope(t) * (-gamma).exp()
            last = ((t * self.steps).ceil() / self.steps).clamp(1 / self.steps, 1)
            gamma, before = self.schedule(last), self.schedule(last - 1 / self.steps)
            return gamma, self.steps * (-before).exp() * -torch.expm1(before - gamma)

    def edges(self, intervals: int) -> Tensor:
        r"""Ends of intervals of :math:`\gamma`, evenly from the first noise to the last, ``(intervals + 1)``."""
        return torch.linspace(self.schedule.start, self.schedule.end, intervals + 1, dtype=torch.float64)

    def interval(self, t: Tensor, intervals: int) -> Tensor:
        """The number of the interval of noise levels in which each time lies, of the shape of t."""
        inner = self.edges(intervals)[1:-1].to(t)
        return torch.searchsorted(inner, self.schedule(t.clamp(max=LATEST)).detach().contiguous())

    def error(self, x: Tensor, gamma: Tensor, noise: Tensor, c: Given | None = None) -> Tensor:
        """The squared error of the denoiser, summed over the entries of each example, ``(n)``."""
        sigma = (gamma / 2).exp()
        return (x - self.denoiser(x + expanded(sigma, x) * noise, sigma, c)).square().flatten(1).sum(1)

    def reconstruction(self, x: Tensor, noise: Tensor) -> Tensor:
        """The log-probability of the data given the first noised data, ``(n)`` nats."""
        sigma = torch.tensor(math.exp(self.schedule.start / 2), dtype=x.dtype, device=x.device)
        return self.decoded(x + sigma * noise).log_prob(x).flatten(1).sum(1)

    def decoded(self, noised: Tensor) -> Distribution:
        """The distribution of the data given the first noised data, with batch shape ``(n, *event)``."""
        sigma = torch.tensor(math.exp(self.schedule.start / 2), dtype=noised.dtype, device=noised.device)
        return self.decoder(noised, sigma)
