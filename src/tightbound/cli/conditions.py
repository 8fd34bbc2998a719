"""Conditions given as text or in a file.

Convention: as in :mod:`~tightbound.conditions`, ``(n, size)``, -1 or NaN if missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..checkpoint import require_file
from ..conditions import ClassCondition, Condition, TextCondition, missing
from ..errors import UsageError, reading

__all__ = ["read_conditions"]

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST_BYTES = 2**26
"""Maximum size of a file of conditions."""
NONE = "none"
"""The word for a missing condition."""


def read_conditions(condition: nn.Module | None, words: str | None, path: Path | None, n: int | None) -> Tensor | None:
    """The conditions of n samples, given as text or in a file, in turn; None if not given.

    Args:
        condition: The condition of the model, or None.
        words: One condition; "none" means a missing condition, unless it is a text or a class.
        path: A text file with one condition per line, an ``.npy`` of conditions ``(m, size)``, or an image.
        n: Number of samples; None for each condition once.

    Returns:
        ``(n, size)``.

    Raises:
        UsageError: If the model is unconditional, the condition is invalid, its class or a missing condition was never
            seen in training, or the file cannot be read.

    Example:
        >>> from tightbound.conditions import ClassCondition
        >>> read_conditions(ClassCondition(("cat", "dog")), "dog", None, 2)
        tensor([[1],
                [1]])
    """
    if words is None and path is None:
        return None
    if not isinstance(condition, Condition):
        raise UsageError(
            "This model is unconditional.",
            got=words if path is None else path,
            expected="neither --condition nor --condition-file",
            remedy="Leave it out, or train recipe 'cvae', or a prior: tightbound fit-prior RUN --condition class.",
        )
    if words is not None and path is not None:
        raise UsageError(
            "A condition must be given either as text or in a file.", remedy="Use --condition or --condition-file."
        )
    some = [_in_words(condition, words)] if words is not None else _from_file(condition, Path(path or ""))
    c = torch.stack([some[i % len(some)] for i in range(len(some) if n is None else n)])
    _check_learned(condition, c)
    return c


def _in_words(condition: Condition, words: str) -> Tensor:
    if words != NONE or isinstance(condition, TextCondition) or NONE in getattr(condition, "classes", ()):
        return condition.parse(words)
    return missing(torch.zeros(condition.size, dtype=torch.int64 if condition.whole else torch.float32))


def _check_learned(condition: Condition, c: Tensor) -> None:
    """Refuses a class without training examples, and a missing condition if training always had one."""
    if isinstance(condition, ClassCondition) and (asked := {*c.flatten().tolist()} & {*condition.absent}):
        raise UsageError(
            "This model was trained without examples of that class.",
            got=", ".join(condition.classes[number] for number in sorted(asked)),
            expected="one of: " + ", ".join(condition.classes[number] for number in condition.learned),
            remedy="Choose another class, or train with examples of this one.",
        )
    absent = (c < 0 if condition.whole else c.isnan()).all(-1)
    if condition.drop == 0 and absent.any():
        raise UsageError(
            "This model was never trained without a condition.",
            got=f"no condition for {int(absent.sum())} of {len(c)} samples",
            remedy="Train with --drop-condition 0.1, or give a condition.",
        )


def _from_file(condition: Condition, path: Path) -> list[Tensor]:
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


def _picture(condition: Condition, path: Path) -> Tensor:
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


def _checked(condition: Condition, entries: Any) -> Tensor:
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
