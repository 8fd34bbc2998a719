"""Sheets of a model's outputs: the arrangement and size of the parts.

For digits, mean and sample of p(x|z) are side by side. Samples of photographs are noisy, since the noise of each pixel
is independent; there the means are large, with small samples below them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..conditions import Given
from ..data import DataSpec
from ..models import Marginal, Model
from ..views.layers import LayerViews
from ..views.samples import captioned, completions, drawable, grid, panels, reconstructions, samples, save_picture

__all__ = [
    "WHY_SMALL",
    "beside",
    "layer_rows",
    "layer_sheet",
    "photographic",
    "sheet",
    "training_picture",
    "with_captions",
]

WHY_SMALL = "a draw adds the noise that cannot be predicted from z"
MANY_LEVELS, DIGIT = 64, 32
"""Minimum levels of a photograph, which also has colours or a side longer than the second number."""
LARGE, SMALL = 128, 64
"""Approximate sides in pixels of a photograph's mean and sample."""

Parts = Mapping[str, Tensor]


def photographic(spec: DataSpec | None) -> bool:
    """Whether examples are photographs, whose samples show more noise than image.

    Example:
        >>> photographic(DataSpec("photos", (3, 64, 64), 256)), photographic(DataSpec("mnist", (1, 28, 28), 256))
        (True, False)
    """
    if spec is None or not spec.image or (spec.levels is not None and spec.levels < MANY_LEVELS):
        return False
    return spec.shape[0] == 3 or max(spec.shape[1:]) > DIGIT


def sheet(parts: Parts, spec: DataSpec | None, *, across: bool = False, columns: int | None = None) -> Image.Image:
    """Images under their titles, stacked or side by side; samples of photographs small below their means.

    Args:
        parts: Images ``(n, *shape)``, or ``(rows, columns, *shape)``, by title.
        spec: Of the data.
        across: Whether parts are side by side.
        columns: Images per row; default: about a square.

    Example:
        >>> import torch
        >>> sheet({"mean": torch.rand(4, 3, 64, 64)}, DataSpec("photos", (3, 64, 64), 256)).size[0] > 256
        True
    """
    means, draws = _divided(parts, spec)
    side = LARGE if photographic(spec) else 48
    large = panels([(title, _rows(x, spec, columns, side)) for title, x in means.items()], across)
    return _above(large, draws, spec, columns)


def with_captions(parts: Parts, texts: Sequence[str], spec: DataSpec | None = None) -> Image.Image:
    """Images under their titles, side by side, with captions: one above all if it is the same, else one below each.

    Args:
        parts: Images ``(n, *shape)`` by title.
        texts: One for each of the n.
        spec: Of the data.

    Example:
        >>> import torch
        >>> with_captions({"mean": torch.rand(2, 3, 32, 32)}, ["cat", "dog"]).size[0] > 200
        True
    """
    means, draws = _divided(parts, spec)
    different = len(set(texts))
    if different == 1:
        side = LARGE if photographic(spec) else 64
        large = panels([(title, _rows(x, spec, None, side)) for title, x in means.items()], across=True)
        return panels([(texts[0], _above(large, draws, spec, None))])
    columns = different if different < len(texts) and different <= 10 else None
    cells = [(title, captioned(drawable(x, spec), texts, columns)) for title, x in means.items()]
    return _above(panels(cells, across=columns is None or columns <= 5), draws, spec, columns)


def layer_sheet(views: LayerViews, spec: DataSpec | None) -> Image.Image:
    """What each layer of a hierarchy holds: a row for each layer, the top first.

    Args:
        views: One sample, and others that share its upper layers.
        spec: Of the data.

    Example:
        >>> import torch
        >>> views = LayerViews(("z1", "z2"), torch.rand(1, 8, 8), {"z1": torch.rand(5, 1, 8, 8)})
        >>> layer_sheet(views, None).size[0] > 400
        True
    """
    head, rows = layer_rows(views, spec)
    side = LARGE if photographic(spec) else 48
    strips = [(title, beside([grid(each, len(each), side) for each in parts])) for title, parts in rows]
    return panels([(head, panels(strips))])


