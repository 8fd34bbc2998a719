r"""Evaluates a model on a split.

Convention: values are nats per example, or bits per dimension, :math:`\text{nats} / (D \ln 2)`; the ELBO is a lower
bound on :math:`\log p(x)` and ``nll`` an estimate of :math:`-\log p(x)`, both of the data itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..conditions import Given
from ..data import Split
from ..diffusion import Diffusion
from ..distributions import UniformCodes
from ..errors import UsageError
from ..likelihoods import Measure
from ..models import LatentVariableModel, Model, Terms
from ..posteriors import Codes
from .collapse.decoder_noise import reconstruction_errors
from .collapse.relaxation import SAMPLES as RELAXED
from .collapse.relaxation import gap_of, relaxed_and_hard, relaxed_posterior
from .diffusion import evaluate_diffusion
from .direct import evaluate_directly, require_direct
from .estimate import Estimate
from .how import BUDGET, How
from .latents.codes import CodeCounter
from .latents.positions import activity
from .log_likelihood.adaptive import climb, first_rung
from .log_likelihood.annealed import Annealing
from .log_likelihood.bounded import DRAWS, MOST_DRAWS, by_bound, has_only_bound
from .log_likelihood.climbed import CHAINS, SAMPLES, estimate_of
from .log_likelihood.importance import per_example, prior_samples
from .log_likelihood.methods import LikelihoodEstimate, Method, annealing_gap, refusal, sampler
from .passes import Finding, Precision, certain, require_split, terms_of_the_first, together
from .results import Evaluation

__all__ = ["How", "evaluate", "evaluate_examples", "untrained"]

_OF_THE_BOUND = ("reconstruction", "kl/", "posterior_mean", "outside")
PREDICTIONS = 10
"""Samples of the prior for each example of a conditional model's prediction."""
BOUND = 100
"""Samples per example for the ELBO if the likelihood uses another method."""


