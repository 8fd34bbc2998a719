"""Priors by name: each is built from the options of a recipe, its data and its posterior.

Modules of this package that register a function are found automatically; a recipe offers the names that it lists.
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
    """The arguments that a prior is built from.

    Args:
        latent_dim: Size of one latent vector.
        components: Number of components of a mixture.
        transforms: Number of transformations of a flow.
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
"""Builds a prior from a setting."""
PRIORS: dict[str, Maker] = {}
"""All makers by name."""


def named(name: str) -> Callable[[Maker], Maker]:
    """Registers the function that builds a prior.

    Args:
        name: Its name as the value of an option.

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
            raise UsageError(f"A prior named {name!r} already exists.", got=make, expected="a new name")
        PRIORS[name] = make
        return make

    return add
