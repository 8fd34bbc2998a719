r"""Times at which the noise levels of a bound are drawn.

Convention: times lie in [0, 1]; every draw is uniform for each example, so that a mean over them is unbiased.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UsageError

__all__ = ["stratified", "stratified_draws"]


def stratified(
    n: int, *, part: int = 0, parts: int = 1, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    r"""One jittered draw in each of n strata of equal width, in random order.

    Of several parts of a batch, each takes every ``parts``-th stratum, so that together they cover all. The variance of
    a mean over times then falls as :math:`n^{-3}`, instead of :math:`n^{-1}`.

    Args:
        n: Number of draws of this part.
        part: The number of this part, from 0.
        parts: Number of parts, of n draws each.
        device: Where to draw.
        dtype: Of the times.

    Returns:
        Times, ``(n)``.

    Raises:
        UsageError: If there is no such part.

    Example:
        >>> t = stratified(4).sort().values
        >>> bool(((t >= torch.arange(4) / 4) & (t <= torch.arange(1, 5) / 4)).all())
        True
    """
    if n < 0 or not 0 <= part < parts:
        raise UsageError("There is no such part of a batch.", got=f"part {part} of {parts}, {n} draws")
    strata = parts * torch.randperm(n, device=device) + part
    jitter = torch.rand(n, device=device, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    return ((strata + jitter) / (n * parts)).to(dtype)


def stratified_draws(
    k: int, n: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Times for k draws of each of n examples, stratified twice: within every example and over all.

    Each example has one time in each of k strata, and of the n times in such a stratum one lies in each of n parts of
    it. Every time is uniform by itself.

    Args:
        k: Draws for each example.
        n: Number of examples.
        device: Where to draw.
        dtype: Of the times.

    Returns:
        Times, ``(k, n)``.

    Example:
        >>> t = stratified_draws(4, 3)
        >>> (4 * t).long().sort(0).values.T.tolist()
        [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
        >>> (12 * t).long().flatten().sort().values.tolist() == list(range(12))
        True
    """
    stratum = torch.rand(k, n, device=device).argsort(0)
    within = torch.rand(k, n, device=device).argsort(1)
    jitter = torch.rand(k, n, device=device, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    return ((stratum + (within.gather(0, stratum) + jitter) / n) / k).to(dtype)
