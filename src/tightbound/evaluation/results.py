"""The result of an evaluation: its numbers with their labels and formats."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import Tensor

from ..spec import register, upgrade
from .collapse.decoder_noise import DecoderNoise
from .estimate import Estimate
from .latents.positions import ACTIVE, NOTHING
from .log_likelihood.pareto import UNRELIABLE
from .numbers import Fact, Number, by_layer
from .samples.quality import SampleQuality

__all__ = ["Evaluation", "Measured"]

Measured = Literal["mass", "bound", "density", "none"]
"""What a likelihood means for the data: see :class:`~tightbound.likelihoods.Measure`."""


@register("evaluation", version=3, record=True)
@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of :func:`evaluate`; a value is None if the model does not define it, and ``notes`` gives the reason.

    Args:
        method: How the likelihood was estimated: ``"auto"`` with adaptive proposals, ``"exact"`` for a model
            without a latent, ``"bound"`` where only a bound is known, ``"ode"`` for the flow of a diffusion model,
            else as for :func:`~tightbound.evaluation.likelihood`.
        n: Number of examples.
        split: Name of the split.
        trusted: Whether the estimate ``nll`` passed all checks.
        dimensions: All latent dimensions, or positions of codes, of all layers.
        active_per_layer: In a hierarchy the active units of each layer by its name, from the data up.
        dimensions_per_layer: And the number of its dimensions.
        kl_per_dimension: Mean KL of each dimension, by name of the latent, nats; one entry, the total, if it does not
            factorise.
        kl_is_analytic: Whether the KL is a closed form or a Monte Carlo estimate.
        measure: ``"mass"``, ``"bound"``, ``"density"`` or ``"none"``: what the likelihood means for this data.
        notes: Notes on these numbers; the first states what the likelihood is.
        proposals: For ``"auto"``, number of examples by proposal needed.
        nll_per_example: The negative log-likelihood of each example, nats, float64 ``(n,)``, in the order of the split;
            not in files.

    All other fields are reported numbers: see :mod:`tightbound.evaluation.numbers`.
    """

    nll: Annotated[Estimate | None, Number("{score}", "data", "{likelihood}", unit="{nats}", bounded=True)] = None
    bits_per_dim: Annotated[
        Estimate | None,
        Number(
            "bits per dimension", "data", "over {entries} dimensions", unit="bits per dimension", digits=4, bounded=True
        ),
    ] = None
    squared_error: Annotated[
        Estimate | None, Number("squared error", "data", "of a reconstruction, summed", unit="{units}", digits=3)
    ] = None
    elbo: Annotated[Estimate | None, Number("ELBO", "bound", "reconstruction minus {divergence}", unit="{nats}")] = None
    reconstruction: Annotated[
        Estimate | None, Number("reconstruction", "bound", "expected log-likelihood {given}", unit="{nats}")
    ] = None
    prior_term: Annotated[
        Estimate | None, Number("prior term", "bound", "what the most noise still tells of an example", unit="nats")
    ] = None
    diffusion_term: Annotated[
        Estimate | None, Number("diffusion term", "bound", "of all noise levels between the ends", unit="nats")
    ] = None
    kl: Annotated[Estimate | None, Number("KL", "bound", "{how}; information in the code, in nats", unit="nats")] = None
    kl_per_dimension: Annotated[
        dict[str, tuple[float, ...]] | None,
        Number("KL of each latent", "bound", "from the one next to the data up", unit="nats", shown="_kl_of_each"),
    ] = None
    prediction: Annotated[
        Estimate | None,
        Number("prediction", "bound", "with latents of the prior given the condition, as it predicts", unit="{nats}"),
    ] = None
    uniform_bits_per_dim: Annotated[
        Estimate | None,
        Number("with uniform codes", "codes", "before a prior was fitted to them", unit="bits per dimension", digits=4),
    ] = None
    relaxation_gap: Annotated[
        Estimate | None, Number("relaxation gap", "codes", "added to the ELBO by relaxed latents", unit="nats")
    ] = None
    codebook_usage: Annotated[
        float | None, Number("codes used", "codes", "of all codes, in this split", digits=1, percent=True)
    ] = None
    perplexity: Annotated[
        float | None, Number("perplexity", "codes", "equally used codes with the same entropy", digits=1)
    ] = None
    k: Annotated[int, Number("{drawn}", "samples", "of each example{more}", shown="_drawn")]
    effective_sample_size: Annotated[
        float | None, Number("effective sample size", "samples", "mean per example", digits=1)
    ] = None
    pareto_k: Annotated[
        float | None,
        Number(
            "Pareto k",
            "samples",
            f"mean heaviness of the weights' tails; reliable up to {UNRELIABLE}",
        ),
    ] = None
    unreliable: Annotated[
        float | None,
        Number(
            "unreliable",
            "samples",
            "of the examples: heavier tails, or few effective samples",
            digits=0,
            percent=True,
        ),
    ] = None
    proposals: Annotated[
        dict[str, int] | None,
        Number("need better proposals", "samples", "examples; samples of {proposals}", of="n", shown="_better"),
    ] = None
    bidirectional_gap: Annotated[
        Estimate | None,
        Number("bidirectional gap", "samples", "between annealing's two bounds, on simulated examples", unit="nats"),
    ] = None
    active_units: Annotated[int, Number("active units", "latent", "{activity}", of="dimensions", shown="_active")]
    active_per_layer: Annotated[
        dict[str, int] | None,
        Number("active units of each latent", "latent", "from the one next to the data up", shown="_active_of_each"),
    ] = None
    dimensions_per_layer: dict[str, int] | None = None
    decoder_noise: DecoderNoise | None = None
    sample_quality: SampleQuality | None = None
    method: Literal["auto", "importance", "prior", "annealed", "exact", "bound", "ode"]
    n: int
    split: str
    trusted: bool | None = None
    dimensions: int | None = None
    kl_is_analytic: bool | None = None
    measure: Measured
    notes: tuple[str, ...]
    nll_per_example: Tensor | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def headline(self) -> str:
        """The likelihood as text: with its error if trusted, else as a bound."""
        if self.nll is None or self.measure == "none":
            rest = "" if self.reconstruction is None else f"; reconstruction {self.reconstruction} nats"
            return f"no likelihood of this data{rest}"
        value = self.nll.bare if self.doubtful else self.nll
        return f"{_SCORE[self.measure]} {'≤ ' if self.bounded else ''}{value} nats"

    @property
    def _kl_of_each(self) -> str | None:
        """In a hierarchy the KL of each latent, by name."""
        if self.kl_per_dimension is None or len(self.kl_per_dimension) == 1:
            return None
        return by_layer({name: f"{sum(nats):.2f}" for name, nats in self.kl_per_dimension.items()})

    @property
    def _active_of_each(self) -> str | None:
        """In a hierarchy the active units of each latent, by name."""
        active, of = self.active_per_layer or {}, self.dimensions_per_layer or {}
        return by_layer({name: f"{n}/{of[name]}" for name, n in active.items() if name in of}) or None

    @property
    def doubtful(self) -> bool:
        """Whether the estimate of the likelihood cannot be trusted."""
        return self.trusted is False

    @property
    def bounded(self) -> bool:
        """Whether the likelihood is only a bound."""
        return self.doubtful or "bound" in (self.measure, self.method) or self.method == "ode"

    @property
    def meaning(self) -> str:
        """What the likelihood means."""
        return self.notes[0] if self.notes else ""

    @property
    def facts(self) -> dict[str, Fact]:
        """Values for the labels of the numbers."""
        return {
            "n": self.n,
            "dimensions": self.dimensions,
            "bounded": self.bounded,
            "doubtful": self.doubtful,
            "given": "under the posterior" if self.diffusion_term is None else "given the least noise",
            "divergence": "KL" if self.diffusion_term is None else "the prior term and the diffusion term",
            "units": "the data's units, squared",
            "entries": "all",
            "likelihood": self.meaning,
            "score": _SCORE[self.measure],
            "nats": _NATS.get(self.measure, "nats per example"),
            "how": f"{_HOW[self.kl_is_analytic]}{', an upper bound' if self.method == 'bound' else ''}",
            "drawn": "importance samples" if self.method in ("auto", "importance") else f"{self.method} samples",
            "more": "; more where needed" if self._better else "",
            "proposals": "; ".join(
                f"{_PROPOSALS.get(name, name)}: {n:,}" for name, n in (self.proposals or {}).items()
            ),
            "activity": f"its mean varies by more than {ACTIVE}" if self.codebook_usage is None else _TELLING,
        }

    @property
    def _drawn(self) -> int | None:
        return None if self.nll is None or self.method in ("exact", "bound", "ode") else self.k

    @property
    def _better(self) -> int | None:
        """How many examples needed better proposals."""
        return sum(n for name, n in self.proposals.items() if name != "posterior") if self.proposals else None

    @property
    def _active(self) -> int | None:
        return None if self.dimensions == 0 else self.active_units


