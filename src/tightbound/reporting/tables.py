"""The numbers of a report: the verdict in words, the evaluation, the comparison with baselines, the configuration."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Iterator
from typing import Any

import torch

from .. import __version__
from ..evaluation import Estimate, Evaluation, SampleQuality
from ..evaluation.baselines import Baseline, baselines
from ..evaluation.positions import ACTIVE, NOTHING, active_units
from ..likelihoods import measure_of
from ..recipes.two_stage import TwoStage, is_code_space
from ..spec import kind_of, to_json
from . import page
from .command import changed, reproduction_command
from .material import Material

__all__ = ["comparison", "configuration", "evaluation", "heading", "reproduction"]

_SCORE = {
    "mass": "NLL",
    "bound": "NLL, at most",
    "density": "negative log-density",
    "none": "negative score",
}
_OTHER = (
    "The model was trained on other examples than those here: the numbers and pictures are of these, the curves and "
    "the configuration of the run."
)


_NO_BASELINES = "without baselines, because what the run was trained on is not there to fit them to"


def heading(m: Material, rows: list[Baseline]) -> str:
    """Title, verdict and warnings, as HTML."""
    lines = [page.tag("h1", page.escape(f"{recipe_name(m)} on {m.spec.name}"))]
    lines.append(page.paragraph(verdict(m, rows), "verdict"))
    if m.other:
        lines.append(page.box("Not the data of this run.", [_OTHER, *m.data.said], "note"))
    return "".join([*lines, *_warnings(m.evaluation, continuous=m.spec.levels is None)])


def recipe_name(m: Material) -> str:
    """Name of the recipe."""
    return "a model put together by hand" if m.config.recipe is None else to_json(m.config.recipe)["kind"]


def verdict(m: Material, rows: list[Baseline]) -> str:
    """What the run reached, in a sentence or two of text."""
    e, own = m.evaluation, rows[0]
    there = len(m.data.split(e.split))
    what = "examples" if e.split == "all" else f"{e.split} examples"
    where = f"On {e.n:,}{'' if e.n == there else f' of {there:,}'} {what}"
    active, latents = active_units(m.model.posterior, m.codes)
    what = "positions of codes" if is_code_space(m.model.posterior) else "latent dimensions"
    active = f"{active} of {latents} {what} are active." if latents else "It has no latent."
    if e.nll is None or e.measure == "none":
        error = f"{where} the squared error of a reconstruction is {_cell(own.squared_error)}"
        pca = next((r.squared_error for r in rows if r.name == "PCA"), None)
        many = "components as positions" if is_code_space(m.model.posterior) else "dimensions"
        compared = f", that of PCA with as many {many} {_cell(pca)}" if pca else ""
        return f"{error}{compared}; the model gives no likelihood of this data. {active}"
    told = _without_error if e.trusted is False else lambda estimate: estimate
    if e.measure == "density":
        limit = "" if m.spec.levels is None else ", which is no likelihood of this discrete data"
        least = "at least " if e.trusted is False else ""
        return f"{where} the log-density is {least}{_cell(_negated(told(e.nll)))} nats ({_taken(e)}){limit}. {active}"
    most = "at most " if e.measure == "bound" or e.trusted is False else ""
    bits = "" if e.bits_per_dim is None else f", {_cell(told(e.bits_per_dim), 3)} bits per dimension"
    pixels = next((r.nll for r in rows if r.name == "independent pixels"), None)
    gain = "" if pixels is None else f", {_gain(pixels.value - e.nll.value)} independent pixels"
    nll = f"{most}{_cell(told(e.nll))} nats{bits}"
    return f"{where} the negative log-likelihood is {nll} ({_taken(e)}){gain}. {active}"


def _taken(e: Evaluation) -> str:
    return f"k = {e.k}{' or more' if e.method == 'auto' else ''}"


def _gain(nats: float) -> str:
    return f"{abs(nats):.1f} nats {'better' if nats > 0 else 'worse'} than"


def _without_error(estimate: Estimate) -> Estimate:
    return Estimate(estimate.value, None)


def _negated(estimate: Estimate) -> Estimate:
    return Estimate(-estimate.value, estimate.standard_error)


def _warnings(e: Evaluation, continuous: bool) -> Iterator[str]:
    if e.measure == "density" and continuous:
        yield page.box("A density, not a probability: its nats depend on the units of the data.", e.notes, "note")
    elif e.measure in ("none", "density"):
        advice = "Do not compare these numbers with likelihoods, here or in the literature."
        yield page.box("Not a likelihood of this data.", [*e.notes, advice])
    elif len(e.notes) > 1:
        yield page.box("What these numbers need you to know.", e.notes[1:], "note")


def evaluation(m: Material) -> str:
    """What was measured, as an HTML table."""
    e = m.evaluation
    dimensions = measure_of(m.model.likelihood, m.spec).dimensions or m.spec.dimensions
    how = {True: "closed form", False: "Monte Carlo", None: ""}[e.kl_is_analytic]
    ess = None if e.effective_sample_size is None else f"{e.effective_sample_size:.1f}"
    ess = f"{ess} of {e.k}" if ess and e.method != "auto" else ess
    needed = None if e.proposals is None else ", ".join(f"{name} {count:,}" for name, count in e.proposals.items())
    gap = e.bidirectional_gap
    doubtful = e.trusted is False
    rows = [
        (_SCORE[e.measure], e.nll and _cell(e.nll, bound=doubtful), f"nats; {e.notes[0]}"),
        (
            "bits per dimension",
            e.bits_per_dim and _cell(e.bits_per_dim, 3, doubtful),
            f"over {dimensions} dimensions",
        ),
        ("ELBO", e.elbo and _cell(e.elbo), "nats; reconstruction minus KL"),
        ("reconstruction", _cell(e.reconstruction), "nats; expected log-likelihood under the posterior"),
        ("KL", e.kl and _cell(e.kl), f"nats, {how}; what the code carries"),
        ("prediction", e.prediction and _cell(e.prediction), "nats; with latents of the prior, as it predicts"),
        ("with uniform codes", e.uniform_bits_per_dim and _cell(e.uniform_bits_per_dim, 3), "bits per dimension"),
        (
            "relaxation gap",
            e.relaxation_gap and _cell(e.relaxation_gap),
            "nats that relaxed latents add to the ELBO",
        ),
        ("codes used", None if e.codebook_usage is None else f"{e.codebook_usage:.1%}", "of all codes, by this split"),
        ("perplexity", None if e.perplexity is None else f"{e.perplexity:.0f}", "codes, equally used, as uncertain"),
        ("effective sample size", ess, "importance samples that count"),
        ("proposals", needed, "where these come from, by examples that needed it"),
        ("bidirectional gap", gap and _cell(gap), "nats between annealing's two bounds, on simulated examples"),
        ("active units", *_active(m)),
        ("decoder σ", e.decoder_noise and f"{e.decoder_noise.std:.3g}", e.decoder_noise and e.decoder_noise.remark),
    ]
    there = [[name, value, what] for name, value, what in [*rows, *_quality(e.sample_quality)] if value is not None]
    return page.table(["", "value ± standard error", "what it is"], there, numbers=1)


def _active(m: Material) -> tuple[str, str]:
    """How many of how many, and what that is."""
    codes = is_code_space(m.model.posterior)
    what = f"positions that tell more than {NOTHING} nats" if codes else f"its mean varies by more than {ACTIVE}"
    return " of ".join(map(str, active_units(m.model.posterior, m.codes))), what


def _quality(found: SampleQuality | None) -> Iterator[tuple[str, str | None, str]]:
    if found is None:
        return
    told = "" if found.accuracy is None else f", which tell {found.accuracy.value:.0%} of the labels"
    yield "Fréchet distance of samples", _cell(found.samples), f"in features of a classifier{told}"
    yield "of samples with uniform codes", found.uniform and _cell(found.uniform), "in the same features"
    yield (
        "of reconstructions",
        found.reconstructions and _cell(found.reconstructions),
        "what a perfect prior would have",
    )
    yield "of training examples", _cell(found.data), "what chance leaves"


def comparison(m: Material) -> list[Baseline]:
    """The model's row, then those of the baselines that can be compared with it."""
    e = m.evaluation
    own: Any = e.measure
    rows = [Baseline(f"{recipe_name(m)} (this run)", e.nll, e.bits_per_dim, e.squared_error, own, e.notes[0])]
    if measure_of(m.model.likelihood, m.spec).dimensions is not None:  # of a part of each example only
        return rows
    if m.learned is None:
        return [dataclasses.replace(rows[0], note=f"{rows[0].note}; {_NO_BASELINES}")]
    positions = _positions(m.model.posterior)
    found = baselines(m.learned, positions or m.codes.shape[1] or 1, m.test)
    return rows + [_told(row, positions) for row in found if row.measure != "density" or e.measure == "density"]


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
    marked = m.evaluation.measure in ("none", "density") and m.spec.levels is not None
    bounds = [i == 0 and m.evaluation.trusted is False for i in range(len(rows))]
    head = ["", "nats", "bits per dimension", "squared error", "what it is"]
    cells = [
        [
            row.name,
            ("≤ " if bound else "")
            + _cell(row.nll, bound=bound)
            + ("†" if row.nll and row.measure in ("none", "density") and marked else ""),
            _cell(row.bits_per_dim, 3, bound),
            _cell(row.squared_error),
            row.note,
        ]
        for row, bound in zip(rows, bounds, strict=True)
    ]
    text = (
        "Lower is better in every column. Nats are, for one example, negative log-likelihoods, or what the last column "
        "says instead; the squared error is that of its reconstruction, summed over its entries, in the data's units."
    )
    dagger = [
        page.paragraph("† Not a likelihood of this data: not comparable with the rows without this mark.", "soft")
    ]
    return page.paragraph(text) + page.table(head, cells, numbers=3, model=0) + "".join(dagger if marked else [])


