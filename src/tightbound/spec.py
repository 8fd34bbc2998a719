"""Frozen dataclasses to JSON and back: everything needed to rebuild a model, and no code.

A *spec* is a frozen dataclass registered under a kind. Written, it is a JSON object with its ``kind`` and ``version``;
read, the kind is looked up in a closed registry of this process. No name found in a file is ever imported. A field that
does not compare (``field(compare=False)``) is not part of the spec and is not written.

A *record* is a spec that holds results instead of options. Inside another spec only its fields are written, since the
type of the field determines its kind. On reading, unknown fields are dropped, and integers must be counts.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar, Union, get_args, get_origin

from .errors import CheckpointError, UnknownName, UsageError

__all__ = [
    "Dataclass",
    "Fields",
    "Json",
    "Option",
    "closed_list",
    "field_names",
    "flag",
    "from_json",
    "kind_of",
    "register",
    "registered",
    "require_choices",
    "require_numbers",
    "to_json",
    "typed",
    "upgrade",
]

T = TypeVar("T")
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A value that JSON can hold."""
Fields = dict[str, Any]
"""The fields of a spec by name, as JSON, before :func:`from_json` checks their types."""
Option: TypeAlias = "bool | int | float | str | tuple[Option, ...] | None"
"""The value of an option at the command line."""


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


_kinds: dict[str, tuple[type[Any], int]] = {}
_records: set[str] = set()
_upgrades: dict[tuple[str, int], Callable[[Fields], Fields]] = {}


def register(kind: str, *, version: int = 1, record: bool = False) -> Callable[[type[T]], type[T]]:
    """Adds a frozen dataclass to the registry under a kind.

    Args:
        kind: Its name in files, such as ``"vae"``.
        version: Increased by one whenever a field is renamed or changes meaning; see :func:`upgrade`.
        record: Whether it holds results; unknown fields of these are dropped.

    Raises:
        UsageError: If the kind is taken.
    """

    def add(cls: type[T]) -> type[T]:
        if kind in _kinds and _kinds[kind][0].__qualname__ != cls.__qualname__:
            raise UsageError(f"The kind {kind!r} is registered already.", got=cls, expected="a new name")
        _kinds[kind] = (cls, version)
        (_records.add if record else _records.discard)(kind)
        return cls

    return add


def upgrade(kind: str, *, version: int) -> Callable[[Callable[[Fields], Fields]], Callable[[Fields], Fields]]:
    """Registers a function that turns the fields of ``version`` of a kind into those of ``version + 1``."""

    def add(function: Callable[[Fields], Fields]) -> Callable[[Fields], Fields]:
        _upgrades[kind, version] = function
        return function

    return add


def registered(base: type[T]) -> dict[str, type[T]]:
    """Every registered kind whose class is a subclass of ``base``."""
    return {kind: cls for kind, (cls, _) in _kinds.items() if issubclass(cls, base)}


def require_choices(spec: Dataclass) -> None:
    """Refuses a value that is not one of its field's choices, and an out-of-range number.

    Raises:
        UnknownName: If there is one; the message suggests the nearest choice.
        UsageError: If a number is NaN or too large.
    """
    for name, hint in typing.get_type_hints(type(spec)).items():
        given, known = getattr(spec, name), closed_list(hint)
        for value in typing.cast("tuple[Any, ...]", given) if isinstance(given, tuple) else (given,):
            if known and value not in known:
                raise UnknownName(name.replace("_", " "), str(value), known)
    require_numbers({name: getattr(spec, name) for name in field_names(spec)})


def closed_list(hint: Any) -> tuple[Any, ...]:
    """The allowed values of a field whose type lists them, or of its elements; empty for other fields.

    Example:
        >>> closed_list(Literal["none", "class", "text"] | tuple[Literal["class", "text"], ...])
        ('none', 'class', 'text')
    """
    if get_origin(hint) is Literal:
        return get_args(hint)
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    lists = [get_args(option)[0] if get_origin(option) is tuple else option for option in options]
    if not all(get_origin(each) is Literal for each in lists):
        return ()
    return tuple(dict.fromkeys(value for each in lists for value in get_args(each)))


LARGEST = {int: 2**53, float: 1e30}
"""Larger option values are refused: results would overflow or lose precision."""


def require_numbers(options: Mapping[str, object]) -> None:
    """Refuses out-of-range numbers, naming the option.

    Raises:
        UsageError: If there is one.

    Example:
        >>> require_numbers({"lr": 1e99})
        Traceback (most recent call last):
        tightbound.errors.UsageError: The option lr is out of range.
          got:      1e+99
          expected: a number of at most 1e+30
          remedy:   Change --lr.
    """
    for name, given in options.items():
        for value in typing.cast("tuple[object, ...]", given) if isinstance(given, tuple) else (given,):
            if not isinstance(value, int | float):
                continue
            most = LARGEST[float if isinstance(value, float) else int]
            if not -most <= value <= most:
                raise UsageError(
                    f"The option {name} is out of range.",
                    got=value,
                    expected=f"a number of at most {most:g}",
                    remedy=f"Change {flag(name)}.",
                )


def flag(name: str) -> str:
    """The name of an option at the command line.

    Example:
        >>> flag("latent_dim")
        '--latent-dim'
    """
    return f"--{name.replace('_', '-')}"


