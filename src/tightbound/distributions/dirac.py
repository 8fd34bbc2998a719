"""The point mass: what a deterministic encoder returns."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.types import _size

from ..errors import ObjectiveError
from .contract import WithoutDensity

__all__ = ["Dirac"]


class Dirac(WithoutDensity):
    r"""All mass at one point, :math:`\delta(z - v)`: it can be sampled, but has no density.

    Args:
        value: The point, of shape ``(*batch, *event)``.
        event_dims: Number of trailing event dimensions.

    Raises:
        ObjectiveError: If its density is requested.

    Example:
        >>> Dirac(torch.ones(5, 2)).rsample((3,)).shape
        torch.Size([3, 5, 2])
    """

    has_rsample = True

    def __init__(self, value: Tensor, event_dims: int = 1) -> None:
        split = value.dim() - event_dims
        self.value = value
        super().__init__(value.shape[:split], value.shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.value

    @property
    def mode(self) -> Tensor:
        return self.value

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.value)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self.value.expand(*sample_shape, *self.value.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        raise ObjectiveError(
            "A point mass has no density, so a model with a deterministic posterior has no ELBO.",
            remedy="Train it on objectives.reconstruction, or use a posterior with a density (recipe 'vae').",
        )
