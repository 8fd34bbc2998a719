r"""Gaussian paths from data to noise, :math:`z = \alpha x_0 + \sigma_z \epsilon`.

Convention: every path is the same process in the coordinate :math:`x = z / \alpha = x_0 + \sigma \epsilon`, where
:math:`\sigma = \sigma_z / \alpha` is the ratio of noise to signal, and :math:`\gamma = 2 \ln \sigma` minus the log
signal-to-noise ratio. Networks, samplers and bounds see only :math:`\sigma`; a path says how z is scaled, and which
distribution stands for its last z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UnknownName

__all__ = ["PATHS", "Path", "Prediction", "denoised", "expanded", "find_path", "predicted"]

Prediction = Literal["x0", "noise", "score", "v", "velocity"]


@dataclass(frozen=True)
class Path:
    r"""A path, by its signal :math:`\alpha` as a function of :math:`\gamma`.

    Args:
        name: Its name.
        log_alpha: From :math:`\gamma` to :math:`\ln \alpha`.
        unit: Whether its last z is taken for :math:`\mathcal{N}(0, I)`; else for :math:`\mathcal{N}(0, \sigma_z^2 I)`.

    Example:
        >>> gamma = torch.tensor(0.0)
        >>> [round(PATHS[name].alpha(gamma).item() ** 2, 3) for name in ("vp", "ve", "linear")]
        [0.5, 1.0, 0.25]
    """

    name: str
    log_alpha: Callable[[Tensor], Tensor]
    unit: bool = False

    def alpha(self, gamma: Tensor) -> Tensor:
        """The factor on the data."""
        return self.log_alpha(gamma).exp()

    def sigma(self, gamma: Tensor) -> Tensor:
        """The factor on the noise."""
        return (self.log_alpha(gamma) + gamma / 2).exp()

    def end(self, gamma: Tensor) -> Tensor:
        r"""The standard deviation of :math:`x = z / \alpha` from which a sampler starts.

        Args:
            gamma: The last :math:`\gamma`.
        """
        return (-self.log_alpha(gamma)).exp() if self.unit else (gamma / 2).exp()


def _sub_vp(gamma: Tensor) -> Tensor:
    """Of σ_z = 1 − α²: with the ratio r, α² + r α = 1."""
    r = (gamma / 2).exp()
    return -torch.log((r + (r.square() + 4).sqrt()) / 2)


PATHS = {
    path.name: path
    for path in (
        Path("vp", lambda gamma: F.logsigmoid(-gamma) / 2, unit=True),
        Path("ve", torch.zeros_like),
        Path("sub-vp", _sub_vp, unit=True),
        Path("linear", lambda gamma: F.logsigmoid(-gamma / 2)),
    )
}
r"""Variance preserving, :math:`\alpha^2 + \sigma_z^2 = 1`; variance exploding (and EDM), :math:`\alpha = 1`; sub-VP,
:math:`\sigma_z = 1 - \alpha^2`; linear (rectified flow), :math:`\alpha + \sigma_z = 1`."""


def find_path(name: str) -> Path:
    """A path by its name.

    Raises:
        UnknownName: If there is none.

    Example:
        >>> find_path("vp").unit
        True
    """
    if name not in PATHS:
        raise UnknownName("path", name, PATHS)
    return PATHS[name]


def expanded(sigma: Tensor, x: Tensor) -> Tensor:
    """One number per example, ``(*batch)``, shaped to multiply examples ``(*batch, *event)``.

    Example:
        >>> expanded(torch.ones(5), torch.ones(5, 3, 8, 8)).shape
        torch.Size([5, 1, 1, 1])
    """
    return sigma.reshape(*sigma.shape, *(1,) * (x.dim() - sigma.dim()))


def predicted(name: Prediction, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    r"""What a network with that output is to predict of :math:`z = \alpha x_0 + \sigma_z \epsilon`.

    The noise :math:`\epsilon`; the score :math:`-\epsilon / \sigma_z`; :math:`v = \alpha \epsilon - \sigma_z x_0`; the
    velocity :math:`\epsilon - x_0` of the linear path.

    Args:
        name: The kind of output.
        x0: The data, or its expectation.
        noise: The noise, or its expectation.
        alpha: The factor on the data, broadcastable to it.
        sigma: The factor on the noise.

    Example:
        >>> predicted("v", torch.tensor(2.0), torch.tensor(1.0), torch.tensor(0.6), torch.tensor(0.8))
        tensor(-1.)
    """
    if name == "x0":
        return x0
    if name == "noise":
        return noise
    if name == "score":
        return -noise / sigma
    return alpha * noise - sigma * x0 if name == "v" else noise - x0


def denoised(name: Prediction, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    r""":math:`\mathbb{E}[x_0 \mid z]` from a network's output, the inverse of :func:`predicted`.

    Args:
        name: The kind of output.
        output: The output.
        z: The noised data.
        alpha: The factor on the data, broadcastable to it.
        sigma: The factor on the noise.

    Example:
        >>> x0, e, a, s = torch.tensor([2.0, 1.0, 0.6, 0.8])
        >>> round(denoised("v", predicted("v", x0, e, a, s), a * x0 + s * e, a, s).item(), 4)
        2.0
    """
    if name == "x0":
        return output
    if name == "noise":
        return (z - sigma * output) / alpha
    if name == "score":
        return (z + sigma.square() * output) / alpha
    if name == "v":
        return (alpha * z - sigma * output) / (alpha.square() + sigma.square())
    return (z - sigma * output) / (alpha + sigma)
