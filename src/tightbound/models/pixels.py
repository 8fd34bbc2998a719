r"""Models of pixels without a latent."""

from __future__ import annotations

from torch import nn
from torch.distributions import Distribution

from ..conditions import Given
from ..likelihoods import Likelihood, Measure
from ..options.data_spec import DataSpec
from .model import Model

__all__ = ["PixelModel"]


class PixelModel(Model):
    r"""A model of data without a latent, :math:`p(x \mid c)`, whose likelihood is exact.

    Args:
        likelihood: ``c -> p(x | c)``.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import PixelCNNRecipe
        >>> spec = DataSpec("digits", shape=(1, 8, 8), levels=17)
        >>> PixelCNNRecipe(channels=8, layers=2).build(spec)().log_prob(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, c: Given | None = None) -> Distribution:
        """The distribution of x given c.

        Raises:
            UsageError: If these are not its conditions.
        """
        self.require_conditions(c)
        return self.likelihood(c)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The decoder, its only part."""
        return {"decoder": self.likelihood}

    @property
    def reconstructs(self) -> bool:
        """Whether its distribution has a closed-form mean."""
        return self.likelihood.mean_in_one_pass

    def measure(self, data: DataSpec) -> Measure:
        """What the log-likelihood means for that data."""
        return self.likelihood.measure(data)
