"""The autoencoder: a latent-variable model with a deterministic posterior and no prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..options.data_spec import DataSpec
from .base import Recipe, check_sizes, register_version_2
from .vae import Activation, LikelihoodName, NetworkName, ScaleName, UpsamplingName

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.latent import LatentVariableModel, Terms

__all__ = ["Autoencoder"]


@register_version_2("autoencoder")
@dataclass(frozen=True)
class Autoencoder(Recipe):
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

    first_options: ClassVar[tuple[str, ...]] = ("latent_dim", "network")

    latent_dim: int = 16
    """Size of the code z."""
    network: NetworkName = "mlp"
    """Kind of encoder and decoder."""
    hidden: tuple[int, ...] = (256, 256)
    """Sizes of the hidden layers of an mlp, from the data to the code; the decoder mirrors them."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of the levels of a convolutional network, from the finest down."""
    upsampling: UpsamplingName = "resize"
    """How a convolutional decoder doubles a grid, as for recipe vae."""
    activation: Activation = "relu"
    """Nonlinearity between layers."""
    likelihood: LikelihoodName = "gaussian"
    """p(x given z); the gaussian with fixed variance 0.5 makes the loss the summed squared error."""
    scale: ScaleName = "auto"
    """Scale of gaussian and discretized-logistic, as for recipe vae."""
    variance: float = 0.5
    """Fixed or initial variance of gaussian."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(latent_dim=self.latent_dim, hidden=self.hidden, channels=self.channels)

    def assemble(self, data: DataSpec) -> LatentVariableModel:
        from ..assembly.parts import encoder, likelihood
        from ..models.latent import LatentVariableModel
        from ..posteriors import DiracPosterior

        posterior = DiracPosterior(encoder(self, data, self.latent_dim), data.shape)
        return LatentVariableModel(None, likelihood(self, data), posterior)

    def training_objective(self, terms: Terms, beta: float | Tensor, examples: int) -> Tensor:
        from ..objectives import reconstruction

        return reconstruction(terms)

    @property
    def warming(self) -> str:
        return ""

    def bound(self, terms: Terms) -> Tensor:
        from ..objectives import reconstruction

        return reconstruction(terms)
