r"""An adaptive estimate of log p(x), with better proposals for the examples that need them.

Convention: every rung does a fixed amount of work per example, with two sets of k samples. The first assesses the
proposal, by its effective sample size and the shape :math:`\hat k` of the tail; the second estimates. With only one
set, examples that miss a rare large weight would look good, and their estimates would be too low. An example whose
second set fails the test also moves to the next rung.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...conditions import Given
from ...data import Split
from ...distributions import CodeDistribution, has_density
from ...models.latent import LatentVariableModel, Terms
from ...runtime.modes import evaluating
from ...runtime.progress import progress
from ...runtime.randomness import epoch_order, fixed_noise
from ..passes import Finding, Found, Precision, examples, reduced
from .annealed import PILOTS, Annealing, annealed
from .climbed import AGREEING, CHAINS, ESTIMATED, SAMPLES, Climb, enough
from .importance import from_proposal, is_unbounded, per_example
from .proposals import Mixture, frozen, optimised, wide_family, widened

__all__ = ["climb", "first_rung"]

STRICT = 0.5
"""Maximum tail shape of the samples that assess a proposal; stricter, as its error is about 0.15."""
LR, WIDER = 0.1, 1.2
"""Learning rate, in units of the encoder's posterior, and factor on the optimised standard deviations."""
SHARES = (0.85, 0.1, 0.05)
"""Shares of the optimised posterior, the encoder's and the prior in a proposal; the last two add coverage."""
SMALL, HALF = 4, (0.5, 0.1, 0.4)
"""Maximum dimensions, and shares, for samples of the prior to find modes that q misses."""
EQUAL = 1 - 1e-6
"""Minimum effective share of the samples if q is exact, with equal weights."""
MORE = 8
"""Factor on the number of samples if the optimised posterior is not sufficient."""
NEGLIGIBLE = 0.02
"""Minimum share of the examples for annealing."""
GRADIENT = 3
"""Cost of a decoder pass with gradient, in passes without."""
NUMBERS = 1 << 20
"""Number of noise seeds per rung."""


@dataclass(frozen=True)
class Rung:
    """A method that estimates log p(x) of a few examples.

    Args:
        name: Name of the proposal.
        find: Computes the estimates; ``sound`` is whether an example needs no further rung.
        rows: Decoder passes per example; one with a gradient counts three times.
        chunk: Number of examples at a time.
        least: Share of the examples below which it is skipped.
    """

    name: str
    find: Found
    rows: int
    chunk: int = 100
    least: float = 0.0


def first_rung(terms: Terms, precision: Precision = "float32", compile: bool = False) -> Finding:
    """The first rung: samples of the encoder's posterior for all examples, which :func:`climb` takes.

    Args:
        terms: Terms of any example.
        precision: Precision of the networks.
        compile: Whether log p(x | z) after the decoder is compiled.
    """
    return Finding(SAMPLES, partial(_first, small=_is_small(terms)), precision, compile)


def climb(
    model: LatentVariableModel,
    split: Split,
    terms: Terms,
    values: dict[str, Tensor],
    *,
    begun: float,
    annealing: Annealing | None = None,
    budget: float = 120.0,
    seed: int = 0,
    precision: Precision = "float32",
) -> Climb:
    """Applies the other rungs in order to the examples that need more than samples of the encoder's posterior.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        terms: Terms of any example, which determine the rungs.
        values: Results of :func:`first_rung` for every example.
        begun: Start of the first rung, in seconds of ``time.monotonic()``.
        annealing: Annealing of the last rung.
        budget: Seconds; the first rung always completes, and no chunk of another starts that would exceed it.
        seed: Seed of all noise.
        precision: Precision of the networks.
    """
    pace = (time.monotonic() - begun) / (SAMPLES * (len(split) + int(values["sound"].sum())))
    rungs = _rungs(terms, annealing or Annealing())
    found, order = Climb.begun(values, ("posterior", *(rung.name for rung in rungs))), epoch_order(seed, 0, len(split))
    with evaluating(model), frozen(model), reduced(model, precision):
        for number, rung in enumerate(rungs, start=1):
            needing = order[(~found.sound & (found.rung == number - 1))[order]]
            if len(needing) > rung.least * len(split):
                _climb_one(found, model, split, rung, number, needing, _Clock(begun + budget, pace * rung.rows), seed)
    return found


class _Clock:
    """Whether there is time for more examples, judging by the last ones."""

    def __init__(self, end: float, seconds: float) -> None:
        self.end, self.seconds, self.last = end, seconds, time.monotonic()

    def allows(self, count: int) -> bool:
        self.last = time.monotonic()
        return self.last + count * self.seconds <= self.end

    def took(self, count: int) -> None:
        self.seconds = (time.monotonic() - self.last) / count


