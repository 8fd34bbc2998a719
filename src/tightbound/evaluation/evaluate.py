r"""How good a model is, in numbers that say what they are.

Convention: values are nats per example, or bits per dimension, :math:`\text{nats} / (D \ln 2)`; the ELBO is a lower
bound on :math:`\log p(x)` and ``nll`` an estimate of :math:`-\log p(x)`, both of the data itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..autoregressive.pixels import PixelLikelihood
from ..data import Split
from ..errors import UsageError
from ..likelihoods import Measure
from ..models import LatentVariableModel, Terms
from ..priors import UniformCodePrior
from ..views.latents import reconstruction_error
from .collapse.decoder_noise import DecoderNoise, decoder_noise
from .collapse.relaxation import relaxation_gap
from .estimate import Estimate
from .latents.codes import code_usage
from .latents.positions import active_units
from .log_likelihood.adaptive import CHAINS, SAMPLES, climb, estimate_of
from .log_likelihood.annealed import Annealing
from .log_likelihood.importance import per_example, prior_samples
from .log_likelihood.methods import LikelihoodEstimate, Method, annealing_gap, is_one_code, refusal, sampler
from .passes import Found, Precision, check_split, over, terms_of_the_first
from .samples.quality import SampleQuality

__all__ = ["Evaluation", "evaluate", "untrained"]

_OF_THE_BOUND = ("reconstruction", "kl/", "posterior_mean", "outside")
PREDICTIONS = 10
"""Samples of the prior for each example of a conditional model's prediction."""
BUDGET = 120.0
"""Seconds for the likelihood."""
BOUND = 100
"""Samples of each example for the ELBO where the likelihood is estimated by other means."""


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found; a value is None where the model does not define it, and ``notes`` says why.

    Args:
        elbo: Evidence lower bound, nats: ``reconstruction`` minus ``kl``.
        reconstruction: Expected log-likelihood under the posterior, nats.
        kl: KL of posterior and prior, nats.
        nll: Estimate of the negative log-likelihood, nats; None where the model has no likelihood of this data.
        bits_per_dim: The same in bits per dimension, where the data is discrete and the model gives its probability.
        prediction: Of a conditional model, the expected log-likelihood with latents of its prior given the condition,
            nats: what it predicts with, beside ``reconstruction``, what it was trained with.
        uniform_bits_per_dim: Of a model whose prior was fitted to codes, what ``bits_per_dim`` was with uniform codes.
        codebook_usage: Share of all codes that the split is encoded to, where there are codes.
        perplexity: How many codes, equally used, would have the same entropy.
        relaxation_gap: By how much relaxed latents flatter the ELBO, nats, where training relaxes them.
        squared_error: Summed squared error of the mean of p(x | z) at the posterior's mean, in the data's units.
        sample_quality: What :func:`~tightbound.evaluation.samples.quality` found, where it was asked.
        method: How the likelihood was estimated: ``"auto"`` from each example's own proposal, else as for
            :func:`~tightbound.evaluation.likelihood`.
        k: Samples of each example; for ``"auto"`` the least.
        n: Examples.
        split: Which split they are.
        effective_sample_size: Mean over the examples, between 1 and the number of samples.
        pareto_k: Mean shape of the tails of the weights; above 0.7 they are too heavy.
        unreliable: Share of the examples of which they are; for ``"auto"``, or whose effective samples are few.
        trusted: Whether nothing speaks against ``nll``.
        active_units: Latent dimensions whose posterior mean varies by more than 0.01 (variance) over the examples, or
            positions of codes that tell more than 0.1 nats of them.
        kl_per_dimension: Mean KL of each latent dimension, nats; one entry, the whole, where it cannot be told apart.
        kl_is_analytic: Whether the KL is a closed form or a Monte Carlo estimate.
        measure: ``"mass"``, ``"bound"``, ``"density"`` or ``"none"``: what the likelihood is for this data.
        notes: What a reader must know of these numbers.
        decoder_noise: The sigma of the decoder beside the data's, where it has one.
        proposals: For ``"auto"``, how many examples needed which proposals.
        bidirectional_gap: Nats between annealing's lower and upper bounds on a few simulated examples, where it was
            used.
        nll_per_example: What ``nll`` is the mean of, nats, float64 ``(n,)``, in the order of the split.
    """

    elbo: Estimate | None
    reconstruction: Estimate
    kl: Estimate | None
    nll: Estimate | None
    bits_per_dim: Estimate | None
    prediction: Estimate | None
    uniform_bits_per_dim: Estimate | None
    codebook_usage: float | None
    perplexity: float | None
    relaxation_gap: Estimate | None
    squared_error: Estimate | None
    sample_quality: SampleQuality | None
    method: str
    k: int
    n: int
    split: str
    effective_sample_size: float | None
    pareto_k: float | None
    unreliable: float | None
    trusted: bool | None
    active_units: int
    kl_per_dimension: tuple[float, ...] | None
    kl_is_analytic: bool | None
    measure: str
    notes: tuple[str, ...]
    decoder_noise: DecoderNoise | None = None
    proposals: dict[str, int] | None = None
    bidirectional_gap: Estimate | None = None
    nll_per_example: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def headline(self) -> str:
        """The likelihood in words: with its error where that can be trusted, else as the bound that it is."""
        name = {"density": "negative log-density"}.get(self.measure, "NLL")
        if self.nll is None or self.measure == "none":
            return f"no likelihood of this data; reconstruction {self.reconstruction} nats"
        doubtful, most = self.trusted is False, self.trusted is False or self.measure == "bound"
        value = f"{self.nll.value:.2f}" if doubtful else str(self.nll)
        return f"{name} {'≤ ' if most else ''}{value} nats"

    def json(self) -> dict[str, Any]:
        """As ``tightbound evaluate --json`` prints it: everything but the single examples."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.compare}
        values: dict[str, Any] = {"headline": self.headline} | fields
        return {name: value.json() if hasattr(value, "json") else value for name, value in values.items()}


