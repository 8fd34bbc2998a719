"""A two-dimensional map of the codes, with the decoder's output over its plane."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ..views import samples as pictures
from . import hover, page
from .colors import CLASS_MARKS, PALE, color_of, mark_of
from .hover import Frame, Points
from .maps import View, flat_views
from .material import Material
from .surprise import Told, described
from .thumbnails import MOST, Thumbnails, thumbnails
from .tilemap import tile_map

__all__ = ["latent_map"]

SHOWN = 1500
"""Maximum number of points in a map."""


def latent_map(m: Material, told: Told | None) -> str:
    """Maps of the codes, coloured by label, and of decoded images, as HTML.

    Args:
        m: The run.
        told: The values of single examples.
    """
    indices = m.spread(SHOWN)
    dimensions = m.latent.space.dimension_names(m.codes.shape[1])
    views, why_not = flat_views(m.codes[indices].double().numpy(), tuple(dimensions[:2]))
    if not views:
        return page.paragraph(why_not)
    labels, names, entries = _classes(m, indices)
    targets = np.linspace(0, len(indices) - 1, min(MOST, len(indices))).round().astype(np.int64)
    figures = "".join(_figure(m, view, Points(view.points, labels, names, targets)) for view in views)
    at = indices[targets]
    items = [[*described(m, i), *([told.of(i)] if told else [])] for i in at.tolist()]
    boxed = hover.box(page.tag("div", figures, class_="sheets maps"), items, _pictures(m, at))
    return (
        page.paragraph(_text(m, len(indices), len(targets), why_not))
        + (page.legend(entries) if entries else "")
        + boxed
    )


def _figure(m: Material, view: View, points: Points) -> str:
    """A map, with decoded images over its plane beside it."""
    frame = Frame(hover.limits_of(view.points), view.axes)
    return page.figure(hover.plane(frame, points, view.title), view.title) + tile_map(m, view, frame)


def _pictures(m: Material, indices: Tensor) -> Thumbnails | None:
    return thumbnails(pictures.drawable(m.examples(indices)[0], m.spec)) if m.spec.image else None


def _text(m: Material, n: int, targets: int, why_not: str) -> str:
    colored = "coloured by label" if m.labels is not None else "without colours, as the data has no labels"
    which = "any point" if targets == n else f"one of the {targets:,} evenly spaced interactive points"
    what = "its picture, name" if m.spec.image else "its name"
    how = f"Point at {which}, tap it, or move from point to point by the arrow keys, to see {what} and number."
    mapped = f" in {m.latent.space.taken}" if m.hierarchy else ""
    return f"The posterior's means{mapped} of {n:,} {m.test.name} examples, {colored}. {how} {why_not}".strip()


def _classes(m: Material, indices: Tensor, most: int = 40) -> tuple[Any, list[str], list[tuple[str, str, str]]]:
    """Class indices in the order of the legend (-1: not in it), their names, and the legend."""
    if m.labels is None:
        return None, [], []
    given = m.labels[indices].numpy()
    found, counts = np.unique(given, return_counts=True)
    shown = np.sort(found if len(found) <= most else found[np.argsort(-counts, kind="stable")[: most // 2]])
    numbers = np.where(np.isin(given, shown), np.searchsorted(shown, given), -1)
    classes = m.spec.classes
    names = [classes[label] if 0 <= label < len(classes) else str(label) for label in shown.tolist()]
    entries = [(color_of(i), CLASS_MARKS[mark_of(i)], name) for i, name in enumerate(names)]
    if (numbers < 0).any():
        entries.append((PALE, "●", f"{len(found) - len(shown)} other classes"))
    return numbers, names, entries
