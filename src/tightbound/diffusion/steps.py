r"""Steps of samplers: pure functions from one ratio of noise to signal to a smaller one.

Convention: :math:`x = x_0 + \sigma \epsilon` lies at the ratio ``s`` and moves to ``t``, 0 < t < s; ``noise()`` draws
standard noise of the shape of x. A step returns the new x, and what the next step may use: its ratio and its
expectation of the data D. Each says in which variable it integrates which equation. What a step is given it leaves as
it is; what it has made itself it changes in place, since a pass over x costs as much as its arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["STEPS", "Last", "Step", "StepRule", "ancestral", "ddim", "dpm_2m", "dpm_2m_sde", "euler", "euler_maruyama"]
__all__ += ["heun", "langevin", "predictor_corrector"]

DenoiseAt = Callable[[Tensor, float], Tensor]
Noise = Callable[[], Tensor]
Last = tuple[float, Tensor] | None
"""The ratio before, and the expectation of the data there; None in the first step."""
Step = Callable[[DenoiseAt, Tensor, float, float, Noise, Last], tuple[Tensor, Last]]


def ddim(
    denoise: DenoiseAt, x: Tensor, s: float, t: float, noise: Noise, last: Last = None, eta: float = 0.0
) -> tuple[Tensor, Last]:
    r"""An Euler step of the probability-flow ODE in :math:`\sigma`, with a share of the noise drawn anew.

    .. math:: x' = D + t \sqrt{1 - c} \, \frac{x - D}{s} + t \sqrt{c} \, \epsilon, \qquad c = \eta^2 (1 - t^2 / s^2)

    References:
        Denoising Diffusion Implicit Models (Song, Meng and Ermon, 2021).
    """
    x0, c = denoise(x, s), eta**2 * (1 - (t / s) ** 2)
    moved = torch.lerp(x0, x, t / s * math.sqrt(1 - c))
    return (moved.add_(noise(), alpha=t * math.sqrt(c)) if eta else moved), (s, x0)


def ancestral(
    denoise: DenoiseAt, x: Tensor, s: float, t: float, noise: Noise, last: Last = None
) -> tuple[Tensor, Last]:
    r"""The reverse of the chain that adds the noise: a sample of :math:`q(x_t \mid x_s, x_0)` at the expected data.

    References:
        Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020).
    """
    return ddim(denoise, x, s, t, noise, last, eta=1.0)


def euler(denoise: DenoiseAt, x: Tensor, s: float, t: float, noise: Noise, last: Last = None) -> tuple[Tensor, Last]:
    r"""An Euler step of the ODE in the angle :math:`\theta = \arctan \sigma`, on the variance-preserving path.

    .. math:: z' = z + (\theta' - \theta) \, (\cos \theta \, \epsilon - \sin \theta \, D), \qquad z = x \cos \theta

    with :math:`\epsilon = (x - D) / s`, collected by x and D.
    """
    x0, (now, then) = denoise(x, s), (math.atan(s), math.atan(t))
    turn = then - now
    of_x, of_x0 = math.cos(now) * (1 + turn / s), -turn * (math.cos(now) / s + math.sin(now))
    return torch.mul(x, of_x / math.cos(then)).add_(x0, alpha=of_x0 / math.cos(then)), (s, x0)


def heun(denoise: DenoiseAt, x: Tensor, s: float, t: float, noise: Noise, last: Last = None) -> tuple[Tensor, Last]:
    r"""A step of Heun's method, of second order, for the ODE :math:`dx / d\sigma = (x - D) / \sigma`; two evaluations.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila and Laine, 2022).
    """
    x0 = denoise(x, s)
    moved = torch.lerp(x0, x, t / s)
    slopes = (x - x0).div_(s).add_(moved - denoise(moved, t), alpha=1 / t)
    return torch.add(x, slopes, alpha=(t - s) / 2), (s, x0)


def euler_maruyama(
    denoise: DenoiseAt, x: Tensor, s: float, t: float, noise: Noise, last: Last = None
) -> tuple[Tensor, Last]:
    r"""A step of the reverse SDE in :math:`\sigma^2`.

    .. math:: x' = x + \left( 1 - \frac{t^2}{s^2} \right) (D - x) + \sqrt{s^2 - t^2} \, \epsilon

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021).
    """
    x0 = denoise(x, s)
    return torch.lerp(x0, x, (t / s) ** 2).add_(noise(), alpha=math.sqrt(s**2 - t**2)), (s, x0)


def langevin(denoise: DenoiseAt, x: Tensor, t: float, noise: Noise, size: float = 0.05) -> Tensor:
    r"""A step of Langevin dynamics at one ratio, :math:`x' = x + \delta (D - x) + \sqrt{2 \delta} \, t \, \epsilon`.

    The size is the same for every example, so that no example depends on its batch. Where x is Gaussian of variance V,
    the stationary variance is :math:`V / (1 - \delta t^2 / 2 V)`.

    Args:
        denoise: The denoiser.
        x: Examples.
        t: Their ratio.
        noise: Draws standard noise.
        size: The size :math:`\delta`, in units of :math:`t^2`.
    """
    return torch.lerp(x, denoise(x, t), size).add_(noise(), alpha=math.sqrt(2 * size) * t)


def predictor_corrector(
    denoise: DenoiseAt, x: Tensor, s: float, t: float, noise: Noise, last: Last = None
) -> tuple[Tensor, Last]:
    """An ancestral step, then one of Langevin dynamics at the new ratio; two evaluations.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021).
    """
    moved, last = ancestral(denoise, x, s, t, noise, last)
    return langevin(denoise, moved, t, noise), last


def dpm_2m(denoise: DenoiseAt, x: Tensor, s: float, t: float, noise: Noise, last: Last = None) -> tuple[Tensor, Last]:
    r"""A step of DPM-Solver++(2M), of second order in :math:`\lambda = -\ln \sigma`; one evaluation.

    .. math:: x' = \frac{t}{s} x + \left( 1 - \frac{t}{s} \right) \left( D + \frac{h}{2 h'} (D - D') \right)

    with the step h in :math:`\lambda`, and h', D' of the step before. The first step is one of :func:`ddim`.

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022).
    """
    x0 = denoise(x, s)
    return _from_halfway(x0, s, t, last, x, t / s), (s, x0)


def dpm_2m_sde(
    denoise: DenoiseAt, x: Tensor, s: float, t: float, noise: Noise, last: Last = None
) -> tuple[Tensor, Last]:
    r"""A step of SDE-DPM-Solver++(2M), midpoint: that of :func:`dpm_2m` for the reverse SDE; one evaluation.

    .. math:: x' = \frac{t^2}{s^2} x + \left( 1 - \frac{t^2}{s^2} \right) \left( D + \frac{h}{2 h'} (D - D') \right)
        + t \sqrt{1 - t^2 / s^2} \, \epsilon

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022).
    """
    x0, kept = denoise(x, s), (t / s) ** 2
    moved = _from_halfway(x0, s, t, last, x, kept)
    return moved.add_(noise(), alpha=t * math.sqrt(1 - kept)), (s, x0)


def _from_halfway(x0: Tensor, s: float, t: float, last: Last, x: Tensor, kept: float) -> Tensor:
    """A share of x, the rest what is expected of the data in the middle of a step, extrapolated from the one before."""
    if last is None:
        return torch.lerp(x0, x, kept)
    before, old = last
    return torch.lerp(x0, old, -math.log(s / t) / (2 * math.log(before / s))).lerp_(x, kept)


@dataclass(frozen=True)
class StepRule:
    """A step, and what is to be known of it.

    Args:
        step: The function.
        order: Its order of convergence: of the ODE's solution, or of the law of an SDE's samples.
        evaluations: Of the network.
        random: Whether it draws noise.
        integrates: Which equation, and in which variable.
    """

    step: Step
    order: int
    evaluations: int
    random: bool
    integrates: str


STEPS = {
    "ancestral": StepRule(ancestral, 1, 1, True, "the chain that adds noise, reversed"),
    "ddim": StepRule(ddim, 1, 1, False, "the ODE, in sigma"),
    "euler": StepRule(euler, 1, 1, False, "the ODE, in arctan(sigma)"),
    "heun": StepRule(heun, 2, 2, False, "the ODE, in sigma"),
    "euler-maruyama": StepRule(euler_maruyama, 1, 1, True, "the reverse SDE, in sigma squared"),
    "predictor-corrector": StepRule(predictor_corrector, 1, 2, True, "the reversed chain, and Langevin dynamics"),
    "2m": StepRule(dpm_2m, 2, 1, False, "the ODE, in log sigma"),
    "2m-sde": StepRule(dpm_2m_sde, 2, 1, True, "the reverse SDE, in log sigma"),
}
"""Steps of samplers by name."""
