"""Resizing and colour conversion of image arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError
from ..options.data import DataOptions, sides
from .sources.arrays import chunks
from .sources.raw import Array, Raw
from .store import stored

__all__ = ["fit_images"]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue for grey (ITU-R 601-2), as in Pillow."""


def fit_images(raw: Raw, options: DataOptions) -> Raw:
    """The data with images of the requested size and colours.

    They are resized to cover the size (bilinear, antialiased) and center-cropped; levels are rounded.

    Raises:
        UsageError: If the examples are not images.
    """
    shape = raw.parts["train"].values.shape[1:] if "train" in raw.parts else ()
    steps = _steps(shape, options, whole=raw.levels is not None)
    if not steps:
        return raw

    def all_steps(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    parts = {name: replace(part, values=_mapped(part.values, all_steps)) for name, part in raw.parts.items()}
    return replace(raw, parts=parts)


def _steps(shape: tuple[int, ...], options: DataOptions, *, whole: bool) -> list[Callable[[Tensor], Tensor]]:
    size, steps = sides(options.image_size), list[Callable[[Tensor], Tensor]]()
    if size is None and options.color == "as-is":
        return steps
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UsageError(
            "image_size and color need images.",
            got=f"examples of shape {shape}",
            expected="1 or 3 channels, height, width",
            remedy="Leave image_size and color out.",
        )
    if options.color == "grey" and shape[0] == 3:
        steps.append(lambda x: _rounded(torch.einsum("nchw,c->nhw", x, torch.tensor(LUMA))[:, None], whole))
    if size is not None and shape[1:] != size:
        steps.append(lambda x: _rounded(_resized(x, *size), whole))
    if options.color == "rgb" and shape[0] == 1:
        steps.append(lambda x: x.expand(-1, 3, -1, -1))
    return steps


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    scale = max(height / x.shape[-2], width / x.shape[-1])
    target = [max(height, round(x.shape[-2] * scale)), max(width, round(x.shape[-1] * scale))]
    x = functional.interpolate(x, size=target, mode="bilinear", antialias=True)
    top, left = (target[0] - height) // 2, (target[1] - width) // 2
    return x[..., top : top + height, left : left + width]


def _rounded(x: Tensor, whole: bool) -> Tensor:
    return x.round() if whole else x


def _mapped(values: Array, step: Callable[[Tensor], Tensor]) -> Array:
    """Applies a function to chunks of rows, into memory or a memory map."""

    def apply(part: Array) -> Array:
        return step(torch.from_numpy(part.astype(np.float32))).numpy().astype(values.dtype)

    def fill(out: Array) -> None:
        for start, part in chunks(values):
            out[start : start + len(part)] = apply(part)

    return stored((len(values), *apply(values[:1]).shape[1:]), values.dtype, fill, key=None)
