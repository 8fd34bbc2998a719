r"""Annealed importance sampling: from a distribution that can be sampled to the posterior, in many small steps.

Convention: :math:`\pi_\beta(z) \propto p_0(z) \, r(z)^\beta` with the start :math:`p_0`, the ratio
:math:`r(z) = p(x, z) / p_0(z)` and temperatures :math:`0 = \beta_0 < \dots < \beta_T = 1`; ``z`` has shape
``(chains, n, *latent)`` and every log is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...conditions import Given
from ...distributions import has_density
from ...errors import ObjectiveError, UsageError
from ...models.latent import LatentVariableModel, Marginal
from ...runtime.modes import evaluating
from ...runtime.randomness import fixed_noise
from ..estimate import Estimate
from .importance import chunks, is_unbounded, prior_samples, weigh

__all__ = ["Annealing", "Bidirectional", "annealed", "bidirectional", "temperatures"]

ACCEPTANCE = 0.65
"""Target acceptance rate of the step sizes."""
ADAPTATION = 0.1
"""Gain from the acceptance rate to the logarithm of the step size, per temperature."""
PILOTS = 4
"""Chains per example in the run that determines the step sizes."""
STEEPNESS = 4.0
"""Steepness of the sigmoid schedule, whose temperatures are dense near both ends."""


@dataclass(frozen=True)
class Annealing:
    """Settings of the chains from the start to the posterior.

    Args:
        steps: Number T of temperatures, each with one transition.
        leapfrog: Steps per Hamiltonian trajectory.
        schedule: ``"sigmoid"``, with small steps near both ends, or ``"linear"``.
        start: ``"prior"``, or ``"posterior"`` q(z | x), which is closer if it is good.

    Raises:
        UsageError: If a number is less than 1, or a name is unknown.

    Example:
        >>> Annealing(steps=100).schedule
        'sigmoid'
    """

    steps: int = 500
    leapfrog: int = 10
    schedule: Literal["sigmoid", "linear"] = "sigmoid"
    start: Literal["prior", "posterior"] = "prior"

    def __post_init__(self) -> None:
        if min(self.steps, self.leapfrog) < 1:
            raise UsageError(
                "Annealing needs at least one temperature and one leapfrog step.",
                got=f"steps = {self.steps}, leapfrog = {self.leapfrog}",
                remedy="Try steps=500, leapfrog=10.",
            )
        for value, names in [(self.schedule, ("sigmoid", "linear")), (self.start, ("prior", "posterior"))]:
            if value not in names:
                raise UsageError(
                    "Unknown schedule or start of annealing.", got=repr(value), expected=" or ".join(names)
                )


@dataclass(frozen=True)
class Bidirectional:
    """Lower and upper bounds on log p(x) of simulated data.

    Args:
        lower: Mean of the lower bounds over the examples, nats.
        upper: Mean of the upper bounds, nats.
        gap: Mean of their differences, nats: a bound on the error of annealing on simulated data.
        lower_bounds: Lower bound per example, ``(n,)``, nats.
        upper_bounds: Upper bound per example, ``(n,)``, nats.
        x: The simulated examples, ``(n, *shape)``.
        k: Chains per example.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import LinearVAE
        >>> model = LinearVAE(latent_dim=1).build(DataSpec("floats", shape=(3,), levels=None))
        >>> found = bidirectional(model, 5, k=4, annealing=Annealing(steps=20, leapfrog=3))
        >>> found.gap.value < 1
        True
    """

    lower: Estimate
    upper: Estimate
    gap: Estimate
    lower_bounds: Tensor
    upper_bounds: Tensor
    x: Tensor
    k: int


def temperatures(annealing: Annealing) -> Tensor:
    r"""The temperatures :math:`\beta_0 = 0, \dots, \beta_T = 1`, evenly spaced or on a rescaled sigmoid.

    References:
        Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo (Grosse, Ghahramani and Adams, 2015).

    Args:
        annealing: The number of steps and the schedule.

    Returns:
        ``(steps + 1,)``, float64.

    Example:
        >>> temperatures(Annealing(steps=4, schedule="linear")).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    even = torch.linspace(0, 1, annealing.steps + 1, dtype=torch.float64)
    if annealing.schedule == "linear":
        return even
    rising = torch.sigmoid(STEEPNESS * (2 * even - 1))
    return (rising - rising[0]) / (rising[-1] - rising[0])


