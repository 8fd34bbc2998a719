r"""Samplers: a step, repeated over a falling grid of ratios of noise to signal.

Convention: noise is drawn for each example by a generator of its own, so that an example does not depend on the batch
it is drawn in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import TightboundError, UnknownName, UsageError
from ..runtime.memory import keep_freed_memory
from ..runtime.randomness import mix
from .denoiser import Denoise
from .steps import STEPS, Last, Step, StepRule

__all__ = ["ExampleNoise", "Point", "Sampler", "SamplingError"]

FINE = 1e-3
"""A ratio below which the state is kept in float64: differences of x are then below float32's precision."""
AHEAD = 256
"""Entries that a generator draws at once, for several calls where an example is smaller: a call costs a microsecond."""


class SamplingError(TightboundError):
    """A network returned numbers that are not finite."""


class ExampleNoise:
    """Standard noise for a batch, each example from its own generator.

    Args:
        seed: The seed of all.
        numbers: The number of each example.
        shape: Of one example.
        device: Where to draw.
        dtype: Of the noise.

    Example:
        >>> together = ExampleNoise(0, range(5), (2,))()
        >>> torch.equal(together[3:4], ExampleNoise(0, [3], (2,))())
        True
    """

    def __init__(
        self,
        seed: int,
        numbers: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.shape, self.device, self.dtype = tuple(shape), torch.device(device), dtype
        self.generators = [torch.Generator(self.device).manual_seed(mix(seed, number)) for number in numbers]
        self._draws = self._drawing()

    def __call__(self) -> Tensor:
        return next(self._draws)

    def _drawing(self) -> Iterator[Tensor]:
        count = max(1, AHEAD // max(1, math.prod(self.shape)))
        while True:
            drawn = torch.empty(len(self.generators), count, *self.shape, device=self.device, dtype=self.dtype)
            for rows, generator in zip(drawn, self.generators, strict=True):
                rows.normal_(generator=generator)
            yield from drawn.transpose(0, 1).contiguous()


@dataclass(frozen=True)
class Point:
    r"""A point on the way of a sampler.

    Args:
        sigma: The ratio of noise to signal.
        x: The examples there, ``(n, *event)``.
        x0: What was expected of the data in the step that led here; None at the start.
    """

    sigma: float
    x: Tensor
    x0: Tensor | None = None


class Sampler:
    r"""A sampler of the data that a denoiser describes.

    It starts from :math:`x = \tau \epsilon`, and stops at the last ratio of its grid; a step to 0 returns what is
    expected of the data. If the first ratio is infinite, it starts from the noise itself: :math:`x = D(\epsilon,
    \infty) + \sigma \epsilon` at the second.

    Args:
        step: A name in :data:`STEPS`, or a function like them.
        grid: Falling ratios of noise to signal.
        start: The standard deviation :math:`\tau`; the first ratio if left out.

    Raises:
        UnknownName: If there is no such step.
        UsageError: If the grid does not fall, or has fewer steps than the order of the method.

    Example:
        >>> from tightbound.diffusion.oracles import GaussianOracle
        >>> from tightbound.diffusion.schedules import Linear, grid
        >>> oracle = GaussianOracle(torch.full((2,), 3.0), torch.full((2,), 0.25))
        >>> sampler = Sampler("2m", grid(Linear(-8.0, 10.0), 50))
        >>> x = sampler(oracle, ExampleNoise(0, range(1000), (2,)))
        >>> [round(value, 1) for value in (x.mean().item(), x.std().item())]
        [3.0, 0.5]
    """

    def __init__(self, step: str | Step, grid: Tensor, start: float | None = None) -> None:
        if isinstance(step, str) and step not in STEPS:
            raise UnknownName("sampler", step, STEPS)
        rule = STEPS.get(step) if isinstance(step, str) else None
        self.step: Step = rule.step if rule else step  # pyright: ignore[reportAttributeAccessIssue]
        self.random = rule is None or rule.random
        self.grid = [float(sigma) for sigma in grid]
        _require_falling(self.grid)
        _require_order(step, rule, len(self.grid) - 1)
        self.start = self.grid[0] if start is None else start

    def __call__(self, denoise: Denoise, noise: Callable[[], Tensor]) -> Tensor:
        """Samples, ``(n, *event)``.

        Args:
            denoise: The denoiser, with its condition.
            noise: Draws standard noise, ``(n, *event)``.

        Raises:
            SamplingError: If the denoiser returns numbers that are not finite.
        """
        return deque(self.walk(denoise, noise), maxlen=1).pop().x

    @torch.no_grad()
    def walk(self, denoise: Denoise, noise: Callable[[], Tensor]) -> Iterator[Point]:
        """The points on the way, from the noise on.

        Raises:
            SamplingError: If the denoiser returns numbers that are not finite.
        """
        keep_freed_memory()
        first = noise()
        dtype = self._dtype(first)

        def at(x: Tensor, sigma: float) -> Tensor:
            return denoise(x.to(first.dtype), torch.full((), sigma, dtype=dtype, device=x.device)).to(dtype)

        def fresh() -> Tensor:
            return noise().to(dtype)

        last: Last = None
        x = first.to(dtype) * (1.0 if math.isinf(self.grid[0]) else self.start)
        yield Point(self.grid[0], x)
        for number, (s, t) in enumerate(pairwise(self.grid), start=1):
            if math.isinf(s):
                x0 = at(x, s)
                x = x0 + t * (fresh() if self.random else x)
            elif t == 0:
                x = x0 = at(x, s)
            else:
                x, last = self.step(at, x, s, t, fresh, last)
                x0 = last[1] if last else None
            self._require_finite(x, number, s)
            yield Point(t, x, x0)

    def _dtype(self, first: Tensor) -> torch.dtype:
        """Double precision for fine grids, where the device has it."""
        fine = min(sigma for sigma in self.grid if sigma > 0) < FINE
        return torch.float64 if fine and first.device.type != "mps" else first.dtype

    def _require_finite(self, x: Tensor, number: int, sigma: float) -> None:
        if not x.sum().isfinite():
            raise SamplingError(
                f"The network returned numbers that are not finite in step {number} of {len(self.grid) - 1}.",
                got=f"{int((~x.isfinite()).sum()):,} of {x.numel():,} entries at sigma = {sigma:g}",
                expected="finite numbers",
                remedy="Use float32, less guidance, or other weights.",
            )


def _require_order(name: str | Step, rule: StepRule | None, steps: int) -> None:
    if rule is not None and steps < rule.order:
        raise UsageError(
            f"The sampler {name} is of order {rule.order}, and needs as many steps.",
            got=f"{steps} step",
            expected=f"at least {rule.order} steps",
            remedy="Try --steps 20.",
        )


def _require_falling(grid: Sequence[float]) -> None:
    if len(grid) < 2 or grid[-1] < 0 or any(not t < s for s, t in pairwise(grid)):
        raise UsageError(
            "The ratios of a sampler must fall, without repeating.",
            got=", ".join(f"{sigma:g}" for sigma in grid[:6]) + ("..." if len(grid) > 6 else ""),
            expected="at least two falling ratios, none negative",
            remedy="Use diffusion.grid(schedule, steps).",
        )
