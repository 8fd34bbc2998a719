"""What every recipe has: options that are data, and a model built from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..errors import UnknownName, UsageError
from ..options.data_spec import DataSpec
from ..spec import check_choices, register, registered, upgrade

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.latent import LatentVariableModel, Terms

__all__ = ["Recipe", "check_sizes", "find_recipe", "recipes_by_name", "register_version_2"]

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """Abstract: a named system of the literature; its fields are its options here, on the command line and in files."""

    by_itself: ClassVar[bool] = True
    """Whether it can be trained by name alone; a second stage needs a first."""
    first_options: ClassVar[tuple[str, ...]] = ()
    """Those of its options that a newcomer looks at first."""

    def __post_init__(self) -> None:
        check_choices(self)

    def assemble(self, data: DataSpec) -> LatentVariableModel:
        """The model's parts, put together."""
        raise NotImplementedError

    def training_objective(self, terms: Terms, beta: float | Tensor, examples: int) -> Tensor:
        """What training maximises, ``(*batch)`` nats.

        Args:
            terms: The terms of a batch.
            beta: Rises from 0 to 1 during warm-up.
            examples: Size of the whole training split, for estimates of its aggregate.
        """
        raise NotImplementedError

    def cautions(self, model: LatentVariableModel, examples: int) -> list[str]:
        """What speaks against training with so many examples, as sentences.

        Args:
            model: The model.
            examples: Size of the training split.
        """
        return []

    def anneal(self, model: LatentVariableModel, step: int, steps: int) -> None:
        """Sets what else changes while a model learns, such as a temperature.

        Args:
            model: The model.
            step: The step to come, from 0.
            steps: Steps of the whole run.
        """

    @property
    def training_samples(self) -> int:
        """How many samples of the posterior a training step takes."""
        return 1

    @property
    def generates(self) -> bool:
        """Whether training also wants the terms with samples of the prior."""
        return False

    @property
    def untrained(self) -> str:
        """The option with which nothing trains the posterior; empty where training does."""
        return ""

    @property
    def pathwise(self) -> bool:
        """Whether training's gradients go through the samples of the posterior."""
        return True

    @property
    def warming(self) -> str:
        """What of the objective rises over warm-up, in words; empty if nothing does."""
        return "the KL's weight"

    def bound(self, terms: Terms) -> Tensor:
        """What selects a model and is reported, ``(*batch)`` nats: never weighted, annealed or relaxed."""
        raise NotImplementedError

    def build(self, data: DataSpec) -> LatentVariableModel:
        """A new model for data of that kind, which remembers both.

        Args:
            data: Shape and range of one example.

        Raises:
            UsageError: If these options cannot model that data.
        """
        model = self.assemble(data)
        model.recipe, model.data_spec, model.new = self, data, True
        return model


def register_version_2(kind: str) -> Callable[[type[T]], type[T]]:
    """Registers a recipe whose files of version 1 doubled grids by transposed convolutions, and wrote ``path`` for
    ``pathwise``.

    Args:
        kind: Its name in files.
    """

    def upgraded(fields: dict[str, Any]) -> dict[str, Any]:
        named = {"gradient": "pathwise"} if fields.get("gradient") == "path" else {}
        return fields | named if fields.get("network") == "mlp" else {"upsampling": "transposed", **fields, **named}

    upgrade(kind, version=1)(upgraded)
    return register(kind, version=2)


def recipes_by_name() -> dict[str, type[Recipe]]:
    """Every recipe that can be trained by its name.

    Example:
        >>> "vae" in recipes_by_name()
        True
    """
    return {name: cls for name, cls in registered(Recipe).items() if cls.by_itself}


def find_recipe(name: str) -> type[Recipe]:
    """The class of a recipe by its name.

    Raises:
        UnknownName: If there is none of that name.

    Example:
        >>> find_recipe("vae").__name__
        'VAE'
    """
    known = recipes_by_name()
    if name not in known:
        raise UnknownName("recipe", name, known)
    return known[name]


def check_sizes(**sizes: int | tuple[int, ...]) -> None:
    """Refuses sizes below one, by the name of their option.

    Raises:
        UsageError: If there is one.
    """
    for name, given in sizes.items():
        for size in given if isinstance(given, tuple) else (given,):
            if size < 1:
                got, option = f"{name} {size}", name.replace("_", "-")
                raise UsageError(
                    "A layer needs at least one unit.", got=got, expected="at least 1", remedy=f"Raise --{option}."
                )
