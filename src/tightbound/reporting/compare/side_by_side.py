"""Runs drawn together: one column for each, the same examples and the same noise in all, as a PNG or an HTML page."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...checkpoint import write_atomically
from ...errors import UsageError
from ...evaluation import Estimate
from ...models import Marginal
from ...runs import number
from ...runtime.progress import progress
from ...runtime.randomness import fixed_noise
from ...views.latents import interpolation
from ...views.samples import conditions_to_show, drawable, save_picture
from .. import figures, page
from ..maps import flat_views
from ..sheet import sheet
from ..words import bare
from .comparison import ComparedRun, Comparison

__all__ = ["check_drawing", "draw_comparison"]

COLUMNS = 8
"""Pictures in a row of each run."""
CELL, MARGIN, LINE, SPLIT = 440, 24, 21, 220
"""Pixels: the width of a run, the space around it, the height of a line of text and where its second part begins."""
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_STYLES = ("-", "--", "-.", ":")
_INK, _SOFT = "#222222", "#666666"

Cells = list[tuple[str, list[Image.Image]]]


def check_drawing(path: Path) -> Path:
    """The path, if a comparison can be drawn there.

    Raises:
        UsageError: If its ending is not known.
    """
    if path.suffix not in (".png", ".html"):
        raise UsageError("The kind of file is not known.", got=path, expected="a name that ends in .png or .html")
    return path


def draw_comparison(found: Comparison, path: str | Path) -> Path:
    """Latent maps, reconstructions, decodings of random latents, interpolations side by side; curves on one axis.

    Args:
        found: What :func:`~tightbound.reporting.compare.comparison.compare` found.
        path: A .png or an .html to write.

    Returns:
        The path.

    Raises:
        UsageError: If its ending is not known.
        CheckpointError: If it cannot be written.
    """
    path = check_drawing(Path(path))
    cells, curves = _cells(found), _curves(found)
    if path.suffix == ".png":
        save_picture(_poster(found, cells, curves), path)
    else:
        text = _web_page(found, cells, curves)
        write_atomically(path, lambda temporary: Path(temporary).write_text(text, "utf8", "replace"))
    return path


# -- what is drawn --------------------------------------------------------------------------------------------------


def _cells(found: Comparison) -> Cells:
    """Title and one picture of each run, row by row."""
    rows: Cells = [("Latent map: posterior means, by label", [_map(run) for run in found.runs])]
    if any(run.codes.shape[1] > 2 for run in found.runs):
        title = "t-SNE of the posterior means: neighbours stay neighbours, distances mean nothing"
        rows.append((title, _neighbours(found.runs)))
    if not found.runs[0].test.spec.image:
        return rows
    seen = [_pictures(run, found.seed) for run in found.runs]
    return rows + [(title, [each[title] for each in seen]) for title in seen[0]]


@torch.no_grad()
def _pictures(run: ComparedRun, seed: int) -> dict[str, Image.Image]:
    """Sheets of pictures under their titles."""
    model, shown = run.model, run.test.representative(min(COLUMNS, len(run.test)))
    with fixed_noise(seed):
        x, c = _examples(run, shown)
        px = model(c)
        rebuilt = px.likelihood(px.representative(x)).mean
        random = model(conditions_to_show(model, run.test, 4 * COLUMNS))
        decoded = random.likelihood(_random_latents(run, random, 4 * COLUMNS)).mean
        ends = _ends(run)
        (x0, c0), (x1, c1) = _examples(run, ends[:, 0]), _examples(run, ends[:, 1])
        walk = interpolation(model, x0, x1, COLUMNS, c=c0, c1=c1, seed=seed).mean
    return {
        "Reconstructions: data above the mean of p(x|z)": _sheet(run, torch.cat([x, rebuilt])),
        "Decodings of random z: from the prior, or from N(0, I) where there is none": _sheet(run, decoded),
        "Interpolations: the mean of p(x|z) between the codes of two examples": _sheet(run, walk.flatten(0, 1)),
    }


def _random_latents(run: ComparedRun, random: Marginal, n: int) -> Tensor:
    """From the prior; for a model without one from N(0, I), which nothing has made its codes follow."""
    if run.model.prior is not None:
        return random.sample_latent(() if random.batch_shape else (n,))
    x, _ = _examples(run, torch.zeros(n, dtype=torch.int64))
    return torch.randn_like(random.posterior(x).mean)


def _examples(run: ComparedRun, indices: Tensor) -> tuple[Tensor, Tensor | None]:
    parameter = next(run.model.parameters())
    with fixed_noise():
        batch = run.test.batch(indices, parameter.device)
        return batch.x.to(parameter.dtype), run.model.conditions(batch)


def _ends(run: ComparedRun, rows: int = 3) -> Tensor:
    """Pairs of examples, of different classes where there are classes, the same for every run."""
    chosen = run.test.representative(min(2 * rows, len(run.test)))
    return chosen[: len(chosen) // 2 * 2].reshape(-1, 2)


def _spread(there: int, count: int) -> Tensor:
    return torch.linspace(0, there - 1, min(count, there), dtype=torch.float64).round().long()


def _sheet(run: ComparedRun, images: Tensor) -> Image.Image:
    return sheet(drawable(images, run.test.spec), COLUMNS)


def _map(run: ComparedRun, most: int = 1500) -> Image.Image:
    """The codes in a plane."""
    shown = _spread(len(run.codes), most)
    return _scatter(run, shown, *_plane(run.codes[shown].double().numpy()))


def _neighbours(runs: Sequence[ComparedRun], most: int = 600) -> list[Image.Image]:
    """The t-SNE maps of all runs, or why there is none."""
    images = []
    with progress("t-SNE", len(runs)) as advance:
        for run in runs:
            shown = _spread(len(run.codes), most)
            views, why_not = flat_views(run.codes[shown].double().numpy())
            images.append(_scatter(run, shown, views[-1].points, None) if not why_not else _note(why_not))
            advance(1)
    return images


def _scatter(run: ComparedRun, shown: Tensor, points: figures.Array, axes: tuple[str, str] | None) -> Image.Image:
    """Points of a plane in the colours of their labels."""
    labels = None if run.test.labels is None else run.test.labels.cpu()[shown].numpy()
    classes = run.test.spec.classes
    names = list(classes) or [str(i) for i in range(0 if labels is None else int(labels.max()) + 1)]
    return Image.open(io.BytesIO(figures.png(figures.scatter(points, labels, names, axes))))


def _note(text: str) -> Image.Image:
    """A sentence in a map's place."""
    lines = textwrap.wrap(text, 52)
    image = Image.new("RGB", (CELL, LINE * len(lines)), "white")
    for row, line in enumerate(lines):
        ImageDraw.Draw(image).text((0, row * LINE), line, fill=_SOFT, font=_font(13))
    return image


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


