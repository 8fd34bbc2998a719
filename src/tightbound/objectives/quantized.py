r"""The objective of quantised latents: reconstruction, codebook and commitment losses.

Convention: as in :mod:`tightbound.objectives`; squared errors are sums over an example, like its nats.
"""

from __future__ import annotations

import functools
import operator

from torch import Tensor

from ..distributions.codes import CodePoint
from ..errors import ObjectiveError
from ..models.latent import Terms
from .bounds import reconstruction

__all__ = ["vq", "weight_of_means"]


def vq(terms: Terms, codebook: float | Tensor = 1.0, commitment: float | Tensor = 0.25) -> Tensor:
    r"""The VQ-VAE objective; each term trains its own part.

    With the encoder's output :math:`z_e`, the nearest vectors :math:`e` and the stop-gradient :math:`\mathrm{sg}`,

    .. math:: \log p(x \mid e) - \gamma \, \lVert \mathrm{sg}[z_e] - e \rVert^2
        - \beta \, \lVert z_e - \mathrm{sg}[e] \rVert^2

    The first term trains the decoder and, straight through the quantisation, the encoder; the second the codebook; the
    third the encoder. A codebook learned by moving averages has no second term. The constant :math:`\sum_i \ln K_i` of
    the uniform prior is left out, so this is not a bound; the ELBO includes it.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017), equation 3.

    Args:
        terms: The terms of a batch.
        codebook: :math:`\gamma`, 1 in the paper.
        commitment: :math:`\beta`, 0.25 in the paper; see :func:`weight_of_means` for its units.

    Returns:
        ``(*batch)``, nats and squared units of the code's vectors.

    Raises:
        ObjectiveError: If a latent is not quantised.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> px = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> vq(px.terms(torch.rand(5, 1, 8, 8))).shape
        torch.Size([5])
    """
    points = [_point(latent.posterior) for latent in terms.latents]
    learned = functools.reduce(operator.add, [point.codebook_loss for point in points])
    committed = functools.reduce(operator.add, [point.commitment_loss for point in points])
    return reconstruction(terms) - codebook * learned - commitment * committed


def weight_of_means(weight: float, entries: int, latent_entries: int) -> float:
    r"""Converts a weight between means to this project's sums.

    The published implementation minimises the mean squared error of the D entries over the data's variance
    :math:`\sigma^2`, and :math:`\beta` times the *mean* squared distance over the Nd entries of the code's vectors.
    Multiplied by D, which does not change the optimum, that is

    .. math:: \frac{\lVert x - \hat x \rVert^2}{\sigma^2} + \beta \frac{D}{N d} \lVert z_e - \mathrm{sg}[e] \rVert^2:

    a Gaussian likelihood of variance :math:`\sigma^2 / 2` and the weight :math:`\beta D / (N d)`.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).

    Args:
        weight: :math:`\beta`, between means.
        entries: D, entries of one example.
        latent_entries: Nd, entries of its code vectors.

    Example:
        >>> weight_of_means(0.25, 3 * 32 * 32, 8 * 8 * 64)
        0.1875
    """
    return weight * entries / latent_entries


def _point(posterior: object) -> CodePoint:
    if isinstance(posterior, CodePoint):
        return posterior
    raise ObjectiveError(
        "This objective needs quantised latents.",
        got=type(posterior).__name__,
        expected="a posterior that returns a CodePoint",
        remedy="Use objectives.elbo, or recipe 'vq-vae'.",
    )
