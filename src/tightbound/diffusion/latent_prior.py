r"""A prior of latent vectors by diffusion.

Convention: z has shape ``(*batch, d)``; the diffusion model sees :math:`(z - m) / s` with the mean and the deviation of
all latents, and the bound is in nats of z.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.types import _size

from ..conditions import Given
from ..distributions import Bounded, Sampling, Steered
from ..errors import ObjectiveError
from .model import Diffused, Diffusion

__all__ = ["DiffusionPrior", "WhitenedDiffusion"]

LEAST = 1e-6


class DiffusionPrior(nn.Module):
    r"""A prior :math:`p(z \mid c)` by diffusion, whose log-density is known by a lower bound.

    References:
        Score-based Generative Modeling in Latent Space (Vahdat, Kreis and Kautz, 2021).
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022).

    Args:
        diffusion: The model of whitened latents, ``(d)``.

    Example:
        >>> from tightbound.diffusion import GaussianOracle, Linear
        >>> prior = DiffusionPrior(Diffusion(GaussianOracle(torch.zeros(2), torch.ones(2)), Linear(-9.0, 9.0), (2,)))
        >>> prior.whiten(torch.tensor([3.0, 3.0]), torch.tensor([2.0, 2.0]))
        >>> prior().sample((1000,)).mean().round()
        tensor(3.)
    """

    mean: Tensor
    std: Tensor

    def __init__(self, diffusion: Diffusion) -> None:
        super().__init__()
        self.diffusion = diffusion
        self.register_buffer("mean", torch.zeros(diffusion.shape))
        self.register_buffer("std", torch.ones(diffusion.shape))

    def whiten(self, mean: Tensor, std: Tensor) -> None:
        """Sets the mean and the standard deviation of all latents, ``(d)``."""
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > LEAST, std, 1.0))

    def forward(self, c: Given | None = None) -> WhitenedDiffusion:
        return WhitenedDiffusion(self, self.diffusion(c))


class WhitenedDiffusion(Bounded, Steered):
    """The distribution that a :class:`DiffusionPrior` gives: it can be sampled and bounded.

    Args:
        prior: The prior with its mean and deviation.
        white: The distribution of whitened latents.
    """

    def __init__(self, prior: DiffusionPrior, white: Diffused) -> None:
        self.prior, self.white = prior, white
        super().__init__(white.batch_shape, white.event_shape, validate_args=False)

    def lower_bound(self, x: Tensor) -> Tensor:
        """An unbiased estimate of the bound on log p(z), ``(*batch)`` nats."""
        return self.white.lower_bound((x - self.prior.mean) / self.prior.std) - self.prior.std.log().sum()

    @torch.no_grad()
    def sample(self, sample_shape: _size = (), how: Sampling = Sampling()) -> Tensor:  # noqa: B008
        """Samples, ``(*sample_shape, *batch, d)``."""
        return self.prior.mean + self.prior.std * self.white.sample(sample_shape, how)

    @property
    def mean(self) -> Tensor:
        raise ObjectiveError(
            "The mean of a prior by diffusion has no closed form.", remedy="Sample it, without a temperature."
        )
