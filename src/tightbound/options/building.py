"""The place of the function that builds the model of a recipe: filled from above, so that recipes name no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..models import Model

__all__ = ["build_with", "builder"]

_place: list[Callable[..., Model]] = []


def build_with(build: Callable[..., Model]) -> None:
    """Sets what builds models: the package does so when it is imported, with :func:`tightbound.assembly.build`.

    Args:
        build: From a recipe and the kind of data to a new model.
    """
    _place[:] = [build]


def builder() -> Callable[..., Model]:
    """What builds models."""
    return _place[0]
