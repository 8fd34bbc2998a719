"""Loads data from a name or path."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ..checkpoint import require_file
from ..errors import DataError, UnknownName, UsageError
from ..options.data import DataOptions
from ..options.data_spec import DataSpec
from ..spec import Option, field_names
from .collection import Data
from .sources.array_files import read_array_file
from .sources.catalogue import DATASETS
from .sources.folder import read_folder
from .sources.named import READERS
from .sources.others import refuse_others
from .sources.raw import Raw
from .sources.tables import TABLES, read_table, require_table

__all__ = ["load_data", "load_for_learned"]


def load_data(
    source: str | os.PathLike[str] | DataOptions = "digits", *, mirror: str | None = None, **options: Option
) -> Data:
    """Loads a named data set, a folder or archive of images, arrays in a file, or a table.

    Args:
        source: A name (:data:`DATASETS` lists them; a folder of that name is reached as ``./name``), a path, or
            complete options. Paths are stored as absolute paths, so that they are found from any folder.
        mirror: Address to download named data sets from, instead of the publisher's.
        **options: Fields of :class:`DataOptions`.

    Raises:
        UnknownName: If the data set or an option is unknown.
        UsageError: If the options do not fit each other or the data.
        DataError: If the data is missing, invalid or cannot be read.

    Example:
        >>> data = load_data("digits", validation=0.2)
        >>> len(data.train), len(data.valid), data.spec.shape
        (1150, 287, (1, 8, 8))
    """
    resolved = _resolved(source, options)
    return Data.from_raw(_read(resolved, mirror), resolved)


def load_for_learned(options: DataOptions, model: DataSpec, fingerprint: str = "") -> Data:
    """Data for a trained model: its own data with the same splits if the fingerprint matches; else all of it, as new
    data.

    Args:
        options: Its location, with the options of the model's own data.
        model: The data spec of the model.
        fingerprint: Fingerprint of the model's training data.

    Raises:
        UnknownName, UsageError, DataError: As :func:`load_data`, but one example is enough.
    """
    options = _resolved(options, {})
    raw = _read(options, None)
    if sum(map(len, raw.parts.values())) == _count(fingerprint):
        own = Data.from_raw(raw, options)
        if (own.fingerprint, own.spec.classes) == (fingerprint, model.classes):
            return own
    return Data.for_learned(raw, options, model)


def _count(fingerprint: str) -> int:
    """The number of examples in a fingerprint; -1 without one."""
    counts = fingerprint.split("-")[:3]
    return sum(map(int, counts)) if len(counts) == 3 and all(map(str.isdecimal, counts)) else -1


def _resolved(source: str | os.PathLike[str] | DataOptions, options: dict[str, Option]) -> DataOptions:
    known = [name for name in field_names(DataOptions) if name != "data"]
    for name in options:
        if name not in known:
            raise UnknownName("data option", name, known)
    asked = source if isinstance(source, DataOptions) else DataOptions(os.fspath(source))
    return dataclasses.replace(asked, **{"data": _absolute(asked.data), **options})


def _absolute(source: str) -> str:
    path = Path(source).expanduser()
    return source if source in READERS or not path.exists() else str(path.absolute())


def _read(options: DataOptions, mirror: str | None) -> Raw:
    require_table(options)
    if options.data in READERS:
        return READERS[options.data](options, mirror)
    if not options.data.strip():
        raise UsageError("No data was given.", got="no name", expected=f"a path, or one of: {', '.join(DATASETS)}")
    path = Path(options.data).expanduser()
    if not path.exists():
        raise _not_found(options.data)
    if not path.is_dir():
        require_file(path, kind=DataError)
    if path.suffix.lower() in (".npy", ".npz"):
        return read_array_file(path)
    if path.suffix.lower() in TABLES and path.is_file():
        return read_table(path, options.label)
    refuse_others(path)
    return read_folder(path, options)


def _not_found(source: str) -> Exception:
    if "/" in source or os.sep in source or source.startswith(("~", ".")) or Path(source).suffix:
        return DataError(
            f"The file or folder {source!r} does not exist.",
            got=f"{Path(source).expanduser().absolute()}, which does not exist",
            expected="a folder of images, a .tar or .zip of one, an .npz or .npy, a .csv or .parquet, or one of: "
            + ", ".join(DATASETS),
            remedy="Check the spelling of the path.",
        )
    return UnknownName("data set", source, DATASETS)
