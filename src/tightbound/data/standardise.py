r"""Location and scale of continuous data, from its training split, so that values of any scale can be trained on.

Convention: :math:`m` and :math:`s` are mean and standard deviation (biased), one pair for all entries of an example, or
one for each entry of its first dimension: the features of a vector, the channels of an image. Constant entries have
:math:`s = 1`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..options.data import DataOptions
from ..options.data_spec import DataSpec
from .observed import few
from .sources.arrays import CHUNK_BYTES
from .sources.raw import Part
from .spacing import evenly_spaced_rows

__all__ = ["standardised"]

Numbers = npt.NDArray[np.float64]

SCALES = 0.05, 10.0
"""If every scale is between these two, and no location exceeds the second, data is unchanged."""
MOST_NUMBERS = 2**16
"""With more features, all share one location and scale, to keep the config small."""
MOST_ENTRIES = 2**28
"""The statistics use at most this many entries, of evenly spaced training examples."""


def standardised(spec: DataSpec, train: Part, options: DataOptions) -> tuple[DataSpec, tuple[str, ...]]:
    """The spec with the location and scale that the options request, and notes.

    Args:
        spec: The data spec.
        train: The training examples.
        options: Whether and how to standardise.

    Raises:
        UsageError: If the data has levels, or too many features for per-entry standardisation.

    Example:
        >>> columns = Part(np.array([[0.0, 1e6], [2.0, 3e6]]))
        >>> standardised(DataSpec("columns", (2,), None), columns, DataOptions(""))[0].scale
        (1.0, 1000000.0)
    """
    _check_wanted(spec, options)
    if spec.levels is not None:
        return spec, ()
    mean, variance, low, high = _moments(train)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, math.nextafter(low, math.inf)))
    spec = replace(spec, low=low, high=high)
    if options.standardize == "none":
        return spec, ()
    constant, vector, own = variance == 0, len(spec.shape) == 1, options.standardize == "per-entry"
    notes = (_constant(constant, mean),) if vector and constant.any() else ()
    if not own and _near_unit(mean, np.sqrt(variance[~constant])):
        return spec, notes
    if not own and (not vector or len(mean) > MOST_NUMBERS):
        mean, variance = np.array([mean.mean()]), np.array([variance.mean() + mean.var()])
    scale = np.where(variance > 0, np.sqrt(variance), 1.0)
    spec = replace(spec, location=tuple(mean.tolist()), scale=tuple(scale.tolist()))
    return spec, (*notes, _told(spec))


def _near_unit(mean: Numbers, scale: Numbers) -> bool:
    least, most = SCALES
    return bool((np.abs(mean) <= most).all() and (scale >= least).all() and (scale <= most).all())


def _moments(train: Part) -> tuple[Numbers, Numbers, float, float]:
    """Mean and variance along the first dimension of an example, and the smallest and the largest value of all."""
    features = train.values.shape[1]
    total, squares, count = np.zeros(features), np.zeros(features), 0
    low, high = math.inf, -math.inf
    for x in _chunks(train):
        total, count = total + x.sum((0, 2)), count + x.shape[0] * x.shape[2]
        low, high = min(low, float(x.min())), max(high, float(x.max()))
    mean = total / count
    for x in _chunks(train):
        squares += np.square(x - mean[:, None]).sum((0, 2))
    variance = squares / count
    noise = (1e-12 * np.abs(mean)) ** 2  # rounding error in the sums of a constant
    return mean, np.where(variance > noise, variance, 0.0), low, high


def _chunks(train: Part) -> Iterator[Numbers]:
    """Examples in bounded runs, ``(n, features, rest)``."""
    size = math.prod(train.values.shape[1:])
    count = min(len(train), max(2, MOST_ENTRIES // size))
    picked = evenly_spaced_rows(len(train), count)
    rows = picked if train.rows is None else train.rows[picked]
    step = max(1, CHUNK_BYTES // (8 * size))
    for start in range(0, count, step):
        part = train.values[rows[start : start + step]]
        yield part.astype(np.float64).reshape(len(part), part.shape[1], -1)


def _constant(constant: npt.NDArray[np.bool_], mean: Numbers) -> str:
    columns = np.flatnonzero(constant)
    named = few([f"{i} (always {mean[i]:g})" for i in columns.tolist()])
    one = len(columns) == 1
    return (
        f"Column{'s' * (not one)} {named}, counted from 0, {'is' if one else 'are'} constant in the training "
        f"split: scale 1; {'its' if one else 'their'} density grows without bound as a learned σ shrinks."
    )


def _told(spec: DataSpec) -> str:
    def span(values: tuple[float, ...]) -> str:
        ends = [f"{value:.4g}" for value in (min(values), max(values))]
        return ends[0] if ends[0] == ends[1] else " to ".join(ends)

    each = "all entries alike" if len(spec.scale) == 1 else f"each {'channel' if len(spec.shape) > 1 else 'column'}"
    return (
        f"Values are standardised, {each}: location {span(spec.location)}, scale {span(spec.scale)} of the training "
        "split (--standardize none turns this off); densities and errors stay in the data's own units."
    )


def _check_wanted(spec: DataSpec, options: DataOptions) -> None:
    if options.standardize != "per-entry":
        return
    if spec.levels is not None:
        raise UsageError(
            "Data with levels cannot be standardised: it is scaled to [0, 1].",
            got=f"standardize='per-entry' with {spec.levels} levels",
            expected="continuous data",
            remedy="Leave the option out, or provide the data as floats.",
        )
    if spec.shape[0] > MOST_NUMBERS:
        raise UsageError(
            "There are too many features for per-entry standardisation.",
            got=f"standardize='per-entry' with {spec.shape[0]:,} features",
            expected=f"at most {MOST_NUMBERS:,}",
            remedy="Use --standardize auto, which uses one scale for all, or standardise the array yourself.",
        )
