"""Plans quick measurements: what a report can measure in a few seconds without a stored evaluation or diagnosis.

Convention: the work is counted in rows, one sample of one example through the model and back to log p(x | z). A model's
pace is measured on a handful of examples, and the counts that follow are round, so that they are the same on a machine
that is a little busier.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from ..data import Split
from ..distributions import lower_bound
from ..evaluation import Diagnosis, Evaluation, diagnose, evaluate
from ..evaluation.passes import certain, terms_of_the_first
from ..models import Marginal
from ..models.latent import LatentVariableModel
from ..options.training import TrainingOptions
from ..runtime.modes import evaluating
from ..runtime.randomness import fixed_noise

__all__ = [
    "Pace",
    "Plan",
    "measure_pace",
    "plan_diagnosis",
    "plan_evaluation",
    "quick_diagnosis",
    "quick_evaluation",
    "rounded",
]

AUTO, BOUND = 4000, 100
"""Rows of an example whose likelihood takes what it needs, and of one that has only a bound."""
FEWEST = 20
"""Examples whose mean says something: for fewer, fewer samples of each are taken."""
STEPS, DRAWS, GRADIENT = 500, 8, 6
"""Of optimising an example's posterior: steps, samples in each, and rows that a gradient and its step are worth."""
SAMPLES = 200
"""Importance samples of each example of a diagnosis."""
TRIALS = 3
"""Calls of each kind that a pace is measured by."""
DIAGNOSED = 5
"""Rows of an example of a diagnosis, but for its optimised posterior."""
MOST, MOST_OPTIMISED, LEAST_OPTIMISED = 1000, 100, 10
"""Examples of a diagnosis, and of them those whose posterior is optimised."""


@dataclass(frozen=True)
class Pace:
    """The speed of a model on this machine.

    Args:
        call: Seconds of a call for one example and one sample.
        row: Seconds more of each further sample of an example.
    """

    call: float
    row: float


@dataclass(frozen=True)
class Plan:
    """A plan for a time limit.

    Args:
        examples: Number of examples.
        seconds: About how long it takes, at most.
        k: Samples of each; None: what each needs.
        optimised: Examples whose posterior is optimised.
    """

    examples: int
    seconds: float
    k: int | None = None
    optimised: int = 0


