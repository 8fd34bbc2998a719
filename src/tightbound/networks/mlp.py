"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .linear import Linear
from .output import EndsInLayer

__all__ = ["ACTIVATIONS", "MLP", "LinearWithConstant"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
}


class MLP(EndsInLayer):
    r"""Linear layers with a nonlinearity between them, :math:`W_n \phi(\dots \phi(W_1 [x, c] + b_1) \dots) + b_n`.

    Args:
        inputs: Shape or size of one input, flattened.
        outputs: Size of one output.
        hidden: Sizes of the hidden layers; empty for a linear map.
        activation: A name in :data:`ACTIVATIONS`.
        condition_dim: Size of the condition, concatenated to the input; 0 for none.

    Example:
        >>> MLP((1, 8, 8), 10, hidden=(32,))(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        inputs: Sequence[int] | int,
        outputs: int,
        hidden: Sequence[int] = (512,),
        activation: str = "relu",
        condition_dim: int = 0,
    ) -> None:
        super().__init__()
        size = inputs if isinstance(inputs, int) else math.prod(inputs)
        sizes = [size + condition_dim, *hidden, outputs]
        layers: list[nn.Module] = []
        for n, m in pairwise(sizes):
            layers += [Linear(n, m), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers[:-1])

    @property
    def last_layer(self) -> nn.Module:
        return self.layers[-1]

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        x = x.flatten(1)
        return self.layers(x if c is None else torch.cat([x, c], dim=1))


class LinearWithConstant(nn.Module):
    r"""A linear map of the input, concatenated with as many free constants, :math:`[W x + b, s]`.

    Args:
        inputs: Shape of one input, flattened.
        outputs: Size of the linear part, and of the constant part.

    Example:
        >>> LinearWithConstant((1, 8, 8), 3)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 6])
    """

    def __init__(self, inputs: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.linear = Linear(math.prod(inputs), outputs)
        self.constant = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.linear(x.flatten(1))
        return torch.cat([mean, self.constant.expand_as(mean)], dim=1)