@torch.no_grad()
def annealed(
    model: LatentVariableModel,
    x: Tensor,
    k: int,
    c: Given | None = None,
    *,
    annealing: Annealing | None = None,
) -> dict[str, Tensor]:
    r"""Annealed importance sampling with Hamiltonian transitions, k independent chains per example.

    .. math:: \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \log r(z_{t-1}), \qquad
              \log p(x) \approx \log \frac{1}{k} \sum_j w_j

    The weights are unbiased for p(x). Step sizes, one per example and temperature, are determined in a preliminary
    run of a few chains with other noise, and then fixed: adapting them to the same chains would bias the weights.

    References:
        Annealed Importance Sampling (Neal, 2001).
        On the Quantitative Analysis of Decoder-Based Generative Models (Wu, Burda, Salakhutdinov and Grosse, 2017).

    Args:
        model: The model; its latent must be a real vector, and its densities differentiable.
        x: Examples, ``(n, *shape)``.
        k: Chains per example.
        c: Conditions of shape ``(n,)``.
        annealing: Settings of the chains; default: :class:`Annealing`.

    Returns:
        ``log_marginal``, ``effective_samples`` and, for k of at least 25, ``pareto_k``, as
        :func:`~tightbound.evaluation.per_example`; ``acceptance``, the mean acceptance rate; each ``(n,)``.

    Raises:
        UsageError: If k is less than 1.
        ObjectiveError: If prior or start have no exact density, or bounded support.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> model = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> found = annealed(model, torch.zeros(2, 1, 8, 8), k=3, annealing=Annealing(steps=5, leapfrog=2))
        >>> found["log_marginal"].shape
        torch.Size([2])
    """
    return chunks(partial(_chains, k=k, annealing=annealing or Annealing()), model, x, k, c)


def _chains(marginal: Marginal, x: Tensor, at_once: int, k: int, annealing: Annealing) -> dict[str, Tensor]:
    """The results of k chains per example, computed in batches."""
    path, betas = _Path(marginal, x, annealing), temperatures(annealing).tolist()
    sizes = _step_sizes(path, betas, min(PILOTS, at_once))
    parts = [_forward(path, path.sample(chains), betas, sizes) for chains in _parts(k, at_once)]
    acceptance = torch.stack([accepted * len(log_weights) / k for log_weights, accepted in parts]).sum(0)
    weights = weigh(torch.cat([log_weights for log_weights, _ in parts]))
    return {name: value.to(x.dtype) for name, value in (weights | {"acceptance": acceptance}).items()}


def bidirectional(
    model: LatentVariableModel,
    n: int = 100,
    k: int = 16,
    *,
    annealing: Annealing | None = None,
    c: Given | None = None,
    seed: int = 0,
) -> Bidirectional:
    r"""Brackets log p(x) of simulated data, whose latent is an exact sample of the posterior.

    .. math:: \mathbb{E} \log \frac{1}{k} \sum_j w_j \le \log p(x) \le
              \mathbb{E} \left[ -\log \frac{1}{k} \sum_j \frac{1}{w'_j} \right]

    with w from chains from the start to the posterior, and w' from reverse chains that start at that sample. Both
    bounds meet if annealing is good enough.

    References:
        Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo (Grosse, Ghahramani and Adams, 2015).

    Args:
        model: The model.
        n: Number of simulated examples.
        k: Chains per example and direction.
        annealing: As in :func:`annealed`.
        c: Conditions of shape ``(n,)``.
        seed: Seed of all noise.

    Raises:
        UsageError: If n or k are less than 1.
        ObjectiveError: As :func:`annealed`.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import LinearVAE
        >>> model = LinearVAE(latent_dim=1).build(DataSpec("floats", shape=(3,), levels=None))
        >>> found = bidirectional(model, 20, k=4, annealing=Annealing(steps=50, leapfrog=3))
        >>> found.lower.value < found.upper.value + 0.1
        True
    """
    if n < 1:
        raise UsageError("At least one example is needed.", got=f"n = {n}", expected="n >= 1")
    annealing = annealing or Annealing()
    with torch.no_grad(), fixed_noise(seed), evaluating(model):
        px = model(c)
        z = prior_samples(px, 1, n)[0]
        x = px.likelihood(z).sample()
        found = _both(model, x, z, k, c, annealing)
    lower, upper = found["lower"], found["upper"]
    return Bidirectional(Estimate.of(lower), Estimate.of(upper), Estimate.of(upper - lower), lower, upper, x, k)