_SCORE = {"mass": "NLL", "bound": "NLL", "density": "negative log-density", "none": "negative score"}
_HOW = {True: "closed form", False: "Monte Carlo", None: ""}
_NATS = {"none": "nats, not a likelihood", "density": "nats of density"}
_TELLING = f"positions with more than {NOTHING} nats of information"
_PROPOSALS = {
    "posterior": "the encoder's posterior",
    "optimised": "a posterior optimised for the example",
    "more_samples": "the same, with more samples",
    "annealed": "annealing",
    "unreached": "the encoder's posterior, as time ran out",
}


@upgrade("evaluation", version=1)
def _by_latent(fields: dict[str, Any]) -> dict[str, Any]:
    """Before version 2 there was one latent, with its KL as a list."""
    return fields | by_latent(fields)


@upgrade("evaluation", version=2)
def _of_the_first(fields: dict[str, Any]) -> dict[str, Any]:
    """Before version 3 the active units of a chain were those of its first latent."""
    wise = fields.get("kl_per_dimension")
    if not isinstance(wise, dict) or len(names := list[str](wise)) < 2:
        return fields
    first = {"active_per_layer": "active_units", "dimensions_per_layer": "dimensions"}
    return fields | {name: {names[0]: fields[of]} for name, of in first.items() if of in fields}


def by_latent(fields: dict[str, Any]) -> dict[str, Any]:
    """The KL of each dimension by the name of a single latent, from a list in older files."""
    wise = fields.get("kl_per_dimension")
    return {"kl_per_dimension": {"z": wise}} if isinstance(wise, list) else {}
