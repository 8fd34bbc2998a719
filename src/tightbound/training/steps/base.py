"""What a step is."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from ...models.latent import LatentVariableModel

__all__ = ["Step"]


class Step(nn.Module):
    """From a batch to the rows of its examples, in nats, ``(rows, n)``; the mean of the first is maximised.

    It holds the model, and is the one module that is compiled and shared between processes.

    Args:
        model: The model.
    """

    rows: ClassVar[tuple[str, ...]]
    """What the rows are; the first is maximised, and "bound" selects the model, or the first where there is none."""

    def __init__(self, model: LatentVariableModel) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(self, x: Tensor, beta: Tensor, c: Tensor | None = None) -> Tensor: ...
