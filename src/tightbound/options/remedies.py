"""Remedies that a recipe offers for problems found by a diagnosis: changes of its own options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Remedy", "halved"]


@dataclass(frozen=True)
class Remedy:
    """A remedy that only some recipes have.

    Args:
        name: Its name in the table of symptoms.
        words: What to do, independent of option names.
        options: Maps the options of a run to those to change; None if the remedy does not apply to that run.
        symptoms: Further symptoms it helps with, listed after the table's own remedies.

    Example:
        >>> remedy = Remedy("fewer codes", "take fewer codes", lambda o: halved(o, "codes"))
        >>> remedy.options({"codes": 64})
        {'codes': 32}
    """

    name: str
    words: str
    options: Callable[[Mapping[str, Any]], dict[str, Any] | None]
    symptoms: tuple[str, ...] = ()


def halved(options: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Half of an integer option, if that is still above one."""
    half = options[name] // 2
    return {name: half} if half > 1 else None
