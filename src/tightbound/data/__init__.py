"""Data sets, folders, archives and arrays, as splits that give batches.

A reader (`formats`, `array_files`, `tables`, `folder`, `named`) turns a source into a
:class:`~tightbound.data.sources.raw.Raw`: bytes, labels and official splits. :class:`Data` divides it into splits and a
:class:`Split` turns indices into batches. Importing this package does not import torch: names are loaded lazily.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..options.data import DataOptions
from ..options.data_spec import DataSpec
from .sources.catalogue import DATASETS

if TYPE_CHECKING:
    from .collection import Data
    from .load import load_data
    from .split import Batch, Split

__all__ = ["DATASETS", "Batch", "Data", "DataOptions", "DataSpec", "Split", "load_data"]

_LAZY = {"Batch": "split", "Data": "collection", "Split": "split", "load_data": "load"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
