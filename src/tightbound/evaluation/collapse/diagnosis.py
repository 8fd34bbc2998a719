r"""Diagnosis of a model: problem, cause, and the option to change.

The three goals of a latent-variable model, each measured by a number: it fits the data (nll), it is self-consistent
(the aggregate posterior matches the prior), and its bound is tight (the gap).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch

from ...data import Split
from ...errors import ObjectiveError, UsageError
from ...models import LatentVariableModel, Model, Terms
from ...models.latent import with_latents
from ...options.choices import flat
from ...runtime.modes import evaluating
from ...runtime.randomness import fixed_noise
from ...spec import register, upgrade
from ..estimate import Estimate
from ..evaluate import evaluate, untrained
from ..latents.positions import NOTHING, carrying
from ..latents.sameness import sameness
from ..numbers import Fact, Number
from ..passes import certain, terms_of_the_first
from ..results import Evaluation, by_latent
from .dead_layers import dead_layers
from .decomposition import Decomposition, decompose
from .gaps import Gaps, gaps
from .layer import Layer, layers_of
from .layers import use_of_layers
from .remarks import notes, values_of
from .verdict import Symptoms, Verdict, judge

if TYPE_CHECKING:
    from ...options.training import TrainingOptions

__all__ = ["Diagnosis", "diagnose"]


@register("diagnosis", version=3, record=True)
@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The result of :func:`diagnose`; values are nats per example, None if not defined.

    Args:
        verdict: ``"healthy"``, ``"partial collapse"``, ``"collapsed"``, ``"over-regularised"``,
            ``"under-regularised"`` or ``"constant data"``.
        cause: The likely cause, as text.
        remedy: The option to change, as text.
        dimensions: All latent dimensions, or positions.
        kl_per_dimension: Of each latent by its name the KL of each dimension; None if it does not factorise.
        dimension_wise_kl: KL of the aggregate of each dimension from the prior.
        first_dead: Of a hierarchy the first dead layer in the order of inference; None if all are used.
        layers: Of a hierarchy what each layer carries, from the data up.
        information_per_position: I(x; z_i) of each position, the coarsest grid first, for discrete latents.
        n: Number of examples.
        compared: Number of them that bound the mutual information; 0 in older files.
        fit_n: Number of evenly spaced examples used for ``fit`` and the gap; 0 if there is neither.
        k: Samples of each of them for log p(x).
        split: Which split they are of.
        measure: What the likelihood is for this data.
        notes: Notes on these numbers.
        players: The health of a perceptual and adversarial training, as sentences; empty without one.

    All other fields are reported numbers: see :mod:`tightbound.evaluation.numbers`.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> diagnose(model, data.test.subset(50), gap_examples=5, k=20).active_units
        0
    """

    verdict: Verdict
    cause: str
    remedy: str
    fit: Annotated[Estimate | None, Number("negative log-likelihood", "goals", "the fit: the first goal{fewer}")] = None
    aggregate_kl_at_least: Annotated[
        Estimate | None,
        Number("KL of aggregate posterior from prior, at least", "goals", "self-consistency: the second goal"),
    ] = None
    aggregate_kl: Annotated[Estimate | None, Number("  and at most", "goals", "its other bound")] = None
    gap: Annotated[
        Estimate | None, Number("log p(x) − ELBO", "goals", "tightness of the bound: the third goal{fewer}")
    ] = None
    approximation_gap: Annotated[
        Estimate | None,
        Number("  due to the posterior family", "goals", "approximation gap: remains with the best encoder"),
    ] = None
    amortisation_gap: Annotated[
        Estimate | None, Number("  due to the encoder", "goals", "amortisation gap: a better encoder would close it")
    ] = None
    reconstruction: Annotated[
        Estimate, Number("reconstruction", "parts", "expected log-likelihood under the posterior")
    ]
    kl: Annotated[Estimate, Number("KL of posterior and prior", "parts", "information in the code, in nats")]
    mutual_information: Annotated[Estimate, Number("mutual information I(x; z), at least", "parts", "{ceiling}")]
    mutual_information_at_most: Annotated[Estimate, Number("  and at most", "parts", "its other bound")]
    total_correlation: Annotated[
        Estimate | None, Number("total correlation of the codes", "parts", "dependence of the latent dimensions")
    ] = None
    decoder_use: Annotated[
        Estimate, Number("decoder's use of z", "parts", "loss of likelihood when latents are shuffled")
    ]
    carrying: Annotated[
        tuple[int, ...] | None, Number("{what} that carry 99 %", "latent", "{carried}", of="dimensions")
    ] = None
    active_units: Annotated[int, Number("active {what}", "latent", "{activity}", of="dimensions")]
    dimensions: int
    first_dead: Annotated[str | None, Number("first dead layer", "latent", "in the order of inference")] = None
    layers: tuple[Layer, ...] | None = None
    kl_per_dimension: dict[str, tuple[float, ...]] | None = None
    dimension_wise_kl: tuple[float, ...] | None = None
    information_per_position: tuple[float, ...] | None = None
    n: int
    compared: int = 0
    fit_n: int
    k: int
    split: str
    measure: str
    notes: tuple[str, ...]
    players: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Fact]:
        """Values for the labels of the numbers."""
        codes, shown = self.information_per_position is not None, self.compared or self.n
        told = "of their information" if codes else "of the KL, or of each one's information if the KL is one number"
        return {
            "dimensions": self.dimensions,
            "fewer": f"; of {self.fit_n} examples" if self.fit_n != self.n else "",
            "ceiling": f"never above ln {shown} = {math.log(max(1, shown)):.2f} here",
            "what": "positions of codes" if codes else "latent dimensions",
            "carried": told,
            "activity": f"with more than {NOTHING:g} nats of information" if codes else "by Burda's convention",
        }


