"""Numbers as a page writes them."""

from __future__ import annotations

from ..evaluation import Estimate

__all__ = ["bare", "cell", "negated"]

LARGE = 10_000
"""Numbers from here on are told without decimals."""


def cell(estimate: Estimate | None, digits: int = 2, bound: bool = False) -> str:
    """A number with its error, which a bound has not.

    Example:
        >>> cell(Estimate(-1.5, 0.25)), cell(Estimate(1.5, 0.25), bound=True), cell(None)
        ('−1.50 ± 0.25', '≤ 1.50', '–')
        >>> cell(Estimate(57983.8, 203.6))
        '57,984 ± 204'
    """
    if estimate is None:
        return "–"
    if bound:
        return f"≤ {cell(bare(estimate), digits)}"
    numbers = (estimate.value, estimate.standard_error)
    form = ",.0f" if abs(estimate.value) >= LARGE else f".{digits}f"
    return " ± ".join(format(number, form) for number in numbers if number is not None).replace("-", "−")


def bare(estimate: Estimate) -> Estimate:
    """A number without its error."""
    return Estimate(estimate.value, None)


def negated(estimate: Estimate) -> Estimate:
    """The same with the other sign."""
    return Estimate(-estimate.value, estimate.standard_error)
