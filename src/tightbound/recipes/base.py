"""What every recipe has: options that are data, and a model built from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UnknownName
from ..options.building import builder
from ..options.data import DataOptions
from ..options.data_spec import DataSpec
from ..options.objectives import Objective
from ..options.priors import LatentSpace
from ..options.remedies import Remedy
from ..options.training import TrainingOptions
from ..spec import check_choices, register, registered

if TYPE_CHECKING:
    from ..models import Model

__all__ = ["Recipe", "Stage", "find_recipe", "recipes_by_name"]


@dataclass(frozen=True)
class Recipe:
    """Abstract: a named system of the literature; its fields are its options here, on the command line and in files."""

    by_itself: ClassVar[bool] = True
    """Whether it can be trained by name alone; a second stage needs a first."""
    first_options: ClassVar[tuple[str, ...]] = ()
    """Those of its options that a newcomer looks at first."""
    latent_space: ClassVar[LatentSpace] = "none"
    """What the latents of its model are, if it has any."""
    remedies: ClassVar[tuple[Remedy, ...]] = ()
    """What of its own helps against what a diagnosis may find."""

    def __post_init__(self) -> None:
        check_choices(self)

    @property
    def training_objective(self) -> Objective:
        """What training maximises."""
        raise NotImplementedError

    @property
    def stages(self) -> dict[str, Stage]:
        """What its model takes from other runs, by the names that its assembly gives them."""
        return {}

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

    def build(self, data: DataSpec) -> Any:  # each recipe has its own kind of model
        """A new model for data of that kind, which remembers both.

        Args:
            data: Shape and range of one example.

        Raises:
            UsageError: If these options cannot model that data.
        """
        return builder()(self, data)


@register("stage")
@dataclass(frozen=True)
class Stage:
    """A part that is taken from another run: a new model has its weights, and holds them fixed.

    Args:
        recipe: Of that run.
        run: Its folder, to take over the weights; empty for a model that has them: it needs no other run.
        training: How it was trained, to say how it is made again.
        data: On what.

    Example:
        >>> from tightbound.recipes import VAE, TwoStage
        >>> from tightbound.options.priors import FlowPrior
        >>> TwoStage(Stage(VAE(latent_dim=2), run="runs/vae"), FlowPrior()).stages["first"].run
        'runs/vae'
    """

    recipe: Recipe
    run: str = field(default="", compare=False)
    training: TrainingOptions | None = None
    data: DataOptions | None = None


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
