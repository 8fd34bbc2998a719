"""Whether all examples of a split are nearly the same, so that there is nothing to learn."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter

import torch
from torch import Tensor

from ...data import Split
from ...data.transform import Transform
from .positions import NOTHING

__all__ = ["sameness"]

VISIBLE = 0.01
"""Maximum visible difference of equal-looking examples, as a share of the range of levels."""
ROUNDING = 1e-6
"""Maximum relative difference of equal numbers."""
ROWS = 500
"""Number of examples per chunk."""


def sameness(split: Split) -> str:
    r"""Describes how all examples are the same, as text; empty if they differ.

    They are the same if their entropy is small, :math:`\mathrm{H}(x) < 0.1` nats, or if no entry varies visibly.

    Args:
        split: The data; its stored values are compared, before random transforms.

    Example:
        >>> import numpy as np
        >>> from tightbound.data import Data
        >>> sameness(Data.from_arrays(np.zeros((20, 4), np.float32), name="zeros").train)
        'all examples are equal'
    """
    stored = dataclasses.replace(split, transform=Transform(None))
    counts, least, most = Counter[bytes](), list[Tensor](), list[Tensor]()
    for part in torch.arange(len(split)).split(ROWS):
        values = stored.batch(part).x.cpu().flatten(1)
        counts.update(hashlib.blake2b(row.numpy().tobytes()).digest() for row in values)
        least.append(values.amin(0))
        most.append(values.amax(0))
    if len(counts) == 1:
        return "all examples are equal"
    n = counts.total()
    if math.log(n) - sum(c * math.log(c) for c in counts.values()) / n < NOTHING:
        return f"{max(counts.values())} of {n} examples are equal"
    low, high, levels = torch.stack(least).amin(0), torch.stack(most).amax(0), split.transform.levels
    unseen = VISIBLE * (levels - 1) if levels else ROUNDING * torch.maximum(low.abs(), high.abs())
    return "all examples are nearly equal" if bool((high - low <= unseen).all()) else ""
