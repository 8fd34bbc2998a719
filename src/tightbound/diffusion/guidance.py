r"""Guidance: denoisers that wrap denoisers, for every sampler and for the likelihood of the ODE.

Convention: a strength :math:`\gamma` of 0 is the unguided denoiser, 1 the conditional one; others write w for
:math:`\gamma - 1`. Guided samples of another strength are from no stated density: in particular not from :math:`p(x)
p(c \mid x)^\gamma`, whose noised scores are others.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ShapeError, UsageError
from .denoiser import Denoise
from .paths import expanded

__all__ = ["Classified", "Guided", "Measured"]

Interval = tuple[float, float]


class Guided:
    r"""From a weak to a strong denoiser, and beyond: :math:`D = D_w + \gamma (D_s - D_w)`.

    The strong one is given a condition, the weak one is not (classifier-free guidance); or it is a weaker model
    (autoguidance).

    Args:
        strong: The strong denoiser.
        weak: The weak denoiser.
        strength: :math:`\gamma`, at least 0.
        interval: Ratios :math:`\sigma` between which guidance acts; outside, the strong denoiser is used alone.
        rescale: Share, from 0 to 1, by which the deviation of the result is set to that of the strong denoiser.

    Raises:
        UsageError: If the strength is negative, or the interval is empty.

    References:
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022).
        Guiding a Diffusion Model with a Bad Version of Itself (Karras et al., 2024).
        Applying Guidance in a Limited Interval Improves Sample and Distribution Quality (Kynkäänniemi et al., 2024).

    Example:
        >>> guided = Guided(lambda x, sigma: 3 * x, lambda x, sigma: x, strength=2.0)
        >>> guided(torch.ones(1, 1), torch.tensor(1.0))
        tensor([[5.]])
    """

    def __init__(
        self,
        strong: Denoise,
        weak: Denoise,
        strength: float,
        *,
        interval: Interval = (0.0, math.inf),
        rescale: float = 0.0,
    ) -> None:
        _require_strength(strength)
        if not 0 <= interval[0] < interval[1]:
            raise UsageError(
                "The interval of guidance must have a lower and a higher end.",
                got=f"{interval[0]:g} to {interval[1]:g}",
                expected="two ratios of noise to signal, 0 <= low < high",
                remedy="Try (0.2, 5.0).",
            )
        if not 0 <= rescale <= 1:
            raise UsageError("Rescaling is a share.", got=rescale, expected="a number from 0 to 1")
        self.strong, self.weak, self.strength, self.interval, self.rescale = strong, weak, strength, interval, rescale

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        low, high = self.interval
        acts = (low <= sigma) & (sigma <= high)
        if self.strength == 1 or not acts.any():
            return self.strong(x, sigma)
        weak = self.weak(x, sigma)
        if self.strength == 0 and acts.all():
            return weak
        strong = self.strong(x, sigma)
        guided = self._rescaled(torch.lerp(weak, strong, self.strength), strong)
        return torch.where(expanded(acts, x), guided, strong)

    def _rescaled(self, guided: Tensor, strong: Tensor) -> Tensor:
        if not self.rescale:
            return guided
        spread = [each.flatten(1).std(1) for each in (strong, guided)]
        factor = 1 + self.rescale * (spread[0] / spread[1] - 1)
        return guided * expanded(factor, guided)


class Classified:
    r"""A denoiser guided by a classifier of noised data: :math:`D + \gamma \sigma^2 \nabla_x \ln p_\sigma(c \mid x)`.

    Args:
        denoise: The unconditional denoiser.
        log_probability: From noised data and ratios to :math:`\ln p_\sigma(c \mid x)`, ``(*batch)`` nats.
        strength: :math:`\gamma`, at least 0.

    Raises:
        UsageError: If the strength is negative.

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021).

    Example:
        >>> guided = Classified(lambda x, sigma: x, lambda x, sigma: -x.square().sum(-1) / 2, strength=0.5)
        >>> guided(torch.ones(1, 1), torch.tensor(1.0))
        tensor([[0.5000]])
    """

    def __init__(
        self, denoise: Denoise, log_probability: Callable[[Tensor, Tensor], Tensor], strength: float = 1.0
    ) -> None:
        _require_strength(strength)
        self.denoise, self.log_probability, self.strength = denoise, log_probability, strength

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        x0 = self.denoise(x, sigma)
        if self.strength == 0:
            return x0
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.log_probability(x, sigma).sum(), x)
        return x0 + torch.where(expanded(sigma, x).isinf(), 0, self.strength * expanded(sigma, x).square() * slope)


class Measured:
    r"""A denoiser of data of which a linear measurement is known, :math:`y = A x_0 + s \epsilon`.

    The data given x are taken for Gaussian, with the covariance that Tweedie's formula gives, which is exact for
    Gaussian data:

    .. math:: D' = D + \Sigma A^\top (A \Sigma A^\top + s^2 I)^{-1} (y - A D), \qquad \Sigma = \sigma^2 \nabla_x D

    The system is solved by conjugate gradients, each example on its own. Inpainting is an A that keeps the known
    entries, super-resolution one that averages.

    Args:
        denoise: The denoiser.
        measure: A: linear, from ``(n, *event)`` to ``(n, *measured)``.
        y: The measurement, ``(n, *measured)`` or ``(*measured)``.
        std: s, the deviation of its error, more than 0.
        iterations: Of conjugate gradients, at most.

    Raises:
        UsageError: If the deviation is not positive.

    References:
        Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024).

    Example:
        >>> from tightbound.diffusion import GaussianOracle
        >>> known = Measured(GaussianOracle(torch.zeros(2), torch.ones(2)), lambda x: x[:, :1], torch.ones(1), std=1.0)
        >>> known(torch.zeros(1, 2), torch.tensor(1.0))
        tensor([[0.3333, 0.0000]])
    """

    def __init__(
        self, denoise: Denoise, measure: Callable[[Tensor], Tensor], y: Tensor, std: float, iterations: int = 50
    ) -> None:
        if not 0 < std < math.inf:
            raise UsageError(
                "The error of a measurement needs a positive deviation.",
                got=std,
                expected="more than 0: entries that are known exactly have a small one",
                remedy="Try 0.01, in units of the data.",
            )
        self.denoise, self.measure, self.y, self.std, self.iterations = denoise, measure, y, std, iterations

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        if sigma.isinf().any():  # pure noise says nothing of the data, and has no slope to measure by
            return self.denoise(x, sigma)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = self.denoise(x, sigma)
        seen = self._seen(x0.detach())
        variance = expanded(sigma, x).square()

        def spread(u: Tensor) -> Tensor:
            """Σ Aᵀ u, with Σ = σ² ∇D, which is symmetric."""
            with torch.enable_grad():
                place = torch.zeros_like(x0).requires_grad_()
                (back,) = torch.autograd.grad(self.measure(place), place, u)
            return variance * torch.autograd.grad(x0, x, back, retain_graph=True)[0]

        def system(u: Tensor) -> Tensor:
            return self.measure(spread(u)) + self.std**2 * u

        return x0.detach() + spread(_conjugate_gradients(system, self.y - seen, self.iterations))

    def _seen(self, x0: Tensor) -> Tensor:
        seen = self.measure(x0)
        if seen.shape[1:] != self.y.shape[self.y.dim() - seen.dim() + 1 :]:
            raise ShapeError(
                "The measurement has another shape.", got=tuple(self.y.shape), expected=("n", *seen.shape[1:])
            )
        return seen


def _conjugate_gradients(multiply: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """The solution of a symmetric positive system for each example."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return expanded((a * b).flatten(1).sum(1), a)

    x, r = torch.zeros_like(b), b
    p, size = r, dot(r, r)
    least = size * torch.finfo(b.dtype).eps ** 2
    for _ in range(iterations):
        if bool((size <= least).all()):
            break
        q = multiply(p)
        step = torch.where(size > least, size / dot(p, q), 0)
        x, r = x + step * p, r - step * q
        size, before = dot(r, r), size
        p = r + torch.where(before > 0, size / before, 0) * p
    return x


def _require_strength(strength: float) -> None:
    if not 0 <= strength < math.inf:
        raise UsageError(
            "The strength of guidance must not be negative.",
            got=strength,
            expected="0 for none, 1 for the conditional model, more to exaggerate",
            remedy="Try 2.",
        )
