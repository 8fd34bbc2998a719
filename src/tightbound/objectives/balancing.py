r"""Balancing of the layers of a hierarchy while the weight of the KL rises.

Convention: as in :mod:`tightbound.objectives`; layer l has :math:`d_l` dimensions, and there are L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ObjectiveError
from ..models.latent import Latent, Terms
from .bounds import reconstruction
from .penalties import layer_costs

__all__ = ["balanced", "kl_weights"]

LEAST = 1e-3
"""Nats per dimension added to the KL of every layer, so that layers that are all unused have equal weights."""


def kl_weights(kl: Tensor, sizes: Sequence[int]) -> Tensor:
    r"""Weights of the layers' KL, proportional to the nats per dimension that a layer carries, with mean 1.

    .. math:: \gamma_l = \frac{r_l}{\frac{1}{L} \sum_j r_j}, \qquad r_l = \frac{\mathrm{KL}_l}{d_l} + \epsilon

    A layer that carries less per dimension than the others gets a weight below 1, so that it is cheaper to use. All are
    1 where every layer carries the same per dimension. The paper prints :math:`\mathrm{KL}_l d_l`, which its authors
    called a mistake for the quotient (https://github.com/NVlabs/NVAE/issues/26).

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), appendix A.
        DVAE++: Discrete Variational Autoencoders with Overlapping Transformations (Vahdat et al., 2018), appendix H.

    Args:
        kl: KL of each layer in nats, averaged over a batch, ``(L)``.
        sizes: :math:`d_l`.

    Returns:
        ``(L)``, without a gradient.

    Example:
        >>> kl_weights(torch.tensor([3.0, 1.0]), sizes=[10, 10])
        tensor([1.4975, 0.5025])
    """
    own = kl.detach().clamp(min=0)
    rates = torch.stack([nats / size for nats, size in zip(own, sizes, strict=True)]) + LEAST
    return rates / rates.mean()


def balanced(
    terms: Terms,
    beta: float | Tensor = 1.0,
    *,
    warming: bool | Tensor = True,
    free: tuple[float, int] = (0.0, 1),
    analytic: bool | None = None,
) -> Tensor:
    r"""The ELBO with the KL of each layer weighed by :func:`kl_weights` while :math:`\beta` rises.

    .. math:: \mathbb{E}_q \log p(x \mid z) - \beta \sum_l \gamma_l \, \mathrm{KL}_l

    Each KL must be one, and so at least 0. The lower layers of a chain have log ratios of samples instead, of which
    only the sum over the layers is a KL: with a smaller weight on the layer above, copying a latent ever more exactly
    would raise the objective without end.

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020).

    Args:
        terms: The terms of a batch.
        beta: Weight of the KL.
        warming: Whether :math:`\beta` still rises; otherwise all weights are 1.
        free: Free bits, and dimensions per group: as for :func:`~tightbound.objectives.free_bits`. The weights follow
            from the true KL.
        analytic: As for :func:`~tightbound.objectives.elbo`.

    Returns:
        ``(*batch)``, nats.

    Raises:
        ObjectiveError: If a layer has no KL of its own, or the model has no ELBO.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import Ladder
        >>> recipe = Ladder(grids=(1, 4), groups=(1,), channels=4)
        >>> px = recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))()
        >>> balanced(px.terms(torch.zeros(5, 1, 8, 8)), beta=0.5).shape
        torch.Size([5])
    """
    sizes = [_size(latent) for latent in terms.latents]
    nats, group = free
    costs = torch.stack(layer_costs(terms, nats, group=group, analytic=analytic))
    kl = torch.stack(layer_costs(terms, analytic=analytic)) if nats else costs
    weights = torch.where(torch.as_tensor(warming, device=kl.device), kl_weights(kl.flatten(1).mean(1), sizes), 1.0)
    return reconstruction(terms) - beta * torch.einsum("l,l...->...", weights, costs)


def _size(latent: Latent) -> int:
    if not latent.paired:
        raise ObjectiveError(
            f"The layer {latent.name} has no KL of its own to be weighed by.",
            got="the log ratio of samples, below the top of a chain",
            expected="a top-down hierarchy",
            remedy="Use recipe ladder or vdvae, or leave balancing out.",
        )
    return latent.posterior.event_shape.numel()
