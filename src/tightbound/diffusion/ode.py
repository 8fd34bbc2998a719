r"""The likelihood of the probability-flow ODE.

Convention: with :math:`l = \ln \sigma` the flow is :math:`dx / dl = x - D(x, e^l)`, and along it :math:`d \ln p / dl =
-(d - \mathrm{tr} \nabla D)`. The likelihood is that of another model than the one whose bound is trained: both agree
only where the denoiser is exact.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..errors import UsageError
from .denoiser import Denoise
from .sampler import SamplingError

__all__ = ["MOST_EXACT", "OdeLikelihood", "log_likelihood", "solve"]

MOST_EXACT = 256
"""Dimensions up to which the trace is exact by default: one product for each."""

ENTRIES = 2**22
"""Numbers that are held at once for exact traces."""


@dataclass(frozen=True)
class OdeLikelihood:
    """The log-density of examples with the last noise, under the flow.

    Args:
        log_prob: ``(n)`` nats.
        standard_error: Of each, over probes; None with the exact trace, or a single probe.
        evaluations: Of the denoiser.
        end: Where the flow has led each example, at the first noise.
    """

    log_prob: Tensor
    standard_error: Tensor | None
    evaluations: int
    end: Tensor


def log_likelihood(
    denoise: Denoise,
    x: Tensor,
    *,
    sigmas: tuple[float, float],
    end: float | None = None,
    steps: int | None = 100,
    probes: int | None = None,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> OdeLikelihood:
    r"""The log-density of examples that have the last noise.

    With fixed steps (Runge and Kutta's, of fourth order) probes are drawn anew in every step; adaptive ones need the
    same throughout. An average over probes is unbiased for the log-density, not for the density: it is never
    exponentiated.

    Args:
        denoise: The denoiser, with its condition.
        x: Examples at the smaller ratio, ``(n, *event)``.
        sigmas: The ratios between which to integrate, the smaller first.
        end: Standard deviation of the Gaussian at the larger ratio; the ratio itself if left out.
        steps: Fixed steps; None to choose them by the tolerance.
        probes: Random probes of the trace for each example; None for the exact trace up to 256 dimensions, else 1.
        tolerance: Of adaptive steps, relative and absolute.
        seed: Of the probes.

    Raises:
        UsageError: If the ratios do not rise, or there are no steps or probes.
        SamplingError: If the network returns numbers that are not finite.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021).

    Example:
        >>> from tightbound.diffusion import GaussianOracle
        >>> oracle, x = GaussianOracle(torch.zeros(2), torch.ones(2)).double(), torch.zeros(1, 2).double()
        >>> found = log_likelihood(oracle, x, sigmas=(0.01, 100.0), end=(1 + 100.0**2) ** 0.5)
        >>> round(found.log_prob.item(), 4), round(oracle.log_prob(x, torch.tensor(0.01)).item(), 4)
        (-1.838, -1.838)
    """
    low, high = sigmas
    if not 0 < low < high < math.inf or (steps is not None and steps < 1) or (probes is not None and probes < 1):
        raise UsageError(
            "The flow needs two ratios of noise to signal, at least one step, and at least one probe.",
            got=f"{low:g} to {high:g}, steps {steps}, probes {probes}",
            expected="0 < low < high, steps >= 1, probes >= 1",
        )
    if steps is None:
        _require_precise(x, tolerance)
    exact = probes is None and x[0].numel() <= MOST_EXACT
    flow = _Flow(denoise, 0 if exact else probes or 1, seed)
    span = math.log(low), math.log(high)
    with torch.no_grad():
        found = flow.by_steps(x, span, steps) if steps else flow.adaptively(x, span, tolerance)
    last, change = found
    std = high if end is None else end
    gaussian = -0.5 * (last / std).square().flatten(1).sum(1) - x[0].numel() * math.log(std * math.sqrt(2 * math.pi))
    each = gaussian.unsqueeze(0) + change
    error = each.std(0) / len(each) ** 0.5 if len(each) > 1 else None
    return OdeLikelihood(each.mean(0), error, flow.evaluations, last)


@torch.no_grad()
def solve(denoise: Denoise, x: Tensor, sigmas: tuple[float, float], tolerance: float = 1e-4) -> Tensor:
    """Follows the flow from one ratio of noise to signal to another, in steps chosen by the tolerance.

    Args:
        denoise: The denoiser, with its condition.
        x: Where to start, ``(n, *event)``.
        sigmas: The ratios, the first and the last.
        tolerance: Of the steps, relative and absolute.

    Raises:
        UsageError: If the network is less precise than the tolerance.
        SamplingError: If the network returns numbers that are not finite.

    Example:
        >>> from tightbound.diffusion import GaussianOracle
        >>> oracle = GaussianOracle(torch.zeros(1), torch.ones(1)).double()
        >>> solve(oracle, torch.tensor([[2.0]]).double(), (3.0, 1e-3), 1e-7).round(decimals=4)
        tensor([[0.6325]], dtype=torch.float64)
    """
    from torchdiffeq import odeint

    _require_precise(x, tolerance)
    places = torch.tensor([math.log(sigma) for sigma in sigmas], dtype=torch.float64, device=x.device)
    numbers = itertools.count(1)

    def velocity(place: Tensor, state: Tensor) -> Tensor:
        sigma = torch.tensor(math.exp(float(place)), dtype=state.dtype, device=state.device)
        return state - _finite(denoise(state, sigma), sigma, next(numbers))

    return cast(Tensor, odeint(velocity, x, places, rtol=tolerance, atol=tolerance))[-1]


def _require_precise(x: Tensor, tolerance: float) -> None:
    """Refuses a tolerance that the arithmetic of a network cannot reach."""
    reduced = torch.is_autocast_enabled(x.device.type)
    kind = torch.get_autocast_dtype(x.device.type) if reduced else x.dtype
    reached = 2 * torch.finfo(kind).eps
    if tolerance < reached:
        raise UsageError(
            "An adaptive solver cannot reach this tolerance with so few digits.",
            got=f"tolerance {tolerance:g}, and a network in {str(kind).removeprefix('torch.')}",
            expected=f"a tolerance of at least {reached:.2g}",
            remedy="Compute in float32, or use a sampler with fixed steps, such as 2m.",
        )


def _finite(x0: Tensor, sigma: Tensor, number: int) -> Tensor:
    """What the network returned, if it is finite."""
    if not x0.sum().isfinite():
        raise SamplingError(
            f"The network returned numbers that are not finite in evaluation {number} of the flow.",
            got=f"{int((~x0.isfinite()).sum()):,} of {x0.numel():,} entries at sigma = {float(sigma):g}",
            expected="finite numbers",
            remedy="Use float32, less guidance, or other weights.",
        )
    return x0


class _Flow:
    """The flow and its divergence, by exact traces or probes."""

    def __init__(self, denoise: Denoise, probes: int, seed: int) -> None:
        self.denoise, self.probes, self.evaluations = denoise, probes, 0
        self.seed, self.generator = seed, None
        self._probe: Tensor | None = None

    def __call__(self, x: Tensor, place: float) -> tuple[Tensor, Tensor]:
        """The velocity, and its divergence of each probe, ``(probes or 1, n)``."""
        sigma = torch.tensor(math.exp(place), dtype=x.dtype, device=x.device)
        self.evaluations += 1
        if self._probe is None:
            x0, trace = self._exact(x, sigma)
        else:
            x0, trace = self._probed(x, sigma, self._probe)
        _finite(x0, sigma, self.evaluations)
        return x - x0, x[0].numel() - trace

    def _exact(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        d, event = x[0].numel(), x.shape[1:]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = self.denoise(x, sigma)
        trace = x.new_zeros(len(x))
        for chunk in torch.arange(d, device=x.device).split(max(1, ENTRIES // x.numel())):
            basis = torch.zeros(len(chunk), d, dtype=x.dtype, device=x.device)
            basis[torch.arange(len(chunk)), chunk] = 1
            tangents = basis.reshape(-1, 1, *event).expand(-1, *x.shape)
            rows = torch.autograd.grad(x0, x, tangents, retain_graph=True, is_grads_batched=True)[0]
            trace += (rows * tangents).flatten(2).sum((0, 2))
        return x0.detach(), trace.unsqueeze(0)

    def _probed(self, x: Tensor, sigma: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = self.denoise(x, sigma)
            traces = [
                (torch.autograd.grad((x0 * v).sum(), x, retain_graph=i + 1 < len(probe))[0] * v).flatten(1).sum(1)
                for i, v in enumerate(probe)
            ]
        return x0.detach(), torch.stack(traces)

    def _draw(self, x: Tensor) -> None:
        """New probes, of signs."""
        if not self.probes:
            return
        if self.generator is None:
            self.generator = torch.Generator(x.device).manual_seed(self.seed)
        signs = torch.randint(2, (self.probes, *x.shape), generator=self.generator, device=x.device)
        self._probe = (2 * signs - 1).to(x.dtype)

    def by_steps(self, x: Tensor, span: tuple[float, float], steps: int) -> tuple[Tensor, Tensor]:
        place, h = span[0], (span[1] - span[0]) / steps
        change = x.new_zeros(self.probes or 1, len(x))
        for i in range(steps):
            place = span[0] + i * h
            self._draw(x)
            k1, d1 = self(x, place)
            k2, d2 = self(x + h / 2 * k1, place + h / 2)
            k3, d3 = self(x + h / 2 * k2, place + h / 2)
            k4, d4 = self(x + h * k3, place + h)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            change = change + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        return x, change

    def adaptively(self, x: Tensor, span: tuple[float, float], tolerance: float) -> tuple[Tensor, Tensor]:
        from torchdiffeq import odeint

        self._draw(x)
        start = x, x.new_zeros(self.probes or 1, len(x))
        times = torch.tensor(span, dtype=torch.float64, device=x.device)
        states = odeint(lambda place, state: self(state[0], float(place)), start, times, rtol=tolerance, atol=tolerance)
        return states[0][-1], states[1][-1]
