"""A number with its error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..likelihoods import Measure
from ..options.data_spec import DataSpec
from ..spec import register

__all__ = ["Estimate", "likelihood_fields"]

LARGE = 10_000
"""Numbers from here on are printed without decimals."""


@register("estimate", record=True)
@dataclass(frozen=True)
class Estimate:
    r"""A mean over examples and its standard error, :math:`s / \sqrt{n}`.

    Args:
        value: The mean.
        standard_error: Its standard error over the examples; None for a single example.

    Example:
        >>> import torch
        >>> print(Estimate.of(torch.tensor([1.0, 2.0, 3.0])))
        2.00 ± 0.58
        >>> print(Estimate(57983.8, 203.6))
        57,984 ± 204
    """

    value: float
    standard_error: float | None

    @classmethod
    def of(cls, per_example: Tensor, scale: float = 1.0, offset: float = 0.0) -> Estimate:
        """The estimate of ``scale * mean + offset`` from one number per example."""
        values = per_example.double() * scale + offset
        error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
        return cls(values.mean().item(), error)

    @property
    def bare(self) -> Estimate:
        """The value without its error."""
        return Estimate(self.value, None)

    def __neg__(self) -> Estimate:
        """The negated estimate.

        Example:
            >>> print(-Estimate(1.5, 0.25))
            -1.50 ± 0.25
        """
        return Estimate(-self.value, self.standard_error)

    def texts(self, digits: int = 2) -> tuple[str, str]:
        """Value and error as text; an empty error if there is none."""
        form = ",.0f" if abs(self.value) >= LARGE else f".{digits}f"
        error = "" if self.standard_error is None else format(self.standard_error, form)
        return format(self.value, form), error

    def text(self, digits: int = 2, *, bound: bool = False) -> str:
        """Value and error as text; a bound has no error.

        Example:
            >>> Estimate(1.5, 0.25).text(3), Estimate(1.5, 0.25).text(bound=True)
            ('1.500 ± 0.250', '≤ 1.50')
        """
        value, error = self.texts(digits)
        return f"≤ {value}" if bound else " ± ".join(filter(None, (value, error)))

    def __str__(self) -> str:
        return self.text()


def likelihood_fields(log_likelihood: Tensor, measure: Measure, spec: DataSpec) -> dict[str, Any]:
    """The fields of an evaluation on the likelihood; empty if the values are none of this data.

    Args:
        log_likelihood: Log-likelihoods, or bounds on them, of the examples as model input, ``(n,)`` nats.
        measure: Their meaning for this data.
        spec: Of the data.

    Example:
        >>> import torch
        >>> spec = DataSpec("digits", shape=(1, 8, 8), levels=17)
        >>> found = likelihood_fields(torch.tensor([-80.0, -90.0]), Measure("mass", "a mass"), spec)
        >>> print(found["nll"])
        85.00 ± 5.00
    """
    if measure.kind == "none":
        return {}
    nll = measure.offset - log_likelihood.double()
    bits = 1 / ((measure.dimensions or spec.dimensions) * math.log(2))
    per_dim = Estimate.of(nll, bits) if measure.comparable else None
    return {"nll": Estimate.of(nll), "bits_per_dim": per_dim, "nll_per_example": nll.cpu()}
