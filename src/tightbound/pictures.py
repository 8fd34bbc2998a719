"""Tensors to pictures: grids with a title to each row or panel.

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

from .checkpoint import write_atomically
from .conditions import ClassCondition, PartCondition
from .data import DataSpec, Split
from .errors import UsageError
from .models.latent import LatentVariableModel, Marginal

__all__ = [
    "check_image",
    "completions",
    "conditions_to_show",
    "grid",
    "panels",
    "reconstructions",
    "samples",
    "save_picture",
    "training_picture",
]

_GAP, _INK, _PAPER = 2, (60, 60, 60), (255, 255, 255)


def check_image(spec: DataSpec) -> None:
    """Refuses data that cannot be drawn.

    Raises:
        UsageError: If an example is not a grey or RGB image.
    """
    if not spec.image:
        raise UsageError(
            "This data cannot be drawn as pictures.",
            got=f"examples of shape {spec.shape}",
            expected="(1 or 3, height, width)",
            remedy="Write an array instead: --out FILE.npz",
        )


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images side by side, row by row.

    Args:
        images: ``(n, channels, height, width)`` in [0, 1].
        columns: Images in a row; default: about a square.

    Example:
        >>> grid(torch.rand(4, 1, 8, 8)).size[0] >= 64
        True
    """
    images = images.detach().float().cpu().nan_to_num(0.0).clamp(0, 1)
    n, channels, height, width = images.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = -(-n // columns)
    sheet = torch.ones(rows * columns, 3, height + _GAP, width + _GAP)
    sheet[:n, :, :height, :width] = images if channels == 3 else images.expand(n, 3, height, width)
    sheet = sheet.reshape(rows, columns, 3, height + _GAP, width + _GAP).permute(0, 3, 1, 4, 2)
    pixels = (sheet.reshape(rows * (height + _GAP), columns * (width + _GAP), 3) * 255).round().to(torch.uint8)
    zoom = max(1, round(48 / max(height, width)))
    return Image.fromarray(np.ascontiguousarray(pixels.numpy())).resize(
        (pixels.shape[1] * zoom, pixels.shape[0] * zoom), Image.Resampling.NEAREST
    )


def panels(parts: Sequence[tuple[str, Image.Image]], across: bool = False) -> Image.Image:
    """Pictures under their titles, one below the other or side by side.

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
    """Writes a PNG, all of it or nothing."""
    write_atomically(path, lambda temporary: image.save(temporary, format="PNG"))


@torch.no_grad()
def reconstructions(marginal: Marginal, x: Tensor) -> dict[str, Tensor]:
    """The data, the mean of p(x | z) and a draw from it, at the mean of q(z | x); each shaped like ``x``."""
    px = marginal.likelihood(marginal.posterior(x).mean)
    return {"data": x, "mean of p(x|z)": px.mean, "draw from p(x|z)": px.sample()}


@torch.no_grad()
def samples(marginal: Marginal, n: int, temperature: float = 1.0) -> dict[str, Tensor]:
    """The mean of p(x | z) and a draw from it, at the same n draws of z from the prior.

    Args:
        marginal: p(x), or p(x | c) of one condition ``(size,)`` or of n.
        n: How many.
        temperature: Factor on the distance of z from the prior's mean.
    """
    z = marginal.sample_latent(() if marginal.batch_shape else (n,))
    if temperature != 1:
        centre = marginal.prior().mean
        z = centre + temperature * (z - centre)
    px = marginal.likelihood(z)
    return {"mean of p(x|z)": px.mean, "draw from p(x|z)": px.sample()}


@torch.no_grad()
def completions(model: LatentVariableModel, x: Tensor, c: Tensor | None, samples: int) -> dict[str, Tensor]:
    """What is seen of pictures, several completions (the mean of p(x | z, c) at draws of z), and the pictures.

    Args:
        model: A model whose condition is the part of a picture that is seen.
        x: The pictures, ``(n, *shape)``.
        c: What is seen of them.
        samples: Completions of each.

    Raises:
        UsageError: If the model does not complete pictures.
    """
    if not isinstance(model.condition, PartCondition) or c is None:
        raise UsageError("This model does not complete pictures.", remedy="Train one: tightbound train completion.")
    px = model(c)
    seen = c.unflatten(-1, x.shape[1:]).nan_to_num(0.5)
    drawn = px.likelihood(px.sample_latent((samples,))).mean.movedim(0, 1)
    return {"seen": seen.unsqueeze(1), "completions": drawn, "truth": x.unsqueeze(1)}


@torch.no_grad()
def conditions_to_show(model: LatentVariableModel, split: Split, n: int) -> Tensor | None:
    """Conditions of n samples, ``(n, size)``: one class after the other, or those of as many examples.

    Args:
        model: The model.
        split: Where the examples are.
        n: How many; examples begin again where there are fewer.
    """
    if model.condition is None:
        return None
    device = next(model.parameters()).device
    if isinstance(model.condition, ClassCondition):
        return (torch.arange(n, device=device) % len(model.condition.classes)).unsqueeze(-1)
    return model.conditions(split.batch(torch.arange(n) % len(split), device))


def training_picture(marginal: Marginal, x: Tensor, path: Path) -> None:
    """Reconstructions of a few examples above samples, or completions of them, as one PNG."""
    if isinstance(marginal.model.condition, PartCondition):
        drawn = completions(marginal.model, x, marginal.c, 6).items()
        save_picture(panels([(t, grid(images.flatten(0, 1), images.shape[1])) for t, images in drawn], True), path)
        return
    parts = [(title, grid(images, len(images))) for title, images in reconstructions(marginal, x).items()]
    if marginal.model.prior is not None:
        drawn = samples(marginal, 2 * len(x)).items()
        parts += [(f"samples: {title}", grid(images, len(x))) for title, images in drawn]
    save_picture(panels(parts), path)