def _both(
    model: LatentVariableModel, x: Tensor, z: Tensor, k: int, c: Given | None, annealing: Annealing
) -> dict[str, Tensor]:
    betas, rest = temperatures(annealing).tolist(), iter([z])

    def found(marginal: Marginal, x: Tensor, at_once: int) -> dict[str, Tensor]:
        nonlocal rest
        remaining = next(rest)
        here, rest = remaining[: len(x)], iter([remaining[len(x) :]])
        path = _Path(marginal, x, annealing)
        sizes = _step_sizes(path, betas, min(PILOTS, at_once))
        up = [_forward(path, path.sample(m), betas, sizes)[0] for m in _parts(k, at_once)]
        down = [_backward(path, path.at(here.expand(m, *here.shape)), betas, sizes) for m in _parts(k, at_once)]
        return {"lower": _log_mean(torch.cat(up)), "upper": -_log_mean(-torch.cat(down))}

    return chunks(found, model, x, k, c)


def _log_mean(log_weights: Tensor) -> Tensor:
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def _parts(k: int, at_once: int) -> Iterator[int]:
    for done in range(0, k, at_once):
        yield min(at_once, k - done)


# -- paths and transitions ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    """State of the chains: z, log p_0(z) and log r(z), ``(chains, n)``, and the gradients of both with respect to z."""

    z: Tensor
    log_start: Tensor
    log_ratio: Tensor
    start_slope: Tensor
    ratio_slope: Tensor

    def log_density(self, beta: float) -> Tensor:
        return self.log_start + beta * self.log_ratio

    def slope(self, beta: float) -> Tensor:
        return self.start_slope + beta * self.ratio_slope

    def where(self, chosen: Tensor, other: _Point) -> _Point:
        """These chains where chosen, else the others."""
        wide = _as_wide_as(self.z, chosen)
        return _Point(
            torch.where(wide, self.z, other.z),
            torch.where(chosen, self.log_start, other.log_start),
            torch.where(chosen, self.log_ratio, other.log_ratio),
            torch.where(wide, self.start_slope, other.start_slope),
            torch.where(wide, self.ratio_slope, other.ratio_slope),
        )


class _Path:
    """The distributions from the start to the posterior, for a few examples."""

    def __init__(self, marginal: Marginal, x: Tensor, annealing: Annealing) -> None:
        self.marginal, self.x, self.leapfrog = marginal, x, annealing.leapfrog
        self.prior: Distribution = marginal.prior()
        self.start = marginal.posterior(x) if annealing.start == "posterior" else None
        for part in (self.prior, *(() if self.start is None else (self.start,))):
            _check_continuous(part)

    def sample(self, chains: int) -> _Point:
        z = prior_samples(self.marginal, chains, len(self.x)) if self.start is None else self.start.sample((chains,))
        return self.at(z)

    def at(self, z: Tensor) -> _Point:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_prior = self.prior.log_prob(z)
            log_start = log_prior if self.start is None else self.start.log_prob(z)
            start_slope = _slope(log_start, z)
            log_ratio = self.marginal.likelihood(z).log_prob(self.x)
            if self.start is not None:
                log_ratio = log_ratio + self.prior.log_prob(z) - self.start.log_prob(z)
            ratio_slope = _slope(log_ratio, z)
        return _Point(z.detach(), log_start.detach(), log_ratio.detach(), start_slope, ratio_slope)


