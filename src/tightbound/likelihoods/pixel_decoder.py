r"""A likelihood whose pixels depend on each other, with a decoder of adjustable strength.

.. math:: p(x \mid z) = \prod_i p(x_i \mid x_{<i}, z)

Convention: pixels are in reading order, row by row; values are in :math:`[0, 1]`, and log-densities in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.types import _size

from ..conditions import Given
from ..distributions import Bernoulli, CategoricalLevels, Value, broadcast, embedded, independent, leading_shape
from ..errors import UsageError
from ..networks import PixelDecoder
from ..options.data_spec import DataSpec
from ..runtime.modes import at_least_float32
from ..runtime.parts import StartsFromData
from ..runtime.randomness import fixed_noise
from .base import Likelihood, Measure, mass_of

__all__ = ["AutoregressiveLikelihood", "Pixels"]


class AutoregressiveLikelihood(Likelihood, StartsFromData):
    r"""Pixels that depend on those before them and on z, :math:`p(x \mid z) = \prod_i p(x_i \mid x_{<i}, z)`.

    A pixel is Bernoulli with two levels, otherwise categorical; the channels of a pixel are independent given the
    pixels before. The more they explain, the less information is left to z.

    References:
        Variational Lossy Autoencoder (Chen et al., 2017).
        PixelVAE: A Latent Variable Model for Natural Images (Gulrajani et al., 2017).

    Args:
        network: Parameters of every pixel from the image and z.
        latent_dim: Size of one latent vector.
        shape: Shape ``(channels, height, width)`` of one image.
        levels: Number of levels.

    Raises:
        UsageError: If there are fewer than two levels.

    Example:
        >>> px = AutoregressiveLikelihood(PixelDecoder(2, (1, 8, 8)), 2, (1, 8, 8))(torch.zeros(3, 5, 2))
        >>> px.log_prob(torch.ones(5, 1, 8, 8)).shape
        torch.Size([3, 5])
    """

    def __init__(self, network: PixelDecoder, latent_dim: int, shape: Sequence[int], levels: int = 2) -> None:
        super().__init__()
        self.embedding: nn.Module | None = None
        if levels < 2:
            raise UsageError("A pixel must have at least two levels.", got=levels)
        self.network, self.input_shape, self.shape, self.levels = network, (latent_dim,), tuple(shape), levels
        widest = network.first.out_channels // shape[0]
        self.parameters_per_entry = max(widest, 1 if levels == 2 else levels)  # numbers held for each entry

    def forward(self, z: Tensor, c: Given | None = None) -> Distribution:
        leading = leading_shape(z, self.input_shape)
        features = embedded(self.embedding, c)
        flat = None if features is None else broadcast(features, leading)
        maps = self.network.maps(z.reshape(math.prod(leading), -1), flat)
        return Pixels(self, maps, leading)

    def conditional(self, features: Tensor) -> Bernoulli | CategoricalLevels:
        """The distribution of every entry, from features ``(n, parameters * channels, height, width)``."""
        features = at_least_float32(features)
        if self.levels == 2:
            return Bernoulli(features)
        return CategoricalLevels(features.unflatten(1, (self.levels, self.shape[0])).movedim(1, -1))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Initialises the last bias from the frequencies of the levels.

        Args:
            x: Some training examples, ``(n, *shape)``.
        """
        if self.levels == 2:
            start = x.mean((0, 2, 3)).clamp(1e-3, 1 - 1e-3).logit()
        else:
            level = (x * (self.levels - 1)).round()
            counts = torch.stack([(level == l).sum((0, 2, 3)) + 1 for l in range(self.levels)])
            start = (counts / counts.sum(0)).log().flatten()
        self.network.output_layer.get_parameter("bias").copy_(start)

    def measure(self, data: DataSpec) -> Measure:
        """What the log-likelihood means for that data."""
        return mass_of(self.levels, data, ", pixel by pixel")


class Pixels(Value):
    """The pixels of images given maps of z: density in one pass, sampling in one pass per pixel.

    ``mean`` has no closed form: it is the mean of each pixel given the previous pixels of one sample, with fixed noise.

    Args:
        likelihood: The likelihood with the network.
        maps: The maps of z, ``(n, maps, height, width)``.
        batch_shape: Shape of these n.
    """

    def __init__(self, likelihood: AutoregressiveLikelihood, maps: Tensor, batch_shape: Sequence[int]) -> None:
        self.likelihood, self.maps = likelihood, maps
        super().__init__(torch.Size(batch_shape), torch.Size(likelihood.shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        x, each = value.expand(shape).reshape(-1, *self.event_shape), self.maps.shape[1:]
        maps = self.maps.reshape(*self.batch_shape, *each).expand(*shape[:-3], *each).reshape(-1, *each)
        features = self.likelihood.network.rows(x, maps)
        return independent(self.likelihood.conditional(features), 3).log_prob(x).reshape(shape[:-3])

    def sample(self, sample_shape: _size = ()) -> Tensor:
        return self._ancestral(torch.Size(sample_shape))[0]

    @property
    def mean(self) -> Tensor:
        with fixed_noise():
            return self._ancestral(torch.Size())[1]

    @torch.no_grad()
    def _ancestral(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """A sample, and the mean of each of its pixels given those before it."""
        network, maps = self.likelihood.network, self.maps.repeat(sample_shape.numel(), 1, 1, 1)
        x = maps.new_zeros(len(maps), *self.event_shape)
        mean = torch.zeros_like(x)
        for i in range(x.shape[2]):
            top = max(0, i - network.reach)
            for j in range(x.shape[3]):
                features = network.rows(x[:, :, top : i + 1], maps[:, :, top : i + 1])
                pixel = self.likelihood.conditional(features[:, :, -1:, j : j + 1])
                x[:, :, i : i + 1, j : j + 1], mean[:, :, i : i + 1, j : j + 1] = pixel.sample(), pixel.mean
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        return x.reshape(shape), mean.reshape(shape)
