"""The images of a report: reconstructions, samples, interpolations, traversals, and training curves.

Convention: the HTML is empty if there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import DataSpec
from ..evaluation.latents.positions import ACTIVE, NOTHING, information_of
from ..runs import number
from ..runtime.randomness import fixed_noise
from ..views import samples as pictures
from ..views.walks import interpolation, natural_path, traversal
from . import figures, layers, page
from .material import Material
from .sheet import sheet

__all__ = ["activity", "curves", "interpolations", "photographic", "reconstructions", "samples", "traversals"]

LOSSLESS = 32
"""Colour images above this side are embedded as JPEG."""


def reconstructions(m: Material, count: int = 10) -> str:
    """Data, mean and draw of a few examples, as HTML: five of them in a block."""
    if not m.spec.image:
        return ""
    with fixed_noise(m.seed), torch.no_grad():
        x, c = m.examples(m.representative(count))
        rows = pictures.reconstructions(m.model(c), x)
    blocks = [_block(m, rows, part) for part in torch.arange(len(x)).split(5)]
    text = page.paragraph(_MEAN_AND_DRAW) + (page.paragraph(_NOISY) if photographic(m.spec) else "")
    return text + page.tag("div", *blocks, class_="sheets")


def _block(m: Material, rows: dict[str, Tensor], part: Tensor) -> str:
    """Some examples, one column each, a row for each part: of photographs the draws, which are noise, small."""
    lines = []
    for title, x in rows.items():
        small = " small" if title.startswith("draw") and photographic(m.spec) else ""
        image = _grid(m, x[part], f"{title} of {len(part)} examples", 5)
        lines.append(page.tag("div", page.tag("span", page.escape(title)), image, class_=f"row{small}"))
    return page.tag("div", *lines)


def photographic(spec: DataSpec) -> bool:
    """Whether pictures have so many levels and pixels that a draw of each alone is noise to the eye.

    Example:
        >>> photographic(DataSpec("photos", (3, 64, 64), 256)), photographic(DataSpec("digits", (1, 8, 8), 17))
        (True, False)
    """
    fine = spec.levels is None or spec.levels >= 256
    return spec.image and fine and (spec.shape[0] == 3 or max(spec.shape[1:]) > 40)


def samples(m: Material, count: int = 36) -> str:
    """Means and draws at the same latents from the prior, as HTML."""
    if not m.model.can_sample:
        return ""
    if not m.spec.image:
        return ""
    if m.model.completes:
        return _completions(m)
    with fixed_noise(m.seed):
        sides = pictures.samples(m.model, count, pictures.conditions_to_show(m.model, m.test, count))
    if photographic(m.spec) and len(sides) > 1:
        return _photographs(m, sides)
    if not m.codes.shape[1]:
        sides = {title.replace("p(x|z)", "p(x)"): x for title, x in sides.items()}
    tiles = (page.figure(_grid(m, x, f"{len(x)} samples: {title}"), title) for title, x in sides.items())
    same = "Latents drawn from the prior; the same position on both sides shows the same latent."
    return (page.paragraph(same) if len(sides) > 1 else "") + page.tag("div", *tiles, class_="sheets")


def _photographs(m: Material, sides: dict[str, Tensor], few: int = 6) -> str:
    """Means large, and draws at the first latents small."""
    (first, means), (second, draws) = sides.items()
    large = page.figure(_grid(m, means, f"{len(means)} samples: {first}"), f"{first}, at latents drawn from the prior")
    strip = _grid(m, draws[:few], f"{few} samples: {second}", few)
    small = page.tag("div", page.tag("span", f"{second}, at the latents of the first row"), strip, class_="row small")
    return page.paragraph(_SMALL) + page.tag("div", large, small, class_="large")


def _completions(m: Material, count: int = 8) -> str:
    x, c = m.examples(m.representative(count))
    with fixed_noise(m.seed):
        parts = pictures.completions(m.model, x, c, 6)
    rows = torch.cat(list(parts.values()), dim=1)
    text = (
        "From the left: the observed part (missing pixels grey), completions with latents from the prior, the original."
    )
    return page.paragraph(text) + _wide(_grid(m, rows.flatten(0, 1), f"{len(x)} completed pictures", rows.shape[1]))


def interpolations(m: Material, rows: int = 5) -> str:
    """From one example to another, as HTML."""
    if not m.spec.image:
        return ""
    if len(m.test) < 2:
        return ""
    ends = m.test.pairs(rows)
    (x0, c), (x1, c1) = m.examples(ends[:, 0]), m.examples(ends[:, 1])
    walk = interpolation(m.latent, x0, x1, steps=7, c=c, c1=c1)
    whole = torch.cat([x0.unsqueeze(1), walk.mean, x1.unsqueeze(1)], dim=1)
    turning = natural_path(m.latent, c) == "spherical"
    mixed = "" if not m.model.decodes_conditions else ", given the condition of the nearer end"
    mixed += f"; {m.latent.space.between}" if m.model.codes is not None else ""
    how = "by spherical interpolation, as the prior is Gaussian" if turning else "by linear interpolation"
    moving = f" ({m.latent.space.taken})" if m.hierarchy else ""
    text = (
        f"Each row goes from the code{moving} of its first picture to that of its last, {how}. The two ends are data, "
        f"everything between is the mean of p(x|z){mixed}."
    )
    return page.paragraph(text) + _wide(_grid(m, whole.flatten(0, 1), f"{len(ends)} interpolations", whole.shape[1]))


def traversals(m: Material, rows: int = 8) -> str:
    """The most active dimensions, each moved alone, as HTML."""
    if not m.spec.image:
        return ""
    if m.model.codes is not None:
        return ""
    if m.hierarchy:
        return _layer_traversals(m)
    x, c = m.examples(m.representative(1))
    if m.model(c).posterior(x).mean.dim() != 2:
        return ""
    size, what, unit = _activity(m)
    dims = size.argsort(descending=True)[:rows].tolist()
    levels = torch.linspace(0.02, 0.98, 9)
    values = None if m.model.can_sample else m.codes[:, dims].double().quantile(levels.double(), dim=0).T
    walk = traversal(m.latent, x[0], dims, values, None if c is None else c[0])
    source = "the prior" if m.model.can_sample else "the codes of the data"
    text = (
        f"The code of one example, varying one dimension at a time from the 2 % to the 98 % quantile of {source}; "
        f"the dimensions with the largest {what} first."
    )
    strips = [
        (
            f"z{d} · {size[d]:.2f} {unit}" if unit else f"z{d} · variance {size[d]:.2f}",
            _grid(m, x, f"traversal of z{d}", len(x)),
        )
        for d, x in zip(dims, walk.mean, strict=True)
    ]
    return page.paragraph(text) + page.strips(strips)


def _layer_traversals(m: Material) -> str:
    strips = [(title, _grid(m, x, f"traversal of {title}", len(x))) for title, x in layers.traversals(m)]
    chain = len(m.latent.space.layers) > 1
    below = "each layer below is the mean of its distribution given the one above" if chain else "all others stay"
    text = (
        "The code of one example, varying one dimension of a layer at a time from the 2 % to the 98 % quantile of the "
        f"prior; {below}. The top layer comes first, and in each layer the dimensions whose posterior mean varies most."
    )
    return page.paragraph(text) + page.strips(strips)


def activity(m: Material) -> str:
    """How much each latent dimension, or each position of codes, is used, as HTML."""
    if (told := information_of(m.model.space, m.codes)) is not None:
        return _positions(told.tolist())
    size, what, unit = _activity(m)
    active = (_variance(m) > ACTIVE).tolist()
    used = f"{sum(active)} of {len(active)} dimensions are active: their posterior mean varies by more than {ACTIVE}."
    why = ""
    if not m.bounded:
        why = " There is no KL to a prior, so the bars are the variance of the posterior's mean."
    elif unit != "nats":
        why = " The KL does not factorise by dimension here, so the bars are the variance of the posterior's mean."
    names = [name for layer in m.layers for name in _names(m, layer)]
    bars = figures.dimension_bars(size.tolist(), active, f"{what} [{unit}]" if unit else what, names=names)
    drawn = page.figure(page.plot(figures.svg(bars), f"{what} per latent dimension"), "")
    return page.paragraph(used + why) + layers.bars(m) + drawn


def _names(m: Material, layer: str) -> list[str]:
    """Of the dimensions of a layer."""
    indices = range(m.layers[layer].shape[1])
    return [f"{layer}[{i}]" if m.hierarchy else f"z{i}" for i in indices]


def _positions(told: list[float]) -> str:
    """The entries of a vector that stands for a code say nothing by themselves."""
    active = [nats > NOTHING for nats in told]
    used = f"{sum(active)} of {len(active)} positions of codes are active: their information is above {NOTHING} nats."
    names = [str(i) for i in range(len(told))]
    bars = figures.svg(figures.dimension_bars(told, active, "I(x; position) [nats]", "position", names))
    title = "Information of each position of the codes about the data, the coarsest grid first, row by row"
    return page.paragraph(used) + page.figure(page.plot(bars, alt=title), title)


def _activity(m: Material) -> tuple[Tensor, str, str]:
    """One number for each dimension, what it is, and its unit."""
    if (kl := m.kl_per_dimension) is not None:
        return torch.tensor(kl), "KL", "nats"
    return _variance(m), "variance of the posterior mean", ""


def _variance(m: Material) -> Tensor:
    means = torch.cat([*m.layers.values()], dim=1).double()
    return means.var(0) if len(means) > 1 else torch.zeros(means.shape[1])


def curves(m: Material) -> str:
    """How training went, as HTML."""
    records = m.folder.records()
    if not records:
        return page.paragraph("The run has no metrics.jsonl, so there are no training curves.")
    return page.tiles(*_curves(records, latent=m.codes.shape[1] > 0))


def _curves(records: list[dict[str, Any]], latent: bool) -> Iterator[str]:
    bounded = any("kl" in r for r in records)  # else the bound is the reconstruction, and nothing has a weight
    names = {"bound": "bound", "reconstruction": "reconstruction", "kl": "KL"}
    others = {
        "log_prior": "log-probability of the latents, log p(z)",
        "log_prior_bound": "lower bound on the log-probability of the latents, log p(z)",
        "reconstruction": "reconstruction",
    }
    if not latent:  # then the bound is the log-likelihood itself, and there is no KL to weigh
        bounded, others = False, {"reconstruction": "log-likelihood"}
    for name, title in (names if bounded else others).items():
        lines = [line for split in ("train", "valid") if (line := _line(records, split, name))]
        if name == "bound" and lines and (objective := _objective(records)):
            lines.append(objective)
        if lines:
            limits = _from_zero(lines) if name == "kl" else figures.settled_limits(lines)
            cut = "; the first values are outside" if _cut(lines, limits) else ""
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


def _wide(image: str) -> str:
    """An image as wide as the column."""
    return page.tag("div", image, class_="large")


def _grid(m: Material, values: Tensor, alt: str, columns: int | None = None) -> str:
    """Pictures in rows, as an HTML image; default: about a square."""
    images = pictures.drawable(values, m.spec)
    lossy = images.shape[1] == 3 and max(images.shape[-2:]) > LOSSLESS
    return page.picture(sheet(images, columns or math.ceil(math.sqrt(len(images)))), alt, lossy=lossy)


_NOISY = (
    "A draw of a photograph looks noisy even if the means shown large are good: given z every pixel is sampled "
    "independently, with the variance that z does not explain, so neighbours have independent noise. Judge the "
    "images by the mean, and the likelihood by the numbers."
)
_SMALL = "The draws are small, because the independent noise of their pixels hides the image."
_MEAN_AND_DRAW = (
    "The mean of p(x|z) looks blurry: it averages over everything that z does not determine. The draw from "
    "p(x|z) is a sample of the model: its noise is what cannot be predicted from z. The likelihood measures the draws."
)
