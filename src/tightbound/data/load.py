"""From what the user names to data."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ..checkpoint import check_file
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
from .sources.tables import TABLES, check_label, read_table

__all__ = ["load_data", "load_for_learned"]


def load_data(
    source: str | os.PathLike[str] | DataOptions = "digits", *, mirror: str | None = None, **options: Option
) -> Data:
    """Loads a named data set, a folder or archive of images, arrays in a file, or a table.

    Args:
        source: A name (:data:`DATASETS` lists them; a folder of that name is reached as ``./name``), a path, or
            complete options. The options of the data hold a path as an absolute one, so that it is found again from
            any folder.
        mirror: Address to download named sets from, in place of where they are published.
        **options: Fields of :class:`DataOptions`.

    Raises:
        UnknownName: If there is no such data set or option.
        UsageError: If the options do not fit each other or the data.
        DataError: If the data is missing, cannot be read or is not what it claims to be.

    Example:
        >>> data = load_data("digits", validation=0.2)
        >>> len(data.train), len(data.valid), data.spec.shape
        (1150, 287, (1, 8, 8))
    """
    resolved = _resolved(source, options)
    return Data.from_raw(_read(resolved, mirror), resolved)


def load_for_learned(options: DataOptions, model: DataSpec, fingerprint: str = "") -> Data:
    """Data for a trained model: its own, divided as it was, if that is what it is; else all of it, as new data.

    Args:
        options: Where it is, and how the model's own data was read.
        model: What the model was built for.
        fingerprint: Of the data that the model has learned from.

    Raises:
        UnknownName, UsageError, DataError: As :func:`load_data`; but one example is enough.
    """
    options = _resolved(options, {})
    raw = _read(options, None)
    if sum(map(len, raw.parts.values())) == _count(fingerprint):
        own = Data.from_raw(raw, options)
        if (own.fingerprint, own.spec.classes) == (fingerprint, model.classes):
            return own
    return Data.for_learned(raw, options, model)


def _count(fingerprint: str) -> int:
    """How many examples data of a fingerprint has; -1 without one."""
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
    check_label(options)
    if options.data in READERS:
        return READERS[options.data](options, mirror)
    if not options.data.strip():
        raise UsageError("Which data?", got="no name", expected=f"a path, or one of: {', '.join(DATASETS)}")
    path = Path(options.data).expanduser()
    if not path.exists():
        raise _not_found(options.data)
    if not path.is_dir():
        check_file(path, kind=DataError)
    if path.suffix.lower() in (".npy", ".npz"):
        return read_array_file(path)
    if path.suffix.lower() in TABLES and path.is_file():
        return read_table(path, options.label)
    refuse_others(path)
    return read_folder(path, options)


def _not_found(source: str) -> Exception:
    if "/" in source or os.sep in source or source.startswith(("~", ".")) or Path(source).suffix:
        return DataError(
            f"There is no file or folder {source!r}.",
            got=f"{Path(source).expanduser().absolute()}, which does not exist",
            expected="a folder of images, a .tar or .zip of one, an .npz or .npy, a .csv or .parquet, or one of: "
            + ", ".join(DATASETS),
            remedy="Check the spelling of the path.",
        )
    return UnknownName("data set", source, DATASETS)
