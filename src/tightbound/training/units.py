"""The unit of the bound printed in training: bits per dimension for discrete data, else nats."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..data import DataSpec
from ..models import Model

__all__ = ["Unit", "unit_of"]


@dataclass(frozen=True)
class Unit:
    """The format of the number that selects a model.

    Args:
        what: Its name, such as ``"bound"``.
        offset: Nats to subtract, for nats of the data.
        dimensions: Number of entries or codes for bits per dimension; None for nats.
        per: Name of one of them, such as ``"dim"``.

    Example:
        >>> Unit("bound", dimensions=64).told(-91.74), Unit("bound").told(-91.74)
        ('2.068 bits/dim (bound -91.74 nats)', 'bound -91.74 nats')
        >>> Unit("bound", dimensions=64).told(-91.74, brief=True)
        '2.068 bits/dim'
    """

    what: str
    offset: float = 0.0
    dimensions: int | None = None
    per: str = "dim"

    def bits(self, value: float) -> float | None:
        """Bits per dimension or code; None if the values are not discrete.

        Args:
            value: The value of the step, nats.
        """
        return None if self.dimensions is None else (self.offset - value) / (self.dimensions * math.log(2))

    def bits_per_dim(self, value: float) -> float | None:
        """Bits per dimension of the data; None if it is not discrete, or the number is not of data."""
        return self.bits(value) if self.per == "dim" else None

    def told(self, value: float, *, brief: bool = False) -> str:
        """The number as text, from a value of the step in nats."""
        nats, bits = f"{self.what} {value - self.offset:.2f} nats", self.bits(value)
        if bits is None:
            return nats
        return f"{bits:.3f} bits/{self.per}" + ("" if brief else f" ({nats})")


def unit_of(model: Model, row: str, spec: DataSpec, seen: DataSpec) -> Unit:
    """The unit of a row of a training step.

    Args:
        model: The model.
        row: The row that selects the model.
        spec: Of the data.
        seen: The spec of the training examples: the data, or its latents.
    """
    if row == "log_class":
        return Unit("log p(class | noised data)")
    if row != "bound":
        codes = None if model.codes is None else math.prod(seen.shape)
        return Unit(
            {"log_prior": "log p(z)", "log_prior_bound": "bound on log p(z)"}.get(row, row),
            dimensions=codes,
            per="code",
        )
    measure = model.measure(spec)
    if not model.can_sample:
        return Unit("reconstruction", measure.offset)
    return Unit("bound", measure.offset, (measure.dimensions or spec.dimensions) if measure.comparable else None)
