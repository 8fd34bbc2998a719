"""Registry of the function that builds models: set by the package, so that recipes import no models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..models import Model

__all__ = ["build_with", "builder"]

_place: list[Callable[..., Model]] = []


def build_with(build: Callable[..., Model]) -> None:
    """Sets the function that builds models; importing the package sets :func:`tightbound.assembly.build`.

    Args:
        build: Maps a recipe and a data spec to a new model.
    """
    _place[:] = [build]


def builder() -> Callable[..., Model]:
    """The function that builds models."""
    return _place[0]
