"""The way of samples from noise to data.

Convention: values are those that the model sees; an example is ``(*shape)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..conditions import Given
from ..diffusion import Diffused, Diffusion, ExampleNoise
from ..distributions import Sampling

__all__ = ["Field", "fields", "film", "paths", "score_field"]


@torch.no_grad()
def film(model: Diffusion, n: int, frames: int = 10, c: Given | None = None, seed: int = 0) -> Tensor:
    """What is expected of each sample on its way from noise, and the samples at last, ``(n, frames, *shape)``.

    Args:
        model: The model.
        n: Number of samples, unless given by the conditions.
        frames: Number of frames.
        c: Conditions of shape ``(n)``, or None.
        seed: Seed of the noise.

    Example:
        >>> from tightbound.diffusion import GaussianOracle, Linear
        >>> model = Diffusion(GaussianOracle(torch.zeros(2), torch.ones(2)), Linear(-9.0, 9.0), (2,))
        >>> film(model, 3, frames=5).shape
        torch.Size([3, 5, 2])
    """
    px: Diffused = model(c)
    way = list(px.walk((n,) if c is None else (), Sampling(sampler="2m", steps=4 * frames), seed))
    chosen = torch.linspace(len(way) // 4, len(way) - 1, frames).round().long().tolist()
    return torch.stack([way[i] for i in chosen], dim=1)


@dataclass(frozen=True)
class Field:
    """Where a model leads noised points of two numbers, in units of the data.

    Args:
        sigma: The ratio of noise to signal.
        points: Where arrows start, ``(m, 2)``.
        aims: What is expected of the data there, ``(m, 2)``.
        ways: The ways of samples from this noise on, ``(steps + 1, lines, 2)``.
    """

    sigma: float
    points: Tensor
    aims: Tensor
    ways: Tensor


def fields(
    model: Diffusion,
    x: Tensor,
    sigmas: Sequence[float] = (2.0, 0.7, 0.2),
    *,
    lines: int = 40,
    side: int = 14,
    steps: int = 120,
    seed: int = 0,
) -> list[Field]:
    """The fields of several noise levels, with the ways of the same samples.

    Args:
        model: A model of two numbers, without conditions.
        x: Data, ``(n, 2)``; says how far the fields reach.
        sigmas: Ratios of noise to signal, falling.
        lines: Number of samples.
        side: Number of arrows along each side.
        steps: Of the sampler.
        seed: Seed of the noise.

    Example:
        >>> from tightbound.diffusion import GaussianOracle, Linear
        >>> model = Diffusion(GaussianOracle(torch.zeros(2), torch.ones(2)), Linear(-9.0, 9.0), (2,))
        >>> shown = fields(model, torch.randn(5, 2), lines=3, side=4)
        >>> [field.aims.shape for field in shown]
        [torch.Size([16, 2]), torch.Size([16, 2]), torch.Size([16, 2])]
    """
    way = paths(model, lines, steps, seed)
    middle = x.mean(0)
    reach = 1.15 * (x - middle).abs().amax()
    found = list[Field]()
    for sigma in sigmas:
        along = torch.linspace(-1, 1, side) * (reach + sigma * model.scale)
        points = (torch.cartesian_prod(along, along) + middle).to(model.device)
        aims = points + score_field(model, points, sigma)
        ways = torch.stack([p for ratio, p in way if ratio <= sigma])
        found.append(Field(sigma, points.cpu(), aims.cpu(), ways.cpu()))
    return found


@torch.no_grad()
def paths(model: Diffusion, n: int, steps: int = 60, seed: int = 0) -> list[tuple[float, Tensor]]:
    """Where the ODE leads n points of noise: ratios of noise to signal, and the points there, in units of the data.

    Args:
        model: A model without conditions.
        n: Number of points.
        steps: Number of steps.
        seed: Seed of the noise.

    Returns:
        A ratio and points ``(n, *shape)`` for each step, from noise to data.

    Example:
        >>> from tightbound.diffusion import GaussianOracle, Linear
        >>> model = Diffusion(GaussianOracle(torch.zeros(2), torch.ones(2)), Linear(-9.0, 9.0), (2,))
        >>> way = paths(model, 3, steps=4)
        >>> len(way), way[-1][1].shape
        (5, torch.Size([3, 2]))
    """
    noise = ExampleNoise(seed, range(n), model.shape, model.device, model.dtype)
    walk = model.sampler("2m", steps).walk(lambda x, sigma: model.denoiser(x, sigma, None), noise)
    return [(point.sigma, point.x.to(model.dtype) * model.scale + model.shift) for point in walk]


@torch.no_grad()
def score_field(model: Diffusion, points: Tensor, sigma: float) -> Tensor:
    r"""The direction :math:`(D(x, \sigma) - x)` from noised points to what is expected of the data.

    Args:
        model: A model without conditions.
        points: Points, ``(n, *shape)``, of data with that noise, in units of the data.
        sigma: The ratio of noise to signal.

    Example:
        >>> from tightbound.diffusion import GaussianOracle, Linear
        >>> model = Diffusion(GaussianOracle(torch.zeros(2), torch.ones(2)), Linear(-9.0, 9.0), (2,))
        >>> score_field(model, torch.ones(1, 2), 1.0)
        tensor([[-0.5000, -0.5000]])
    """
    x = model.units(points).to(model.dtype)
    return (model.denoiser(x, torch.tensor(sigma, dtype=x.dtype, device=x.device), None) - x) * model.scale
