"""Conditions given as text or in a file.

Convention: as in :mod:`~tightbound.conditions`, -1 or NaN if missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..checkpoint import require_file
from ..conditions import Condition, Given, NamedCondition
from ..errors import UsageError, reading

__all__ = ["read_conditions"]

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST_BYTES = 2**26
"""Maximum size of a file of conditions."""


def read_conditions(
    condition: Condition | None, words: Sequence[str], path: Path | None, n: int | None
) -> Given | None:
    """The conditions of n samples, given as text or in a file, in turn; None if not given.

    Args:
        condition: The condition of the model, or None.
        words: One condition, or each of several as ``name=words``; "none" means a missing condition, unless it is a
            text or a class.
        path: A text file with one condition per line, an ``.npy`` of conditions ``(m, size)``, or an image.
        n: Number of samples; None for each condition once.

    Returns:
        Conditions of shape ``(n,)``.

    Raises:
        UsageError: If the model is unconditional, the condition is invalid, its class or a missing condition was never
            seen in training, or the file cannot be read.

    Example:
        >>> from tightbound.conditions import ClassCondition
        >>> read_conditions(ClassCondition(("cat", "dog")), ["dog"], None, 2)["class"]
        tensor([[1],
                [1]])
    """
    if not words and path is None:
        return None
    if condition is None:
        raise UsageError(
            "This model is unconditional.",
            got=" ".join(words) if path is None else path,
            expected="neither --condition nor --condition-file",
            remedy="Leave it out, or train recipe 'cvae', or a prior: tightbound fit-prior RUN --condition class.",
        )
    if words and path is not None:
        raise UsageError(
            "A condition must be given either as text or in a file.", remedy="Use --condition or --condition-file."
        )
    some = condition.read(*words)[None] if path is None else _from_file(condition, path)
    c = some[torch.arange(some.shape[0] if n is None else n) % some.shape[0]]
    condition.require_learned(c)
    return c


def _from_file(condition: Condition, path: Path) -> Given:
    """The conditions of a file, of shape ``(m,)``."""
    if len(condition.parts) > 1:
        raise UsageError(
            "A file holds one kind of condition, but this model has several conditions.",
            got=path,
            expected=" ".join(f"--condition {name}=..." for name in condition.parts),
            remedy="Give them by name instead.",
        )
    return Given({name: torch.stack(_entries(part, path)) for name, part in condition.parts.items()})


def _entries(condition: NamedCondition, path: Path) -> list[Tensor]:
    require_file(path, MOST_BYTES, UsageError)
    expected = "a text file with one condition per line, an .npy, or an image"
    with reading(path, UsageError, expected=expected, remedy="Check --condition-file."):
        if path.suffix.lower() in PICTURES:
            return [_picture(condition, path)]
        if path.suffix == ".npy":
            found = np.lib.format.open_memmap(path, mode="r")  # whose header cannot make it larger than its file
            some = [_checked(condition, row) for row in np.atleast_1d(found)]
        else:
            some = [condition.parse(line) for line in path.read_text(encoding="utf8").splitlines() if line.strip()]
    if not some:
        raise UsageError(f"{path} holds no conditions.", got="nothing", expected="one on each line or in each row")
    return some


def _picture(condition: NamedCondition, path: Path) -> Tensor:
    if (shape := condition.picture) is None:
        raise UsageError("This model's condition is not an image.", got=path, remedy="Use --condition WORDS.")
    with Image.open(path) as image:
        if (image.height, image.width) != shape[1:]:
            raise UsageError(
                "The image does not have the size of the model's condition.",
                got=f"{(image.height, image.width)}",
                expected=f"height and width {shape[1:]}",
                remedy="Resize it first.",
            )
        pixels = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"), dtype=np.float32) / 255
    picture = torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
    if tuple(picture.shape) != shape:
        raise UsageError("The image has a different number of channels.", got=f"{len(picture)}", expected=f"{shape[0]}")
    return condition.of_picture(picture)


def _checked(condition: NamedCondition, entries: Any) -> Tensor:
    row, most = np.asarray(entries).reshape(-1), condition.limit
    numbers = row.dtype.kind in "iuf" and not np.isinf(row).any()
    if row.size != condition.size or not numbers or not (most is None or np.all(row % 1 == 0)):
        raise UsageError(
            "The file's conditions do not fit the model.",
            got=f"{row.size} numbers of kind {row.dtype}",
            expected=f"{condition.size} {'finite numbers' if most is None else 'integers'}",
            remedy="Give an array (conditions, entries of one).",
        )
    if most is None:
        values = torch.from_numpy(row.astype(np.float32)) / (255 if row.dtype == np.uint8 else 1)
        return values if condition.picture is None else condition.of_picture(values.view(condition.picture))
    if not -1 <= row.min() <= row.max() < most:
        raise UsageError(
            "The file's conditions are out of range.",
            got=f"{row.min()} to {row.max()}",
            expected=f"0 to {most - 1}, or -1 for none",
            remedy="Write them by name in a text file, one per line.",
        )
    return torch.from_numpy(row.astype(np.int64))
