"""The content and order of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from ..data import Data
from ..evaluation.baselines.baselines import Baseline
from ..models import Model
from ..runtime.files import write_atomically
from ..runtime.progress import progress
from . import diagnosis, diffusion, layers, page, players, surprise, tables, visuals
from .headline import cards, latents, measured, title, verdict, warnings
from .hero import hero
from .latent_map import latent_map
from .material import Material, gather
from .page import Section
from .settings import configuration, differing, reproduction, trained

__all__ = ["write_report"]


def write_report(
    run: str | Path,
    *,
    data: Data | str | Path | None = None,
    model: Model | None = None,
    k: int | None = None,
    quick: float = 6.0,
    device: str = "auto",
    seed: int = 0,
) -> Path:
    """Writes ``report.html`` into a run folder: one self-contained page.

    It shows ``evaluation.json`` and ``diagnosis.json`` if they belong to the run's weights. Missing results are
    measured on as many test examples as time allows, with a note on the page and on standard error, and not stored.

    Args:
        run: The run folder.
        data: Data to use instead of the run's own, or its new location; stored results are then not shown.
        model: For a model built by hand: the same model.
        k: Importance samples; default: as in ``evaluation.json``, or adaptive.
        quick: Seconds for quick measurements; 0 for none.
        device: Where to compute: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        seed: Seed of all noise, of the images and the results.

    Returns:
        The page.

    Raises:
        CheckpointError: If the folder holds no complete run, or the page cannot be written.
        DataError: If the run's data cannot be loaded.
        UsageError: If the data is not known, has changed since the run was trained, or does not fit the model, or
            the device does not exist, or k is given without time to draw samples.

    Example:
        >>> import tempfile, tightbound as tb
        >>> data, run = tb.load_data("digits"), tempfile.mkdtemp()
        >>> _ = tb.train(tb.recipes.VAE(latent_dim=2).build(data.spec), data, steps=3, out=run)
        >>> write_report(run, k=2).name
        'report.html'
    """
    m = gather(run, data, model, k, quick=quick, device=device, seed=seed)
    sections, rows = list[Section](), tables.comparison(m)
    with progress("report", 17 if m.codes.shape[1] else 11) as advance:
        for part in _sections(m, rows):
            sections.extend([part] if part.content else [])
            advance()
    text = page.page(title(m), _head(m, rows), sections)
    write_atomically(m.folder.report, lambda temporary: Path(temporary).write_text(text, "utf8", "replace"))
    return m.folder.report


def _head(m: Material, rows: list[Baseline]) -> str:
    """The title, the verdict, the image and the numbers that come first, as HTML."""
    head = page.tag("h1", page.escape(title(m))) + page.paragraph(verdict(m, rows), "verdict")
    return head + hero(m) + cards(m) + warnings(m)


def _sections(m: Material, rows: list[Baseline]) -> Iterator[Section]:
    """Images first, open; then numbers, collapsed, with a summary line; some may be empty."""
    told = surprise.per_example_numbers(m.of_the_measured())
    latent = m.model.space is not None
    if latent:
        yield Section("Reconstructions", visuals.reconstructions(m))
    yield Section("Samples", visuals.samples(m))
    yield Section("What each layer holds", layers.held(m))
    yield Section("From noise to samples", diffusion.way(m))
    yield Section("From noise to data", diffusion.field(m))
    yield Section("Noise levels", diffusion.levels(m))
    if latent:
        yield Section("Latent map", latent_map(m, _of_the_shown(m, told)))
        yield Section("Interpolations", visuals.interpolations(m))
        yield Section("Traversals", visuals.traversals(m))
        yield Section("Latent dimensions", visuals.activity(m), latents(m), folded=True)
    kept = "" if told else "no stored values"
    yield Section("Single examples", surprise.examples(m.of_the_measured(), told), kept, folded=told is None)
    numbers = tables.evaluation(m) + page.tag("h3", "Compared with baselines") + tables.comparison_table(m, rows)
    yield Section("Evaluation", numbers, measured(m), folded=True)
    if latent:
        yield Section("Diagnosis", diagnosis.section(m), diagnosis.summary(m), folded=True)
    yield Section("Two players", players.section(m), players.summary(m), folded=True)
    yield Section("Training", visuals.curves(m), trained(m), folded=True)
    yield Section("How to reproduce it", reproduction(m), "the command, and the versions", folded=True)
    yield Section("Configuration", configuration(m), differing(m), folded=True)


def _of_the_shown(m: Material, told: surprise.Told | None) -> surprise.Told | None:
    """The numbers of the examples that maps show, where all have been measured."""
    if told is None or len(told.values) != len(m.whole):
        return None
    return dataclasses.replace(told, values=told.values[m.shown])