@upgrade("diagnosis", version=1)
def _by_latent(fields: dict[str, Any]) -> dict[str, Any]:
    """Before version 2 there was one latent, with its KL as a list."""
    return fields | by_latent(fields)


@upgrade("diagnosis", version=2)
def _of_one_latent(fields: dict[str, Any]) -> dict[str, Any]:
    """Before version 3 hierarchies were not diagnosed."""
    return fields


def diagnose(
    model: Model,
    split: Split,
    *,
    limit: int = 2000,
    gap_examples: int = 100,
    k: int = 1000,
    seed: int = 0,
    training: TrainingOptions | None = None,
) -> Diagnosis:
    """Measures how a model uses its latents, and reports problems and remedies.

    Of a hierarchy every layer is measured, see :mod:`~tightbound.evaluation.collapse.layers`, and the first dead one is
    named.

    References:
        Understanding Posterior Collapse in Generative Latent Variable Models (Lucas, Tucker, Grosse and Norouzi, 2019).
        ELBO Surgery: Yet Another Way to Carve up the Variational Evidence Lower Bound (Hoffman and Johnson, 2016).
        Inference Suboptimality in Variational Autoencoders (Cremer, Li and Duvenaud, 2018).

    Args:
        model: The model, on the device to compute on.
        split: The data.
        limit: Use at most this many evenly spaced examples.
        gap_examples: Optimise the posteriors of at most this many examples.
        k: Samples of each of these for log p(x).
        seed: Seed of all noise.
        training: The training options, if known: remedies then propose only changes.

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
    model = _checked(model, split, limit)
    some, few = split.evenly_spaced(limit), split.evenly_spaced(min(limit, gap_examples))
    terms = terms_of_the_first(model, some)
    _check(model, terms)
    found, parts = evaluate(model, some, k=1, seed=seed), decompose(model, some, limit=limit, seed=seed)
    gap = None
    if terms.exact and not certain(terms):
        gap = gaps(model, few, limit=gap_examples, k=k, seed=seed)
    fit = found.nll if certain(terms) else None
    if gap is not None:  # of a hierarchy, whose samples are dear, from the same ones
        fit = gap.fit if parts.layers else evaluate(model, few, k=k, seed=seed).nll
    use = use_of_layers(model, some, seed) if parts.layers else {}
    m = _Measured(terms, found, parts, gap, fit, _decoder_use(model, some, seed), use)
    known = {"sameness": sameness(some), "training": training, "data": split.spec}
    return _told(m, dataclasses.replace(_symptoms(model, m), **known), k, split.name)


@dataclass(frozen=True)
class _Measured:
    """Measurements of a model's latents; the gap and the fit use fewer examples than the rest."""

    terms: Terms
    found: Evaluation
    parts: Decomposition
    gap: Gaps | None
    fit: Estimate | None
    use: Estimate
    use_of_layers: dict[str, Estimate]

    @property
    def kl(self) -> Estimate:
        return self.found.kl or self.parts.mutual_information

    @property
    def wise(self) -> dict[str, tuple[float, ...]] | None:
        """The KL of each dimension, or position of codes; None if it does not factorise."""
        wise, sizes = self.found.kl_per_dimension, [q.posterior.event_shape.numel() for q in self.terms.latents]
        apart = wise is not None and all(len(nats) > 1 or d == 1 for nats, d in zip(wise.values(), sizes, strict=True))
        return wise if apart else None

    @property
    def carrying(self) -> tuple[int, ...] | None:
        """The dimensions that carry the KL, or the information about x, for codes and a KL that is one number.

        None for a hierarchy, whose layers are measured instead.
        """
        if self.parts.layers:
            return None
        wise, told = self.wise, self.parts.information_per_dimension
        nats = told if wise is None or self.found.codebook_usage is not None else values_of(wise)
        return None if nats is None else carrying(nats)

    def dead(self, *, adds_up: bool) -> dict[str, str]:
        """Why each dead layer of a hierarchy is dead, in the order of inference."""
        if not self.parts.layers:
            return {}
        kl = {name: sum(nats) for name, nats in (self.found.kl_per_dimension or {}).items()}
        use = {name: lost.value for name, lost in self.use_of_layers.items()}
        return dead_layers(self.parts.layers, kl, use, adds_up=adds_up)


