"""What every recipe has: options that are data, and a model built from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UnknownName
from ..options.data_spec import DataSpec
from ..options.objectives import Objective
from ..options.remedies import Remedy
from ..spec import check_choices, registered

if TYPE_CHECKING:
    from ..models import Model

__all__ = ["Recipe", "find_recipe", "recipes_by_name"]


@dataclass(frozen=True)
class Recipe:
    """Abstract: a named system of the literature; its fields are its options here, on the command line and in files."""

    by_itself: ClassVar[bool] = True
    """Whether it can be trained by name alone; a second stage needs a first."""
    first_options: ClassVar[tuple[str, ...]] = ()
    """Those of its options that a newcomer looks at first."""
    remedies: ClassVar[tuple[Remedy, ...]] = ()
    """What of its own helps against what a diagnosis may find."""

    def __post_init__(self) -> None:
        check_choices(self)

    @property
    def training_objective(self) -> Objective:
        """What training maximises."""
        raise NotImplementedError

    def cautions(self, model: Model, examples: int) -> list[str]:
        """What speaks against training with so many examples, as sentences.

        Args:
            model: The model.
            examples: Size of the training split.
        """
        return []

    def anneal(self, model: Model, step: int, steps: int) -> None:
        """Sets what else changes while a model learns, such as a temperature.

        Args:
            model: The model.
            step: The step to come, from 0.
            steps: Steps of the whole run.
        """

    def build(self, data: DataSpec) -> Any:
        """A new model for data of that kind, which remembers both.

        Args:
            data: Shape and range of one example.

        Raises:
            UsageError: If these options cannot model that data.
        """
        from ..assembly import build  # here alone, so that options are read without torch

        return build(self, data)


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
