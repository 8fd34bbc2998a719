r"""Results of the adaptive estimate, and the likelihood computed from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data import Split
from ...likelihoods import Measure
from ..estimate import Estimate
from .methods import MOST, LikelihoodEstimate, gap_warning
from .pareto import UNRELIABLE

__all__ = ["AGREEING", "CHAINS", "ESTIMATED", "FEWEST", "SAMPLES", "Climb", "enough", "estimate_of", "mean_of"]

SAMPLES = 500
"""Importance samples per example in each of two sets: to assess and to estimate."""
ENOUGH = 25.0
"""Minimum effective samples per example: the bias of the logarithm is then about -1 / 50 nats."""
CHAINS = 16
"""Annealed chains per example."""
AGREEING = 0.25
"""Minimum effective share of the chains."""
FEWEST = 50
"""Minimum number of examples from which the mean gain of better proposals is estimated."""
ESTIMATED = ("log_marginal", "effective_samples", "pareto_k")
"""Results of a rung per example."""


@dataclass
class Climb:
    """Results so far for every example, ``(n,)``, and their sources.

    Args:
        values: Results of :func:`~tightbound.evaluation.per_example` for the encoder's posterior.
        first: Log p(x) from the encoder's posterior, nats.
        log_marginal: Log p(x) from the last rung of each example, nats.
        effective_samples: Effective samples of that rung.
        pareto_k: Tail shape of that rung; NaN if annealed.
        sound: Whether the example needs no further rung.
        rung: Number of the rung, 0 for the encoder's posterior.
        names: Names of the rungs, by number.
        ended: Whether the budget ended before all examples were sound.
    """

    values: dict[str, Tensor]
    first: Tensor
    log_marginal: Tensor
    effective_samples: Tensor
    pareto_k: Tensor
    sound: Tensor
    rung: Tensor
    names: tuple[str, ...]
    ended: bool = False

    @classmethod
    def begun(cls, values: dict[str, Tensor], names: tuple[str, ...]) -> Climb:
        """From the results of the first rung."""
        first, effective, shape = (values[name].double() for name in ESTIMATED)
        sound = values["sound"]
        return cls(
            values, first, first.clone(), effective, shape, sound, torch.zeros_like(sound, dtype=torch.int), names
        )

    def take(self, indices: Tensor, rung: int, values: dict[str, Tensor]) -> None:
        """Records the results of a rung; an estimate that is not finite keeps the previous one."""
        there = values["log_marginal"].isfinite().cpu()
        self.rung[indices], kept = rung, indices[there]
        for name in (*ESTIMATED, "sound"):
            of_all: Tensor = getattr(self, name)
            of_all[kept] = values[name].cpu()[there].to(of_all.dtype)

    @property
    def unreached(self) -> Tensor:
        """Which examples need a better proposal but were not reached."""
        return ~self.sound & (self.rung == 0)

    @property
    def told(self) -> Tensor:
        """Log p(x) per example, nats, with mean :func:`mean_of`; unreached ones get the others' mean gain."""
        gain = (self.log_marginal - self.first)[self.rung > 0]
        if not self.unreached.any() or len(gain) < FEWEST:
            return self.log_marginal
        return torch.where(self.unreached, self.first + gain.mean(), self.log_marginal)

    @property
    def proposals(self) -> dict[str, int]:
        """Number of examples estimated by each rung, and of unreached ones."""
        counts = {name: int(((self.rung == i) & ~self.unreached).sum()) for i, name in enumerate(self.names)}
        return {name: count for name, count in (counts | {"unreached": int(self.unreached.sum())}).items() if count}

    @property
    def unreliable(self) -> float:
        """Share of unreliable estimates; for unreached examples, the share among the others is used."""
        bad, drawn, left = (~self.reliable & ~self.unreached).sum(), (self.rung > 0).sum(), self.unreached.sum()
        of_the_drawn = (~self.reliable & (self.rung > 0)).sum() / drawn if drawn >= FEWEST else 1.0
        return float((bad + left * of_the_drawn) / len(self.sound))

    @property
    def reliable(self) -> Tensor:
        """Whether the samples of the estimate itself suffice."""
        by_chains = self.effective_samples >= AGREEING * CHAINS
        return torch.where(self.pareto_k.isnan(), by_chains, enough(self.effective_samples, self.pareto_k))


