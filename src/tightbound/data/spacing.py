"""Evenly spaced indices, since files may be sorted by class.

There are two functions, since numpy and torch round differently in about 3 % of cases: fingerprints of runs depend on
numpy's, evaluations on torch's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["evenly_spaced", "evenly_spaced_rows"]


def evenly_spaced(there: int, n: int) -> Tensor:
    """Indices of n evenly spaced examples, or of all if there are fewer, int64.

    Example:
        >>> evenly_spaced(9, 3), evenly_spaced(2, 5)
        (tensor([0, 4, 8]), tensor([0, 1]))
    """
    return torch.linspace(0, there - 1, min(n, there), dtype=torch.float64).round().long()


def evenly_spaced_rows(there: int, n: int) -> npt.NDArray[np.int64]:
    """The same by numpy, for rows read to describe data.

    Example:
        >>> evenly_spaced_rows(9, 3)
        array([0, 4, 8])
    """
    return np.linspace(0, there - 1, n).round().astype(np.int64)