def rounded(count: float) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, ... that is at most a count; 0 below 1.

    Example:
        >>> [rounded(count) for count in (0.5, 4.9, 33, 360)]
        [0, 2, 20, 200]
    """
    if count < 1:
        return 0
    power = 10 ** math.floor(math.log10(count))
    return max(power * step for step in (1, 2, 5) if power * step <= count)


def measure_pace(model: LatentVariableModel, split: Split, rows: int = 160) -> Pace:
    """The pace of a model, from small calls and calls of that many rows: the fastest, as others may use the machine."""
    few = split.evenly_spaced(8)
    k = 1 if model.space is None else max(2, rows // len(few))
    with torch.no_grad(), fixed_noise(), evaluating(model):
        _seconds(model, few, 1)  # the first call of all is slow
        small, large = (
            min(_seconds(model, some, samples) for _ in range(TRIALS))
            for some, samples in ((few.evenly_spaced(1), 1), (few, k))
        )
    return Pace(small, max(large - small, 1e-9) / (k * len(few)))


def _seconds(model: LatentVariableModel, split: Split, k: int) -> float:
    start = time.monotonic()
    x, c = model.see(split.batch(torch.arange(len(split)), model.device))
    px = model(c)
    (px.terms(x, k).log_likelihood if isinstance(px, Marginal) else lower_bound(px, x)).sum().item()
    return time.monotonic() - start


def plan_evaluation(model: LatentVariableModel, split: Split, k: int | None, seconds: float, pace: Pace) -> Plan:
    """Plans an evaluation: number of examples and samples.

    Args:
        model: The model.
        split: The examples that there are.
        k: Samples of each that were asked for; None: what each needs.
        seconds: The time that there is.
        pace: The model's.
    """
    rows = int(seconds / pace.row)
    if model.space is None:
        return _in_time(split, rows, 1, None, pace)
    terms = terms_of_the_first(model, split)
    if not terms.bounded or certain(terms):
        return _in_time(split, rows, 1, k, pace)
    if k is not None or not terms.exact:
        return _in_time(split, rows, k or BOUND, k, pace)
    few = min(FEWEST, len(split))
    if rows / AUTO < few:
        return Plan(few, seconds, max(1, rows // few))
    return Plan(_within(rows / AUTO, len(split)), seconds)


def _in_time(split: Split, rows: int, each: int, k: int | None, pace: Pace) -> Plan:
    count = _within(rows / each, len(split))
    return Plan(count, count * each * pace.row, k)


def _within(count: float, there: int) -> int:
    """All examples, or a round number of them, at least two."""
    return there if count >= there else min(there, max(2, rounded(count)))


def plan_diagnosis(model: LatentVariableModel, split: Split, seconds: float, pace: Pace) -> Plan | None:
    """Numbers of examples and of optimised posteriors that a diagnosis has time for; None if too few.

    Args:
        model: The model.
        split: The examples that there are.
        seconds: The time that there is.
        pace: The model's.
    """
    if len(split) < 2:
        return None
    terms = terms_of_the_first(model, split)
    if not terms.exact or certain(terms):  # then no posterior is optimised
        return _diagnosed(split, seconds, pace, 0.0, 0)
    if len(model.space.names) > 1:
        return _layers_diagnosed(model, split, int(seconds / pace.row), pace)
    fixed, each = GRADIENT * STEPS * pace.call, (GRADIENT * STEPS * DRAWS + 3 * SAMPLES) * pace.row
    most = min(MOST_OPTIMISED, len(split))
    optimised = min(most, rounded((seconds - fixed) / each))
    if optimised < min(LEAST_OPTIMISED, most):
        return None
    return _diagnosed(split, seconds, pace, fixed + optimised * each, optimised)


def _layers_diagnosed(model: LatentVariableModel, split: Split, rows: int, pace: Pace) -> Plan | None:
    """Of a hierarchy no posterior is optimised, but the layers of all examples are compared, each with each."""
    space, most = model.space, min(MOST_OPTIMISED, len(split))
    weighed = min(most, rounded(rows / 2 / SAMPLES))
    if weighed < min(LEAST_OPTIMISED, most):
        return None
    each, square = DIAGNOSED + len(space.names), space.most_compared**2 if space.adds_up else 0
    count = max((rows / 2 - square) / each, min(space.most_compared, (rows / 4) ** 0.5))
    examples = min(MOST, _within(max(weighed, count), len(split)))
    spent = weighed * SAMPLES + each * examples + min(square, examples**2)
    return Plan(examples, spent * pace.row, optimised=weighed)


def _diagnosed(split: Split, seconds: float, pace: Pace, spent: float, optimised: int) -> Plan:
    count = min(MOST, _within(max(optimised, (seconds - spent) / (DIAGNOSED * pace.row)), len(split)))
    return Plan(count, spent + DIAGNOSED * count * pace.row, optimised=optimised)


def quick_evaluation(model: LatentVariableModel, split: Split, plan: Plan, seed: int) -> Evaluation:
    """The planned evaluation, of evenly spaced examples."""
    return evaluate(model, split.evenly_spaced(plan.examples), plan.k, budget=plan.seconds, seed=seed)


def quick_diagnosis(
    model: LatentVariableModel, split: Split, plan: Plan, seed: int, training: TrainingOptions
) -> Diagnosis:
    """The planned diagnosis, of evenly spaced examples."""
    some, optimised = split.evenly_spaced(plan.examples), max(1, plan.optimised)
    return diagnose(model, some, gap_examples=optimised, k=SAMPLES, seed=seed, training=training)
