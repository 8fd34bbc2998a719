r"""What is wrong with a model, what points to it, and which option to change.

The three goals of a latent-variable model are each a number: it fits the data (its nll), it is consistent with itself
(the codes of all data together are like the prior), and its bound is tight (the gap).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..data import Split
from ..errors import ObjectiveError, UsageError
from ..models.latent import LatentVariableModel, evaluating
from ..randomness import fixed_noise
from .decomposition import Decomposition, decompose, spread
from .estimate import Estimate
from .evaluate import evaluate
from .gaps import Gaps, gaps
from .passes import terms_of_the_first

__all__ = ["Diagnosis", "Symptoms", "Verdict", "diagnose", "judge"]

Verdict = Literal["healthy", "partial collapse", "collapsed", "over-regularised", "under-regularised"]

NOTHING = 0.1
"""Nats below which a code tells nothing, or a decoder makes no use of it: less than a seventh of a bit."""
CHANGE = 0.15
"""By so much of itself, and by twice its standard error, must the KL change when the bound is tightened before it is
too small or too large."""
MISMATCH = 0.2
"""A mismatch of codes and prior above this share of the KL is what makes samples poor."""
LEAST_MISMATCH = 1.0
"""A smaller mismatch than so many nats does not count."""


@dataclass(frozen=True)
class Symptoms:
    """The numbers that a verdict rests on; None where a model does not define one.

    Args:
        kl: KL of posterior and prior, nats.
        mutual_information: I(x; z), nats.
        decoder_use: Nats that the likelihood loses when the examples' latents are exchanged.
        active: Active latent dimensions.
        dimensions: All latent dimensions.
        mismatch: How far the aggregate posterior is from the prior at least, nats.
        gap: Log p(x) − ELBO, nats.
        amortisation: The part of it that is the encoder's, nats.
        best_kl: KL of the posterior that is best for each example, nats.
        best_kl_error: Standard error of its difference from ``kl``.
        beta: The weight of the KL that the model was trained with, if that is known.
        free_bits: Nats of each dimension that training did not charge.
        prior: The prior's option, if known.
    """

    kl: float
    mutual_information: float
    decoder_use: float
    active: int
    dimensions: int
    mismatch: float | None = None
    gap: float | None = None
    amortisation: float | None = None
    best_kl: float | None = None
    best_kl_error: float = 0.0
    beta: float = 1.0
    free_bits: float = 0.0
    prior: str = "normal"


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found; values are nats per example.

    Args:
        verdict: ``"healthy"``, ``"partial collapse"``, ``"collapsed"``, ``"over-regularised"`` or
            ``"under-regularised"``.
        cause: What the numbers point to, in words.
        remedy: The option to change, in words.
        fit: Negative log-likelihood, the first goal; None where the model has none of this data.
        aggregate_kl: KL of the aggregate posterior from the prior, the second goal.
        gap: Log p(x) − ELBO, the third goal.
        approximation_gap: Its part that no encoder could close with this family of posteriors.
        amortisation_gap: Its part that a better encoder would close.
        reconstruction: Expected log-likelihood.
        kl: KL of posterior and prior.
        mutual_information: I(x; z); at most ln of the examples it was measured on.
        total_correlation: Of the aggregate posterior, where all factorises.
        aggregate_kl_at_least: A lower bound on ``aggregate_kl`` by its moments, where the prior is Gaussian.
        decoder_use: What the likelihood loses when the latents of the examples are exchanged.
        active_units: Latent dimensions whose posterior mean varies.
        dimensions: All latent dimensions.
        kl_per_dimension: KL of each dimension.
        dimension_wise_kl: KL of the aggregate of each dimension from the prior.
        n: Examples.
        k: Samples of each for log p(x).
        split: Which split they are of.
        measure: What the likelihood is for this data.
        notes: What a reader must know of these numbers.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> diagnose(model, data.test.subset(50), gap_examples=5, k=20).json()["active_units"]
        0
    """

    verdict: Verdict
    cause: str
    remedy: str
    fit: Estimate | None
    aggregate_kl: Estimate | None
    gap: Estimate | None
    approximation_gap: Estimate | None
    amortisation_gap: Estimate | None
    reconstruction: Estimate
    kl: Estimate
    mutual_information: Estimate
    total_correlation: Estimate | None
    aggregate_kl_at_least: float | None
    decoder_use: Estimate
    active_units: int
    dimensions: int
    kl_per_dimension: tuple[float, ...]
    dimension_wise_kl: tuple[float, ...] | None
    n: int
    k: int
    split: str
    measure: str
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """As ``tightbound diagnose --json`` prints it."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value.json() if isinstance(value, Estimate) else value for name, value in values.items()}


def judge(s: Symptoms) -> tuple[Verdict, str, str]:
    """The verdict, the cause and the remedy that numbers point to.

    Args:
        s: The numbers.

    Example:
        >>> judge(Symptoms(kl=0.02, mutual_information=0.01, decoder_use=0.0, active=0, dimensions=16))[0]
        'collapsed'
    """
    if min(s.mutual_information, s.decoder_use) < NOTHING:
        return "collapsed", *_why_collapsed(s)
    pressed, relaxed = _kl_should_change(s)
    if pressed:
        shown = "" if s.best_kl is None else f": the best posteriors of this decoder carry {s.best_kl:.1f}"
        why = f"the KL is pressed below what pays ({s.kl:.1f} nats{shown})"
        return "over-regularised", why, _less_pressure(s)
    if relaxed:
        why = f"the KL ({s.kl:.1f} nats) was not charged in full, so codes say more than pays"
        return "under-regularised", why, "charge it in full: --beta 1 --free-bits 0"
    if s.mismatch is not None and s.mismatch > max(LEAST_MISMATCH, MISMATCH * s.kl):
        why = (
            f"the codes of all data together are {s.mismatch:.1f} nats from the prior, so its samples are not like them"
        )
        return "under-regularised", why, "let the prior learn where the codes are: --prior vamp"
    if s.active < s.dimensions / 2:
        why = f"{s.dimensions - s.active} of {s.dimensions} latent dimensions carry nothing"
        enough = f"--latent-dim {max(2, s.active + max(1, s.active // 4))} would do"
        return "partial collapse", why, f"{enough}; to use more of them, --free-bits 0.1 or --beta-warmup 0.5"
    return "healthy", *_what_is_left(s)


def _kl_should_change(s: Symptoms) -> tuple[bool, bool]:
    """Whether the KL is too small, and whether it is too large: as measured, or else as the options say."""
    if s.best_kl is None or s.kl <= 0:
        return s.beta > 1, s.beta < 1 or s.free_bits > 0
    change = s.best_kl - s.kl
    clear = abs(change) > max(CHANGE * s.kl, 2 * s.best_kl_error)
    return clear and change > 0, clear and change < 0


def _why_collapsed(s: Symptoms) -> tuple[str, str]:
    if s.beta > 1:
        return f"a KL weight of {s.beta:g} makes every nat of code cost more than it pays", "lower it: --beta 1"
    if s.kl >= NOTHING:
        why = f"the posterior is {s.kl:.1f} nats from the prior, yet the same for all data, or the decoder ignores it"
        return why, "let the prior follow (--prior diagonal), or start again with --beta-warmup 0.5"
    why = "the decoder models the data without z, and the KL was cheaper to save than the code was worth"
    return (
        why,
        "charge the KL later (--beta-warmup 0.5), or not below a floor (--free-bits 0.1), or use a weaker decoder",
    )


def _less_pressure(s: Symptoms) -> str:
    if s.beta > 1:
        return f"lower --beta from {s.beta:g} to 1"
    return "give the encoder more room: larger --hidden, more --epochs, or --beta-warmup 0.5"


def _what_is_left(s: Symptoms) -> tuple[str, str]:
    if s.gap is None or s.amortisation is None:
        return "the latents are used and the codes agree with the prior", "nothing needs to change"
    approximation = s.gap - s.amortisation
    if s.amortisation >= approximation:
        why = f"what is left of the gap is mostly the encoder's ({s.amortisation:.1f} of {s.gap:.1f} nats)"
        return why, "nothing needs to change; a larger encoder (--hidden) or more --epochs tighten the bound"
    why = f"what is left of the gap is mostly the posterior's family's ({approximation:.1f} of {s.gap:.1f} nats)"
    return why, "nothing needs to change; --posterior cholesky or iaf tightens the bound"


def diagnose(
    model: LatentVariableModel,
    split: Split,
    *,
    limit: int = 2000,
    gap_examples: int = 100,
    k: int = 1000,
    seed: int = 0,
) -> Diagnosis:
    """Measures what a model's latents do, and says what is wrong and what to change.

    References:
        Understanding Posterior Collapse in Generative Latent Variable Models (Lucas, Tucker, Grosse and Norouzi, 2019).
        ELBO Surgery: Yet Another Way to Carve up the Variational Evidence Lower Bound (Hoffman and Johnson, 2016).
        Inference Suboptimality in Variational Autoencoders (Cremer, Li and Duvenaud, 2018).

    Args:
        model: The model, on the device to compute on.
        split: The data.
        limit: Examples at most, evenly spread over the split.
        gap_examples: Examples at most whose posterior is optimised.
        k: Samples of each of these for log p(x).
        seed: Seed of all noise.

    Raises:
        UsageError: If the split is empty or a number out of range.
        ObjectiveError: If the model has no ELBO, with the reason.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> diagnose(model, data.test.subset(50), gap_examples=5, k=20).verdict
        'collapsed'
    """
    if len(split) < 2 or limit < 2:
        raise UsageError(
            "Latents can only be told apart on several examples.",
            got=f"{min(len(split), limit)} examples",
            expected="at least 2",
        )
    some = spread(split, limit)
    terms = terms_of_the_first(model, some)
    if not terms.bounded:
        raise ObjectiveError(
            "Only a model with an ELBO can be diagnosed.",
            got="no prior, or a posterior that is a point",
            remedy="Train a VAE; an autoencoder has no KL, and its codes cannot collapse into a prior.",
        )
    found = evaluate(model, some, k=1, seed=seed)
    parts = decompose(model, some, limit=limit, seed=seed)
    gap = gaps(model, some, limit=gap_examples, k=k, seed=seed) if terms.exact else None
    use = _decoder_use(model, some, seed)
    fit = evaluate(model, spread(some, gap_examples), k=k, seed=seed).nll if terms.exact else None
    recipe = model.recipe
    kl = found.kl or parts.mutual_information
    symptoms = Symptoms(
        kl=kl.value,
        mutual_information=parts.mutual_information.value,
        decoder_use=use.value,
        active=found.active_units,
        dimensions=terms.latents[0].posterior.event_shape.numel(),
        mismatch=_mismatch(parts),
        gap=gap and gap.total.value,
        amortisation=gap.amortisation.value if gap and gap.amortisation else None,
        best_kl=kl.value + gap.kl_change.value if gap and gap.kl_change else None,
        best_kl_error=(gap.kl_change.standard_error or 0.0) if gap and gap.kl_change else 0.0,
        beta=getattr(recipe, "beta", 1.0),
        free_bits=getattr(recipe, "free_bits", 0.0),
        prior=getattr(recipe, "prior", "unknown"),
    )
    verdict, cause, remedy = judge(symptoms)
    return Diagnosis(
        verdict=verdict,
        cause=cause,
        remedy=remedy,
        fit=fit,
        aggregate_kl=parts.aggregate_kl,
        gap=gap and gap.total,
        approximation_gap=gap and gap.approximation,
        amortisation_gap=gap and gap.amortisation,
        reconstruction=found.reconstruction,
        kl=kl,
        mutual_information=parts.mutual_information,
        total_correlation=parts.total_correlation,
        aggregate_kl_at_least=parts.aggregate_kl_at_least,
        decoder_use=use,
        active_units=found.active_units,
        dimensions=symptoms.dimensions,
        kl_per_dimension=found.kl_per_dimension or (),
        dimension_wise_kl=parts.dimension_wise_kl,
        n=len(some),
        k=k,
        split=split.name,
        measure=found.measure,
        notes=tuple(_notes(parts.saturated, len(some), gap)),
    )


def _mismatch(parts: Decomposition) -> float | None:
    """The aggregate KL where it is known, else the least that it can be."""
    if parts.aggregate_kl is not None and not parts.saturated:
        return parts.aggregate_kl.value
    return parts.aggregate_kl_at_least


def _notes(saturated: bool, n: int, gap: Gaps | None) -> Iterator[str]:
    if saturated:
        ceiling = f"ln {n} = {math.log(n):.1f} nats, the most that {n} examples can show"
        yield f"the mutual information is near {ceiling}: it is at least this, and the aggregate KL at most that"
    if gap is None:
        yield "the prior has no exact density: there is no likelihood, and no gap to measure"
    else:
        yield from gap.notes


def _decoder_use(model: LatentVariableModel, split: Split, seed: int) -> Estimate:
    """What the likelihood loses when every example is decoded from the latent of another."""
    parameter = next(model.parameters())
    losses: list[torch.Tensor] = []
    with torch.no_grad(), fixed_noise(seed), evaluating(model):
        chunks = -(-len(split) // 500)  # of about one size, so that none holds a lone example
        for indices in torch.randperm(len(split)).chunk(chunks):  # neighbours in a split may be of one class
            x = split.batch(indices, parameter.device).x.to(parameter.dtype)
            terms = model().terms(x)
            shuffled = model.likelihood(terms.latents[0].z.roll(1, 1)).log_prob(x)
            losses.append((terms.log_likelihood - shuffled)[0])
    return Estimate.of(torch.cat(losses))