def _slope(log_density: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.grad(log_density.sum(), z)[0]


def _check_continuous(distribution: Distribution) -> None:
    if has_density(distribution) and is_unbounded(distribution):
        return
    lacks = "unbounded support" if has_density(distribution) else "an exact density"
    raise ObjectiveError(
        f"Annealed importance sampling needs a prior and a start with {lacks}.",
        got=type(distribution).__name__,
        expected="an exact, differentiable density over all real vectors",
        remedy="Use method='importance', or method='prior', which only samples the prior.",
    )


def _forward(path: _Path, point: _Point, betas: list[float], sizes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Log-weights of chains to the posterior, ``(chains, n)``, and their acceptance rate."""
    total, accepted = torch.zeros_like(point.log_ratio, dtype=torch.float64), torch.zeros(())
    for before, beta, size in zip(betas, betas[1:], sizes, strict=False):
        total += (beta - before) * point.log_ratio.double()
        point, acceptance = _transition(path, point, beta, size)
        accepted = accepted.to(acceptance) + acceptance.mean(0) / len(sizes)
    return total, accepted


def _backward(path: _Path, point: _Point, betas: list[float], sizes: list[Tensor]) -> Tensor:
    """Log-weights of reverse chains from samples of the posterior: every transition is reversible."""
    total = torch.zeros_like(point.log_ratio, dtype=torch.float64)
    for before, beta, size in reversed(list(zip(betas, betas[1:], sizes, strict=False))):
        point, _ = _transition(path, point, beta, size)
        total += (beta - before) * point.log_ratio.double()
    return total


def _step_sizes(path: _Path, betas: list[float], chains: int) -> list[Tensor]:
    """Step sizes for each temperature, ``(n,)``, from a preliminary run."""
    point = path.sample(chains)
    dimensions = point.z[0, 0].numel()
    log_size = torch.full_like(point.log_ratio[0], math.log(0.5) - 0.25 * math.log(dimensions))
    sizes: list[Tensor] = []
    for beta in betas[1:]:
        point, acceptance = _transition(path, point, beta, log_size.exp())
        log_size = log_size + ADAPTATION * (acceptance.mean(0) - ACCEPTANCE)
        sizes.append(log_size.exp())
    return sizes


def _transition(path: _Path, point: _Point, beta: float, size: Tensor) -> tuple[_Point, Tensor]:
    """One Hamiltonian transition, which leaves the distribution invariant, and its acceptance probability."""
    momentum = torch.randn_like(point.z)
    proposal, end = _leapfrog(path, point, momentum, beta, _as_wide_as(point.z, size.expand_as(point.log_ratio)))
    gain = proposal.log_density(beta) - point.log_density(beta) + _kinetic(momentum) - _kinetic(end)
    acceptance = gain.clamp(max=0).exp().nan_to_num(0.0)  # diverged
    return proposal.where(torch.rand_like(acceptance) < acceptance, point), acceptance


def _leapfrog(path: _Path, point: _Point, momentum: Tensor, beta: float, size: Tensor) -> tuple[_Point, Tensor]:
    momentum = momentum + 0.5 * size * point.slope(beta)
    for i in range(path.leapfrog):
        point = path.at(point.z + size * momentum)
        last = i == path.leapfrog - 1
        momentum = momentum + (0.5 if last else 1.0) * size * point.slope(beta)
    return point, momentum


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * momentum.square().flatten(2).sum(-1)


def _as_wide_as(z: Tensor, values: Tensor) -> Tensor:
    """Values ``(chains, n)`` with the number of dimensions of z."""
    return values.view(*values.shape, *[1] * (z.dim() - values.dim()))
