r"""Autoregressive models of pixels: a PixelCNN or a transformer, without a latent.

.. math:: p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)

Convention: values in :math:`[0, 1]` with L levels are codes :math:`k = x (L - 1)`; log-densities are masses in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from ..conditions import Given
from ..distributions import Sampling, Steered
from ..likelihoods import Likelihood, Measure, mass_of
from ..options.data_spec import DataSpec
from .prior import ConvolutionalGrid, TransformerGrid

__all__ = ["PixelLikelihood", "PixelSequence"]


class PixelLikelihood(Likelihood):
    """Autoregressive pixels, each categorical over the levels.

    References:
        Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016).
        Generative Pretraining from Pixels (Chen et al., 2020).

    Args:
        grid: The network over a grid of codes of this shape.
        shape: Shape ``(channels, height, width)`` of one image.
        levels: Number of levels.

    Example:
        >>> from tightbound.autoregressive import PixelCNN
        >>> grid = ConvolutionalGrid(PixelCNN(2, (1, 4, 4), channels=8, layers=2))
        >>> px = PixelLikelihood(grid, (1, 4, 4), 2)()
        >>> px.log_prob(px.sample((5,))).shape
        torch.Size([5])
    """

    def __init__(self, grid: ConvolutionalGrid | TransformerGrid, shape: Sequence[int], levels: int) -> None:
        super().__init__()
        self.grid, self.shape, self.levels = grid, tuple(shape), levels
        self.parameters_per_entry = levels

    def forward(self, c: Given | None = None) -> Distribution:
        return PixelSequence(self, () if c is None else c.shape, c)

    def measure(self, data: DataSpec) -> Measure:
        """What the log-likelihood means for that data."""
        return mass_of(self.levels, data, ", pixel by pixel")


class PixelSequence(Steered):
    """Images, pixel by pixel: log-probability in one pass, sampling in one small step per pixel.

    ``mean`` has no closed form; it is a sample with fixed noise.

    Args:
        likelihood: The likelihood with the network.
        batch_shape: Batch shape.
        c: Conditions of shape ``(*batch)``, or None.
    """

    def __init__(self, likelihood: PixelLikelihood, batch_shape: Sequence[int], c: Given | None = None) -> None:
        self.likelihood, self.c = likelihood, c
        super().__init__(torch.Size(batch_shape), torch.Size(likelihood.shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        codes = (value * (self.likelihood.levels - 1)).round().long().expand(shape).reshape(-1, *self.event_shape)
        each = self.likelihood.grid.log_prob(codes, self._conditions(shape[:-3]))
        return each.sum(-1).view(shape[:-3])

    def sample(self, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:  # noqa: B008 - frozen
        how.require_no_steps()
        with torch.no_grad():
            leading = (*sample_shape, *self.batch_shape)
            codes = self.likelihood.grid.generate(math.prod(leading), self._conditions(leading), (), how)
            return codes.view(*leading, *self.event_shape).float() / (self.likelihood.levels - 1)

    @property
    def mean(self) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.sample()

    def _conditions(self, leading: Sequence[int]) -> Given | None:
        return None if self.c is None else self.c.expand(*leading).flatten()
