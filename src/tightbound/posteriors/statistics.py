r"""The mean and the standard deviation of each channel of the latents of a data set.

Convention: latents are grids ``(n, channels, h, w)``. A latent is drawn from the posterior of a random example, so its
variance is that of the posterior means, plus the mean variance of the posteriors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import UsageError

__all__ = ["LatentStatistics"]

DEAD = 1e-3
"""A channel whose posterior means vary less than this share of its variance tells nothing of an image."""


class LatentStatistics(nn.Module):
    r"""Means and variances of channels, added up over batches in float64 and kept with the model.

    Two sets with n and m entries, means a and b and sums of squared deviations A and B are merged to

    .. math:: \frac{n a + m b}{n + m}, \qquad A + B + \frac{n m}{n + m} (a - b)^2

    References:
        Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan, Golub and LeVeque, 1979).

    Args:
        channels: Channels of a latent.

    Example:
        >>> found = LatentStatistics(2)
        >>> for part in torch.arange(32.0).view(4, 2, 2, 2).split(3):
        ...     found.update(part, torch.ones_like(part))
        >>> found.mean.tolist(), [round(std, 3) for std in found.std.tolist()]
        ([13.5, 17.5], [9.069, 9.069])
    """

    count: Tensor
    mean: Tensor
    between: Tensor
    within: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        for name in ("mean", "between", "within"):
            self.register_buffer(name, torch.zeros(channels, dtype=torch.float64))

    @property
    def known(self) -> bool:
        """Whether any latents were added."""
        return bool(self.count > 0)

    @property
    def std(self) -> Tensor:
        """The standard deviation of each channel, ``(channels,)``; 1 before any latents were added."""
        return ((self.between + self.within) / self.count).sqrt() if self.known else torch.ones_like(self.mean)

    @property
    def signal(self) -> Tensor:
        """The share of each channel's variance that is of the posterior means, ``(channels,)``."""
        return self.between / (self.between + self.within)

    @property
    def dead(self) -> list[int]:
        """The channels that tell nothing of an image."""
        return torch.nonzero(~(self.signal > DEAD)).flatten().tolist() if self.known else []

    def reset(self) -> None:
        """Forgets all latents."""
        for tensor in (self.count, self.mean, self.between, self.within):
            tensor.zero_()

    @torch.no_grad()
    def update(self, mean: Tensor, variance: Tensor) -> None:
        """Adds latents.

        Args:
            mean: Means of posteriors, ``(n, channels, h, w)``.
            variance: Their variances, of the same shape.
        """
        rows = mean.to(self.mean).movedim(1, 0).flatten(1)
        n, own = rows.shape[1], rows.mean(1)
        apart = own - self.mean
        total = self.count + n
        self.between += (rows - own[:, None]).square().sum(1) + apart.square() * self.count * n / total
        self.within += variance.to(self.mean).movedim(1, 0).flatten(1).sum(1)
        self.mean += apart * n / total
        self.count.copy_(total)

    def assume(self, mean: Tensor, std: Tensor) -> None:
        """Takes known means and standard deviations, as those in a file.

        Args:
            mean: ``(channels,)``.
            std: ``(channels,)``.
        """
        self.reset()
        self.count.fill_(1)
        self.mean.copy_(mean)
        self.between.copy_(std.square())

    def require_scale(self) -> None:
        """Refuses channels that cannot be scaled to a standard deviation of 1.

        Raises:
            UsageError: If a standard deviation is zero or not finite.
        """
        wrong = torch.nonzero(~((self.std > 0) & self.std.isfinite())).flatten().tolist()
        if wrong:
            raise UsageError(
                "The latents cannot be scaled to a standard deviation of 1.",
                got=f"a standard deviation of {self.std[wrong[0]].item():g} in channel {wrong[0]}",
                expected="positive and finite numbers",
                remedy="Export them as they are: --no-fold; or train with fewer latent channels.",
            )