def _curves(found: Comparison) -> list[Figure]:
    """The bound against the step, on one axis for all runs whose bounds are of one kind."""
    groups: dict[str, list[tuple[int, ComparedRun]]] = {}
    for place, run in enumerate(found.runs):
        groups.setdefault(_KINDS[run.measure], []).append((place, run))
    drawn = (_axis(title, [(place, run.label, *_line(run)) for place, run in runs]) for title, runs in groups.items())
    return [figure for figure in drawn if figure is not None]


_KINDS = {
    "mass": "bound on log p(x) [nats]",
    "bound": "bound on log p(x) [nats]",
    "density": "bound on the log-density [nats]",
    "none": "score, no likelihood [nats]",
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


def _axis(title: str, lines: Sequence[tuple[int, str, str, figures.Array, figures.Array]]) -> Figure | None:
    lines = [line for line in lines if len(line[3])]
    if not lines:
        return None
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, label, split, steps, values in lines:
        color, style = _COLORS[place % len(_COLORS)], _STYLES[place // len(_COLORS) % len(_STYLES)]
        axes.plot(steps, values, style, color=color, lw=1.6, label=f"{label} ({split})")
    limits = figures.settled_limits([(label, steps, values) for _, label, _, steps, values in lines])
    axes.set_ylim(*limits if limits else (None, None))
    axes.set_xlabel("step")
    axes.set_ylabel(title)
    axes.grid(True, color="#80808038", lw=0.7)
    axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


# -- words ----------------------------------------------------------------------------------------------------------


def _told(estimate: Estimate | None, digits: int = 2, bound: bool = False) -> str:
    if estimate is None:
        return "–"
    if bound:
        return f"≤ {estimate.value:.{digits}f}".replace("-", "−")
    numbers = (estimate.value, estimate.standard_error)
    return " ± ".join(f"{value:.{digits}f}" for value in numbers if value is not None).replace("-", "−")


def _numbers(run: ComparedRun) -> list[tuple[str, str]]:
    bound = run.trusted is False
    return [
        ("recipe", run.recipe),
        ("training steps", f"{run.steps:,}"),
        ("parameters", f"{run.parameters:,}"),
        ("NLL [nats]" if run.measure != "density" else "negative log-density [nats]", _told(run.nll, bound=bound)),
        ("bits per dimension", _told(run.bits_per_dim, 3, bound)),
        ("ELBO [nats]", _told(run.elbo)),
        ("KL [nats]", _told(run.kl)),
        ("squared error", _told(run.squared_error, 3)),
        ("active units", f"{run.active_units} of {run.dimensions}"),
    ]


# -- a picture ------------------------------------------------------------------------------------------------------


def _poster(found: Comparison, cells: Cells, curves: list[Figure]) -> Image.Image:
    """Everything on one white sheet: a column for each run, curves below."""
    bands = [_heads(found), *(_band(title, images) for title, images in cells)]
    width = max(band.width for band in bands)
    if curves:
        wide, across = 2 * CELL + MARGIN, max(1, len(found.runs) // 2)
        bands.append(_titled("Training", _beside([_fitted(_image(curve), wide) for curve in curves], wide, across)))
    poster = Image.new("RGB", (width, sum(band.height for band in bands) + MARGIN), "white")
    top = 0
    for band in bands:
        poster.paste(band, (0, top))
        top += band.height
    return poster


def _heads(found: Comparison) -> Image.Image:
    """Name of each run, and its numbers, options and paired differences, alike in alike lines."""
    columns = [_column(found, place) for place in range(len(found.runs))]
    names = list(dict.fromkeys(name for column in columns for name in column))
    size = (len(columns) * (CELL + MARGIN) + MARGIN, len(names) * LINE + 40 + 2 * MARGIN)
    head = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(head)
    for place, (run, column) in enumerate(zip(found.runs, columns, strict=True)):
        left = MARGIN + place * (CELL + MARGIN)
        draw.text((left, MARGIN), _cut(run.label, 18), fill=_COLORS[place % len(_COLORS)], font=_font(18, bold=True))
        for row, name in enumerate(names):
            top, value = MARGIN + 36 + row * LINE, column.get(name, "–")
            draw.text((left, top), _cut(name, 13, SPLIT), fill=_SOFT, font=_font(13))
            draw.text((left + SPLIT, top), _cut(value, 13, CELL - SPLIT), fill=_INK, font=_font(13))
    return head


def _column(found: Comparison, place: int) -> dict[str, str]:
    run, difference = found.runs[place], found.differences[place - 1] if place else None
    column = dict(_numbers(run)) | {f"--{name.replace('_', '-')}": _plain(v) for name, v in run.options.items()}
    nll, error = (None, None) if difference is None else (difference.nll, difference.squared_error)
    return column | {
        "NLL − the first’s, paired": _told(_turned(_deserved(nll, _has_bound(found, place)))),
        "error − the first’s, paired": _told(_turned(error), 3),
    }


def _has_bound(found: Comparison, place: int) -> bool:
    """Whether the NLL of the first run or of that one is a bound only."""
    return any(run.trusted is False for run in (found.runs[0], found.runs[place]))


def _deserved(value: Estimate | None, bound: bool) -> Estimate | None:
    """A difference of bounds has no error."""
    return value and (bare(value) if bound else value)


def _turned(value: Estimate | None) -> Estimate | None:
    return value and Estimate(-value.value, value.standard_error)


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _band(title: str, images: list[Image.Image]) -> Image.Image:
    images = [_fitted(image, CELL) for image in images]
    return _titled(title, _beside(images, CELL, len(images)))


def _beside(images: list[Image.Image], cell: int, across: int) -> Image.Image:
    """In lines of so many cells."""
    lines = [images[i : i + across] for i in range(0, len(images), across)]
    heights = [max(image.height for image in line) + 8 for line in lines]
    ground = Image.new("RGB", (min(len(images), across) * (cell + MARGIN) + MARGIN, sum(heights)), "white")
    for row, line in enumerate(lines):
        for column, image in enumerate(line):
            place = (MARGIN + column * (cell + MARGIN), sum(heights[:row]))
            ground.paste(image, place, image if image.mode == "RGBA" else None)
    return ground


def _titled(title: str, image: Image.Image) -> Image.Image:
    ground = Image.new("RGB", (image.width, image.height + 40), "white")
    ground.paste(image, (0, 40))
    ImageDraw.Draw(ground).text((MARGIN, 14), title, fill=_SOFT, font=_font(14, bold=True))
    return ground


def _fitted(image: Image.Image, width: int) -> Image.Image:
    """Of that width at most."""
    if image.width <= width:
        return image
    height = max(1, round(image.height * width / image.width))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _image(figure: Figure) -> Image.Image:
    return Image.open(io.BytesIO(figures.png(figure))).convert("RGB")


def _cut(text: str, size: int, width: int = CELL) -> str:
    most = math.floor(width / (0.6 * size))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, which has the signs that Pillow's own lacks."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


# -- a page ---------------------------------------------------------------------------------------------------------


def _web_page(found: Comparison, cells: Cells, curves: list[Figure]) -> str:
    """The same as HTML, with the differences and the notes in full."""
    labels = [run.label for run in found.runs]
    sections = [page.Section("Numbers", _tables(found))]
    for title, images in cells:
        name, _, what = title.partition(": ")
        tiles = [
            page.figure(page.picture(_fitted(image, CELL), title), label)
            for image, label in zip(images, labels, strict=True)
        ]
        sections.append(page.Section(name, (page.paragraph(what) if what else "") + page.tiles(*tiles)))
    plots = [page.figure(page.plot(figures.svg(curve), "bound against the training step"), "") for curve in curves]
    sections.append(page.Section("Training", page.tiles(*plots)))
    title = f"{len(labels)} runs on {found.runs[0].data}"
    head = page.tag("h1", page.escape(title)) + page.paragraph(_measured_on(found), "verdict")
    return page.page(title, head, sections)


def _measured_on(found: Comparison) -> str:
    return f"Measured on the same {found.n:,} {found.split} examples, with k = {found.k} importance samples of each."


def _tables(found: Comparison) -> str:
    each = [dict(_numbers(run)) for run in found.runs]
    names = dict.fromkeys(name for numbers in each for name in numbers)
    rows = [[name, *(numbers.get(name, "–") for numbers in each)] for name in names]
    options = dict.fromkeys(name for run in found.runs for name in run.options)
    rows += [
        [page.Verbatim(name), *(page.Verbatim(_plain(run.options.get(name, "–"))) for run in found.runs)]
        for name in options
    ]
    table = page.table(["", *(run.label for run in found.runs)], rows, numbers=len(found.runs))
    notes = [f"{run.label}: {note}" for run in found.runs for note in run.notes]
    return table + _differences(found) + page.box("What these numbers need you to know.", notes, "note")


def _differences(found: Comparison) -> str:
    """Of the first run from the others, with paired errors."""
    rows = [_difference_row(found, place) for place in range(1, len(found.runs))]
    head = ["", "NLL [nats]", "ELBO [nats]", "squared error", "what to know"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    text = (
        "Differences example by example, with their standard errors: what makes an example hard for both runs cancels."
    )
    return page.tag("h3", "Differences") + page.paragraph(text) + page.table(head, rows, numbers=3)


def _difference_row(found: Comparison, place: int) -> list[str]:
    """Of the first run from one of the others, and what to know of it."""
    d, bound = found.differences[place - 1], _has_bound(found, place)
    reason = [d.reason, _BOUND if bound and d.nll is not None else ""]
    numbers = [_told(_deserved(d.nll, bound)), _told(d.elbo), _told(d.squared_error, 3)]
    name = f"{found.runs[0].label} − {found.runs[place].label}"
    return [name, *numbers, "; ".join(filter(None, reason))]


_BOUND = "the NLL of one is a bound, so their difference has no error"
