r"""Likelihoods whose entries are correlated given the latent: Gaussians with full covariance, for small vectors.

Convention: the decoder outputs ``parameters * D`` numbers for an example of D entries; log-densities are in nats and
summed over the entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..distributions import FullGaussian
from ..errors import UsageError
from ..options.data_spec import DataSpec
from .base import Measure, density_of
from .entries import EntryLikelihood

__all__ = ["LARGEST", "FullGaussianLikelihood", "Noise", "require_small_vector"]

Noise = Literal["shared", "network"]
LARGEST = 64
"""Maximum number of entries: the factors of k samples of n examples take k n D² numbers."""


class FullGaussianLikelihood(EntryLikelihood):
    r"""A Gaussian with full covariance, :math:`p(x \mid z) = \mathcal{N}(x; \mu(z), L L^\top)`, for small vectors.

    .. math:: L = \operatorname{mask}(L') + \operatorname{diag}(e^s), \qquad
        \log p(x \mid z) = -\tfrac{1}{2} \lVert L^{-1} (x - \mu(z)) \rVert^2 - \sum_i s_i - \tfrac{D}{2} \log 2 \pi

    with a strictly lower triangular mask. With a linear mean and one factor for all latents, :math:`p(x) =
    \mathcal{N}(b, W W^\top + L L^\top)`.

    References:
        An Introduction to Variational Autoencoders (Kingma and Welling, 2019).

    Args:
        network: Decoder to the mean of each entry (and, with ``noise="network"``, to D more numbers per entry: its row
            of the factor, with the log-diagonal at i).
        input_shape: Shape of one latent.
        shape: ``(D,)``, with D of at most :data:`LARGEST`.
        noise: ``"shared"``, one learned factor for all latents, or ``"network"``, one per latent.
        variance: Initial :math:`\sigma^2` of every entry, in squared units of the data.

    Raises:
        UsageError: If the data are not vectors or too large, the variance is not positive, or the noise is unknown.

    Example:
        >>> likelihood = FullGaussianLikelihood(nn.Linear(2, 3), (2,), (3,))
        >>> px = likelihood(torch.zeros(4, 5, 2))
        >>> px.log_prob(torch.ones(5, 3)).shape, px.covariance_matrix.shape
        (torch.Size([4, 5]), torch.Size([4, 5, 3, 3]))
    """

    def __init__(
        self,
        network: nn.Module,
        input_shape: Sequence[int],
        shape: Sequence[int],
        noise: Noise = "shared",
        variance: float = 0.5,
    ) -> None:
        require_small_vector(shape)
        if noise not in get_args(Noise):
            raise UsageError("Unknown noise.", got=noise, expected=f"one of: {', '.join(get_args(Noise))}")
        if not variance > 0:
            raise UsageError("The variance of a Gaussian must be positive.", got=variance, remedy="Try --variance 0.5.")
        d = shape[0]
        super().__init__(network, input_shape, shape, parameters=1 if noise == "shared" else 1 + d)
        self.noise = noise
        self.factor = nn.Parameter(0.5 * math.log(variance) * torch.eye(d))
        """Log-diagonal and entries below, added to the network's output if there is one."""

    def distribution(self, features: Tensor) -> Distribution:
        mean, rows = features[..., 0, :], features[..., 1:, :]
        raw = self.factor if self.noise == "shared" else self.factor + rows.mT
        return FullGaussian(mean, scale_tril=_triangular(raw), validate_args=False)

    @property
    def sigma(self) -> tuple[str, Tensor]:
        return f"{self.noise} covariance", self.own_covariance.diagonal().sqrt()

    @property
    def own_covariance(self) -> Tensor:
        """The covariance, ``(D, D)``; with ``noise="network"``, without the network's part."""
        factor = _triangular(self.factor)
        return factor @ factor.mT

    def measure(self, data: DataSpec) -> Measure:
        return density_of(data)


def _triangular(raw: Tensor) -> Tensor:
    """The entries below the diagonal, and the exponential of the diagonal."""
    log_diagonal = raw.diagonal(dim1=-2, dim2=-1).clamp(-12.0, 12.0)
    return raw.tril(-1) + torch.diag_embed(log_diagonal.exp())


def require_small_vector(shape: Sequence[int]) -> None:
    """Refuses examples whose full covariance would be too large.

    Raises:
        UsageError: If they are not vectors of at most :data:`LARGEST` entries.

    Example:
        >>> require_small_vector((64,))
    """
    if len(shape) != 1 or shape[0] > LARGEST:
        raise UsageError(
            "A Gaussian with full covariance needs small vectors.",
            got=f"examples of shape {tuple(shape)}",
            expected=f"(D,) with D of at most {LARGEST}",
            remedy="Use --likelihood gaussian --scale per-dimension, whose entries are independent given z.",
        )
