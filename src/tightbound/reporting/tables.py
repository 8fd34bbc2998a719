"""The numbers of a report as tables: what was measured, and the same of baselines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from ..evaluation import Evaluation, SampleQuality
from ..evaluation.baselines import Baseline, baselines
from ..evaluation.positions import ACTIVE, NOTHING, active_units
from ..likelihoods import measure_of
from ..recipes.two_stage import is_code_space
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


def _table(m: Material, e: Evaluation) -> str:
    dimensions = measure_of(m.model.likelihood, m.spec).dimensions or m.spec.dimensions
    how = {True: "closed form", False: "Monte Carlo", None: ""}[e.kl_is_analytic]
    ess = None if e.effective_sample_size is None else f"{e.effective_sample_size:.1f}"
    ess = f"{ess} of {e.k}" if ess and e.method != "auto" else ess
    needed = None if e.proposals is None else ", ".join(f"{name} {count:,}" for name, count in e.proposals.items())
    gap = e.bidirectional_gap
    doubtful = e.trusted is False
    rows = [
        (_SCORE[e.measure], e.nll and cell(e.nll, bound=doubtful), f"nats; {e.notes[0]}"),
        (
            "bits per dimension",
            e.bits_per_dim and cell(e.bits_per_dim, 3, doubtful),
            f"over {dimensions} dimensions",
        ),
        ("ELBO", e.elbo and cell(e.elbo), "nats; reconstruction minus KL"),
        ("squared error", e.squared_error and cell(e.squared_error), f"of a reconstruction, summed; {m.spec.units}"),
        ("reconstruction", cell(e.reconstruction), "nats; expected log-likelihood under the posterior"),
        ("KL", e.kl and cell(e.kl), f"nats, {how}; what the code carries"),
        ("prediction", e.prediction and cell(e.prediction), "nats; with latents of the prior, as it predicts"),
        ("with uniform codes", e.uniform_bits_per_dim and cell(e.uniform_bits_per_dim, 3), "bits per dimension"),
        (
            "relaxation gap",
            e.relaxation_gap and cell(e.relaxation_gap),
            "nats that relaxed latents add to the ELBO",
        ),
        ("codes used", None if e.codebook_usage is None else f"{e.codebook_usage:.1%}", "of all codes, by this split"),
        ("perplexity", None if e.perplexity is None else f"{e.perplexity:.0f}", "codes, equally used, as uncertain"),
        ("effective sample size", ess, "importance samples that count"),
        ("proposals", needed, "where these come from, by examples that needed it"),
        ("bidirectional gap", gap and cell(gap), "nats between annealing's two bounds, on simulated examples"),
        ("active units", *_active(m)),
        ("decoder σ", e.decoder_noise and f"{e.decoder_noise.std:.3g}", e.decoder_noise and e.decoder_noise.remark),
    ]
    there = [[name, value, what] for name, value, what in [*rows, *_quality(e.sample_quality)] if value is not None]
    told = notes(e) if e.measure in ("mass", "bound") and e.trusted is not False else ""
    return page.table(["quantity", "value ± error", "what it is"], there, numbers=1) + told


def _active(m: Material) -> tuple[str, str]:
    """How many of how many, and what that is."""
    codes = is_code_space(m.model.posterior)
    what = f"positions that tell more than {NOTHING} nats" if codes else f"its mean varies by more than {ACTIVE}"
    return " of ".join(map(str, active_units(m.model.posterior, m.codes))), what


def _quality(found: SampleQuality | None) -> Iterator[tuple[str, str | None, str]]:
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
        rows = [Baseline(name, e.nll, e.bits_per_dim, e.squared_error, own, e.notes[0])]
    if measure_of(m.model.likelihood, m.spec).dimensions is not None:  # of a part of each example only
        return rows
    if m.learned is None:
        return [dataclasses.replace(rows[0], note=f"{rows[0].note}; {_NO_BASELINES}")]
    positions, most = _positions(m.model.posterior), max(500, ENTRIES // m.spec.dimensions)
    found = baselines(m.learned, positions or m.codes.shape[1] or 1, m.measured, most)
    return rows + [_told(row, positions) for row in found if row.measure != "density" or rows[0].measure == "density"]


def _positions(posterior: Any) -> int:
    """How many positions of codes, where the latents are codes; else 0."""
    return sum(math.prod(grid) for grid in posterior.grids) if is_code_space(posterior) else 0


def _told(row: Baseline, positions: int) -> Baseline:
    """A row of PCA beside codes says that it has a component for each position."""
    if not positions or "PCA" not in row.name:
        return row
    return dataclasses.replace(row, note=f"{row.note}; beside codes, a component for each of {positions} positions")


def comparison_table(m: Material, rows: list[Baseline]) -> str:
    """The same as HTML."""
    marked = rows[0].measure in ("none", "density") and m.spec.levels is not None
    doubtful = m.evaluation is not None and m.evaluation.trusted is False
    bounds = [i == 0 and doubtful for i in range(len(rows))]
    head = ["model", "nats", "bits per dimension", "squared error", "what it is"]
    cells = [
        [
            row.name,
            ("≤ " if bound else "")
            + cell(row.nll, bound=bound)
            + ("†" if row.nll and row.measure in ("none", "density") and marked else ""),
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
