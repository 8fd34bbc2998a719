r"""Denoisers, :math:`D(x, \sigma) = \mathbb{E}[x_0 \mid x_0 + \sigma \epsilon = x]`: the base of samplers and bounds.

Convention: x has shape ``(*batch, *event)``, :math:`\sigma` either ``(*batch)`` or none. Where :math:`\sigma` is
infinite, x is the noise :math:`\epsilon` itself. All else follows: the noise is :math:`(x - D) / \sigma`, the score
:math:`(D - x) / \sigma^2`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..conditions import Given
from ..distributions.conditional import embedded
from ..runtime.modes import at_least_float32
from .paths import PATHS, Path, Prediction, denoised, expanded

__all__ = ["Denoise", "Denoiser", "Preconditioned", "score_of"]

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
        mean: Of the data, broadcastable to it.
        std: Its standard deviation; both only for ``"edm"``.
        embedding: From a condition to its features; None for the condition itself.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila and Laine, 2022).

    Example:
        >>> zero = Preconditioned(lambda z, gamma, c: torch.zeros_like(z), std=torch.tensor(2.0))
        >>> zero(torch.tensor([[5.0]]), torch.tensor([1.0]))
        tensor([[4.0000]])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        *,
        predicts: Prediction | str = "edm",
        path: Path = PATHS["vp"],
        mean: Tensor | None = None,
        std: Tensor | None = None,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.predicts, self.path, self.embedding = network, predicts, path, embedding
        self.register_buffer("mean", torch.zeros(()) if mean is None else mean)
        self.register_buffer("std", torch.ones(()) if std is None else std)

    def forward(self, x: Tensor, sigma: Tensor, c: Given | None = None) -> Tensor:
        sigma = sigma.to(x.dtype)
        gamma = 2 * sigma.log().expand(x.shape[: max(sigma.dim(), 1)])
        s = expanded(sigma, x)
        if self.predicts == "edm":
            return self._corrected(x, s, gamma, c)
        alpha, noise = (expanded(f(2 * sigma.log()), x) for f in (self.path.alpha, self._noise_of))
        z = torch.where(s.isinf(), x, alpha * x)
        return denoised(self.predicts, self._output(z, gamma, c), z, alpha, noise)  # pyright: ignore[reportArgumentType]

    def _corrected(self, x: Tensor, s: Tensor, gamma: Tensor, c: Given | None) -> Tensor:
        total = (self.std.square() + s.square()).sqrt()
        z, pure = (x - self.mean) / total, s.isinf()
        scale = torch.where(pure, self.std, self.std * (s / total))
        output = self._output(torch.where(pure, x, z), gamma, c)
        return self.mean + (self.std / total).square() * (x - self.mean) + scale * output

    def _noise_of(self, gamma: Tensor) -> Tensor:
        """The factor on the noise, 1 at its infinite end on paths that end there."""
        sigma = self.path.sigma(gamma)
        return torch.where(gamma == torch.inf, torch.ones_like(sigma), sigma)

    def _output(self, z: Tensor, gamma: Tensor, c: Given | None) -> Tensor:
        return at_least_float32(self.network(z, gamma, embedded(self.embedding, c))).to(z.dtype)