def field_names(spec: Dataclass | type[Dataclass]) -> list[str]:
    """The names of the fields of a dataclass.

    Example:
        >>> from tightbound.options.data_spec import DataSpec
        >>> field_names(DataSpec)[:2]
        ['name', 'shape']
    """
    return [f.name for f in dataclasses.fields(spec)]


def typed(value: Option | list[Option]) -> str:
    """An option's value as it is typed at the command line.

    Example:
        >>> typed((64, 32)), typed(1.0), typed("auto")
        ('64 32', '1', 'auto')
    """
    if isinstance(value, tuple | list):
        return " ".join(map(typed, value))
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else str(value)


def kind_of(spec: object) -> str:
    """The kind under which the class of a spec is registered."""
    for kind, (cls, _) in _kinds.items():
        if cls is type(spec):
            return kind
    raise UsageError(
        f"{type(spec).__name__} is not registered.", remedy="Decorate it with @register before writing or reading it."
    )


def to_json(spec: Dataclass) -> Fields:
    """A spec as a JSON object, nested specs included.

    Example:
        >>> from tightbound.data import DataSpec
        >>> to_json(DataSpec("digits", shape=(1, 8, 8), levels=17))["shape"]
        [1, 8, 8]
    """
    kind = kind_of(spec)
    return {"kind": kind, "version": _kinds[kind][1], **_fields(spec)}


def _fields(spec: Dataclass) -> Fields:
    return {f.name: _plain(getattr(spec, f.name)) for f in dataclasses.fields(spec) if f.compare}


def from_json(value: Mapping[str, Any], base: type[T]) -> T:
    """The spec that a JSON object describes, every field checked against its type.

    Args:
        value: What :func:`to_json` wrote, of this or an older version.
        base: The class that the spec must have.

    Raises:
        UnknownName: If its kind is not registered.
        CheckpointError: If it is not of that class, its version is newer than this package or too old to upgrade, or a
            field is missing, unknown or of the wrong type.
    """
    fields = dict(value)
    kind, version = fields.pop("kind", None), fields.pop("version", None)
    if not isinstance(kind, str) or kind not in _kinds:
        raise UnknownName("kind of spec", str(kind), _kinds)
    cls, current = _kinds[kind]
    if not issubclass(cls, base):
        raise CheckpointError("The file describes another kind of object.", got=kind, expected=base.__name__)
    if type(version) is not int or version < 1:
        raise CheckpointError(f"This {kind!r} has no valid version.", got=repr(version), expected=f"1 to {current}")
    if version > current:
        raise CheckpointError(
            f"This {kind!r} was written by a newer version.",
            got=version,
            expected=current,
            remedy="Upgrade tightbound.",
        )
    for old in range(version, current):
        if (kind, old) not in _upgrades:
            raise CheckpointError(f"This {kind!r} was written by a version too old to read.", got=old, expected=current)
        fields = _upgrades[kind, old](fields)
    return cls(**_checked_fields(kind, cls, fields))


def _plain(value: object) -> Json:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value) if kind_of(value) in _records else to_json(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in typing.cast("tuple[object, ...]", value)]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in typing.cast("dict[str, object]", value).items()}
    return typing.cast(Json, value)


def _checked_fields(kind: str, cls: type[Any], fields: Fields) -> Fields:
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.compare}
    if kind in _records:
        fields = {name: value for name, value in fields.items() if name in known}
    if unknown := sorted(set(fields) - set(known)):
        raise CheckpointError(f"{kind!r} has no field {unknown[0]!r}.", expected=f"one of: {', '.join(known)}")
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.name not in fields and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise CheckpointError(
            f"{kind!r} lacks the field {missing[0]!r}.", remedy="The file is incomplete: use another copy."
        )
    checked = {name: _checked(f"{kind}.{name}", hints[name], value) for name, value in fields.items()}
    if kind in _records:
        for name, value in checked.items():
            _check_counts(f"{kind}.{name}", value)
    return checked


def _check_counts(name: str, value: object) -> None:
    """Refuses negative integers in a record."""
    if isinstance(value, dict | tuple):
        held = typing.cast("dict[str, object] | tuple[object, ...]", value)
        for item in held.values() if isinstance(held, dict) else held:
            _check_counts(name, item)
    elif type(value) is int and not 0 <= value <= LARGEST[int]:
        raise CheckpointError(f"The field {name} is not a count.", got=value, expected="0 or more")


def _nested(value: Fields, cls: type[T]) -> T:
    """A spec inside another; the kind of a record follows from its field."""
    kind = next((kind for kind in _records if _kinds[kind][0] is cls), None)
    return from_json(value, cls) if kind is None else cls(**_checked_fields(kind, cls, value))


def _checked(name: str, hint: object, value: Json) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return _checked(name, option, value)
            except CheckpointError:
                continue
    elif origin is Literal:
        if value in arguments:
            return value
    elif origin is tuple and isinstance(value, list):
        hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(hints) == len(value):
            return tuple(_checked(name, h, item) for h, item in zip(hints, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {key: _checked(name, arguments[1], item) for key, item in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _nested(value, typing.cast("type[Dataclass]", hint))
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= sys.float_info.max:
            return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise CheckpointError(f"The field {name} does not have its type.", got=repr(value), expected=hint)
