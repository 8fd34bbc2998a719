"""Draws runs side by side, with the same examples and noise, as a PNG or an HTML page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...conditions import Given
from ...data.spacing import evenly_spaced
from ...errors import UsageError
from ...models import Marginal
from ...runs import number
from ...runtime.files import write_atomically
from ...runtime.progress import progress
from ...runtime.randomness import fixed_noise
from ...views.samples import conditions_to_show, drawable, samples
from ...views.walks import interpolation
from .. import figures, page
from ..maps import flat_views
from ..sheet import sheet
from ..words import signed
from .comparison import ComparedRun, Comparison
from .poster import Curves, Row, drawn, poster
from .table import about, differences, numbers

__all__ = ["check_drawing", "draw_comparison"]

COLUMNS = 8
"""Images per row of each run."""
PAIRS = 3
"""Interpolations of each run."""


def check_drawing(path: Path) -> Path:
    """The path, if a comparison can be drawn there.

    Raises:
        UsageError: If its extension is unknown.
    """
    if path.suffix not in (".png", ".html"):
        raise UsageError("Unknown kind of file.", got=path, expected="a name that ends in .png or .html")
    return path


def draw_comparison(found: Comparison, path: str | Path) -> Path:
    """Latent maps, reconstructions, decodings of random latents, interpolations side by side; curves on one axis.

    Args:
        found: What :func:`~tightbound.reporting.comparing.comparison.compare` found.
        path: A .png or an .html to write.

    Returns:
        The path.

    Raises:
        UsageError: If its extension is unknown.
        CheckpointError: If it cannot be written.
    """
    path = check_drawing(Path(path))
    pictures, curves = _pictures(found), _curves(found)
    if path.suffix == ".png":
        content = figures.png(poster(found, pictures, curves))
    else:
        content = _web_page(found, pictures, curves).encode("utf8", "replace")
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(content))
    return path


# -- what is drawn --------------------------------------------------------------------------------------------------


def _pictures(found: Comparison) -> list[Row]:
    """Title and one image, or a sentence, of each run, row by row."""
    rows: list[Row] = [("Latent map: posterior means, by label", [_map(run) for run in found.runs])]
    if any(run.codes.shape[1] > 2 for run in found.runs):
        title = "t-SNE of the posterior means: preserves neighbours, not distances"
        rows.append((title, _neighbours(found.runs)))
    if not found.runs[0].test.spec.image:
        return rows
    seen = [_seen(run, found.seed) for run in found.runs]
    return rows + [(title, [each[title] for each in seen]) for title in seen[0]]


@torch.no_grad()
def _seen(run: ComparedRun, seed: int) -> dict[str, Image.Image | str]:
    """Sheets of images, or sentences, under their titles."""
    if run.model.space is None:
        c = conditions_to_show(run.model, run.test, 4 * COLUMNS)
        with fixed_noise(seed):
            (drawn,) = samples(run.model, 4 * COLUMNS, c).values()
        return dict.fromkeys(TITLES, NO_LATENT) | {TITLES[1]: _sheet(run, drawn)}
    model, shown = run.model, run.test.representative(min(COLUMNS, len(run.test)))
    with fixed_noise(seed):
        x, c = _examples(run, shown)
        px = model(c)
        rebuilt = px.likelihood(px.representative(x)).mean
        random = model(conditions_to_show(model, run.test, 4 * COLUMNS))
        decoded = random.likelihood(_random_latents(run, random, 4 * COLUMNS)).mean
        ends = run.test.pairs(PAIRS)  # the same for every run
        (x0, c0), (x1, c1) = _examples(run, ends[:, 0]), _examples(run, ends[:, 1])
        walk = interpolation(model, x0, x1, COLUMNS, c=c0, c1=c1, seed=seed).mean
    sheets = (torch.cat([x, rebuilt]), decoded, walk.flatten(0, 1))
    return {
        title: _sheet(run, images) if len(images) else TOO_FEW for title, images in zip(TITLES, sheets, strict=True)
    }


TITLES = (
    "Reconstructions: data above the mean of p(x|z)",
    "Decodings of random z: from the prior, or from N(0, I) without one",
    "Interpolations: the mean of p(x|z) between the codes of two examples",
)


def _random_latents(run: ComparedRun, random: Marginal, n: int) -> Tensor:
    """Samples from the prior; for a model without one from N(0, I), which its codes need not match."""
    if run.model.can_sample:
        return random.sample_latent(() if random.batch_shape else (n,))
    x, _ = _examples(run, torch.zeros(n, dtype=torch.int64))
    return torch.randn_like(random.posterior(x).mean)


def _examples(run: ComparedRun, indices: Tensor) -> tuple[Tensor, Given | None]:
    with fixed_noise():
        return run.model.see(run.test.batch(indices, run.model.device))


def _sheet(run: ComparedRun, images: Tensor) -> Image.Image:
    return sheet(drawable(images, run.test.spec), COLUMNS)


NO_LATENT = "This model has no latent."
TOO_FEW = "This needs at least two examples."


def _map(run: ComparedRun, most: int = 1500) -> Image.Image | str:
    """The codes in a plane."""
    if run.model.space is None:
        return NO_LATENT
    if len(run.codes) < 2:
        return TOO_FEW
    shown = evenly_spaced(len(run.codes), most)
    return _scatter(run, shown, *_plane(run.codes[shown].double().numpy()))


def _neighbours(runs: Sequence[ComparedRun], most: int = 600) -> list[Image.Image | str]:
    """The t-SNE maps of all runs, or why there is none."""
    images: list[Image.Image | str] = []
    with progress("t-SNE", len(runs)) as advance:
        for run in runs:
            if run.model.space is None:
                images.append(NO_LATENT)
                continue
            shown = evenly_spaced(len(run.codes), most)
            views, why_not = flat_views(run.codes[shown].double().numpy())
            images.append(why_not or _scatter(run, shown, views[-1].points, None))
            advance(1)
    return images


def _scatter(run: ComparedRun, shown: Tensor, points: figures.Array, axes: tuple[str, str] | None) -> Image.Image:
    """Points of a plane in the colours of their labels."""
    labels = None if run.test.labels is None else run.test.labels.cpu()[shown].numpy()
    classes = run.test.spec.classes
    names = list(classes) or [str(i) for i in range(0 if labels is None else int(labels.max()) + 1)]
    return Image.open(io.BytesIO(figures.png(figures.scatter(points, labels, names, axes))))


def _plane(codes: figures.Array) -> tuple[figures.Array, tuple[str, str]]:
    """The latent space itself if it has two dimensions, its principal plane if it has more."""
    if codes.shape[1] == 1:
        return np.column_stack([codes[:, 0], np.linspace(1, len(codes), len(codes))]), ("z0", "example")
    if codes.shape[1] == 2:
        return codes, ("z0", "z1")
    centred = codes - codes.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    share = 100 * np.square(singular[:2]) / max(np.square(singular).sum(), 1e-300)
    return centred @ directions[:2].T, (f"first component, {share[0]:.0f} %", f"second component, {share[1]:.0f} %")


# -- curves ---------------------------------------------------------------------------------------------------------


def _curves(found: Comparison) -> Curves:
    """The bound against the step, on one axis for all runs whose bounds are of one kind."""
    groups: Curves = {}
    for place, run in enumerate(found.runs):
        split, steps, values = _line(run)
        if len(steps):
            groups.setdefault(_KINDS[run.found.measure], []).append((place, f"{run.label} ({split})", steps, values))
    return groups


_KINDS = {
    "mass": "bound on log p(x) [nats]",
    "bound": "bound on log p(x) [nats]",
    "density": "bound on the log-density [nats]",
    "none": "score, not a likelihood [nats]",
}


def _line(run: ComparedRun) -> tuple[str, figures.Array, figures.Array]:
    """Which split, steps, and nats of the data; a record of older versions lacks the offset to them."""
    offset, records = run.model.measure(run.test.spec).offset, run.folder.records()
    for split, name in (("valid", "validation"), ("train", "training")):
        points = [
            (r["step"], y - (0 if "offset" in r else offset))
            for r in records
            if r["split"] == split and (y := number(r, "bound")) is not None
        ]
        if points:
            steps, values = np.asarray(points, dtype=np.float64).T
            return name, steps, values
    return "", np.zeros(0), np.zeros(0)


# -- a page ---------------------------------------------------------------------------------------------------------


def _web_page(found: Comparison, pictures: list[Row], curves: Curves) -> str:
    """Everything as HTML."""
    labels = [run.label for run in found.runs]
    sections = [page.Section("Numbers", _tables(found))]
    for title, cells in pictures:
        name, _, what = title.partition(": ")
        tiles = [_tile(cell, title, label) for cell, label in zip(cells, labels, strict=True)]
        sections.append(page.Section(name, (page.paragraph(what) if what else "") + page.tiles(*tiles)))
    plots = [drawn(title, lines) for title, lines in curves.items()]
    shown = [page.figure(page.plot(figures.svg(plot), "bound against the training step"), "") for plot in plots]
    sections.append(page.Section("Training", page.tiles(*shown)))
    title = f"{len(labels)} runs on {found.runs[0].data}"
    some = f"{found.n:,} {found.split} example{'s' * (found.n != 1)}"
    told = f"Evaluated on the same {some}, with k = {found.k} importance samples of each."
    return page.page(title, page.tag("h1", page.escape(title)) + page.paragraph(told, "verdict"), sections)


def _tile(cell: Image.Image | str, title: str, label: str) -> str:
    content = page.paragraph(cell, "soft") if isinstance(cell, str) else page.picture(cell, title)
    return page.figure(content, label)


def _tables(found: Comparison) -> str:
    rows = [[name, *cells] for name, cells in (*about(found), *numbers(found))]
    told = [[page.Verbatim(cell) for cell in row] if row[0].startswith("--") else row for row in rows]
    table = page.table(["", *(run.label for run in found.runs)], _signed(told), numbers=len(found.runs))
    notes = [f"{run.label}: {note}" for run in found.runs for note in run.notes]
    return table + _differences(found) + page.box("Notes on these numbers.", notes, "note")


def _differences(found: Comparison) -> str:
    """Of the first run from the others, with paired errors."""
    head, *lines = differences(found)
    if not any(line[-1] for line in lines):
        head, lines = head[:-1], [line[:-1] for line in lines]
    text = "Paired differences with standard errors: the difficulty of an example for both runs cancels."
    return page.tag("h3", "Differences") + page.paragraph(text) + page.table(head, _signed(lines), numbers=3)


def _signed(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[row[0], *(cell if isinstance(cell, page.Verbatim) else signed(cell) for cell in row[1:])] for row in rows]
