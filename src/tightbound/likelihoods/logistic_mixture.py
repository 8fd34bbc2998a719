r"""A likelihood of images by mixtures of discretised logistics, whose channels depend on each other.

Convention: the decoder outputs ``K (1 + 2 C + C (C - 1) / 2)`` numbers for each pixel of C channels, rounded up to a
multiple of C; log-densities are in nats and summed over the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..distributions import DiscretizedLogisticMixture
from ..errors import UsageError
from ..options.data_spec import DataSpec
from .base import Measure, mass_of
from .entries import EntryLikelihood

__all__ = ["DiscretizedLogisticMixtureLikelihood"]

WIDTH = math.pi / math.sqrt(3)
"""Standard deviation of the logistic distribution of scale 1."""
NARROWEST = 0.03
"""Smallest initial scale."""


class DiscretizedLogisticMixtureLikelihood(EntryLikelihood):
    r"""Pixels that are independent given z, each a mixture of K components over all its channels.

    It is a :class:`~tightbound.distributions.DiscretizedLogisticMixture`, all of whose parameters are outputs of the
    decoder: weights of the components, and for each of them the mean and scale of every channel, and how much it
    depends on each of the channels before.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications
        (Salimans, Karpathy, Chen and Kingma, 2017).

    Args:
        network: Decoder to :meth:`parameters_for` numbers per entry.
        input_shape: Shape of one latent.
        shape: Shape ``(C, H, W)`` of one image.
        levels: Number of levels.
        components: Number of components, K.

    Raises:
        UsageError: If the examples are not images, or there are no components.

    Example:
        >>> parameters = DiscretizedLogisticMixtureLikelihood.parameters_for((3, 8, 8), components=5)
        >>> network = nn.Linear(2, parameters * 3 * 8 * 8)
        >>> likelihood = DiscretizedLogisticMixtureLikelihood(network, (2,), (3, 8, 8), levels=256)
        >>> likelihood(torch.zeros(5, 2)).sample().shape
        torch.Size([5, 3, 8, 8])
    """

    scale = "network"
    start_share = 0.1  # else the first outputs hide the start, and the decoder begins by ignoring z

    def __init__(
        self,
        network: nn.Module,
        input_shape: Sequence[int],
        shape: Sequence[int],
        levels: int,
        components: int = 5,
    ) -> None:
        super().__init__(network, input_shape, shape, self.parameters_for(shape, components))
        self.levels, self.components = levels, components
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.1)))

    @staticmethod
    def parameters_for(shape: Sequence[int], components: int) -> int:
        """Number of decoder outputs per entry; of those of a pixel, fewer than its channels are left over.

        Args:
            shape: Shape ``(C, H, W)`` of one image.
            components: Number of components.

        Raises:
            UsageError: If the examples are not images, or there are no components.

        Example:
            >>> DiscretizedLogisticMixtureLikelihood.parameters_for((1, 8, 8), components=5)
            15
        """
        if len(shape) != 3:
            raise UsageError(
                "A mixture of pixels needs images.",
                got=f"examples of shape {tuple(shape)}",
                expected="(channels, height, width)",
                remedy="Use --likelihood discretized-logistic or categorical.",
            )
        if components < 1:
            raise UsageError(
                "A mixture needs at least one component.",
                got=f"likelihood_components {components}",
                expected="at least 1",
                remedy="Try --likelihood-components 5.",
            )
        channels = shape[0]
        return math.ceil(components * (1 + 2 * channels + math.comb(channels, 2)) / channels)

    @property
    def sigma(self) -> tuple[str, Tensor]:
        return self.scale, WIDTH * self.log_scale.exp()

    def distribution(self, features: Tensor) -> Distribution:
        k, channels = self.components, self.shape[0]
        of_each = [channels, channels, math.comb(channels, 2)]
        numbers = features.flatten(-4, -3)[..., : k * (1 + sum(of_each)), :, :]
        logits, *rest = numbers.split([k, *[k * n for n in of_each]], dim=-3)
        location, log_scale, a = (part.unflatten(-3, (k, n)) for part, n in zip(rest, of_each, strict=True))
        log_scale = (self.log_scale + log_scale).clamp(-12.0, 12.0)
        return DiscretizedLogisticMixture(logits, location, log_scale, a, self.levels)

    def start(self, rows: Tensor) -> Tensor:
        """Initial parameters: components at quantiles of each channel, and the linear dependence of the channels.

        The first channel is as wide as the distance of two components, the others as what those before leave open.
        """
        x = rows.unflatten(1, (self.shape[0], -1))  # (n, channels, pixels)
        coefficients, unexplained = _dependence(x)
        width = x.std(0, correction=0) * unexplained.unsqueeze(1)
        width[0] = width[0] / self.components
        log_scale = (width / WIDTH).clamp(min=NARROWEST).log() - self.log_scale
        each = [_quantiles(x, self.components), log_scale.expand(self.components, *log_scale.shape)]
        a = coefficients.reshape(1, -1, 1).expand(self.components, -1, x.shape[2])
        logits = x.new_zeros(self.components, x.shape[2])
        numbers = torch.cat([logits, *[part.flatten(0, 1) for part in (*each, a)]])
        left_over = self.parameters_per_entry * self.shape[0] - len(numbers)
        return nn.functional.pad(numbers, (0, 0, 0, left_over)).reshape(self.parameters_per_entry, -1)

    def measure(self, data: DataSpec) -> Measure:
        return mass_of(self.levels, data)


def _quantiles(x: Tensor, n: int) -> Tensor:
    """Middles of n equally frequent parts of the first dimension, ``(n, ...)``."""
    at = (torch.arange(n, device=x.device) + 0.5) / n * len(x)
    return x.sort(0).values[at.long()]


def _dependence(x: Tensor) -> tuple[Tensor, Tensor]:
    """Regression of each channel on those before it, pooled over pixels ``(n, channels, pixels)``.

    Returns:
        Coefficients ``(C (C - 1) / 2)``, and the share of each channel's deviation that is left, ``(C)``.
    """
    centred = (x - x.mean(0)).movedim(1, 0).flatten(1).double()
    covariance = centred @ centred.T / centred.shape[1]
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    factor = torch.linalg.cholesky(covariance + 1e-4 * eye)
    left = factor.diagonal()
    regression = eye - left.unsqueeze(1) * torch.linalg.inv(factor)
    rows, columns = torch.tril_indices(len(eye), len(eye), -1)
    return regression[rows, columns].to(x.dtype), (left / factor.norm(dim=1)).to(x.dtype)