def _told(m: _Measured, symptoms: Symptoms, k: int, split: str) -> Diagnosis:
    verdict, cause, remedy = judge(symptoms)
    parts, gap, n = m.parts, m.gap, m.found.n
    return Diagnosis(
        verdict=verdict,
        cause=cause,
        remedy=remedy,
        fit=m.fit,
        aggregate_kl=parts.aggregate_kl,
        aggregate_kl_at_least=parts.aggregate_kl_at_least,
        gap=gap and gap.total,
        approximation_gap=gap and gap.approximation,
        amortisation_gap=gap and gap.amortisation,
        reconstruction=m.found.reconstruction or parts.reconstruction,
        kl=m.kl,
        mutual_information=parts.mutual_information,
        mutual_information_at_most=parts.mutual_information_at_most,
        total_correlation=parts.total_correlation,
        decoder_use=m.use,
        active_units=symptoms.active,
        dimensions=symptoms.dimensions,
        carrying=m.carrying,
        first_dead=next(iter(symptoms.dead), None),
        layers=layers_of(m.found, parts.layers, m.use_of_layers, symptoms.dead),
        compared=parts.n,
        kl_per_dimension=m.wise,
        dimension_wise_kl=parts.dimension_wise_kl,
        information_per_position=parts.information_per_dimension if symptoms.codes else None,
        n=n,
        fit_n=gap.n if gap else n if m.fit else 0,
        k=k,
        split=split,
        measure=m.found.measure,
        notes=tuple(notes(symptoms, m.found, parts, gap, m.wise, m.carrying)),
    )


def _checked(model: Model, split: Split, limit: int) -> LatentVariableModel:
    """The model, if it has latents and there are at least two examples."""
    if len(split) < 2 or limit < 2:
        raise UsageError(
            "A diagnosis needs several examples.",
            got=f"{min(len(split), limit)} examples",
            expected="at least 2, and several hundred for a reliable verdict",
            remedy="Use more examples, or inspect one with `tightbound reconstruct`.",
        )
    return with_latents(model)


