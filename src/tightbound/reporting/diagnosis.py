"""The diagnosis of the latents: a section of the report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..data import Split
from ..evaluation import Diagnosis
from ..evaluation.collapse.layer import COLUMNS, Layer, cells
from ..evaluation.evaluate import untrained
from ..evaluation.numbers import rows
from ..runtime.randomness import fixed_noise
from . import figures, page
from .command import command_on
from .material import Material
from .words import signed

__all__ = ["section", "summary"]

EXAMPLES = 1000
"""Number of test examples in the histograms."""
DRAWS = 10
"""Posterior samples per example in the histograms."""


def section(m: Material) -> str:
    """The verdict, the decomposed ELBO, and the codes compared with the prior, as HTML."""
    if reason := _why_not(m):
        return page.paragraph(reason)
    if (found := m.diagnosis) is None:
        return _missing(m)
    words = f"{found.verdict[0].upper()}{found.verdict[1:]}: {found.cause}. Remedy: {found.remedy}."
    quick = "" if m.diagnosed else page.instructive(_quick(m, found), "quick", _command(m))
    test = m.test.evenly_spaced(EXAMPLES)
    parts = [page.instructive(words, "verdict"), quick, _bars(found), _table(found)]
    parts.append(_layers(found.layers) if found.layers else _codes(m, found, test))
    return "".join([*parts, page.box("How to read this.", found.notes, "note") if found.notes else ""])


def summary(m: Material) -> str:
    """The verdict in a few words, as text."""
    if _why_not(m):
        return "there is nothing to diagnose"
    return "not diagnosed yet" if m.diagnosis is None else m.diagnosis.verdict


def _why_not(m: Material) -> str:
    """Why there is nothing to diagnose; empty if there is."""
    if not m.bounded:
        return "The model has no KL between a posterior and a prior, so there is nothing to diagnose."
    if untrained(m.model):
        return "The posterior of this model was not trained, so there is nothing to diagnose."
    return ""


def _command(m: Material) -> str:
    return command_on(m.folder.path, "diagnose")


def _missing(m: Material) -> str:
    text = (
        f"Not diagnosed yet: the report had no time for it. {_command(m)} takes the time it needs; "
        "--quick SECONDS gives the report more."
    )
    return page.instructive(text, "quick", _command(m))


def _quick(m: Material, found: Diagnosis) -> str:
    there = len(m.whole)
    some = f"{found.n:,}" if found.n == there else f"{found.n:,} of {there:,}"
    few = f", {found.fit_n:,} of them for the gap" if found.fit_n else ""
    return f"Diagnosed quickly, on {some} examples{few}: {_command(m)} takes more."


def _bars(found: Diagnosis) -> str:
    said, mismatch = found.mutual_information.value, found.aggregate_kl
    bars = []
    if mismatch is not None and not found.layers:  # which are compared on too few examples for this
        parts = [
            ("mutual information, at least", said),
            ("aggregate posterior against the prior, at most", mismatch.value),
        ]
        bars.append(("KL", parts))
    if found.approximation_gap and found.amortisation_gap:
        approximation = ("posterior family", found.approximation_gap.value)
        bars.append(("gap", [approximation, ("encoder", found.amortisation_gap.value)]))
    if not bars:
        return ""
    title = "Parts of the KL and of the gap of the ELBO"
    return page.figure(page.plot(figures.svg(figures.stacked(bars, "nats per example")), alt=title), title)


def _table(found: Diagnosis) -> str:
    shown = [[row.words, signed(row.text), row.meaning] for row in rows(found)]
    return page.table(["nats per example", "value ± error", "what it is"], shown, numbers=1)


def _layers(layers: Sequence[Layer]) -> str:
    """What each layer of a hierarchy carries, as bars and as a table."""
    names, dead = [layer.name for layer in layers], [layer.dead for layer in layers]
    kl = [layer.kl for layer in layers if layer.kl is not None]
    measures = {
        **({"KL [nats]": kl} if kl else {}),
        "alone [nats]": [layer.alone.value for layer in layers],
        "used [nats]": [layer.decoder_use.value for layer in layers],
    }
    title = "what it alone tells of an example, and the likelihood that is lost when it is exchanged"
    title = f"Each layer: {'its KL, ' if kl else ''}{title}"
    bars = page.plot(figures.svg(figures.layer_panels(names, measures, dead)), alt=title)
    rows = [[signed(cell) for cell in row] for row in cells(layers)]
    return page.figure(bars, title) + page.table(COLUMNS, rows, numbers=5)


def _codes(m: Material, found: Diagnosis, test: Split, most: int = 6) -> str:
    """Histograms of posterior samples and of the prior, for the most used dimensions."""
    kl = np.asarray([nats for each in (found.kl_per_dimension or {}).values() for nats in each])
    if m.model.codes is not None:
        return ""
    if not m.model.can_sample or len(kl) not in (0, found.dimensions) or found.dimensions < 2:
        return ""
    with fixed_noise(m.seed), torch.no_grad():
        x, c = m.model.see(test.batch(torch.arange(len(test)), m.model.device))
        px = m.model(c)
        q = px.posterior(x)
        told = q.mean.flatten(1).double().var(0).cpu().numpy()
        z = q.sample((DRAWS,)).flatten(0, 1).flatten(1).double().cpu().numpy()
        count = 20_000 // px.batch_shape.numel() + 1
        reference = px.sample_latent((count,)).reshape(-1, q.event_shape.numel()).double().cpu().numpy()
    chosen = np.argsort(-kl if len(kl) else -told, kind="stable")[:most]
    both = np.concatenate([z[:, chosen], reference[:, chosen]])
    limits = (float(np.quantile(both, 0.001)), float(np.quantile(both, 0.999)))
    said = [f"z{d} · {kl[d]:.2f} nats" if len(kl) else f"z{d}" for d in chosen.tolist()]
    drawn = [figures.svg(figures.density(z[:, d], reference[:, d], limits)) for d in chosen.tolist()]
    panels = [
        page.figure(page.plot(svg, f"codes and prior of {name}"), name) for svg, name in zip(drawn, said, strict=True)
    ]
    most_used = "largest KL" if len(kl) else "largest variance of the posterior's mean"
    title = f"The codes of all examples, with the prior in outline, in the dimensions with the {most_used}:"
    return page.paragraph(title, "soft") + page.tag("div", *panels, class_="panels")
