"""Tables of a report: the evaluation, and the baselines."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from ..evaluation import Evaluation
from ..evaluation.baselines.baselines import Baseline, baselines
from ..evaluation.numbers import rows as rows_of
from ..models import Model
from . import page
from .headline import notes, recipe_name
from .material import Material
from .words import cell, signed

__all__ = ["comparison", "comparison_table", "evaluation"]

ENTRIES = 10**7
"""Maximum number of entries of the training examples that baselines are fitted on."""
_NO_BASELINES = "without baselines, because the training data is not available to fit them"


def evaluation(m: Material) -> str:
    """The evaluation, as an HTML table."""
    if m.evaluation is None:
        return page.paragraph("Not evaluated yet. To evaluate:") + page.code(f"tightbound evaluate {m.folder.path}")
    return _table(m, m.evaluation)


def _table(m: Material, e: Evaluation) -> str:
    """The parts that a model with latents alone has are left out of a model without."""
    sections = _BARE if not m.codes.shape[1] else ()
    shown = [row for row in rows_of(_as_shown(m, e), **_facts(m, e)) if not sections or row.number.section in sections]
    there = [[row.words, signed(row.text), "; ".join(filter(None, (row.unit, row.meaning)))] for row in shown]
    told = notes(e) if e.measure in ("mass", "bound") and not e.doubtful else ""
    quality = page.box("Notes on the quality.", e.sample_quality.notes, "note") if e.sample_quality else ""
    return page.table(["quantity", "value ± error", "what it is"], there, numbers=1) + told + quality


_BARE = ("data", "noise", "quality")
"""What a model without latents has."""


def _as_shown(m: Material, e: Evaluation) -> Evaluation:
    """With the active units of the examples that the page shows."""
    active, dimensions = m.active_units
    return dataclasses.replace(e, active_units=active, dimensions=dimensions)


def _facts(m: Material, e: Evaluation) -> dict[str, Any]:
    dimensions = m.model.measure(m.spec).dimensions or m.spec.dimensions
    return {"units": m.spec.units, "entries": f"{dimensions:,}", "likelihood": _what(m, e)}


def _what(m: Material, e: Evaluation) -> str:
    """What the likelihood is; where it is none of this data, a box says why."""
    none = e.measure == "none" or (e.measure == "density" and m.spec.levels is not None)
    return "not a likelihood of this data" if none else e.meaning


def comparison(m: Material) -> list[Baseline]:
    """The model's row, then those of the baselines that can be compared with it."""
    e, name = m.evaluation, f"{recipe_name(m)} (this run)"
    if e is None:
        rows = [Baseline(name, None, None, None, "none", "not measured yet")]
    else:
        rows = [Baseline(name, e.nll, e.bits_per_dim, e.squared_error, e.measure, _what(m, e))]
    if m.model.measure(m.spec).dimensions is not None:  # of a part of each example only
        return rows
    if m.learned is None:
        return [dataclasses.replace(rows[0], note=f"{rows[0].note}; {_NO_BASELINES}")]
    positions, most = _positions(m.model), max(500, ENTRIES // m.spec.dimensions)
    found = baselines(m.learned, positions or m.codes.shape[1] or 1, m.measured, most)
    return rows + [_told(row, positions) for row in found if row.measure != "density" or rows[0].measure == "density"]


def _positions(model: Model) -> int:
    """Number of positions if the latents are codes, else 0."""
    return 0 if model.codes is None else sum(math.prod(grid) for grid in model.codes.grids)


def _told(row: Baseline, positions: int) -> Baseline:
    """The label of a row of PCA or LDA: its number of components, and for codes that each stands for a position."""
    note = re.sub(r"^k = (\d+)", r"\1 components", row.note)
    note = re.sub("^1 components", "1 component", note)
    if positions and "PCA" in row.name:
        note += f"; beside codes, a component for each of {positions} positions"
    return dataclasses.replace(row, note=note)


def comparison_table(m: Material, rows: list[Baseline]) -> str:
    """The same as HTML."""
    marked = rows[0].measure in ("none", "density") and m.spec.levels is not None
    doubtful = m.evaluation is not None and m.evaluation.doubtful
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