def _check(model: LatentVariableModel, terms: Terms) -> None:
    """Refuses models whose latents cannot be diagnosed."""
    _ = terms.latents  # refuses estimated divergences
    if not terms.bounded:
        raise ObjectiveError(
            "Only a model with an ELBO can be diagnosed.",
            got="no prior, or a point-mass posterior",
            remedy="Train a VAE; an autoencoder has no KL, and its codes cannot collapse into a prior.",
        )
    if untrained(model):
        raise ObjectiveError(
            "The posterior of this model was not trained, so its latents carry no information about the data.",
            remedy="Evaluate its predictions with the prior: tightbound evaluate RUN --method prior.",
        )


def _symptoms(model: LatentVariableModel, m: _Measured) -> Symptoms:
    terms, parts, gap, kl, carried = m.terms, m.parts, m.gap, m.kl, m.carrying
    told = parts.information_per_dimension if model.codes is not None else None
    change = gap.kl_change if gap else None
    scale = kl.value / gap.kl.value if gap and gap.kl.value else 1.0  # so that the verdict uses the same examples
    return Symptoms(
        kl=kl.value,
        mutual_information=parts.mutual_information.value,
        mutual_information_at_most=parts.mutual_information_at_most.value,
        decoder_use=m.use.value,
        active=m.found.active_units if told is None else sum(i > NOTHING for i in told),
        dimensions=sum(q.posterior.event_shape.numel() for q in terms.latents) if told is None else len(told),
        carrying=None if carried is None else len(carried),
        mismatch=_mismatch(parts),
        unmeasured=_why_unmeasured(terms),
        gap=gap and gap.total.value,
        amortisation=gap.amortisation.value if gap and gap.amortisation else None,
        best_kl=kl.value + scale * change.value if change else None,
        best_kl_error=scale * (change.standard_error or 0.0) if change else 0.0,
        per_dimension=_charged_per_dimension(model, terms),
        codes=None if told is None else "chosen" if certain(terms) else "drawn",
        recipe=model.recipe,
        layers=tuple(parts.layers),
        dead=m.dead(adds_up=model.space.adds_up),
        adds_up=model.space.adds_up,
    )


def _charged_per_dimension(model: LatentVariableModel, terms: Terms) -> bool:
    """Whether training used a KL per dimension, not one sampled number for all."""
    apart = all(latent.kl()[0].numel() == latent.posterior.event_shape.numel() for latent in terms.latents)
    return apart and _divergence(model) != "monte-carlo"


def _divergence(model: Model) -> str:
    """The divergence option of its training objective."""
    return "auto" if model.recipe is None else flat(model.recipe.training_objective).get("divergence", "auto")


def _mismatch(parts: Decomposition) -> tuple[float, float] | None:
    """The aggregate KL's two bounds, each with twice its standard error."""
    least, most = parts.aggregate_kl_at_least, parts.aggregate_kl
    if least is None or most is None:
        return None
    return least.value - 2 * (least.standard_error or 0.0), most.value + 2 * (most.standard_error or 0.0)


def _why_unmeasured(terms: Terms) -> str:
    if terms.joint is None:
        return "the prior of the first latent is itself a hierarchy"
    if terms.joint.prior is not None and terms.joint.prior.batch_shape:
        return "each condition has its own prior"
    return "the prior has no exact density"


def _decoder_use(model: LatentVariableModel, split: Split, seed: int) -> Estimate:
    """The loss of likelihood when every example is decoded from the latent of another."""
    losses: list[torch.Tensor] = []
    with torch.no_grad(), fixed_noise(seed), evaluating(model):
        chunks = -(-len(split) // 500)  # of similar size, so that none has a single example
        for indices in torch.randperm(len(split)).chunk(chunks):  # neighbours in a split may be of one class
            x, c = model.see(split.batch(indices, model.device))
            px = model(c)
            terms = px.terms(x)
            z = (terms.joint or terms.latents[0]).z
            shuffled = px.likelihood(z.roll(1, 1)).log_prob(x)
            losses.append((terms.log_likelihood - shuffled)[0])
    return Estimate.of(torch.cat(losses))
