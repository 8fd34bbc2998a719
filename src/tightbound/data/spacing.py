"""Some of many at even distances: a file may lie in the order of its classes.

There are two, as numpy and torch round a place between two rows differently in about three of a hundred cases: numpy's
is what the fingerprints of runs rest on, torch's what their evaluations do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["evenly_spaced", "evenly_spaced_rows"]


def evenly_spaced(there: int, n: int) -> Tensor:
    """Indices of n of so many examples, or of all where there are fewer, int64.

    Example:
        >>> evenly_spaced(9, 3), evenly_spaced(2, 5)
        (tensor([0, 4, 8]), tensor([0, 1]))
    """
    return torch.linspace(0, there - 1, min(n, there), dtype=torch.float64).round().long()


def evenly_spaced_rows(there: int, n: int) -> npt.NDArray[np.int64]:
    """The same by numpy, for rows that are read to describe data.

    Example:
        >>> evenly_spaced_rows(9, 3)
        array([0, 4, 8])
    """
    return np.linspace(0, there - 1, n).round().astype(np.int64)
