r"""The Gaussian posterior with full covariance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..distributions import Conditional, FullGaussian
from ..errors import ShapeError
from .base import Posterior

__all__ = ["CholeskyGaussian"]


class CholeskyGaussian(Conditional, Posterior):
    r"""Gaussian with full covariance by a Cholesky factor, :math:`q(z \mid x) = \mathcal{N}(\mu, L L^\top)`.

    .. math:: z = \mu + L \epsilon, \qquad L = \operatorname{mask}(L') + \operatorname{diag}(e^s), \qquad
        \log q(z \mid x) = \log \mathcal{N}(\epsilon; 0, I) - \sum_i s_i

    by the change of variables: the log-determinant of a triangular factor is the sum of its log-diagonal.

    References:
        An Introduction to Variational Autoencoders (Kingma and Welling, 2019).

    Args:
        network: Encoder, maps ``(n, *shape)`` to ``(n, d + d (d + 1) / 2)``: means, the log-diagonal, and the entries
            below it, in row-major order.
        shape: Shape of one example.
        latent_dim: d.

    Raises:
        ShapeError: If the encoder's output has another size.

    Example:
        >>> from tightbound.networks import MLP
        >>> posterior = CholeskyGaussian(MLP((1, 8, 8), 9), (1, 8, 8), 3)
        >>> posterior(torch.zeros(5, 1, 8, 8)).covariance_matrix.shape
        torch.Size([5, 3, 3])
    """

    below: Tensor

    def __init__(self, network: nn.Module, shape: Sequence[int], latent_dim: int) -> None:
        super().__init__(network, shape)
        self.latent_dim = latent_dim
        row, column = torch.tril_indices(latent_dim, latent_dim, offset=-1)
        self.register_buffer("below", row * latent_dim + column, persistent=False)

    def distribution(self, features: Tensor) -> Distribution:
        d = self.latent_dim
        if features.shape[-1] != d + d * (d + 1) // 2:
            raise ShapeError(
                "A full-covariance Gaussian needs a mean and a triangular factor.",
                got=f"{features.shape[-1]} features",
                expected=f"{d} + {d * (d + 1) // 2} of them",
                remedy="Give the encoder latent_dim + latent_dim * (latent_dim + 1) / 2 outputs.",
            )
        mean, log_diagonal, below = features.split([d, d, d * (d - 1) // 2], dim=-1)
        diagonal = torch.diag_embed(log_diagonal.exp()).flatten(-2)
        factor = diagonal.index_add(-1, self.below, below).unflatten(-1, (d, d))
        return FullGaussian(mean, scale_tril=factor, validate_args=False)
