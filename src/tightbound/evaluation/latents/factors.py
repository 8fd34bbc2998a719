"""Checks and preprocessing of codes and factors for disentanglement scores.

Convention: codes are ``(n, d)`` and factors ``(n, m)`` of the same examples in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import ShapeError, UsageError

__all__ = ["checked", "constant", "halves", "numbered", "require_columns", "squared_correlation", "standard"]


def checked(codes: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Validates both, and converts them to float64 on the CPU.

    Raises:
        ShapeError: If they do not belong together.
        UsageError: If all latents or a factor are constant, or a value is not finite.
    """
    if codes.dim() != 2 or factors.dim() != 2 or len(codes) != len(factors) or 0 in codes.shape + factors.shape:
        raise ShapeError(
            "Codes and factors do not belong together.",
            got=f"codes {tuple(codes.shape)}, factors {tuple(factors.shape)}",
            expected="(n, d) and (n, m)",
            remedy="Flatten each code, and pass the factors of the same examples in the same order.",
        )
    codes, factors = codes.detach().cpu().double(), factors.detach().cpu().double()
    for name, table in (("codes", codes), ("factors", factors)):
        if not table.isfinite().all():
            raise UsageError(f"The {name} are not finite.", got=table[~table.isfinite()][0].item())
    if constant(codes).all():
        raise UsageError("All codes are constant.", remedy="The model ignores its latents: see `tightbound diagnose`.")
    if constant(factors).any():
        column = int(constant(factors).nonzero()[0])
        raise UsageError("A factor is constant.", got=f"column {column}", remedy="Leave it out.")
    return codes, factors


def constant(table: Tensor) -> Tensor:
    """Which columns are constant, ``(d,)``."""
    return (table == table[0]).all(0)


def require_columns(categorical: Sequence[int], factors: Tensor) -> None:
    """Refuses columns that do not exist."""
    if unknown := [k for k in categorical if not 0 <= k < factors.shape[1]]:
        raise UsageError("Unknown factor.", got=unknown, expected=f"0 ... {factors.shape[1] - 1}")


def numbered(factors: Tensor, first: int = 0) -> Tensor:
    """The index of each value among the distinct values of its factor, ``(n, m)``."""
    numbers = torch.stack([column.unique(return_inverse=True)[1] for column in factors.T], dim=1)
    for column, most in enumerate(numbers.amax(0).tolist(), start=first):
        if 2 * (most + 1) > len(factors):
            raise UsageError(
                "A factor is continuous, or there are too few examples.",
                got=f"column {column}: {most + 1} values in {len(factors)} examples",
                expected="every value more than once",
                remedy="Divide the factor into intervals.",
            )
    return numbers


def standard(table: Tensor) -> Tensor:
    """Every column with mean 0 and variance 1; constant columns become 0."""
    centred = table - table.mean(0)
    return torch.where(constant(table), 0.0, centred / centred.square().mean(0).sqrt().clamp(min=1e-300))


def squared_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Squared correlation of each column of a with each of b, ``(d, m)``."""
    return (standard(a).T @ standard(b) / len(a)).square()


def halves(n: int, test_share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Random training rows and held-out rows."""
    held = round(n * test_share)
    if not 0 < held < n:
        got = f"{n} examples, test_share={test_share}"
        raise UsageError("Nothing is left to train on or to score.", got=got, expected="0 < test_share < 1")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[held:], order[:held]
