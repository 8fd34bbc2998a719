"""Ways out that a recipe offers against what a diagnosis may find: its own options, changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Remedy", "halved"]


@dataclass(frozen=True)
class Remedy:
    """A row of the table of remedies that only some recipes have.

    Args:
        name: Under which the table of symptoms lists it.
        words: What to do, in words that hold whatever the options are called.
        options: From the options of a run to those that are to change; None where it is no remedy for that run.
        symptoms: Against what it helps besides, behind the table's own remedies.

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
    """Half of a number, as long as that is more than one."""
    half = options[name] // 2
    return {name: half} if half > 1 else None