def mean_of(found: Climb) -> Estimate:
    r"""Mean log p(x), with an error that accounts for unreached examples.

    Of the M examples that need better proposals, a random m get them; the others are assigned the mean gain d:

    .. math:: s^2 = \frac{1}{n} \left( s_y^2 + \frac{M - m}{n} s_d^2 \right)
        + \left( \frac{M}{n} \right)^2 \left( \frac{1}{m} - \frac{1}{M} \right) s_d^2

    References:
        Sampling Techniques (Cochran, 1977), chapter 12: double sampling with difference estimation.

    Args:
        found: Results for each of n examples.
    """
    left, gain = found.unreached, (found.log_marginal - found.first)[found.rung > 0]
    if not left.any() or len(gain) < FEWEST:
        return Estimate.of(found.log_marginal)
    y = found.told
    n, m, unreached, spread = len(y), len(gain), int(left.sum()), gain.var().item()
    within = (y.var().item() + unreached / n * spread) / n
    between = ((m + unreached) / n) ** 2 * (1 / m - 1 / (m + unreached)) * spread
    return Estimate(y.mean().item(), (within + between) ** 0.5)


def estimate_of(
    found: Climb, measure: Measure, split: Split, gap: Estimate | None = None, budget: float = 120.0
) -> LikelihoodEstimate:
    """The likelihood, and whether it can be trusted.

    Args:
        found: Results for every example.
        measure: Meaning of the model's log-likelihood for this data.
        split: The data.
        gap: Gap of annealing on simulated examples, if any were annealed.
        budget: Time limit in seconds.
    """
    mean, bits = mean_of(found), 1 / ((measure.dimensions or split.spec.dimensions) * math.log(2))
    annealed_share = (found.rung == len(found.names) - 1).double().mean().item()
    doubts = (*_doubts(found), *gap_warning(gap, annealed_share))
    shapes = found.pareto_k[~found.pareto_k.isnan()]
    in_bits = Estimate(bits * (measure.offset - mean.value), mean.standard_error and bits * mean.standard_error)
    return LikelihoodEstimate(
        nll=Estimate(measure.offset - mean.value, mean.standard_error),
        bits_per_dim=in_bits if measure.comparable else None,
        offset=measure.offset,
        effective_sample_size=found.effective_samples.mean().item(),
        pareto_k=shapes.mean().item() if len(shapes) else None,
        unreliable=found.unreliable,
        trusted=not doubts,
        method="auto",
        k=SAMPLES,
        n=len(split),
        split=split.name,
        measure=measure.kind,
        notes=(measure.note, *_how(found, budget), *doubts),
        log_marginal=found.told,
    )


def _how(found: Climb, budget: float) -> Iterator[str]:
    counts = found.proposals
    if counts != {"posterior": len(found.rung)}:
        told = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())
        yield f"number of examples by proposal: {told}"
    if found.ended:
        yield f"the budget of {budget:g} seconds ended before every estimate was reliable: increase --budget"
    unreached, drawn = int(found.unreached.sum()), int((found.rung > 0).sum())
    if unreached and drawn >= FEWEST:
        yield (
            f"better proposals were used for a random {drawn:,} of {drawn + unreached:,} examples that need them; "
            "the others are assigned the mean gain, and the error accounts for that"
        )


def _doubts(found: Climb) -> Iterator[str]:
    unknown = bool(found.unreached.any()) and int((found.rung > 0).sum()) < FEWEST
    if found.unreliable > MOST or unknown:
        left = "all proposals are" if not found.ended else "the proposals within the budget are"
        yield (
            f"for {found.unreliable:.0%} of the examples {left} insufficient (Pareto k above {UNRELIABLE}, or few "
            "effective samples): the nll is an upper bound and cannot be trusted"
        )


def enough(effective: Tensor, shape: Tensor, most: float = UNRELIABLE) -> Tensor:
    """Which examples have enough effective samples and a light tail."""
    return (effective >= ENOUGH) & (shape <= most)
