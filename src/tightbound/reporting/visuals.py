"""The pictures of a report: reconstructions, samples, walks through the latent space, maps of it, curves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import pictures
from ..conditions import PartCondition
from ..evaluation.latents import BETWEEN_CODES, interpolation, natural_path, traversal
from ..evaluation.positions import ACTIVE, NOTHING, information_of
from ..randomness import fixed_noise
from ..recipes.two_stage import is_code_space
from ..runs import number
from . import figures, page
from .maps import flat_views
from .material import Material
from .sheet import sheet

__all__ = ["activity", "curves", "interpolations", "latent_map", "reconstructions", "samples", "traversals"]

LOSSLESS = 32
"""Colour pictures above this side are embedded as JPEG."""

_NO_PICTURES = "The examples of this data are not grey or RGB images, so there is nothing to draw here."


def reconstructions(m: Material, count: int = 10) -> str:
    """Data, mean and draw of a few examples, as HTML."""
    if not m.spec.image:
        return page.paragraph(_NO_PICTURES)
    with fixed_noise(m.seed), torch.no_grad():
        x, c = m.examples(m.spread(count))
        rows = pictures.reconstructions(m.model(c), x)
    strips = [(title, _grid(m, x, f"{title} of {len(x)} examples", len(x))) for title, x in rows.items()]
    return page.paragraph(_MEAN_AND_DRAW) + page.strips(strips)


def samples(m: Material, count: int = 36) -> str:
    """Means and draws at the same latents from the prior, as HTML."""
    if m.model.prior is None:
        return page.paragraph("The model has no prior, so nothing can be sampled: it only reconstructs.")
    if not m.spec.image:
        return page.paragraph(_NO_PICTURES)
    if isinstance(m.model.condition, PartCondition):
        return _completions(m)
    with fixed_noise(m.seed):
        sides = pictures.samples(m.model(pictures.conditions_to_show(m.model, m.test, count)), count)
    tiles = (page.figure(_grid(m, x, f"{len(x)} samples: {title}"), title) for title, x in sides.items())
    same = "Latents drawn from the prior; the same latent stands in the same place on both sides."
    return (page.paragraph(same) if len(sides) > 1 else "") + page.tiles(*tiles)


def _completions(m: Material, count: int = 8) -> str:
    x, c = m.examples(m.spread(count))
    with fixed_noise(m.seed):
        parts = pictures.completions(m.model, x, c, 6)
    rows = torch.cat(list(parts.values()), dim=1)
    text = "From the left: what is seen, completions with latents from the prior, the truth."
    return page.paragraph(text) + _grid(m, rows.flatten(0, 1), f"{len(x)} completed pictures", rows.shape[1])


def interpolations(m: Material, rows: int = 5) -> str:
    """From one example to another, as HTML."""
    if not m.spec.image:
        return page.paragraph(_NO_PICTURES)
    if len(m.test) < 2:
        return page.paragraph("It takes two examples to go from one to another.")
    ends = _ends(m, rows)
    (x0, c), (x1, c1) = m.examples(ends[:, 0]), m.examples(ends[:, 1])
    walk = interpolation(m.model, x0, x1, steps=9, c=c, c1=c1)
    whole = torch.cat([x0.unsqueeze(1), walk.mean, x1.unsqueeze(1)], dim=1)
    turning = natural_path(m.model, c) == "spherical"
    mixed = "" if c is None or m.model.prior_only else ", given the condition of the nearer end"
    mixed += f"; {BETWEEN_CODES}" if is_code_space(m.model.posterior) else ""
    how = "on a great circle, as suits a Gaussian prior" if turning else "on a straight line"
    text = (
        f"Each row goes from the code of its first picture to that of its last, {how}. The two ends are data, "
        f"everything between is the mean of p(x|z){mixed}."
    )
    return page.paragraph(text) + _grid(m, whole.flatten(0, 1), f"{len(ends)} interpolations", whole.shape[1])


def _ends(m: Material, rows: int) -> Tensor:
    """Pairs of examples, of different classes where there are classes."""
    if m.labels is None or len(m.labels.unique()) < 2:
        indices = m.spread(2 * rows)
    else:
        classes = m.labels.unique()
        chosen = classes[torch.linspace(0, len(classes) - 1, min(2 * rows, len(classes))).round().long()]
        indices = torch.stack([(m.labels == label).nonzero()[0, 0] for label in chosen])
    return indices[: len(indices) // 2 * 2].reshape(-1, 2)


def traversals(m: Material, rows: int = 8) -> str:
    """The most active dimensions, each moved alone, as HTML."""
    if not m.spec.image:
        return page.paragraph(_NO_PICTURES)
    if is_code_space(m.model.posterior):
        return page.paragraph("The latents are codes, so there are no single dimensions to move.")
    x, c = m.examples(m.spread(1))
    if m.model(c).posterior(x).mean.dim() != 2:
        return page.paragraph("The latent is not a vector, so it has no single dimensions to move.")
    size, what, unit = _activity(m)
    dims = size.argsort(descending=True)[:rows].tolist()
    levels = torch.linspace(0.02, 0.98, 9)
    values = None if m.model.prior is not None else m.codes[:, dims].double().quantile(levels.double(), dim=0).T
    walk = traversal(m.model, x[0], dims, values, None if c is None else c[0])
    source = "the prior" if m.model.prior is not None else "the codes of the data"
    text = (
        f"The code of one example with one dimension at a time moved from the 2 % to the 98 % quantile of {source}; "
        f"the dimensions with the largest {what} first."
    )
    strips = [
        (f"z{d} · {size[d]:.2f} {unit}", _grid(m, x, f"traversal of z{d}", len(x)))
        for d, x in zip(dims, walk.mean, strict=True)
    ]
    return page.paragraph(text) + page.strips(strips)


def latent_map(m: Material, most: int = 1500) -> str:
    """The codes in two dimensions, coloured by label, as HTML."""
    indices = m.spread(most)
    views, why_not = flat_views(m.codes[indices].double().numpy())
    if not views:
        return page.paragraph(why_not)
    labels, names, entries = _classes(m, indices)
    tiles = [
        page.figure(page.plot(figures.png(figures.scatter(v.points, labels, names, v.axes)), alt=v.title), v.title)
        for v in views
    ]
    colored = "coloured by label" if labels is not None else "without colours, as the data has no labels"
    text = f"The posterior's means of {len(indices):,} {m.test.name} examples, {colored}. {why_not}"
    return page.paragraph(text) + (page.legend(entries) if entries else "") + page.tiles(*tiles)


def _classes(m: Material, indices: Tensor, most: int = 40) -> tuple[Any, list[str], list[tuple[str, str, str]]]:
    """Numbers in the order of the legend (-1: not in it), their names, and the legend."""
    if m.labels is None:
        return None, [], []
    given = m.labels[indices].numpy()
    found, counts = np.unique(given, return_counts=True)
    shown = np.sort(found if len(found) <= most else found[np.argsort(-counts, kind="stable")[: most // 2]])
    numbers = np.where(np.isin(given, shown), np.searchsorted(shown, given), -1)
    classes = m.spec.classes
    names = [classes[label] if label < len(classes) else str(label) for label in shown.tolist()]
    colors, marks = figures.CLASS_COLORS, list(figures.CLASS_MARKS.values())
    entries = [(colors[i % len(colors)], marks[i // len(colors) % len(marks)], name) for i, name in enumerate(names)]
    if (numbers < 0).any():
        entries.append(("#b8b8b8", "●", f"{len(found) - len(shown)} other classes"))
    return numbers, names, entries


def activity(m: Material) -> str:
    """How much each latent dimension, or each position of codes, is used, as HTML."""
    if (told := information_of(m.model.posterior, m.codes)) is not None:
        return _positions(told.tolist())
    size, what, unit = _activity(m)
    active = (_variance(m) > ACTIVE).tolist()
    used = f"{sum(active)} of {len(active)} dimensions are active: their posterior mean varies by more than {ACTIVE}."
    why = ""
    if not m.bounded:
        why = " There is no KL to a prior, so the bars are the variance of the posterior's mean."
    elif unit != "nats":
        why = " The KL cannot be told apart by dimension here, so the bars are the variance of the posterior's mean."
    bars = figures.dimension_bars(size.tolist(), active, f"{what} [{unit}]" if unit else what)
    return page.paragraph(used + why) + page.wide(
        page.figure(page.plot(figures.svg(bars), f"{what} per latent dimension"), "")
    )


def _positions(told: list[float]) -> str:
    """The entries of a vector that stands for a code say nothing by themselves."""
    active = [nats > NOTHING for nats in told]
    used = f"{sum(active)} of {len(active)} positions of codes are active: they tell more than {NOTHING} nats."
    bars = figures.svg(figures.dimension_bars(told, active, "I(x; position) [nats]"))
    title = "What each position of the codes tells of the data, the coarsest grid first, row by row"
    return page.paragraph(used) + page.wide(page.figure(page.plot(bars, alt=title), title))


def _activity(m: Material) -> tuple[Tensor, str, str]:
    """One number for each dimension, what it is, and its unit."""
    if (kl := m.kl_per_dimension) is not None:
        return torch.tensor(kl), "KL", "nats"
    return _variance(m), "variance of the posterior mean", ""


def _variance(m: Material) -> Tensor:
    return m.codes.double().var(0) if len(m.codes) > 1 else torch.zeros(m.codes.shape[1])


def curves(m: Material) -> str:
    """How training went, as HTML."""
    records = m.folder.records()
    if not records:
        return page.paragraph("The run has no metrics.jsonl, so how it was trained cannot be drawn.")
    return page.tiles(*_curves(records))


def _curves(records: list[dict[str, Any]]) -> Iterator[str]:
    bounded = any("kl" in r for r in records)  # else the bound is the reconstruction, and nothing has a weight
    names = {"bound": "bound", "reconstruction": "reconstruction", "kl": "KL"}
    others = {"log_prior": "log-probability of the latents, log p(z)", "reconstruction": "reconstruction"}
    for name, title in (names if bounded else others).items():
        lines = [line for split in ("train", "valid") if (line := _line(records, split, name))]
        if name == "bound" and lines and (objective := _objective(records)):
            lines.append(objective)
        if lines:
            limits = _from_zero(lines) if name == "kl" else figures.settled_limits(lines)
            cut = "; the first readings lie outside" if _cut(lines, limits) else ""
            yield _curve(lines, f"{title} [nats]", limits, f"{title}{cut}")
    others = {"beta": "weight of the KL, β", "lr": "learning rate", "examples_per_second": "examples per second"}
    for name, title in others.items():
        if (bounded or name != "beta") and (line := _line(records, "train", name)):
            yield _curve([line], title, None, title)


def _cut(lines: list[figures.Line], limits: tuple[float, float] | None) -> bool:
    return limits is not None and any(y.min() < limits[0] or y.max() > limits[1] for _, _, y in lines)


def _curve(lines: list[figures.Line], label: str, limits: tuple[float, float] | None, title: str) -> str:
    drawn = figures.svg(figures.curve(lines, label, limits))
    return page.figure(page.plot(drawn, f"{label} against the training step"), title)


def _objective(records: list[dict[str, Any]]) -> figures.Line | None:
    """What training maximised, where that is not the bound itself."""
    pairs = [(number(r, "objective"), number(r, "bound")) for r in records]
    if all(math.isclose(a, b, rel_tol=1e-6) for a, b in pairs if a is not None and b is not None):
        return None
    line = _line(records, "train", "objective")
    return line and ("objective", *line[1:])


def _from_zero(lines: list[figures.Line]) -> tuple[float, float] | None:
    """From 0 to the highest value, or to twice the highest after the first fifth of the steps."""
    last = max(x.max() for _, x, _ in lines)
    late = max((y[x > last / 5].max() for _, x, y in lines if (x > last / 5).any()), default=0.0)
    top = min(2 * late, max(y.max() for _, _, y in lines))
    return (0.0, 1.05 * float(top)) if top > 0 else None


def _line(records: list[dict[str, Any]], split: str, name: str) -> figures.Line | None:
    points = [(r["step"], y) for r in records if r["split"] == split and (y := number(r, name)) is not None]
    if not points:
        return None
    steps, values = np.asarray(points, dtype=np.float64).T
    return "validation" if split == "valid" else split, steps, values


def _grid(m: Material, values: Tensor, alt: str, columns: int | None = None) -> str:
    """Pictures in rows, as an HTML image; default: about a square."""
    images = pictures.drawable(values, m.spec)
    lossy = images.shape[1] == 3 and max(images.shape[-2:]) > LOSSLESS
    return page.picture(sheet(images, columns or math.ceil(math.sqrt(len(images)))), alt, lossy=lossy)


_MEAN_AND_DRAW = (
    "The mean of p(x|z) is what people call blurry: it averages everything that the code z leaves open. The draw from "
    "p(x|z) is what the model claims: its noise is what the model cannot tell from z. A likelihood judges the draws."
)
