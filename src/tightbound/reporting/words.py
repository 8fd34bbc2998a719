"""Formatting of numbers for a page."""

from __future__ import annotations

from ..evaluation import Estimate

__all__ = ["cell", "signed"]


def cell(estimate: Estimate | None, digits: int = 2, bound: bool = False) -> str:
    """A number with its error; a bound has none.

    Example:
        >>> cell(Estimate(-1.5, 0.25)), cell(Estimate(1.5, 0.25), bound=True), cell(None)
        ('−1.50 ± 0.25', '≤ 1.50', '–')
    """
    return "–" if estimate is None else signed(estimate.text(digits, bound=bound))


def signed(text: str) -> str:
    """A number with a typographic minus sign.

    Example:
        >>> signed("-1.50"), signed("vq-vae")
        ('−1.50', 'vq-vae')
    """
    return text.replace("-", "−") if text[1:2].isdigit() else text
