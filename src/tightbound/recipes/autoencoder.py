"""The autoencoder: a latent-variable model with a deterministic posterior and no prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..options.objectives import Reconstruction
from ..options.parts import EntryLikelihood, LikelihoodName, Networks, require_sizes
from ..options.priors import LatentSpace
from .base import Recipe
from .versions import register_version_2

__all__ = ["Autoencoder"]


@register_version_2("autoencoder")
@dataclass(frozen=True)
class Autoencoder(EntryLikelihood, Networks, Recipe):
    r"""Autoencoder: a deterministic code and no prior, so it reconstructs but cannot be sampled.

    .. math:: \max \log p(x \mid z = f(x))

    References:
        Reducing the Dimensionality of Data with Neural Networks (Hinton and Salakhutdinov, 2006).

    Raises:
        UsageError: If an option is out of range.

    Example:
        >>> from tightbound.data import DataSpec
        >>> model = Autoencoder(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model.prior is None
        True
    """

    latent_space: ClassVar[LatentSpace] = "vector"
    first_options: ClassVar[tuple[str, ...]] = ("latent_dim", "network")

    latent_dim: int = 16
    """Size of the code z."""
    likelihood: LikelihoodName = "gaussian"
    """p(x given z); the gaussian with fixed variance 0.5 makes the loss the summed squared error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(latent_dim=self.latent_dim, hidden=self.hidden, channels=self.channels)

    @property
    def training_objective(self) -> Reconstruction:
        return Reconstruction()
