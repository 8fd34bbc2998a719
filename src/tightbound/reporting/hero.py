"""The images at the top of a page: data, reconstructions and samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ..runtime.randomness import fixed_noise
from ..views import samples as pictures
from . import page
from .material import Material
from .sheet import sheet

__all__ = ["hero"]

COLUMNS = 10
"""Images per row."""
LOSSLESS = 32
"""Colour images above this side are JPEG."""


def hero(m: Material) -> str:
    """Rows of images, one column per example, cycling through classes, as HTML; may be empty."""
    if not m.spec.image:
        return ""
    with fixed_noise(m.seed), torch.no_grad():
        rows = _completed(m) if m.model.completes else _rows(m)
    return page.tag("div", *(_row(m, title, x) for title, x in rows.items()), class_="hero")


def _rows(m: Material) -> dict[str, Tensor]:
    x, c = m.examples(m.representative(COLUMNS))
    rows = {"data": x}
    if m.codes.shape[1]:
        rows["reconstructions: mean of p(x|z)"] = pictures.reconstructions(m.model(c), x)["mean of p(x|z)"]
    if m.model.can_sample:
        rows |= _sampled(m)
    return rows


def _sampled(m: Material) -> dict[str, Tensor]:
    found = pictures.samples(m.model, COLUMNS, pictures.conditions_to_show(m.model, m.test, COLUMNS))
    title, x = next(iter(found.items()))
    return {f"samples: {title}" if m.codes.shape[1] else "samples": x}


def _completed(m: Material) -> dict[str, Tensor]:
    x, c = m.examples(m.representative(COLUMNS))
    parts = pictures.completions(m.model, x, c, 2)
    drawn = parts["completions"]
    told = {"a completion": drawn[:, 0], "another": drawn[:, 1]}
    return {"data": x, "observed part; missing pixels are grey": parts["seen"][:, 0], **told}


def _row(m: Material, title: str, values: Tensor) -> str:
    images = pictures.drawable(values, m.spec)
    lossy = images.shape[1] == 3 and max(images.shape[-2:]) > LOSSLESS
    shown = page.picture(sheet(images, len(images)), f"{title}: {len(images)} pictures", lossy=lossy)
    return page.tag("p", page.escape(title), class_="soft") + shown
