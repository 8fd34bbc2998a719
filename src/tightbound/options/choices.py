"""Fields that hold one of several registered specs, whose options are flattened into those of the outer spec.

On the command line, in tables and in remedies ``VAE(objective=Iwae(samples=5))`` is ``objective = iwae`` and ``samples
= 5``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from ..errors import UnknownName
from ..spec import Dataclass, field_names, kind_of, registered

__all__ = ["CHOICE", "can_replace", "changed", "choices", "flat", "name_of", "offered"]

T = TypeVar("T")
D = TypeVar("D", bound=Dataclass)
CHOICE = {"choice": True}
"""Metadata of a field that holds a registered spec of its abstract type.

A function ``fits(cls, value)`` in it restricts which classes a remedy may propose.
"""


def choices(spec: Dataclass | type[Dataclass]) -> dict[str, type[Dataclass]]:
    """The abstract class of each choice field of a dataclass, by field name.

    Example:
        >>> from tightbound.recipes import VAE
        >>> choices(VAE)["objective"].__name__
        'LatentObjective'
    """
    cls = spec if isinstance(spec, type) else type(spec)
    names = [f.name for f in dataclasses.fields(cls) if "choice" in f.metadata]
    return {name: get_type_hints(cls)[name] for name in names}


def offered(base: type[T], field: str) -> dict[str, type[T]]:
    """The options of a choice: registered classes by name, which is their kind without the field's name.

    Example:
        >>> from tightbound.options.objectives import LatentObjective
        >>> list(offered(LatentObjective, "objective"))[:2]
        ['elbo', 'iwae']
    """
    return {kind.removesuffix(f"-{field}"): cls for kind, cls in registered(base).items()}


def can_replace(cls: type, spec: Dataclass, field: str) -> bool:
    """Whether a class could replace the value of a choice: by ``fits`` in the field's metadata, else always.

    Example:
        >>> from tightbound.options.objectives import Iwae
        >>> from tightbound.recipes import VAE
        >>> can_replace(Iwae, VAE(), "objective")
        True
    """
    metadata = next(f.metadata for f in dataclasses.fields(spec) if f.name == field)
    fits: Callable[[type, object], bool] = metadata.get("fits", lambda *_: True)
    return fits(cls, getattr(spec, field))


def name_of(value: object, field: str) -> str:
    """The name of a value's class in a choice.

    Example:
        >>> from tightbound.options.objectives import Iwae
        >>> name_of(Iwae(samples=5), "objective")
        'iwae'
    """
    return kind_of(value).removesuffix(f"-{field}")


def flat(spec: Dataclass) -> dict[str, Any]:
    """The options of a dataclass by name; each choice adds its name and the options of its value.

    Example:
        >>> from tightbound.recipes import VAE
        >>> from tightbound.options.objectives import Iwae
        >>> found = flat(VAE(objective=Iwae(samples=5)))
        >>> found["latent_dim"], found["objective"], found["samples"]
        (16, 'iwae', 5)
    """
    found: dict[str, Any] = {}
    held = choices(spec)
    for field in (f for f in dataclasses.fields(spec) if f.compare):
        value = getattr(spec, field.name)
        found |= {field.name: name_of(value, field.name), **flat(value)} if field.name in held else {field.name: value}
    return found


def changed(spec: D, options: Mapping[str, Any]) -> D:
    """A copy of a spec with some options changed, named as in :func:`flat`.

    When a choice changes, non-default options that the new class has too are kept.

    Raises:
        UnknownName: If a choice or an option is unknown.
        UsageError: If the options do not go together.

    Example:
        >>> from tightbound.recipes import VAE
        >>> changed(VAE(), {"objective": "iwae", "samples": 5}).objective
        Iwae(samples=5, gradient='pathwise')
    """
    held = {name: _chosen(getattr(spec, name), name, base, options) for name, base in choices(spec).items()}
    own = field_names(spec)
    known = set(own).union(*(field_names(value) for value in held.values()))
    for name in options:
        if name not in known:
            raise UnknownName("option", name, known)
    return dataclasses.replace(spec, **held | {n: v for n, v in options.items() if n in own and n not in held})


def _chosen(now: D, field: str, base: type[D], options: Mapping[str, Any]) -> D:
    """The value of a choice after changing some options."""
    name, known = options.get(field, name_of(now, field)), offered(base, field)
    if name not in known:
        raise UnknownName(field, name, known)
    given = {f.name: value for f in dataclasses.fields(now) if (value := getattr(now, f.name)) != f.default}
    return known[name](**{n: v for n, v in (given | {**options}).items() if n in field_names(known[name])})
