r"""The losses of two players: a discriminator that tells data from reconstructions, and the generator that it judges.

Convention: logits are ``(n, ...)`` and positive where an image looks real; every function returns one number per
example, ``(n,)``, the mean over its patches, to be minimised by its player.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

__all__ = ["GAMES", "Game", "fooling", "hinge", "lecam", "non_saturating", "not_saturating_generator", "r1"]


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    r"""The hinge loss of a discriminator, :math:`\tfrac12 \max(0, 1 - D(x)) + \tfrac12 \max(0, 1 + D(\hat x))`.

    References:
        Geometric GAN (Lim and Ye, 2017).
        Taming Transformers for High-Resolution Image Synthesis (Esser, Rombach and Ommer, 2021), for the factor.

    Args:
        real: Logits of data.
        fake: Logits of reconstructions.

    Example:
        >>> import torch
        >>> hinge(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.5, -3.0]]))
        tensor([0.6250])
    """
    return (_mean(F.relu(1 - real)) + _mean(F.relu(1 + fake))) / 2


def fooling(fake: Tensor) -> Tensor:
    r"""The loss of the generator that goes with :func:`hinge`, :math:`-D(\hat x)`.

    Example:
        >>> import torch
        >>> fooling(torch.tensor([[0.5, -3.0]]))
        tensor([1.2500])
    """
    return -_mean(fake)


def non_saturating(real: Tensor, fake: Tensor) -> Tensor:
    r"""The cross-entropy of a discriminator, :math:`-\tfrac12 \log \sigma(D(x)) - \tfrac12 \log \sigma(-D(\hat x))`.

    References:
        Generative Adversarial Networks (Goodfellow et al., 2014).

    Args:
        real: Logits of data.
        fake: Logits of reconstructions.

    Example:
        >>> import torch
        >>> non_saturating(torch.zeros(1, 4), torch.zeros(1, 4))
        tensor([0.6931])
    """
    return (_mean(F.softplus(-real)) + _mean(F.softplus(fake))) / 2


def not_saturating_generator(fake: Tensor) -> Tensor:
    r"""The loss of the generator that goes with :func:`non_saturating`, :math:`-\log \sigma(D(\hat x))`.

    Example:
        >>> import torch
        >>> not_saturating_generator(torch.zeros(1, 4))
        tensor([0.6931])
    """
    return _mean(F.softplus(-fake))


class Game(NamedTuple):
    """The losses of two players.

    Args:
        discriminator: ``(real, fake) -> (n,)``.
        generator: ``fake -> (n,)``.

    Example:
        >>> import torch
        >>> GAMES["hinge"].generator(torch.ones(2, 4))
        tensor([-1., -1.])
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


GAMES = {"hinge": Game(hinge, fooling), "non-saturating": Game(non_saturating, not_saturating_generator)}
"""The games by the name of an option."""


def lecam(real: Tensor, fake: Tensor, real_average: Tensor, fake_average: Tensor) -> Tensor:
    r"""LeCam regularisation: logits are kept near the running average of the other kind.

    .. math:: \max(0, D(x) - \alpha_F)^2 + \max(0, \alpha_R - D(\hat x))^2

    References:
        Regularizing Generative Adversarial Networks under Limited Data (Tseng, Jiang, Liu, Yang and Yang, 2021).

    Args:
        real: Logits of data.
        fake: Logits of reconstructions.
        real_average: :math:`\alpha_R`, the running average of those of data.
        fake_average: :math:`\alpha_F`, that of reconstructions.

    Example:
        >>> import torch
        >>> lecam(torch.full((1, 4), 2.0), torch.full((1, 4), -2.0), torch.tensor(1.0), torch.tensor(-1.0))
        tensor([18.])
    """
    return _mean(F.relu(real - fake_average).square()) + _mean(F.relu(real_average - fake).square())


def r1(slope: Tensor) -> Tensor:
    r"""The R1 penalty, :math:`\tfrac12 \lVert \nabla_x D(x) \rVert^2`, on the slope of a discriminator at data.

    References:
        Which Training Methods for GANs do actually Converge? (Mescheder, Geiger and Nowozin, 2018).

    Args:
        slope: The gradient at each example of the mean logit of its patches, ``(n, *shape)``, itself differentiable.

    Example:
        >>> import torch
        >>> r1(torch.full((1, 3, 2, 2), 0.5))
        tensor([1.5000])
    """
    return slope.flatten(1).square().sum(1) / 2


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)
