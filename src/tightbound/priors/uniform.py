r"""The uniform prior over the codes of a posterior: the initial prior of a quantised model.

Convention: z is a latent of the posterior's codes; batch shape ``()`` without a condition, else that of the condition.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributions import Distribution

from ..conditions import Given
from ..distributions.codes import CodeSpace, UniformCodes, latent_shape

__all__ = ["UniformCodePrior"]


class UniformCodePrior(nn.Module):
    r"""Every code equally likely, :math:`p(z) = \prod_i 1 / K_i`, independent of the condition.

    It is constant over examples, so it can be left out while encoder, codebook and decoder are trained; a prior fitted
    to the codes replaces it later.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).

    Args:
        space: The posterior that defines the codes.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> model = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> UniformCodePrior(model.posterior)().sample((5,)).shape
        torch.Size([5, 64, 4, 4])
    """

    def __init__(self, space: CodeSpace) -> None:
        super().__init__()
        self._space: list[Any] = [space]  # in a list, so that its weights are not registered here too
        self.shape = latent_shape(space)

    @property
    def space(self) -> CodeSpace:
        """The posterior that defines the codes."""
        return self._space[0]

    def forward(self, c: Given | None = None) -> Distribution:
        return UniformCodes(self.space, () if c is None else c.shape, self.shape)
