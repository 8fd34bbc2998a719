"""A number with its error."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Estimate"]


@dataclass(frozen=True)
class Estimate:
    r"""A mean over examples and its standard error, :math:`s / \sqrt{n}`.

    Args:
        value: The mean.
        standard_error: Its standard error over the examples; 0 for a single one.

    Example:
        >>> import torch
        >>> print(Estimate.of(torch.tensor([1.0, 2.0, 3.0])))
        2.00 ± 0.58
    """

    value: float
    standard_error: float

    @classmethod
    def of(cls, per_example: Tensor, scale: float = 1.0, offset: float = 0.0) -> Estimate:
        """The estimate of ``scale * mean + offset`` from one number per example."""
        values = per_example.double() * scale + offset
        error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else 0.0
        return cls(values.mean().item(), error)

    def json(self) -> dict[str, float]:
        """As the commands print it."""
        return {"value": self.value, "standard_error": self.standard_error}

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.standard_error:.2f}"
