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
        standard_error: Its standard error over the examples; None for a single one, which does not tell it.

    Example:
        >>> import torch
        >>> print(Estimate.of(torch.tensor([1.0, 2.0, 3.0])))
        2.00 ± 0.58
    """

    value: float
    standard_error: float | None

    @classmethod
    def of(cls, per_example: Tensor, scale: float = 1.0, offset: float = 0.0) -> Estimate:
        """The estimate of ``scale * mean + offset`` from one number per example."""
        values = per_example.double() * scale + offset
        error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
        return cls(values.mean().item(), error)

    def json(self) -> dict[str, float | None]:
        """As the commands print it."""
        return {"value": self.value, "standard_error": self.standard_error}

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2f}"
        return f"{self.value:.2f}{error}"