def _cell(estimate: Estimate | None, digits: int = 2, bound: bool = False) -> str:
    """A number with its error, which a bound has not."""
    if estimate is None:
        return "–"
    if bound:
        return f"≤ {_cell(_without_error(estimate), digits)}"
    numbers = (estimate.value, estimate.standard_error)
    return " ± ".join(f"{number:.{digits}f}" for number in numbers if number is not None).replace("-", "−")


def configuration(m: Material) -> str:
    """Every option, as HTML tables; what differs from its default is marked."""
    recipe: Any = m.config.recipe
    parts = {f"Recipe {recipe_name(m)}": recipe}
    if isinstance(recipe, TwoStage):
        first = {f"First stage: {kind_of(recipe.first)}": recipe.first, "Its data": recipe.first_data}
        parts = first | {"Its training": recipe.first_training, "Prior": recipe.second}
    parts |= {"Data": m.config.data, "Training": m.config.training}
    text = page.paragraph("An asterisk marks what differs from its default.")
    return text + page.tiles(
        *(
            page.tag("div", page.tag("h3", page.escape(title)), _options(options))
            for title, options in parts.items()
            if options is not None
        )
    )


def _options(options: Any) -> str:
    different = changed(options)
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    rows = [[f"{name}{' *' if name in different else ''}", _shown(value)] for name, value in values.items()]
    return page.table(["option", "value"], rows)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "–" if value is None else str(value)


def reproduction(m: Material) -> str:
    """The command that makes the run again, and the versions, as HTML."""
    command = reproduction_command(m.config, m.folder.path.as_posix())
    if command is None:
        how = page.paragraph("No command makes this run again: its model was put together in Python.")
    else:
        how = page.code(command)
    versions = [
        ["tightbound", f"{m.config.tightbound or 'unknown'} (trained), {__version__} (this report)"],
        ["torch", torch.__version__],
        ["Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"],
    ]
    same = "The same command with the same versions on the same machine gives the same weights, bit for bit."
    return how + page.paragraph(same) + page.table(["", "version"], versions)
