r"""Times at which the noise levels of a bound are drawn.

Convention: times lie in [0, 1]. A draw comes with its density: a loss divided by it has an unbiased mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from ..errors import UsageError
from ..runtime.parts import LearnsByItself

__all__ = ["Times", "stratified", "stratified_draws"]

DECAY = 0.99
"""Of the running mean of squared losses."""
EVEN = 0.1
"""Share of the density that stays even, so that no weight is above ten."""


def stratified(
    n: int,
    *,
    part: int | Tensor = 0,
    parts: int | Tensor = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
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
    numbers = isinstance(part, int) and isinstance(parts, int)
    if n < 0 or (numbers and not 0 <= part < parts):
        raise UsageError("There is no such part of a batch.", got=f"part {part} of {parts}, {n} draws")
    strata = parts * torch.randperm(n, device=device) + part
    jitter = torch.rand(n, device=device, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    return ((strata + jitter) / (n * parts)).to(dtype)


class Times(nn.Module, LearnsByItself):
    r"""The times of training: stratified over all parts of a batch, and on request more often where the loss is large.

    Adaptive times have the density :math:`q(t) \propto \sqrt{\mathbb{E}[\ell(t)^2]}`, constant on each of many equal
    intervals, for which the mean of :math:`\ell / q` has the least variance.

    Args:
        adaptive: Whether they follow the loss.
        intervals: Number of intervals.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), for the density.

    Example:
        >>> times = Times(adaptive=True, intervals=2)
        >>> for _ in range(100):
        ...     t, density = times.draw(64)
        ...     times.learn(t, torch.where(t < 0.5, 1.0, 3.0))
        >>> times.density
        tensor([0.5500, 1.4500])
    """

    squares: Tensor
    seen: Tensor

    def __init__(self, *, adaptive: bool = False, intervals: int = 64) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.place = torch.tensor([0.0, 1.0])  # not a buffer, which the first process would share with the others
        self.more, self.empty, self._parts = False, False, list[Tensor]()
        if adaptive:
            self.register_buffer("squares", torch.zeros(intervals))
            self.register_buffer("seen", torch.zeros(intervals))

    @property
    def density(self) -> Tensor:
        """The density of each interval; its mean is 1."""
        roots = torch.where(self.seen > 0, self.squares / self.seen, torch.nan).sqrt()
        roots = torch.where(roots.isnan(), roots.nanmean(), roots)
        return (EVEN + (1 - EVEN) * roots / roots.mean()).nan_to_num(nan=1.0)

    def draw(
        self, n: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Times and their densities, each ``(n)``."""
        part, parts = self.place.to(device).unbind()
        u = stratified(n, part=part, parts=parts, device=device, dtype=dtype)
        if not self.adaptive:
            return u, torch.ones_like(u)
        density = self.density.to(u)
        ends = density.cumsum(0) / len(density)
        chosen = torch.searchsorted(ends, u.contiguous()).clamp(max=len(density) - 1)
        inside = (u - (ends - density / len(density))[chosen]) / density[chosen]
        return (chosen / len(density) + inside).clamp(0, 1), density[chosen]

    @torch.no_grad()
    def learn(self, t: Tensor, loss: Tensor) -> None:
        """Takes in the losses at some times, in training.

        Args:
            t: Times, ``(n)``.
            loss: Losses there, before they are divided by the density, ``(n)``.
        """
        if not (self.adaptive and self.training):
            return
        interval = (t * len(self.seen)).long().clamp(max=len(self.seen) - 1)
        rows = torch.stack([loss.square(), torch.ones_like(loss)]).to(self.seen)
        rows = torch.where(loss.isfinite(), rows, 0)
        found = rows.new_zeros(2, len(self.seen)).index_add_(1, interval, rows)
        self._parts.append(torch.zeros_like(found) if self.empty else found)
        if self.more:
            return
        total, self._parts = torch.stack(self._parts).sum(0), []
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
        for mean, new in zip((self.squares, self.seen), total, strict=True):
            mean.lerp_(new, 1 - DECAY)

    @contextmanager
    def part_of_batch(self, *, number: int, of: int, more: bool, empty: bool) -> Iterator[None]:
        """Inside the block, times are those of one part of a batch.

        Args:
            number: Of the part.
            of: Number of parts.
            more: Whether another part follows.
            empty: Whether the part has no examples of its own.

        Example:
            >>> times, found = Times(), []
            >>> for i in range(2):
            ...     with times.part_of_batch(number=i, of=2, more=i == 0, empty=False):
            ...         found.append(times.draw(2)[0])
            >>> (torch.cat(found).sort().values * 4).long()
            tensor([0, 1, 2, 3])
        """
        self.more, self.empty = more, empty
        self.place.copy_(torch.tensor([float(number), float(of)]))
        try:
            yield
        finally:
            self.more, self.empty = False, False
            self.place.copy_(torch.tensor([0.0, 1.0]))

    def before_step(self, optimizer: Optimizer) -> None:
        """Nothing: its densities are not among the optimiser's parameters."""

    def forget(self) -> None:
        """Forgets the parts of a batch that were not completed."""
        self._parts = []


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
