"""The numbers of a report as tables: what was measured, and the same of baselines."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

from ..evaluation import Evaluation, SampleQuality
from ..evaluation.baselines.baselines import Baseline, baselines
from ..evaluation.latents.positions import ACTIVE, NOTHING, active_units
from ..evaluation.log_likelihood.pareto import UNRELIABLE
from ..models import Model
from . import page
from .headline import notes, recipe_name
from .material import Material
from .words import cell

__all__ = ["comparison", "comparison_table", "evaluation"]

ENTRIES = 10**7
"""Baselines are fitted on training examples with at most so many entries."""
_SCORE = {
    "mass": "NLL",
    "bound": "NLL, at most",
    "density": "negative log-density",
    "none": "negative score",
}
_NO_BASELINES = "without baselines, because what the run was trained on is not there to fit them to"


def evaluation(m: Material) -> str:
    """What was measured, as an HTML table."""
    if m.evaluation is None:
        return page.paragraph("Nothing has been measured yet. This measures it:") + page.code(
            f"tightbound evaluate {m.folder.path}"
        )
    return _table(m, m.evaluation)


_Row = tuple[str, str | None, str | None]


def _table(m: Material, e: Evaluation) -> str:
    """The parts that a model with latents alone has are left out of a model without."""
    latent = m.codes.shape[1] > 0
    parts = [_of_the_data(m, e), _of_the_bound(e) if latent or e.nll is None else (), _of_the_codes(e)]
    parts += [_of_the_samples(e), [("active units", *_active(m))]] if latent else []
    parts += [_of_the_noise(e), _quality(e.sample_quality)]
    there = [[name, value, what or ""] for part in parts for name, value, what in part if value is not None]
    told = notes(e) if e.measure in ("mass", "bound") and e.trusted is not False else ""
    return page.table(["quantity", "value ± error", "what it is"], there, numbers=1) + told


def _of_the_data(m: Material, e: Evaluation) -> Iterator[_Row]:
    dimensions = m.model.measure(m.spec).dimensions or m.spec.dimensions
    doubtful = e.trusted is False
    yield _SCORE[e.measure], e.nll and cell(e.nll, bound=doubtful), f"nats; {_what(m, e)}"
    bits = e.bits_per_dim and cell(e.bits_per_dim, 3, doubtful)
    yield "bits per dimension", bits, f"over {dimensions:,} dimensions"
    yield "squared error", e.squared_error and cell(e.squared_error), f"of a reconstruction, summed; {m.spec.units}"


def _what(m: Material, e: Evaluation) -> str:
    """What the likelihood is; where it is none of this data, a box says why."""
    none = e.measure == "none" or (e.measure == "density" and m.spec.levels is not None)
    return "not a likelihood of this data" if none else e.notes[0]


def _of_the_bound(e: Evaluation) -> Iterator[_Row]:
    how = {True: "closed form", False: "Monte Carlo", None: ""}[e.kl_is_analytic]
    yield "ELBO", e.elbo and cell(e.elbo), "nats; reconstruction minus KL"
    yield "reconstruction", cell(e.reconstruction), "nats; expected log-likelihood under the posterior"
    yield "KL", e.kl and cell(e.kl), f"nats, {how}; what the code carries"
    yield "prediction", e.prediction and cell(e.prediction), "nats; with latents of the prior, as it predicts"


def _of_the_codes(e: Evaluation) -> Iterator[_Row]:
    uniform, relaxed = e.uniform_bits_per_dim, e.relaxation_gap
    yield "with uniform codes", uniform and cell(uniform, 3), "bits per dimension"
    yield "relaxation gap", relaxed and cell(relaxed), "nats that relaxed latents add to the ELBO"
    used = None if e.codebook_usage is None else f"{e.codebook_usage:.1%}"
    yield "codes used", used, "of all codes, by this split"
    perplexity = None if e.perplexity is None else f"{e.perplexity:.0f}"
    yield "perplexity", perplexity, "codes, equally used, as uncertain"


def _of_the_samples(e: Evaluation) -> Iterator[_Row]:
    """What the likelihood was estimated by, and the evidence for trusting it."""
    if e.nll is None:
        return
    better = sum((e.proposals or {}).values()) - (e.proposals or {}).get("posterior", 0)
    more = "; more where these do not suffice" if better else ""
    yield "importance samples", f"{e.k:,}", f"of each example{more}"
    ess, gap = e.effective_sample_size, e.bidirectional_gap
    yield "effective sample size", None if ess is None else f"{ess:.1f}", "samples of each example that count, mean"
    shape = None if e.pareto_k is None else f"{e.pareto_k:.2f}"
    yield "Pareto k", shape, f"how heavy the tails of their weights are, mean; up to {UNRELIABLE} they can be trusted"
    doubtful = None if e.unreliable is None else f"{e.unreliable:.0%}"
    yield "unreliable", doubtful, "of the examples: the tails are heavier than that, or few samples count"
    if e.proposals:
        told = "; ".join(f"{_PROPOSALS.get(name, name)}: {count:,}" for name, count in e.proposals.items())
        yield "need better proposals", f"{better:,} of {e.n:,}", f"examples; samples of {told}"
    yield "bidirectional gap", gap and cell(gap), "nats between annealing's two bounds, on simulated examples"


_PROPOSALS = {
    "posterior": "the encoder's posterior",
    "optimised": "a posterior optimised for the example",
    "more_samples": "the same, and more of them",
    "annealed": "annealing",
    "unreached": "the encoder's posterior, for want of time",
}


def _of_the_noise(e: Evaluation) -> Iterator[_Row]:
    if (noise := e.decoder_noise) is not None:
        yield "decoder σ", f"{noise.std:.3g}", noise.remark


def _active(m: Material) -> tuple[str, str]:
    """How many of how many, and what that is."""
    codes = m.model.codes is not None
    what = f"positions that tell more than {NOTHING} nats" if codes else f"its mean varies by more than {ACTIVE}"
    return " of ".join(map(str, active_units(m.model.posterior, m.codes))), what


def _quality(found: SampleQuality | None) -> Iterator[_Row]:
    if found is None:
        return
    told = "" if found.accuracy is None else f", which tell {found.accuracy.value:.0%} of the labels"
    yield "Fréchet distance of samples", cell(found.samples), f"in features of a classifier{told}"
    yield "of samples with uniform codes", found.uniform and cell(found.uniform), "in the same features"
    yield (
        "of reconstructions",
        found.reconstructions and cell(found.reconstructions),
        "what a perfect prior would have",
    )
    yield "of training examples", cell(found.data), "what chance leaves"


def comparison(m: Material) -> list[Baseline]:
    """The model's row, then those of the baselines that can be compared with it."""
    e, name = m.evaluation, f"{recipe_name(m)} (this run)"
    if e is None:
        rows = [Baseline(name, None, None, None, "none", "not measured yet")]
    else:
        own: Any = e.measure
        rows = [Baseline(name, e.nll, e.bits_per_dim, e.squared_error, own, _what(m, e))]
    if m.model.measure(m.spec).dimensions is not None:  # of a part of each example only
        return rows
    if m.learned is None:
        return [dataclasses.replace(rows[0], note=f"{rows[0].note}; {_NO_BASELINES}")]
    positions, most = _positions(m.model), max(500, ENTRIES // m.spec.dimensions)
    found = baselines(m.learned, positions or m.codes.shape[1] or 1, m.measured, most)
    return rows + [_told(row, positions) for row in found if row.measure != "density" or rows[0].measure == "density"]


def _positions(model: Model) -> int:
    """How many positions of codes, where the latents are codes; else 0."""
    return 0 if model.codes is None else sum(math.prod(grid) for grid in model.codes.grids)


def _told(row: Baseline, positions: int) -> Baseline:
    """A row of PCA or LDA says how many components it has, and beside codes that each stands for a position."""
    note = re.sub(r"^k = (\d+)", r"\1 components", row.note)
    note = re.sub("^1 components", "1 component", note)
    if positions and "PCA" in row.name:
        note += f"; beside codes, a component for each of {positions} positions"
    return dataclasses.replace(row, note=note)


def comparison_table(m: Material, rows: list[Baseline]) -> str:
    """The same as HTML."""
    marked = rows[0].measure in ("none", "density") and m.spec.levels is not None
    doubtful = m.evaluation is not None and m.evaluation.trusted is False
    bounds = [i == 0 and doubtful for i in range(len(rows))]
    head = ["model", "nats", "bits per dimension", "squared error", "what it is"]
    cells = [
        [
            row.name,
            cell(row.nll, bound=bound) + ("†" if row.nll and row.measure in ("none", "density") and marked else ""),
            cell(row.bits_per_dim, 3, bound),
            cell(row.squared_error),
            row.note,
        ]
        for row, bound in zip(rows, bounds, strict=True)
    ]
    text = (
        "Lower is better in every column. Nats are, for one example, negative log-likelihoods, or what the last column "
        f"says instead; the squared error is that of its reconstruction, summed over its entries: {m.spec.units}."
    )
    dagger = [
        page.paragraph("† Not a likelihood of this data: not comparable with the rows without this mark.", "soft")
    ]
    return page.paragraph(text) + page.table(head, cells, numbers=3, model=0) + "".join(dagger if marked else [])
