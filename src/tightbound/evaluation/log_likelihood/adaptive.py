r"""A likelihood that goes on to better proposals for the examples that need them.

Convention: every rung is a fixed amount of work for an example, and draws twice: k samples that judge its proposal by
their effective number and the shape :math:`\hat k` of their tail, and k others for the estimate. Were an example judged
by the samples that its estimate is made of alone, those without the rare large weight would be too low and look good.
An example whose estimate shows such a weight after all goes on to the next rung too.
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
"""Tails that judge must be lighter than this, as their shape is known to about 0.15 only."""
LR, WIDER = 0.1, 1.2
"""Of the optimisation, in units of the encoder's posterior; and the factor on the best standard deviations."""
SHARES = (0.85, 0.1, 0.05)
"""Of the optimised posterior, the encoder's and the prior in a proposal: the last two find what the first misses."""
SMALL, HALF = 4, (0.5, 0.1, 0.4)
"""In so few dimensions samples of the prior find a mode that q lacks, which no weights of q's samples can show."""
EQUAL = 1 - 1e-6
"""Share of the samples that count where q is exact, whose weights are all the same."""
MORE = 8
"""How many times as many samples where the optimised posterior is not yet enough."""
NEGLIGIBLE = 0.02
"""Annealing is left out for a smaller share of the examples."""
GRADIENT = 3
"""Decoder passes that one with a gradient is worth."""
NUMBERS = 1 << 20
"""Numbers of the noise of each rung."""


@dataclass(frozen=True)
class Rung:
    """A way to estimate log p(x) of a few examples.

    Args:
        name: Where the samples come from.
        find: What it finds of them; ``sound`` is whether the samples that judge speak for it.
        rows: Decoder passes for each example, one with a gradient counted three times.
        chunk: Examples at once.
        least: Share of the examples below which it is not worth its time.
    """

    name: str
    find: Found
    rows: int
    chunk: int = 100
    least: float = 0.0


def first_rung(terms: Terms, precision: Precision = "float32", compile: bool = False) -> Finding:
    """Samples of the encoder's posterior for all examples: what :func:`climb` starts from.

    Args:
        terms: Those of any example.
        precision: Precision of the networks.
        compile: Whether the density behind the decoder is compiled.
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
    """Climbs, rung by rung, with the examples that need more than samples of the encoder's posterior.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        terms: Those of any example, which tell what rungs there are.
        values: What :func:`first_rung` found of every example.
        begun: When it began, in seconds of ``time.monotonic()``.
        annealing: Of the last rung.
        budget: Seconds; the first rung is not ended by it, and no part of a rung begins that would not fit in.
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
    """Whether there is time for some more examples, by what the last ones took."""

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
    """As many of the examples that need a rung as time allows, in the order given."""
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
    """What can be climbed: posteriors are optimised, and annealed, over vectors of real numbers alone."""
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
    return _over_vectors(terms) and terms.latents[0].posterior.event_shape.numel() <= SMALL


def _over_vectors(terms: Terms) -> bool:
    prior = terms.latents[0].prior
    if len(terms.latents) > 1 or prior is None or isinstance(prior, CodeDistribution):
        return False
    return has_density(prior) and is_unbounded(prior) and len(prior.event_shape) == 1


def _first(model: LatentVariableModel, x: Tensor, c: Given | None, small: bool = False) -> dict[str, Tensor]:
    """Samples of the posterior that judge; and others that estimate, where they speak for it."""
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
    """Importance samples of the best Gaussian of each example, widened, with a share of what it may have missed."""

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
    """Samples that judge, and others that estimate."""
    judged, found = draw(), draw()
    return found | {"sound": _judged(judged) & enough(found["effective_samples"], found["pareto_k"])}


def _judged(found: dict[str, Tensor]) -> Tensor:
    return enough(found["effective_samples"], found["pareto_k"], STRICT)