def layer_rows(views: LayerViews, spec: DataSpec | None) -> tuple[str, list[tuple[str, list[Tensor]]]]:
    """What the columns show, and for each layer a title and images in [0, 1]: the sample; the redrawn ones; two more.

    These two are the mean and the standard deviation of the redrawn ones, in units of the largest of all layers.

    Args:
        views: One sample, and others that share its upper layers.
        spec: Of the data.
    """
    sample, rows = drawable(views.sample[None], spec), list[tuple[str, list[Tensor]]]()
    spread = {name: _deviation(drawable(x, spec)) for name, x in views.redrawn.items()}
    most = max(float(each.max()) for each in spread.values())
    for name, x in views.redrawn.items():
        images, deviation = drawable(x, spec), spread[name]
        ends = [images.mean(0, keepdim=True), (deviation / (most or 1.0)).expand_as(sample)]
        title = f"{views.title(name)}; pixels deviate by {deviation.square().mean().sqrt():.3f}"
        rows.append((title, [sample, images, torch.cat(ends)]))
    n = len(next(iter(views.redrawn.values())))
    some = f"; {views.omitted}" if views.omitted else ""
    return f"From the left: a sample; {n} redrawn; their mean; their standard deviation (white: {most:.2f}){some}", rows


def _deviation(images: Tensor) -> Tensor:
    """Over samples and colours, ``(1, 1, height, width)``."""
    return images.float().var(0, correction=0).mean(0, keepdim=True).sqrt().unsqueeze(0)


def beside(parts: Sequence[Image.Image], gap: int = 12) -> Image.Image:
    """Images of one height side by side, on white, or transparent if they are."""
    width, mode = sum(each.width for each in parts) + gap * (len(parts) - 1), parts[0].mode
    both, left = Image.new(mode, (width, parts[0].height), (255, 255, 255, 0)[: len(mode)]), 0
    for each in parts:
        both.paste(each, (left, 0))
        left += each.width + gap
    return both


def training_picture(model: Model, x: Tensor, c: Given | None, path: Path, spec: DataSpec | None = None) -> None:
    """Reconstructions of a few examples above samples, or completions of them, as one PNG."""
    if model.completes:
        save_picture(sheet(completions(model, x, c, 6), spec, across=True), path)
        return
    px = model(c)
    parts = reconstructions(px, x) if isinstance(px, Marginal) else {"data": x}
    if model.can_sample:
        parts |= {f"samples: {title}": images for title, images in samples(model, 2 * len(x), c).items()}
    save_picture(sheet(parts, spec, columns=len(x)), path)


def _divided(parts: Parts, spec: DataSpec | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parts drawn large, and those drawn small: samples, if there is a mean."""
    small = {title: x for title, x in parts.items() if "draw from" in title} if photographic(spec) else {}
    if len(small) == len(parts):
        return dict(parts), {}
    return {title: x for title, x in parts.items() if title not in small}, small


def _above(large: Image.Image, draws: Parts, spec: DataSpec | None, columns: int | None) -> Image.Image:
    if not draws:
        return large
    titles = [f"{title}: {WHY_SMALL}" if i == 0 else title for i, title in enumerate(draws)]
    small = panels([(title, _small(x, spec, columns)) for title, x in zip(titles, draws.values(), strict=True)])
    both = Image.new("RGB", (max(large.width, small.width), large.height + small.height), "white")
    both.paste(large)
    both.paste(small, (0, large.height))
    return both


def _rows(x: Tensor, spec: DataSpec | None, columns: int | None, side: int) -> Image.Image:
    images = drawable(x, spec)
    if images.dim() == 5:
        return grid(images.flatten(0, 1), images.shape[1], side)
    return grid(images, columns, side)


def _small(x: Tensor, spec: DataSpec | None, columns: int | None) -> Image.Image:
    """Large images subsampled, not averaged, which would hide the noise."""
    step = max(1, round(max(x.shape[-2:]) / SMALL))
    return _rows(x[..., ::step, ::step], spec, columns, SMALL)
