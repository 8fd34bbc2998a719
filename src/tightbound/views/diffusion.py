"""The way of samples from noise to data.

Convention: values are those that the model sees; an example is ``(*shape)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..conditions import Given
from ..diffusion import Diffused, Diffusion, ExampleNoise
from ..distributions import Sampling

__all__ = ["film", "paths", "score_field"]


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


@torch.no_grad()
def paths(model: Diffusion, n: int, steps: int = 60, seed: int = 0) -> Tensor:
    r"""Where the ODE leads n points of noise, in units of the data and on the path with variance of one.

    Args:
        model: A model without conditions.
        n: Number of points.
        steps: Number of steps.
        seed: Seed of the noise.

    Returns:
        ``(steps + 1, n, *shape)``: :math:`z = x / \sqrt{1 + \sigma^2}`, from noise to data.

    Example:
        >>> from tightbound.diffusion import GaussianOracle, Linear
        >>> model = Diffusion(GaussianOracle(torch.zeros(2), torch.ones(2)), Linear(-9.0, 9.0), (2,))
        >>> paths(model, 3, steps=4).shape
        torch.Size([5, 3, 2])
    """
    noise = ExampleNoise(seed, range(n), model.shape, model.device, model.dtype)
    points = model.sampler("2m", steps).walk(lambda x, sigma: model.denoiser(x, sigma, None), noise)
    seen = [noise_like(point.x, point.sigma).to(model.dtype) for point in points]
    return torch.stack(seen) * model.scale + model.shift


def noise_like(x: Tensor, sigma: float) -> Tensor:
    """Noised data with the scale of data and noise together."""
    return x if sigma == float("inf") else x / (1 + sigma**2) ** 0.5


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