def _climb_one(
    found: Climb,
    model: LatentVariableModel,
    split: Split,
    rung: Rung,
    number: int,
    needing: Tensor,
    clock: _Clock,
    seed: int,
) -> None:
    """Applies a rung to the examples that need it, in the order given, while time allows."""
    with progress(f"{rung.name} proposals", len(needing)) as advance:
        for i, part in enumerate(needing.split(rung.chunk)):
            if not clock.allows(len(part)):
                found.ended = True
                return
            indices = part.sort().values
            x, c = examples(model, split, indices, seed)
            with fixed_noise(seed, number * NUMBERS + i):
                found.take(indices, number, rung.find(model, x, c))
            clock.took(len(part))
            advance(len(part))


# -- rungs ----------------------------------------------------------------------------------------------------------


def _rungs(terms: Terms, annealing: Annealing) -> list[Rung]:
    """The rungs after the first; only posteriors over real vectors are optimised and annealed."""
    shares = HALF if _is_small(terms) else SHARES
    if not _over_vectors(terms):
        return [Rung("more_samples", _more_samples, 2 * MORE * SAMPLES)]
    transitions = (CHAINS + PILOTS) * annealing.steps * annealing.leapfrog
    return [
        _optimised("optimised", shares, steps=100, draws=4, k=SAMPLES, chunk=100),
        _optimised("more_samples", shares, steps=300, draws=8, k=MORE * SAMPLES, chunk=25),
        Rung("annealed", partial(_annealed, annealing=annealing), GRADIENT * transitions, chunk=4, least=NEGLIGIBLE),
    ]


def _is_small(terms: Terms) -> bool:
    joint = terms.joint
    return joint is not None and _over_vectors(terms) and joint.posterior.event_shape.numel() <= SMALL


def _over_vectors(terms: Terms) -> bool:
    prior = None if terms.joint is None else terms.joint.prior
    if prior is None or isinstance(prior, CodeDistribution):
        return False
    return has_density(prior) and is_unbounded(prior) and len(prior.event_shape) == 1


def _first(model: LatentVariableModel, x: Tensor, c: Given | None, small: bool = False) -> dict[str, Tensor]:
    """Assesses the posterior with one set of samples, and if it suffices estimates with another."""
    found = per_example(model, x, SAMPLES, c)
    exact = found["effective_samples"] > EQUAL * SAMPLES
    draw = _with_prior if small else lambda model, x, c: per_example(model, x, SAMPLES, c)
    judged = draw(model, x, c) if small and not exact.all() else found
    sound = _judged(judged) & ~exact
    found |= {name: torch.where(exact, found[name], judged[name]) for name in ESTIMATED}
    if sound.any():
        again = draw(model, x[sound], None if c is None else c[sound])
        found |= {name: found[name].masked_scatter(sound, again[name]) for name in ESTIMATED}
        sound = sound & enough(found["effective_samples"], found["pareto_k"])
    return found | {"sound": sound | exact}


def _with_prior(model: LatentVariableModel, x: Tensor, c: Given | None) -> dict[str, Tensor]:
    marginal = model(c)
    parts, (_, prior) = [marginal.posterior(x), marginal.prior()], HALF[1:]
    return from_proposal(marginal, x, Mixture(parts, (1 - prior, prior)), SAMPLES)


def _more_samples(model: LatentVariableModel, x: Tensor, c: Given | None) -> dict[str, Tensor]:
    return _twice(lambda: per_example(model, x, MORE * SAMPLES, c))


def _optimised(name: str, shares: tuple[float, ...], steps: int, draws: int, k: int, chunk: int) -> Rung:
    """Importance samples of each example's optimised Gaussian, widened, mixed with q and the prior."""

    def find(model: LatentVariableModel, x: Tensor, c: Given | None) -> dict[str, Tensor]:
        marginal = model(c)
        q = marginal.posterior(x)
        family = wide_family(q)
        best = family[1](optimised(marginal, x, family, steps, LR, draws))
        with torch.no_grad():
            proposal = Mixture([widened(best, WIDER), q, marginal.prior()], shares)
        return _twice(lambda: from_proposal(marginal, x, proposal, k))

    return Rung(name, find, GRADIENT * steps * draws + 2 * k, chunk)


def _annealed(model: LatentVariableModel, x: Tensor, c: Given | None, annealing: Annealing) -> dict[str, Tensor]:
    found = annealed(model, x, CHAINS, c, annealing=annealing)
    effective = found["effective_samples"]
    return found | {"pareto_k": torch.full_like(effective, torch.nan), "sound": effective >= AGREEING * CHAINS}


def _twice(draw: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Assesses with one set of samples, and estimates with another."""
    judged, found = draw(), draw()
    return found | {"sound": _judged(judged) & enough(found["effective_samples"], found["pareto_k"])}


def _judged(found: dict[str, Tensor]) -> Tensor:
    return enough(found["effective_samples"], found["pareto_k"], STRICT)
