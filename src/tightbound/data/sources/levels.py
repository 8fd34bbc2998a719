r"""Scales values to at most 256 levels, with notes.

Convention: ``levels`` of the options is ``"auto"`` (8 bits unchanged, 16 bits scaled by :math:`255 / 65535`), a number
N for values :math:`0 \dots N - 1`, ``"LOW:HIGH"`` for the two values that become the lowest and the highest level, or
``"stretch"`` for the lowest and highest value in use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...options.data import DataOptions, ends
from ..observed import dark_note
from ..store import stored
from .arrays import WIDE, checked_values, chunks
from .raw import Array, Raw

__all__ = ["fit_levels"]

MOST = 256
"""Maximum number of stored levels."""


def fit_levels(raw: Raw, options: DataOptions) -> tuple[Raw, DataOptions]:
    """The data with at most 256 levels, or continuous; and the options, with "stretch" replaced by the range in use.

    Raises:
        DataError: If there are more levels and none were declared, or a value is not a declared level.
    """
    if options.levels == "auto":
        return (raw if raw.levels is None or raw.levels <= MOST else _sixteen_bits(raw)), options
    if isinstance(options.levels, int):
        return _declared(raw, options.levels), options
    if options.levels == "stretch":
        low, high = _in_use(raw)
        if low == high:
            raise DataError(
                "A single value cannot be stretched.",
                got=f"only {low:g} in {raw.name!r}",
                expected="two values or more",
            )
        options = replace(options, levels=f"{low!r}:{high!r}")
    return _scaled(raw, *ends(str(options.levels))), options


def _sixteen_bits(raw: Raw) -> Raw:
    low, high = _in_use(raw)
    if raw.levels != WIDE:
        raise DataError(
            f"{raw.name!r} has more than {MOST} levels.",
            got=f"integers {low} ... {high}",
            expected=f"0 ... {MOST - 1}, 16 bits (uint16), or floats if the values are continuous",
            remedy=f"Declare them: --levels {high + 1:g} or --levels stretch scales them to {MOST} levels.",
        )
    raw = _scaled(raw, 0, WIDE - 1)
    dark = [dark_note(int(low), int(high), WIDE)] if high < (WIDE - 1) / 2 else []
    return replace(raw, notes=(*raw.notes, *dark))


def _declared(raw: Raw, levels: int) -> Raw:
    """Values 0 ... levels - 1: unchanged if they can be stored, else scaled."""
    kept = {key: checked_values(values, levels, raw.name) for key, values in _arrays(raw).items()}
    raw = _with(raw, kept, levels)
    return raw if levels <= MOST else _scaled(raw, 0, levels - 1)


def _scaled(raw: Raw, low: float, high: float) -> Raw:
    """Values from low to high as 256 levels; others are clipped."""
    beyond = 0

    def level(part: Array) -> npt.NDArray[np.uint8]:
        nonlocal beyond
        shares = (part.astype(np.float64) - low) / (high - low)
        beyond += int(((shares < 0) | (shares > 1)).sum())
        return np.rint(shares.clip(0, 1) * (MOST - 1)).astype(np.uint8)

    def fill(values: Array, out: Array) -> None:
        for start, part in chunks(values):
            out[start : start + len(part)] = level(part)

    arrays = {
        key: stored(values.shape, np.uint8, lambda out, values=values: fill(values, out), key=None)
        for key, values in _arrays(raw).items()
    }
    notes = [f"Values {low:g} ... {high:g} were scaled to {MOST} levels."]
    notes += [f"{beyond:,} values outside {low:g} ... {high:g} were clipped."] if beyond else []
    return replace(_with(raw, arrays, MOST), notes=(*raw.notes, *notes))


def _arrays(raw: Raw) -> dict[int, Array]:
    """The arrays that the parts share, once each."""
    return {id(part.values): part.values for part in raw.parts.values()}


def _with(raw: Raw, arrays: dict[int, Array], levels: int) -> Raw:
    parts = {name: replace(part, values=arrays[id(part.values)]) for name, part in raw.parts.items()}
    return replace(raw, parts=parts, levels=levels)


def _in_use(raw: Raw) -> tuple[float, float]:
    """The lowest and the highest value."""
    found: Iterable[tuple[float, float]] = (
        (part.min().item(), part.max().item())
        for values in _arrays(raw).values()
        for _, part in chunks(values)
        if part.size
    )
    lows, highs = zip(*found, strict=True)
    return min(lows), max(highs)
