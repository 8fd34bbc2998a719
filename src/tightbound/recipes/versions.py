"""Upgrades of recipes in files of older versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from ..options.objectives import Objective
from ..spec import register, registered, upgrade

__all__ = ["nested", "register_version_2", "register_version_3"]

T = TypeVar("T")


def register_version_2(kind: str) -> Callable[[type[T]], type[T]]:
    """Registers a recipe whose files of version 1 used transposed convolutions, and ``path`` for ``pathwise``.

    Args:
        kind: Its name in files.
    """
    upgrade(kind, version=1)(_named_upsampling)
    return register(kind, version=2)


def register_version_3(kind: str) -> Callable[[type[T]], type[T]]:
    """Registers a recipe like :func:`register_version_2`, whose files of version 2 had flat options of the objective.

    Args:
        kind: Its name in files.
    """
    upgrade(kind, version=1)(_named_upsampling)
    upgrade(kind, version=2)(nested)
    return register(kind, version=3)


def _named_upsampling(fields: dict[str, Any]) -> dict[str, Any]:
    named = {"gradient": "pathwise"} if fields.get("gradient") == "path" else {}
    return fields | named if fields.get("network") == "mlp" else {"upsampling": "transposed", **fields, **named}


_FLAT = ("samples", "gradient", "divergence", "beta", "free_bits", "free_bits_group", "capacity", "mmd", "hybrid")
"""Options of an objective that are flat fields in files of older versions."""


def nested(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a recipe of an older version, with the flat options of its objective nested.

    Example:
        >>> nested({"latent_dim": 2, "objective": "iwae", "samples": 5, "beta": 1.0})
        {'latent_dim': 2, 'objective': {'kind': 'iwae', 'version': 1, 'samples': 5}}
    """
    old = {name: fields[name] for name in _FLAT if name in fields}
    kind = _kind({**old, "objective": fields.get("objective", "elbo")})
    names = {f.name: {"share": "hybrid"}.get(f.name, f.name) for f in dataclasses.fields(registered(Objective)[kind])}
    own = {name: old[before] for name, before in names.items() if before in old}
    rest = {name: value for name, value in fields.items() if name not in (*_FLAT, "objective")}
    return {**rest, "objective": {"kind": kind, "version": 1, **own}}


def _kind(old: dict[str, Any]) -> str:
    """The objective that the flat options belong to."""
    if (share := old.get("hybrid", 1.0)) < 1:
        return "hybrid" if share > 0 else "gsnn"
    if old.get("capacity") is not None:
        return "capacity"
    return old["gradient"] if old.get("gradient") in ("stl", "score") else old["objective"]
