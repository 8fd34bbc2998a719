"""Priors by name: what each name makes of the options of a recipe, its data and its posterior.

A module of this room that registers a function is found by being here; the name is offered by the recipes that list it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..errors import UsageError
from ..options.data_spec import DataSpec

__all__ = ["PRIORS", "Maker", "Setting", "named"]


@dataclass(frozen=True)
class Setting:
    """What a prior is made from.

    Args:
        latent_dim: Size of one latent vector.
        components: Components of a mixture.
        transforms: Transformations of a flow.
        data: Shape and range of one example.
        posterior: q(z | x) of the same model.

    Example:
        >>> setting = Setting(3, 10, 2, DataSpec("digits", (1, 8, 8), levels=17), nn.Identity())
        >>> PRIORS["coupling"](setting)().event_shape
        torch.Size([3])
    """

    latent_dim: int
    components: int
    transforms: int
    data: DataSpec
    posterior: nn.Module


Maker = Callable[[Setting], nn.Module]
"""From a setting to the prior."""
PRIORS: dict[str, Maker] = {}
"""Every maker by its name."""


def named(name: str) -> Callable[[Maker], Maker]:
    """Registers the function that makes a prior.

    Args:
        name: As an option names it.

    Raises:
        UsageError: If the name is taken.

    Example:
        >>> @named("identity")
        ... def make(setting: Setting) -> nn.Module:
        ...     return nn.Identity()
        >>> PRIORS.pop("identity") is make
        True
    """

    def add(make: Maker) -> Maker:
        if name in PRIORS and PRIORS[name].__qualname__ != make.__qualname__:
            raise UsageError(f"There is a prior of the name {name!r}.", got=make, expected="a new name")
        PRIORS[name] = make
        return make

    return add
