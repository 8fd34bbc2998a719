r"""Denoisers, :math:`D(x, \sigma) = \mathbb{E}[x_0 \mid x_0 + \sigma \epsilon = x]`: the base of samplers and bounds.

Convention: x has shape ``(*batch, *event)``, :math:`\sigma` either ``(*batch)`` or none. Where :math:`\sigma` is
infinite, x is the noise :math:`\epsilon` itself. All else follows: the noise is :math:`(x - D) / \sigma`, the score
:math:`(D - x) / \sigma^2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..conditions import Given
from ..distributions.conditional import embedded
from ..runtime.modes import at_least_float32
from ..runtime.parts import StartsFromData
from .paths import PATHS, Path, Prediction, denoised, expanded

__all__ = ["Denoise", "Denoiser", "LevelWaves", "Moments", "Preconditioned", "score_of"]

LEAST = 0.1
"""Least deviation of an entry, as a share of that of all: what is constant in some examples may vary in others."""

Denoise = Callable[[Tensor, Tensor], Tensor]
"""A denoiser whose condition is already given."""


class Denoiser(nn.Module):
    """Abstract: a network, or a closed form, for the expectation of the data."""

    def forward(self, x: Tensor, sigma: Tensor, c: Given | None = None) -> Tensor:
        """The expectation of the data, in the shape of x.

        Args:
            x: Noised data, ``(*batch, *event)``; the noise itself where the ratio is infinite.
            sigma: Ratios of noise to signal, ``(*batch)`` or none.
            c: Conditions.
        """
        raise NotImplementedError


def score_of(denoise: Denoise, x: Tensor, sigma: Tensor) -> Tensor:
    r"""The score :math:`\nabla_x \ln p_\sigma(x) = (D(x, \sigma) - x) / \sigma^2`.

    Example:
        >>> score_of(lambda x, sigma: x / (1 + sigma**2), torch.tensor([2.0]), torch.tensor(1.0))
        tensor([-1.])
    """
    return (denoise(x, sigma) - x) / expanded(sigma, x).square()


class Moments(nn.Module, StartsFromData):
    """The mean and standard deviation of the data in the units of the denoiser, of each entry or of all.

    Args:
        mean: Broadcastable to an example; 0 if left out.
        std: Likewise; 1 if left out.
        shift: a of the units, in which data are :math:`(x - a) / b`.
        scale: b.

    Example:
        >>> moments = Moments(torch.zeros(1), torch.ones(1), shift=3.0, scale=2.0)
        >>> moments.initialise(torch.tensor([[4.0], [6.0]]))
        >>> moments.mean, moments.std
        (tensor([1.]), tensor([0.5000]))
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Tensor | None = None, std: Tensor | None = None, *, shift: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.shift, self.scale = shift, scale
        self.register_buffer("mean", torch.zeros(()) if mean is None else mean)
        self.register_buffer("std", torch.ones(()) if std is None else std)

    @property
    def spread(self) -> Tensor:
        """The root of the mean variance of an entry."""
        return self.std.square().mean().sqrt()

    def initialise(self, x: Tensor) -> None:
        u = (x - self.shift) / self.scale
        spread = u.var(0, correction=0)
        least = LEAST * spread.mean().sqrt()
        self.mean.copy_(u.mean(0))
        self.std.copy_(spread.sqrt().clamp(min=least) if least > 0 else torch.ones_like(spread))