def evaluate(
    model: LatentVariableModel,
    split: Split,
    k: int | None = None,
    *,
    method: Method | Literal["auto"] = "auto",
    annealing: Annealing | None = None,
    budget: float = BUDGET,
    precision: Precision = "float32",
    compile: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Evaluates a model on a split, with the same noise for the same seed.

    Without k and method the likelihood starts with samples of the posterior and goes on, for the examples where their
    weights say that these are not enough, to posteriors optimised for each example, more samples, and annealing. Every
    one of these is a fixed amount of work; how many of them there is time for is what the budget decides.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        k: Samples of each example for the likelihood, and no more; a deterministic posterior takes one. Default: as
            many as are needed; for a method that is given 1000, or 16 annealed chains.
        method: How the likelihood is estimated, as for :func:`~tightbound.evaluation.likelihood`; ``"auto"`` goes on
            to better proposals, or with a k takes that many samples of the posterior.
        annealing: Temperatures and trajectories of annealing.
        budget: Seconds after which ``"auto"`` begins nothing new; annealing's check on simulated data, where it was
            used, comes on top.
        precision: Arithmetic of the networks, ``"float32"`` or ``"bf16"``; densities are at least float32.
        compile: Whether log p(x | z) behind the decoder is compiled: worth it for many samples.
        seed: Seed of all noise: binarisation, dequantisation, posterior samples.

    Returns:
        Every number with its standard error over the examples.

    Raises:
        UsageError: If the split is empty, k less than 1, the budget negative, or there is no such method or precision.
        CheckpointError: If a weight of the model is not a number.
        ObjectiveError: If a value is not a number, or samples leave the prior's support.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> evaluate(model, data.test.subset(10), k=5).n
        10
    """
    check_split(split, model)
    if not budget >= 0:
        raise UsageError("A budget is a number of seconds.", got=budget, expected="0 or more", remedy="Try 120.")
    pinned: Method = "importance" if method == "auto" else method
    samples = (CHAINS if pinned == "annealed" else 1000) if k is None else k
    sampler(pinned, samples, annealing)  # refuses an unknown name before anything is computed
    terms = terms_of_the_first(model, split)
    task = _Task(model, split, terms, model.measure(split.spec), annealing, precision, compile, seed)
    reason = refusal(terms, task.measure, pinned)
    if method == "auto" and k is None and reason is None and terms.exact and not task.sure:
        measured = _climbed(task, budget)
    else:
        measured = _sampled(task, pinned, samples, reason)
    notes = (*_notes(task, measured.estimate, reason), *_of_an_untrained_posterior(model, measured))
    found = _summary(task, measured, notes)
    more = _of_codes(model, split, measured.values, found, seed, task.sure) | _predictions(model, found, split, seed)
    noise = decoder_noise(model, split, seed=seed)
    return dataclasses.replace(found, squared_error=_squared_error(model, split, seed), decoder_noise=noise, **more)


@dataclass(frozen=True)
class _Task:
    """What is evaluated, and in which way."""

    model: LatentVariableModel
    split: Split
    terms: Terms
    measure: Measure
    annealing: Annealing | None
    precision: Precision
    compile: bool
    seed: int

    @property
    def sure(self) -> bool:
        """Whether all samples of a posterior are the same."""
        latents = self.terms.latents
        return all(latent.z.numel() == 0 or getattr(latent.posterior, "certain", False) for latent in latents)

    def over(self, k: int, find: Found) -> dict[str, Tensor]:
        how: dict[str, Any] = {"seed": self.seed, "precision": self.precision, "compile": self.compile}
        return over(self.model, self.split, k, find, **how)

    def gap(self, k: int) -> Estimate:
        return annealing_gap(self.model, self.split, k, self.annealing, self.seed)


@dataclass(frozen=True)
class _Measured:
    """What was found of every example, and the likelihood that follows."""

    values: dict[str, Tensor]
    estimate: LikelihoodEstimate | None
    method: str
    k: int
    proposals: dict[str, int] | None = None
    gap: Estimate | None = None


def _climbed(task: _Task, budget: float) -> _Measured:
    """The likelihood by the proposals that each example needs."""
    found = climb(
        task.model,
        task.split,
        task.terms,
        annealing=task.annealing,
        budget=budget,
        seed=task.seed,
        precision=task.precision,
        compile=task.compile,
    )
    gap = task.gap(CHAINS) if "annealed" in found.proposals else None
    estimate = estimate_of(found, task.measure, task.split, gap, budget)
    return _Measured(found.values, estimate, "auto", SAMPLES, found.proposals, gap)


def _sampled(task: _Task, method: Method, k: int, reason: tuple[str, str] | None) -> _Measured:
    """The likelihood by one method with one number of samples, where there is no reason against it."""
    bounded = task.terms.bounded
    if method == "importance":
        samples = k if bounded and not task.sure else min(k, 1)  # samples of a deterministic code are all the same
        values = task.over(samples, sampler(method, samples, task.annealing))
    else:
        samples, find = k, sampler(method, k, task.annealing)

        def both(model: LatentVariableModel, x: Tensor, c: Tensor | None) -> dict[str, Tensor]:
            found = per_example(model, x, BOUND if bounded else 1, c)
            bound = {name: value for name, value in found.items() if name.startswith(_OF_THE_BOUND)}
            return bound | (find(model, x, c) if reason is None else {})

        values = task.over(k, both)
    if reason is not None:
        return _Measured(values, None, method, samples)
    gap = task.gap(k) if method == "annealed" else None
    annealable = refusal(task.terms, task.measure, "annealed") is None
    of = (values, task.measure, task.split, samples, method, task.sure)
    estimate = LikelihoodEstimate.of(*of, gap=gap, annealable=annealable, one_code=is_one_code(task.terms))
    return _Measured(values, estimate, method, samples, gap=gap)


def _squared_error(model: LatentVariableModel, split: Split, seed: int) -> Estimate | None:
    if isinstance(model.likelihood, PixelLikelihood):  # it has no mean but draws
        return None
    return Estimate.of(reconstruction_error(model, split, seed=seed))


def _predictions(model: LatentVariableModel, found: Evaluation, split: Split, seed: int) -> dict[str, Any]:
    if model.prior is None or not model.decodes_conditions or not found.kl_per_dimension:
        return {}
    predicted = over(model, split, PREDICTIONS, _predicted, seed=seed)["prediction"]
    offset = model.measure(split.spec).offset
    return {"prediction": Estimate.of(predicted, offset=-offset)}


def _of_codes(
    model: LatentVariableModel, split: Split, values: dict[str, Tensor], found: Evaluation, seed: int, sure: bool
) -> dict[str, Any]:
    """What is only known of discrete latents."""
    space: Any = model.posterior
    if not hasattr(space, "codes_of"):
        return {}
    usage = code_usage(model, split, seed=seed)
    out: dict[str, Any] = {"codebook_usage": usage.codebook_usage, "perplexity": usage.perplexity}
    out["active_units"], _ = active_units(space, values["posterior_mean"])
    out["notes"] = (*found.notes, *usage.notes)
    if hasattr(space, "relaxed") and not sure:
        out["relaxation_gap"] = relaxation_gap(model, split, seed=seed).gap
    if not (sure and found.kl is not None) or isinstance(model.prior, UniformCodePrior):
        return out
    uniform = sum(math.log(k) * math.prod(grid) for k, grid in zip(space.levels, space.grids, strict=True))
    out["notes"] += (f"the codes take {found.kl.value:.2f} nats; {uniform:.2f} if all were alike",)
    if found.bits_per_dim is not None:
        measure, bits = model.measure(split.spec), 1 / (split.spec.dimensions * math.log(2))
        total = values["reconstruction"].double() - uniform
        out["uniform_bits_per_dim"] = Estimate.of(total, -bits, measure.offset * bits)
    return out


def _predicted(model: LatentVariableModel, x: Tensor, c: Tensor | None) -> dict[str, Tensor]:
    px = model(c)
    return {"prediction": px.likelihood(prior_samples(px, PREDICTIONS, len(x))).log_prob(x).mean(0)}


def _summary(task: _Task, measured: _Measured, notes: tuple[str, ...]) -> Evaluation:
    values, measure, estimate, terms = measured.values, task.measure, measured.estimate, task.terms
    kls = [value for name, value in values.items() if name.startswith("kl/")]
    kl = torch.cat(kls, dim=1) if kls else None
    reconstruction = values["reconstruction"]
    return Evaluation(
        elbo=None if kl is None else Estimate.of(reconstruction - kl.sum(1), offset=-measure.offset),
        reconstruction=Estimate.of(reconstruction, offset=-measure.offset),
        kl=None if kl is None else Estimate.of(kl.sum(1)),
        nll=estimate and estimate.nll,
        bits_per_dim=estimate and estimate.bits_per_dim,
        prediction=None,
        uniform_bits_per_dim=None,
        codebook_usage=None,
        perplexity=None,
        relaxation_gap=None,
        squared_error=None,
        sample_quality=None,
        method=measured.method,
        k=measured.k,
        n=len(task.split),
        split=task.split.name,
        effective_sample_size=estimate and estimate.effective_sample_size,
        pareto_k=estimate and estimate.pareto_k,
        unreliable=estimate and estimate.unreliable,
        trusted=estimate and estimate.trusted,
        active_units=active_units(None, values["posterior_mean"])[0],
        kl_per_dimension=None if kl is None else tuple(kl.double().mean(0).tolist()),
        kl_is_analytic=all(latent.analytic for latent in terms.latents) if terms.bounded else None,
        measure="none" if kl is None and estimate is None else measure.kind,
        notes=notes,
        proposals=measured.proposals,
        bidirectional_gap=measured.gap,
        nll_per_example=estimate and measure.offset - estimate.log_marginal.double().cpu(),
    )


def _notes(task: _Task, estimate: LikelihoodEstimate | None, reason: tuple[str, str] | None) -> Iterator[str]:
    if estimate is not None:
        yield from estimate.notes
        return
    if not task.terms.bounded:
        yield "the model has no prior or a deterministic posterior: no ELBO, no likelihood"
        return
    yield task.measure.note
    if reason is not None and reason[0] != task.measure.note:
        yield f"no nll: {reason[0]}. {reason[1]}"


def untrained(model: LatentVariableModel) -> bool:
    """Whether the posterior is one that training leaves as it is."""
    return model.recipe is not None and model.recipe.training_objective.untrained != ""


def _of_an_untrained_posterior(model: LatentVariableModel, measured: _Measured) -> Iterator[str]:
    """What a reader must know of a model that was trained with latents of its prior alone."""
    if model.recipe is None or not (why := model.recipe.training_objective.untrained):
        return
    yield f"nothing trained the posterior ({why}), so elbo, reconstruction and kl say little of this model"
    better = measured.method == "auto" and measured.estimate is not None and measured.estimate.trusted
    if measured.method != "prior" and not better:
        yield f"method {measured.method} draws from that posterior: method prior suits this model"
