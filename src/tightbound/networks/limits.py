"""Limits on what networks say of means and deviations, so that nothing overflows from one latent to the next."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ..runtime.modes import at_least_float32

__all__ = ["LEAST", "Within", "log_deviation", "within"]


def log_deviation(raw: Tensor) -> Tensor:
    r"""A log standard deviation from a network's output r: 0 at 0, logarithmic above, and never below ln 0.001.

    .. math:: \ln \left( \epsilon + (1 - \epsilon) \ln(1 + (e - 1) e^r) \right), \qquad \epsilon = 10^{-3}

    Example:
        >>> import torch
        >>> log_deviation(torch.tensor([-50.0, 0.0, 5.0]))
        tensor([-6.9078,  0.0000,  1.7121])
    """
    return (LEAST + (1 - LEAST) * nn.functional.softplus(raw + _ZERO)).log()


def within(x: Tensor, limit: float = 7.0) -> Tensor:
    r"""Numbers squeezed into an interval, :math:`c \tanh(x / c)`, nearly unchanged where they are small.

    Means and deviations multiply each other from group to group: without a limit a rare example, far from the others,
    grows until it overflows.

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020).

    Args:
        x: The numbers.
        limit: c.

    Example:
        >>> import torch
        >>> within(torch.tensor([-1e9, 0.1, 1e9]))
        tensor([-7.0000,  0.1000,  7.0000])
    """
    return limit * (x / limit).tanh()


class Within(nn.Module):
    """A network whose output is squeezed by :func:`within`.

    Args:
        network: The network.

    Example:
        >>> import torch
        >>> Within(nn.Identity())(torch.tensor([1e9]))
        tensor([7.])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return within(at_least_float32(self.network(x)))


LEAST = 1e-3
"""The smallest standard deviation, so that a network's first steps cannot make a density explode."""
_ZERO = math.log(math.expm1(1.0))