def evaluate(
    model: Model,
    split: Split,
    k: int | None = None,
    *,
    method: Method | Literal["auto", "ode"] = "auto",
    annealing: Annealing | None = None,
    budget: float = BUDGET,
    precision: Precision = "float32",
    compile: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Evaluates a model on a split, with the same noise for the same seed.

    Without k and method the likelihood starts with samples of the posterior. Examples whose weights show that these are
    not enough continue with posteriors optimised per example, more samples, and annealing. Each step is a fixed amount
    of work; the budget limits how many are run.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        k: Fixed number of samples per example for the likelihood; one for a deterministic posterior. Default: adaptive;
            with a given method 1000, or 16 annealed chains.
        method: How the likelihood is estimated, as for :func:`~tightbound.evaluation.likelihood`; ``"auto"`` adapts the
            proposals, or with a given k uses that many samples of the posterior. Of diffusion models "ode" gives the
            likelihood of the flow beside the bound.
        annealing: Temperatures and trajectories of annealing.
        budget: Seconds after which ``"auto"`` starts no further step; the check of annealing on simulated data is
            extra.
        precision: Precision of the networks, ``"float32"`` or ``"bf16"``; densities are at least float32.
        compile: Whether to compile log p(x | z) after the decoder: worth it for many samples.
        seed: Seed of all noise: binarisation, dequantisation, posterior samples.

    Returns:
        Every number with its standard error over the examples.

    Raises:
        UsageError: If the split is empty, k less than 1, the budget negative, or the method or precision is unknown.
        CheckpointError: If a weight of the model is not finite.
        ObjectiveError: If a value is not finite, or samples leave the prior's support.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> evaluate(model, data.test.subset(10), k=5).n
        10
    """
    require_split(split, model)
    return evaluate_examples(model, split, How(k, method, annealing, budget, precision, compile, seed))[0]


def evaluate_examples(model: Model, split: Split, how: How) -> tuple[Evaluation, dict[str, Tensor]]:
    """The result of :func:`evaluate`, with ``elbo`` and ``squared_error`` of every example where defined.

    Also ``codes``, the posterior means, ``(n, dimensions)``.
    """
    if isinstance(model, Diffusion):
        return evaluate_diffusion(model, split, how.k, method=how.method, precision=how.precision, seed=how.seed)
    if not isinstance(model, LatentVariableModel):
        require_direct(how.method)
        return evaluate_directly(model, split, precision=how.precision, seed=how.seed)
    if how.method == "ode":
        raise UsageError(
            "Only a diffusion model has a flow without noise.",
            got="method ode",
            expected="auto, importance, prior or annealed",
            remedy="Leave --method out.",
        )
    pinned: Method = "importance" if how.method == "auto" else how.method
    sampler(pinned, 1 if how.k is None else how.k, how.annealing)  # refuses an unknown name before all else
    terms = terms_of_the_first(model, split)
    task = _Task(model, split, terms, model.measure(split.spec), how)
    samples = task.samples(pinned)
    reason, begun = refusal(terms, task.measure, pinned), time.monotonic()
    climbs = how.method == "auto" and how.k is None and reason is None and terms.exact and not task.sure
    likelihood = first_rung(terms, how.precision, how.compile) if climbs else task.sampled(pinned, samples, reason)
    others = [extra for make in (_chain, _codes, _relaxation, _prediction) if (extra := make(task)) is not None]
    values, *found = together(model, split, [likelihood, *(extra.finding for extra in others)], seed=how.seed)
    measured = _climbed(task, values, begun) if climbs else _judged(task, values, pinned, samples, reason)
    errors, noise = reconstruction_errors(model, split, seed=how.seed)
    fields: Fields = _fields(task, measured) | {"notes": tuple(_notes(task, measured.estimate, reason))}
    if pinned == "importance" and has_only_bound(terms):
        fields |= by_bound(_elbo(values), task.measure, split.spec, samples)
    fields["notes"] += tuple(_of_an_untrained_posterior(model, measured))
    fields |= {"decoder_noise": noise, "squared_error": Estimate.of(errors)}
    for extra, own in zip(others, found, strict=True):
        fields |= extra.tell(own, values, fields)
    return Evaluation(**fields), _examples(task, values, errors)


@dataclass(frozen=True)
class _Task:
    """The model, split and options of an evaluation."""

    model: LatentVariableModel
    split: Split
    terms: Terms
    measure: Measure
    how: How

    @property
    def sure(self) -> bool:
        """Whether all samples of a posterior are the same."""
        return certain(self.terms)

    def samples(self, method: Method) -> int:
        """Samples of each example: as many as asked for, one where all are the same, few where they are averaged."""
        if method == "importance" and has_only_bound(self.terms):
            return DRAWS if self.how.k is None else min(self.how.k, MOST_DRAWS)
        k = (CHAINS if method == "annealed" else 1000) if self.how.k is None else self.how.k
        one = method == "importance" and (self.sure or not self.terms.bounded)
        return min(k, 1) if one else k

    def gap(self, k: int) -> Estimate:
        return annealing_gap(self.model, self.split, k, self.how.annealing, self.how.seed)

    def sampled(self, method: Method, k: int, reason: tuple[str, str] | None) -> Finding:
        """The likelihood by one method with k samples, unless a reason is given, and the bound."""
        find, bounded = sampler(method, k, self.how.annealing), self.terms.bounded
        if method == "importance":
            return Finding(k, find, self.how.precision, self.how.compile)

        def both(model: LatentVariableModel, x: Tensor, c: Given | None) -> dict[str, Tensor]:
            found = per_example(model, x, BOUND if bounded else 1, c)
            bound = {name: value for name, value in found.items() if name.startswith(_OF_THE_BOUND)}
            return bound | (find(model, x, c) if reason is None else {})

        return Finding(k, both, self.how.precision, self.how.compile)


@dataclass(frozen=True)
class _Measured:
    """The values of every example, and the resulting likelihood."""

    values: dict[str, Tensor]
    estimate: LikelihoodEstimate | None
    method: str
    k: int
    proposals: dict[str, int] | None = None
    gap: Estimate | None = None


def _climbed(task: _Task, values: dict[str, Tensor], begun: float) -> _Measured:
    """The likelihood with adaptive proposals."""
    how = task.how
    found = climb(
        task.model,
        task.split,
        task.terms,
        values,
        begun=begun,
        annealing=how.annealing,
        budget=how.budget,
        seed=how.seed,
        precision=how.precision,
    )
    gap = task.gap(CHAINS) if "annealed" in found.proposals else None
    estimate = estimate_of(found, task.measure, task.split, gap, how.budget)
    return _Measured(found.values, estimate, "auto", SAMPLES, found.proposals, gap)


def _judged(
    task: _Task, values: dict[str, Tensor], method: Method, k: int, reason: tuple[str, str] | None
) -> _Measured:
    """The likelihood from the values of one method."""
    if reason is not None:
        return _Measured(values, None, method, k)
    gap = task.gap(k) if method == "annealed" else None
    annealable = refusal(task.terms, task.measure, "annealed") is None
    of = (values, task.measure, task.split, k, method, task.sure)
    estimate = LikelihoodEstimate.of(*of, gap=gap, annealable=annealable, one_code=task.sure)
    return _Measured(values, estimate, method, k, gap=gap)


def _fields(task: _Task, measured: _Measured) -> dict[str, Any]:
    """The fields common to all models."""
    values, measure, estimate, terms = measured.values, task.measure, measured.estimate, task.terms
    kls, reconstruction = _kls(values), values["reconstruction"]
    kl = torch.cat(list(kls.values()), dim=1).sum(1) if kls else None
    return {
        "elbo": None if kl is None else Estimate.of(reconstruction - kl, offset=-measure.offset),
        "reconstruction": Estimate.of(reconstruction, offset=-measure.offset),
        "kl": None if kl is None else Estimate.of(kl),
        **{name: estimate and getattr(estimate, name) for name in _OF_THE_LIKELIHOOD},
        "method": measured.method,
        "k": measured.k,
        "n": len(task.split),
        "split": task.split.name,
        **activity(task.model.space, values["posterior_mean"]),
        "kl_per_dimension": {name: tuple(kl.double().mean(0).tolist()) for name, kl in kls.items() if kl.numel()}
        or None,
        "kl_is_analytic": all(entry.analytic for entry in terms.entries) if terms.bounded else None,
        "measure": "none" if not kls and estimate is None else measure.kind,
        "proposals": measured.proposals,
        "bidirectional_gap": measured.gap,
        "nll_per_example": estimate and measure.offset - estimate.log_marginal.double().cpu(),
    }


_OF_THE_LIKELIHOOD = ("nll", "bits_per_dim", "effective_sample_size", "pareto_k", "unreliable", "trusted")


def _kls(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The KL of each latent by its name, ``(n, dimensions)``."""
    return {name.removeprefix("kl/"): value for name, value in values.items() if name.startswith("kl/")}


def _examples(task: _Task, values: dict[str, Tensor], errors: Tensor) -> dict[str, Tensor]:
    """The values known for each example."""
    found = {"codes": values["posterior_mean"], "squared_error": errors}
    return found | ({"elbo": _elbo(values) - task.measure.offset} if _kls(values) else {})


def _elbo(values: dict[str, Tensor]) -> Tensor:
    """The ELBO of each example as model input, ``(n,)`` nats, float64."""
    kl = torch.stack([kl.double().sum(1) for kl in _kls(values).values()]).sum(0)
    return values["reconstruction"].double() - kl


# -- what only some models have -------------------------------------------------------------------------------------

Fields = dict[str, Any]


@dataclass(frozen=True)
class _Extra:
    """Additional numbers for some models.

    Args:
        finding: What the pass over the split computes.
        tell: Makes the fields from its values, those of the likelihood, and the fields so far.
    """

    finding: Finding
    tell: Callable[[dict[str, Tensor], dict[str, Tensor], Fields], Fields]


def _chain(task: _Task) -> _Extra | None:
    """The active units of every layer of a chain: those above the first need encoders of their own."""
    space = task.model.space
    if len(space.layers) == 1:
        return None

    def found(model: LatentVariableModel, x: Tensor, c: Given | None) -> dict[str, Tensor]:
        return {name: z.flatten(1) for name, z in model.space.latents(x, c).items() if name != space.names[0]}

    def tell(own: dict[str, Tensor], values: dict[str, Tensor], fields: Fields) -> Fields:
        return activity(space, values["posterior_mean"], own)

    return _Extra(Finding(1, found), tell)


def _codes(task: _Task) -> _Extra | None:
    """Codebook usage, for discrete latents."""
    if (space := task.model.codes) is None:
        return None
    counter = CodeCounter(task.model)

    def tell(own: dict[str, Tensor], values: dict[str, Tensor], fields: Fields) -> Fields:
        usage = counter.usage(task.split)
        used = {"codebook_usage": usage.codebook_usage, "perplexity": usage.perplexity}
        notes = (*fields["notes"], *usage.notes)
        if isinstance(task.terms.latents[0].prior, UniformCodes) or not task.sure or fields["kl"] is None:
            return used | {"notes": notes}
        return used | _with_uniform_codes(task, space, values, fields | {"notes": notes})

    return _Extra(Finding(1, counter.count), tell)


def _with_uniform_codes(task: _Task, space: Codes, values: dict[str, Tensor], fields: Fields) -> Fields:
    """The likelihood with the uniform prior over codes."""
    uniform = sum(math.log(k) * math.prod(grid) for k, grid in zip(space.levels, space.grids, strict=True))
    most = "at most " if has_only_bound(task.terms) else ""
    notes = (*fields["notes"], f"the codes take {most}{fields['kl'].value:.2f} nats; {uniform:.2f} with uniform codes")
    if fields["bits_per_dim"] is None:
        return {"notes": notes}
    bits, total = 1 / (task.split.spec.dimensions * math.log(2)), values["reconstruction"].double() - uniform
    return {"notes": notes, "uniform_bits_per_dim": Estimate.of(total, -bits, task.measure.offset * bits)}


def _relaxation(task: _Task) -> _Extra | None:
    """The relaxation gap, for posteriors relaxed in training."""
    if task.sure or relaxed_posterior(task.model) is None:
        return None

    def tell(own: dict[str, Tensor], values: dict[str, Tensor], fields: Fields) -> Fields:
        return {"relaxation_gap": gap_of(own, task.model, task.split).gap}

    return _Extra(Finding(RELAXED, relaxed_and_hard), tell)


def _prediction(task: _Task) -> _Extra | None:
    """The likelihood of a conditional model's predictions."""
    if not task.model.decodes_conditions or not task.terms.bounded:
        return None

    def tell(own: dict[str, Tensor], values: dict[str, Tensor], fields: Fields) -> Fields:
        return {"prediction": Estimate.of(own["prediction"], offset=-task.measure.offset)}

    return _Extra(Finding(PREDICTIONS, _predicted), tell)


def _predicted(model: LatentVariableModel, x: Tensor, c: Given | None) -> dict[str, Tensor]:
    px = model(c)
    return {"prediction": px.likelihood(prior_samples(px, PREDICTIONS, len(x))).log_prob(x).mean(0)}


# -- what a reader must know ----------------------------------------------------------------------------------------


def _notes(task: _Task, estimate: LikelihoodEstimate | None, reason: tuple[str, str] | None) -> Iterator[str]:
    """What the likelihood is, or why there is none."""
    if estimate is not None:
        yield from estimate.notes
        return
    if not task.terms.bounded:
        yield "the model has no prior or a deterministic posterior: no ELBO, no likelihood"
        return
    yield task.measure.note
    if reason is not None and reason[0] != task.measure.note:
        yield f"no nll: {reason[0]}. {reason[1]}"


def untrained(model: Model) -> bool:
    """Whether the posterior is not trained."""
    return model.recipe is not None and model.recipe.training_objective.untrained != ""


def _of_an_untrained_posterior(model: LatentVariableModel, measured: _Measured) -> Iterator[str]:
    """Notes on a model trained only with latents of its prior."""
    if model.recipe is None or not (why := model.recipe.training_objective.untrained):
        return
    yield f"the posterior was not trained ({why}), so elbo, reconstruction and kl say little about this model"
    better = measured.method == "auto" and measured.estimate is not None and measured.estimate.trusted
    if measured.method != "prior" and not better:
        yield f"method {measured.method} draws from that posterior: method prior suits this model"
