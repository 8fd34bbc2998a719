"""Images from tensors: grids with titles for rows or panels.

Convention: an image is a float tensor ``(channels, height, width)`` with values in [0, 1] and 1 or 3 channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.distributions import Distribution

from ..conditions import Given
from ..data import DataSpec, Split
from ..data.transform import in_data_units
from ..distributions import CodePoint, Dirac, Sampling, drawn
from ..errors import UsageError
from ..models import Marginal, Model
from ..runtime.files import write_atomically
from ..runtime.progress import progress

__all__ = [
    "averaged",
    "candidates",
    "captioned",
    "completions",
    "conditions_to_show",
    "described",
    "drawable",
    "grid",
    "panels",
    "reconstructions",
    "require_drawable",
    "samples",
    "save_picture",
]

_GAP, _INK, _PAPER = 2, (60, 60, 60), (255, 255, 255)
_LINE, _LINES = 14, 4
_AT_ONCE = 256
"""Batch size for sampling."""
MOST_PIXELS = 2**27
"""Maximum pixels of a sheet of images."""


def require_drawable(spec: DataSpec) -> None:
    """Refuses data that cannot be drawn.

    Raises:
        UsageError: If an example is not a grey or RGB image.
    """
    if not spec.image:
        raise UsageError(
            "This data cannot be drawn as images.",
            got=f"examples of shape {spec.shape}",
            expected="(1 or 3, height, width)",
            remedy="Write an array instead: --out FILE.npz",
        )


def drawable(x: Tensor, spec: DataSpec | None) -> Tensor:
    """Rescales a model's inputs or outputs to [0, 1]; continuous data by the range of its training split.

    Args:
        x: ``(*batch, *shape)``.
        spec: Of the data; None if it is in [0, 1].

    Example:
        >>> spec = DataSpec("scan", (1, 1, 2), None, location=(50.0,), scale=(10.0,), low=0.0, high=100.0)
        >>> drawable(torch.tensor([[[[-5.0, 1.0]]]]), spec)
        tensor([[[[0.0000, 0.6000]]]])
    """
    if spec is None or (spec.low, spec.high, spec.scale) == (0.0, 1.0, ()):
        return x
    return ((in_data_units(x, spec) - spec.low) / (spec.high - spec.low)).float()


def grid(images: Tensor, columns: int | None = None, side: int = 48) -> Image.Image:
    """Arranges images in a grid, row by row.

    Args:
        images: ``(n, channels, height, width)`` in [0, 1].
        columns: Images per row; default: about a square.
        side: Smaller images are enlarged to about this side in pixels.

    Example:
        >>> grid(torch.rand(4, 1, 8, 8)).size[0] >= 64
        True
    """
    images = images.detach().float().cpu().nan_to_num(0.0).clamp(0, 1)
    n, channels, height, width = images.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = -(-n // columns)
    zoom = max(1, round(side / max(height, width)))
    _check_sheet(rows * (height + _GAP) * zoom, columns * (width + _GAP) * zoom)
    sheet = torch.ones(rows * columns, 3, height + _GAP, width + _GAP)
    sheet[:n, :, :height, :width] = images if channels == 3 else images.expand(n, 3, height, width)
    sheet = sheet.reshape(rows, columns, 3, height + _GAP, width + _GAP).permute(0, 3, 1, 4, 2)
    pixels = (sheet.reshape(rows * (height + _GAP), columns * (width + _GAP), 3) * 255).round().to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.numpy())).resize(
        (pixels.shape[1] * zoom, pixels.shape[0] * zoom), Image.Resampling.NEAREST
    )


def _check_sheet(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise UsageError(
            "Too many images for one picture.",
            got=f"{width:,} x {height:,} pixels",
            expected=f"at most {MOST_PIXELS:,}",
            remedy="Ask for fewer, or for arrays: --out FILE.npz.",
        )


def captioned(images: Tensor, texts: Sequence[str], columns: int | None = None) -> Image.Image:
    """Arranges images in a grid, row by row, each with its caption below it.

    Args:
        images: ``(n, channels, height, width)`` in [0, 1].
        texts: One for each.
        columns: Images per row; default: about a square.

    Example:
        >>> captioned(torch.rand(2, 3, 32, 32), ["face with tears of joy", "cat"]).size[0] > 200
        True
    """
    font, cells = ImageFont.load_default(11), [_cell(image) for image in images]
    lines = [_wrapped(text, font, cells[0].width) for text in texts]
    width, height = cells[0].width + 10, cells[0].height + _LINE * max(map(len, lines)) + 10
    columns = min(len(cells), columns or math.ceil(math.sqrt(len(cells))))
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), _PAPER)
    for i, (cell, told) in enumerate(zip(cells, lines, strict=True)):
        room = Image.new("RGB", (width - 4, height), _PAPER)
        room.paste(cell)
        ImageDraw.Draw(room).multiline_text((0, cell.height + 2), "\n".join(told), fill=_INK, font=font, spacing=2)
        sheet.paste(room, (i % columns * width, i // columns * height))
    return sheet


def _cell(image: Tensor) -> Image.Image:
    """One image, enlarged, without the gap after it."""
    height, width = image.shape[1:]
    drawn = grid(image.unsqueeze(0), 1, side=96)
    zoom = drawn.width // (width + _GAP)
    return drawn.crop((0, 0, width * zoom, height * zoom))


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Wraps a text to a width in pixels, with an ellipsis if it is too long."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if not lines[-1] or font.getlength(longer) <= width else [*lines, word]
    if len(lines) <= _LINES:
        return lines
    last = lines[_LINES - 1]
    while font.getlength(f"{last} …") > width and last:
        last = last[:-1]
    return [*lines[: _LINES - 1], f"{last} …"]


def panels(parts: Sequence[tuple[str, Image.Image]], across: bool = False) -> Image.Image:
    """Images under their titles, stacked or side by side.

    Args:
        parts: Titles and pictures.
        across: Side by side.
    """
    font, head, margin = ImageFont.load_default(15), 26, 10
    boxes = [(max(image.width, round(font.getlength(title))), image.height + head) for title, image in parts]
    if across:
        size = (sum(w for w, _ in boxes) + margin * (len(boxes) + 1), max(h for _, h in boxes) + 2 * margin)
    else:
        size = (max(w for w, _ in boxes) + 2 * margin, sum(h for _, h in boxes) + margin * (len(boxes) + 1))
    sheet = Image.new("RGB", size, _PAPER)
    draw, x, y = ImageDraw.Draw(sheet), margin, margin
    for (title, image), (width, height) in zip(parts, boxes, strict=True):
        draw.text((x, y), title, fill=_INK, font=font)
        sheet.paste(image, (x, y + head))
        x, y = (x + width + margin, y) if across else (x, y + height + margin)
    return sheet


def save_picture(image: Image.Image, path: Path) -> None:
    """Writes a PNG atomically."""
    write_atomically(path, lambda temporary: image.save(temporary, format="PNG"))


@torch.no_grad()
def reconstructions(marginal: Marginal, x: Tensor) -> dict[str, Tensor]:
    """The data, the mean of p(x | z) and a sample of it, at the mean of q(z | x); each shaped like ``x``.

    Discrete latents are the most probable codes. If z has several levels, the means without the finer levels come
    first, with each of their vectors replaced by the mean.
    """
    z, space = marginal.representative(x), marginal.model.space
    parts = {"data": x}
    for kept, coarse in enumerate(space.coarser(z), start=1):
        title = "top alone: mean of p(x|z)" if kept == 1 else f"top-{kept} levels: mean of p(x|z)"
        parts[title] = marginal.likelihood(coarse).mean
    px = marginal.likelihood(z)
    return parts | {"mean of p(x|z)": px.mean, "draw from p(x|z)": px.sample()}


@torch.no_grad()
def averaged(marginal: Marginal, x: Tensor, samples: int) -> dict[str, Tensor]:
    r"""The mean of p(x | z) at one sample of q(z | x), and its average over several, each shaped like ``x``.

    The average minimises the squared error, :math:`\lVert x - \mathbb{E} \mu(z) \rVert^2 = \mathbb{E} \lVert x - \mu(z)
    \rVert^2 - \operatorname{Var} \mu(z)`, and is blurred; the ELBO uses single samples.

    Args:
        marginal: p(x), or p(x | c) with one condition per example.
        x: Examples, ``(n, *shape)``.
        samples: Number of samples to average; the first is also shown alone.

    Raises:
        UsageError: If the posterior is a point mass.
    """
    q = marginal.posterior(x)
    if isinstance(q, Dirac | CodePoint):
        raise UsageError(
            "The posterior of this model is a point mass, so all its samples are the same.",
            got=f"{samples} samples",
            remedy="Leave --samples out, or train a model with a stochastic posterior: tightbound train vae.",
        )
    one, total = x, torch.zeros_like(x)
    with progress("decoded samples", samples) as advance:
        for i in range(samples):
            mean = marginal.likelihood(q.sample()).mean
            one, total = (mean if i == 0 else one), total + mean
            advance(1)
    return {"one decoded sample of q(z|x)": one, f"average of {samples} decoded samples": total / samples}


@torch.no_grad()
def samples(
    model: Model,
    n: int,
    c: Given | None = None,
    how: Sampling = Sampling(),  # noqa: B008 - frozen
) -> dict[str, Tensor]:
    """The mean of p(x | z) and a sample of it, at the same n samples of z from the prior, ``(n, *shape)`` on the CPU.

    A model without a latent gives only samples. They are drawn in batches, with constant memory.

    Args:
        model: The model.
        n: Number of samples, unless given by the conditions.
        c: Conditions of shape ``()``, or one per sample, ``(n,)``.
        how: How z, or x without a latent, is sampled.

    Raises:
        UsageError: If a temperature has no effect, or the model does not support the options.
    """
    of_each = c if c is not None and c.shape else None
    n, whole, parts = n if of_each is None else of_each.shape[0], model(c), list[dict[str, Tensor]]()
    with progress("samples", n) as advance:
        for part in torch.arange(n).split(_AT_ONCE):
            px, shape = (whole, (len(part),)) if of_each is None else (model(of_each[part]), ())
            parts.append({title: x.cpu() for title, x in _draws(px, shape, how).items()})
            advance(len(part))
    return {title: torch.cat([part[title] for part in parts]) for title in parts[0]}


def _draws(px: Distribution, shape: tuple[int, ...], how: Sampling) -> dict[str, Tensor]:
    if not isinstance(px, Marginal):
        return {"draw from p(x)": drawn(px, shape, how)}
    likelihood = px.likelihood(px.sample_latent(shape, how))
    return {"mean of p(x|z)": likelihood.mean, "draw from p(x|z)": likelihood.sample()}


@torch.no_grad()
def candidates(model: Model, c: Given | None, k: int, how: Sampling = Sampling()) -> Tensor:  # noqa: B008 - frozen
    """Several candidate samples for each of n conditions, ``(k, n, *shape)``, on the CPU.

    These are means of p(x | z) at samples of z, without the noise of the likelihood; for a model without a latent,
    samples.

    Args:
        model: The model.
        c: Conditions of shape ``(n,)``.
        k: Candidates per condition.
        how: As for :func:`samples`.
    """
    px, n, found = model(c), 1 if c is None else c.shape[0], list[Tensor]()
    with progress("samples", k * n) as advance:
        for part in torch.arange(k).split(max(1, _AT_ONCE // n)):
            shown = next(iter(_draws(px, (len(part),), how).values()))
            found.append(shown.clamp(0, 1).cpu())
            advance(len(part) * n)
    return torch.cat(found)


@torch.no_grad()
def completions(model: Model, x: Tensor, c: Given | None, samples: int) -> dict[str, Tensor]:
    """The observed parts of images, several completions (the mean of p(x | z, c) at samples of z), and the images.

    Args:
        model: A model whose condition is the observed part of an image.
        x: The images, ``(n, *shape)``.
        c: Their observed parts.
        samples: Completions per image.

    Raises:
        UsageError: If the model does not complete images.
    """
    if c is None or not model.completes:
        raise UsageError("This model does not complete images.", remedy="Train one: tightbound train completion.")
    px = model(c)
    seen = c["part"].unflatten(-1, x.shape[1:]).nan_to_num(0.5)
    means = (
        px.likelihood(px.sample_latent((samples,))).mean
        if isinstance(px, Marginal)
        else px.mean.expand(samples, *x.shape)
    )
    return {"seen": seen.unsqueeze(1), "completions": means.movedim(0, 1), "truth": x.unsqueeze(1)}


@torch.no_grad()
def conditions_to_show(model: Model, split: Split, n: int) -> Given | None:
    """Conditions of n samples, ``(n,)``: one class after the other, or those of n examples of all classes.

    Args:
        model: The model.
        split: The examples.
        n: Number of conditions; examples repeat if there are fewer.
    """
    if model.condition is None:
        return None
    if (listed := model.condition.to_show()) is not None:
        return listed[torch.arange(n) % listed.shape[0]].to(model.device)
    examples = split.representative(min(n, len(split)))
    return model.conditions(split.batch(examples[torch.arange(n) % len(examples)], model.device))


def described(model: Model, c: Given | None) -> list[str]:
    """Conditions of shape ``(n,)`` as text, if they are texts or classes; else an empty list."""
    if c is None or model.condition is None or not model.condition.in_few_words:
        return []
    return [model.condition.describe(c[i]) for i in range(c.shape[0])]