class LevelWaves(nn.Module):
    r"""Sines and cosines of noised data with the period of its levels: a network then sees how near the levels are.

    .. math:: e^{-2 \pi^2 \sigma^2 / p^2} \, (\sin \tfrac{2 \pi x}{p}, \cos \tfrac{2 \pi x}{p}), \qquad p \in \{h, 2h,
        4h\}

    for levels with a distance of h; the factor leaves out what noise hides.

    References:
        Variational Diffusion Models (Kingma, Salimans, Poole and Ho, 2021).

    Args:
        spacing: h, in the units of the denoiser.
        shift: Value of a level.
        periods: Number of periods.

    Example:
        >>> waves = LevelWaves(0.5)
        >>> waves.channels(1), waves(torch.zeros(5, 1, 8, 8), torch.tensor(0.1)).shape
        (6, torch.Size([5, 6, 8, 8]))
    """

    def __init__(self, spacing: float, shift: float = 0.0, periods: int = 3) -> None:
        super().__init__()
        self.shift, self.periods = shift, [spacing * 2**i for i in range(periods)]

    def channels(self, of_data: int) -> int:
        """Number of channels for data with that many."""
        return 2 * len(self.periods) * of_data

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The waves of noised data ``(n, channels, ...)``, in as many channels as :meth:`channels` says.

        Args:
            x: Noised data.
            sigma: Ratios of noise to signal, broadcastable to x.
        """
        found: list[Tensor] = []
        for period in self.periods:
            seen = (-2 * (math.pi * sigma / period).square()).exp()
            angle = 2 * math.pi / period * (x - self.shift)
            found += [seen * angle.sin(), seen * angle.cos()]
        return torch.cat(found, dim=1)


class Preconditioned(Denoiser):
    r"""A denoiser from a network that predicts something else, with input and output of unit variance.

    With ``predicts="edm"`` the network F corrects the best linear guess, given data of mean m and deviation s:

    .. math:: D = m + \frac{s^2}{s^2 + \sigma^2} (x - m)
        + \frac{s \sigma}{\sqrt{s^2 + \sigma^2}} F\!\left( \frac{x - m}{\sqrt{s^2 + \sigma^2}}, \gamma \right)

    so that F = 0 is exact for independent Gaussian entries. Else the network sees z on a path, and its output is
    converted.

    Args:
        network: ``(z, gamma, c)`` to an output of the shape of z; :math:`\gamma = 2 \ln \sigma` is ``(n)``, and c the
            features ``(n, size)`` of the condition, or None.
        predicts: What it predicts.
        path: The path on which z lies.
        moments: Mean and deviation of the data, only for ``"edm"``.
        embedding: From a condition to its features; None for the condition itself.
        waves: Of data with levels, given to the network as further channels of z; or None.
        beside: From the condition named "image" to further channels of z; or None.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila and Laine, 2022).

    Example:
        >>> moments = Moments(std=torch.tensor(2.0))
        >>> zero = Preconditioned(lambda z, gamma, c: torch.zeros_like(z), moments=moments)
        >>> zero(torch.tensor([[5.0]]), torch.tensor([1.0]))
        tensor([[4.0000]])
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        *,
        predicts: Prediction | str = "edm",
        path: Path = PATHS["vp"],
        moments: Moments | None = None,
        embedding: nn.Module | None = None,
        waves: LevelWaves | None = None,
        beside: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.predicts, self.path, self.embedding = network, predicts, path, embedding
        self.waves, self.beside = waves, beside
        self.moments = Moments() if moments is None else moments

    def forward(self, x: Tensor, sigma: Tensor, c: Given | None = None) -> Tensor:
        sigma = sigma.to(x.dtype)
        gamma = 2 * sigma.log().expand(x.shape[: max(sigma.dim(), 1)])
        s = expanded(sigma, x)
        if self.predicts == "edm":
            return self._corrected(x, s, gamma, c)
        alpha, noise = (expanded(f(2 * sigma.log()), x) for f in (self.path.alpha, self._noise_of))
        z = torch.where(s.isinf(), x, alpha * x)
        return denoised(self.predicts, self._output(z, x, s, gamma, c), z, alpha, noise)  # pyright: ignore[reportArgumentType]

    def _corrected(self, x: Tensor, s: Tensor, gamma: Tensor, c: Given | None) -> Tensor:
        mean, std = self.moments.mean, self.moments.std
        total = (std.square() + s.square()).sqrt()
        z, pure = (x - mean) / total, s.isinf()
        scale = torch.where(pure, std, std * (s / total))
        output = self._output(torch.where(pure, x, z), x, s, gamma, c)
        return mean + (std / total).square() * (x - mean) + scale * output

    def _noise_of(self, gamma: Tensor) -> Tensor:
        """The factor on the noise, 1 at its infinite end on paths that end there."""
        sigma = self.path.sigma(gamma)
        return torch.where(gamma == torch.inf, torch.ones_like(sigma), sigma)

    def _output(self, z: Tensor, x: Tensor, s: Tensor, gamma: Tensor, c: Given | None) -> Tensor:
        features = embedded(self.embedding, c)
        seen = [z] if self.waves is None else [z, self.waves(x, s)]
        if self.beside is not None and c is not None:
            seen.append(self.beside(c["image"]).to(z.dtype))
        return at_least_float32(self.network(torch.cat(seen, dim=1), gamma, features)).to(z.dtype)
