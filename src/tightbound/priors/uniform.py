r"""The uniform prior over the codes of a posterior: what a quantised model starts with.

Convention: z is what the posterior's codes stand for, batch shape ``()`` without a condition, else the condition's.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributions import Distribution

from ..conditions import Given
from ..distributions.codes import CodeSpace, UniformCodes, latent_shape

__all__ = ["UniformCodePrior"]


class UniformCodePrior(nn.Module):
    r"""Every code as likely as every other, :math:`p(z) = \prod_i 1 / K_i`, whatever the condition.

    It costs each example the same, so it can be left out while encoder, codebook and decoder learn; a prior that is
    fitted to the codes takes its place later.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).

    Args:
        space: The posterior whose codes they are.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> model = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> UniformCodePrior(model.posterior)().sample((5,)).shape
        torch.Size([5, 64, 4, 4])
    """

    def __init__(self, space: CodeSpace) -> None:
        super().__init__()
        self._space: list[Any] = [space]  # not a part of the prior: its weights are the posterior's
        self.shape = latent_shape(space)

    @property
    def space(self) -> CodeSpace:
        """The posterior whose codes they are."""
        return self._space[0]

    def forward(self, c: Given | None = None) -> Distribution:
        return UniformCodes(self.space, () if c is None else c.shape, self.shape)
