r"""Estimates of :math:`\log p(x)` by three methods, and whether they can be trusted.

Convention: every method averages k weights whose mean is :math:`p(x)`; by Jensen's inequality the logarithm of the
average is too low on average, so ``nll`` is an upper bound that converges to the true value as k grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...data import Split
from ...distributions import Bits, CodeDistribution, OneHot, has_density
from ...errors import ObjectiveError, UsageError
from ...likelihoods import Measure
from ...models.latent import LatentVariableModel, Terms
from ..estimate import Estimate
from ..passes import Found, Precision, certain, examples, over, require_split, terms_of_the_first
from .annealed import Annealing, annealed, bidirectional
from .importance import from_prior, per_example
from .pareto import UNRELIABLE

__all__ = ["LikelihoodEstimate", "Method", "annealing_gap", "gap_warning", "likelihood", "refusal", "sampler"]

Method = Literal["importance", "prior", "annealed"]
FEW = 10.0
"""Minimum effective samples; with fewer, a few large weights dominate the estimate."""
MOST = 0.1
"""Maximum share of examples with heavy tails for an estimate to be trusted."""
CHAINS = 8
"""Minimum annealed chains to assess an estimate."""
SIMULATED = 4
"""Number of simulated examples to bracket annealing."""
GAP = 0.5
"""Maximum nats between both bounds for annealing to be trusted."""
ONE_CODE = "the posterior of an example is a single code: the nll is the negative ELBO, an upper bound"
UNJUDGED = "the estimate cannot be assessed from less than 25 samples: use more, such as -k 1000"
FEW_CHAINS = f"the estimate cannot be assessed from fewer than {CHAINS} chains: use more, such as -k 16"


@dataclass(frozen=True)
class LikelihoodEstimate:
    r"""Results of :func:`likelihood`.

    Args:
        nll: Negative log-likelihood of the data, nats, with its standard error over the examples.
        bits_per_dim: The same in bits per dimension, if the data is discrete and the model outputs its probability.
        offset: Nats in both that come from dequantisation, :math:`D \ln L` for L levels.
        effective_sample_size: Mean over the examples, between 1 and k.
        pareto_k: Mean shape of the weights' tails; None for fewer than 25 samples.
        unreliable: Share of examples with a shape above 0.7.
        trusted: Whether no warning applies; None if the estimate cannot be assessed.
        method: Method of the estimate.
        k: Samples, or chains, per example.
        n: Number of examples.
        split: Name of the split.
        measure: ``"mass"``, ``"bound"`` or ``"density"``.
        notes: Notes on these numbers.
        log_marginal: Log p(x) of each example as model input, ``(n,)``, nats, without the offset.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> likelihood(model, data.test.subset(10), k=50).method
        'importance'
    """

    nll: Estimate
    bits_per_dim: Estimate | None
    offset: float
    effective_sample_size: float
    pareto_k: float | None
    unreliable: float | None
    trusted: bool | None
    method: str
    k: int
    n: int
    split: str
    measure: str
    notes: tuple[str, ...]
    log_marginal: Tensor = field(repr=False, compare=False)

    @classmethod
    def of(
        cls,
        values: dict[str, Tensor],
        measure: Measure,
        split: Split,
        k: int,
        method: str,
        sure: bool = False,
        gap: Estimate | None = None,
        annealable: bool = True,
        one_code: bool = False,
    ) -> LikelihoodEstimate:
        """From the results of a method for every example; ``sure`` if all samples of an example are the same.

        ``gap`` is from :func:`annealing_gap`, if measured; ``annealable`` is whether method annealed supports the
        model; ``one_code`` is whether the posterior of an example is a single code.
        """
        marginal, bits = values["log_marginal"], 1 / ((measure.dimensions or split.spec.dimensions) * math.log(2))
        effective = values["effective_samples"].double().mean().item()
        tails = values["pareto_k"].double() if "pareto_k" in values else None
        unreliable = None if tails is None else (tails > UNRELIABLE).double().mean().item()
        warnings = (*_warnings(k, effective, unreliable, method, annealable), *gap_warning(gap))
        warnings += (ONE_CODE,) if one_code and method == "importance" else ()
        equal = sure or (k > 1 and effective > k - 1e-6)  # an exact posterior: one sample suffices
        unjudged = tails is None and method != "annealed" and not equal
        few = method == "annealed" and k < CHAINS
        return cls(
            nll=Estimate.of(marginal, -1.0, measure.offset),
            bits_per_dim=Estimate.of(marginal, -bits, measure.offset * bits) if measure.comparable else None,
            offset=measure.offset,
            effective_sample_size=effective,
            pareto_k=None if tails is None else tails.mean().item(),
            unreliable=unreliable,
            trusted=False if warnings else None if unjudged or few else True,
            method=method,
            k=k,
            n=len(split),
            split=split.name,
            measure=measure.kind,
            notes=(measure.note, *warnings, *([UNJUDGED] if unjudged else []), *([FEW_CHAINS] if few else [])),
            log_marginal=marginal,
        )


def likelihood(
    model: LatentVariableModel,
    split: Split,
    method: Method = "importance",
    k: int = 1000,
    *,
    annealing: Annealing | None = None,
    precision: Precision = "float32",
    compile: bool = False,
    seed: int = 0,
) -> LikelihoodEstimate:
    r"""Estimates the likelihood of data under a model by sampling, with its error and reliability.

    .. math:: \log p(x) \approx \log \frac{1}{k} \sum_j w_j

    ``"importance"`` samples the posterior, :math:`w_j = p(x, z_j) / q(z_j \mid x)`. ``"prior"`` samples the prior,
    :math:`w_j = p(x \mid z_j)`, which fails if few latents explain an example. ``"annealed"`` moves from the prior to
    the posterior; it is a reference for the others, at about 100 times the cost.

    References:
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016).
        On the Quantitative Analysis of Decoder-Based Generative Models (Wu, Burda, Salakhutdinov and Grosse, 2017).
        Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao and Gabry, 2024).

    Args:
        model: The model, on the device to compute on.
        split: The data.
        method: Sampling method.
        k: Samples per example (for ``"annealed"``, chains; 16 are many); more take time, not memory.
        annealing: Settings of ``"annealed"``.
        precision: Precision of the networks, ``"float32"`` or ``"bf16"``; densities are at least float32.
        compile: Whether to compile log p(x | z) after the decoder; useful with many samples.
        seed: Seed of all noise.

    Raises:
        UsageError: If the split is empty, k less than 1, or the method is unknown.
        CheckpointError: If a weight of the model is not finite.
        ObjectiveError: If the likelihood cannot be estimated, with the reason.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> likelihood(model, data.test.subset(10), k=50).bits_per_dim is not None
        True
    """
    require_split(split, model)
    found = sampler(method, k, annealing)
    measure = model.measure(split.spec)
    terms = terms_of_the_first(model, split)
    _require(terms, measure, method)
    values = over(model, split, k, found, seed=seed, precision=precision, compile=compile)
    annealable = refusal(terms, measure, "annealed") is None
    return LikelihoodEstimate.of(values, measure, split, k, method, annealable=annealable, one_code=certain(terms))


def _require(terms: Terms, measure: Measure, method: str) -> None:
    if (reason := refusal(terms, measure, method)) is not None:
        raise ObjectiveError(
            "The likelihood of this data cannot be estimated for this model.", got=reason[0], remedy=reason[1]
        )


def annealing_gap(
    model: LatentVariableModel, split: Split, k: int, annealing: Annealing | None = None, seed: int = 0
) -> Estimate:
    """Bounds the error of annealing on data sampled from the model: the gap of bounds for a few examples.

    Args:
        model: The model.
        split: The data; the conditions are those of its first examples.
        k: Number of chains.
        annealing: Settings of the chains.
        seed: Seed of all noise.
    """
    few = min(SIMULATED, len(split))
    _, c = examples(model, split, torch.arange(few), seed)
    return bidirectional(model, few, k, annealing=annealing, c=c, seed=seed).gap


def gap_warning(gap: Estimate | None, share: float = 1.0) -> Iterator[str]:
    """A warning if annealing is not accurate enough, given the share of examples annealed."""
    if gap is not None and share * gap.value > GAP:
        yield (
            f"on {SIMULATED} simulated examples annealing leaves {gap.value:.2f} nats between its lower and its upper "
            "bound: the nll is an upper bound and cannot be trusted; more --temperatures would lower it"
        )


def sampler(method: str, k: int, annealing: Annealing | None = None) -> Found:
    """The method with this name, for :func:`~tightbound.evaluation.passes.over`.

    Raises:
        UsageError: If the method is unknown.
    """
    methods = {"importance": per_example, "prior": from_prior, "annealed": partial(annealed, annealing=annealing)}
    if method not in methods:
        raise UsageError("Unknown method.", got=repr(method), expected=f"one of: {', '.join(methods)}")
    return lambda model, x, c: methods[method](model, x, k, c)


def refusal(terms: Terms, measure: Measure, method: str) -> tuple[str, str] | None:
    """Why the likelihood cannot be estimated, and a remedy; None if it can.

    Args:
        terms: The model's terms for any example.
        measure: Meaning of its log-likelihood for this data.
        method: Name of the method.
    """
    if terms.estimated:
        return f"the divergence of {', '.join(terms.estimated)} is only estimated", "Use the ELBO."
    if any(latent.prior is None for latent in terms.latents):
        return "the model has no prior", "Train a model with one: recipe 'vae'."
    if measure.kind == "none":
        return measure.note, "Binarise the data (--binarize dynamic), or choose --likelihood for its levels."
    if not terms.exact_likelihood:
        return (
            "the likelihood is itself a bound, whose noise inside a logarithm would raise the result",
            "Use the ELBO.",
        )
    if method == "importance" and not terms.bounded:
        return "the posterior is a point mass without a density", "Use method 'prior', or a posterior with a density."
    if method == "annealed" and terms.joint is None:
        return "annealing needs all latents in one vector, and this is a chain of latents", "Use method 'importance'."
    if method == "annealed" and any(_are_codes(latent.prior) for latent in terms.latents):
        return "the latents are codes, and annealing needs real vectors", "Use method 'importance'."
    if method != "prior" and not all(has_density(latent.prior) for latent in terms.latents if latent.prior):
        kinds = ", ".join(type(latent.prior).__name__ for latent in terms.latents)
        return f"the prior has only a bound, no exact density ({kinds})", "Use method 'prior', which only samples it."
    return None


def _are_codes(prior: Distribution | None) -> bool:
    return isinstance(prior, CodeDistribution | OneHot | Bits)


def _warnings(k: int, effective: float, unreliable: float | None, method: str, annealable: bool) -> Iterator[str]:
    better = "more samples" + (", --method annealed" if annealable and method != "annealed" else "")
    better += ", or a better posterior would lower it" if method == "importance" else " would lower it"
    if k >= FEW and effective < min(FEW, k / 2):
        yield f"{effective:.1f} effective samples of {k}: the nll is an upper bound and cannot be trusted; {better}"
    if unreliable is not None and unreliable > MOST:
        heavy = f"for {unreliable:.0%} of the examples a few samples dominate (Pareto k above {UNRELIABLE})"
        yield f"{heavy}: the nll and its error cannot be trusted; {better}"
