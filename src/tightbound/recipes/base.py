"""The base of all recipes: options as data, and a model built from them."""

from __future__ import annotations

from collections.abc import Sequence
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
from ..spec import register, registered, require_choices

if TYPE_CHECKING:
    from ..models import Model

__all__ = ["Recipe", "Stage", "find_recipe", "recipes_by_name"]


@dataclass(frozen=True)
class Recipe:
    """Abstract: a named model; its fields are its options in Python, on the command line and in files."""

    by_itself: ClassVar[bool] = True
    """Whether it can be trained by name; a second stage needs a first."""
    first_options: ClassVar[tuple[str, ...]] = ()
    """The options listed first in its help."""
    latent_space: ClassVar[LatentSpace] = "none"
    """The kind of latents of its model, if any."""
    remedies: ClassVar[tuple[Remedy, ...]] = ()
    """Its own remedies for problems found by a diagnosis."""

    def __post_init__(self) -> None:
        require_choices(self)

    @property
    def training_objective(self) -> Objective:
        """The objective to maximise."""
        raise NotImplementedError

    @property
    def stages(self) -> dict[str, Stage]:
        """The parts its model takes from other runs, by name."""
        return {}

    @property
    def starts_from(self) -> str:
        """The run or file with the weights of a new model; empty for random ones."""
        return ""

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the model's parts that training leaves as they are."""
        return ()

    def without_dead(self, alive: Sequence[bool], data: DataSpec) -> dict[str, Any]:
        """The options of the same hierarchy without its dead layers; empty if there is nothing to leave out.

        Args:
            alive: Whether each layer is used, in the order of inference.
            data: Shape and range of one example.
        """
        return {}

    def chosen(self, data: DataSpec) -> list[str]:
        """What automatic options come to for that data, in a few words each, to be printed.

        Args:
            data: Shape and range of one example.
        """
        return []

    def training_sides(self, data: DataSpec) -> tuple[int, int] | None:
        """Height and width of the random crops that it is trained on; None for whole examples.

        Args:
            data: Shape and range of one example.
        """
        return None

    def clip_norm(self, data: DataSpec) -> float | None:
        """The maximum gradient norm by default; None for no clipping.

        Args:
            data: Shape and range of one example.
        """
        return None

    @property
    def ema(self) -> float:
        """Decay of the moving average of its weights by default; 0 for none."""
        return 0.0

    def cautions(self, model: Model, examples: int) -> list[str]:
        """Warnings about training on that many examples, as sentences.

        Args:
            model: The model.
            examples: Size of the training split.
        """
        return []

    def equivalents(self, model: Model) -> dict[str, float]:
        """What the published weights of its objective come to in a trained model, by name.

        Args:
            model: The model.
        """
        return {}

    def anneal(self, model: Model, step: int, steps: int) -> None:
        """Sets other scheduled quantities during training, such as a temperature.

        Args:
            model: The model.
            step: The next step, counted from 0.
            steps: Steps of the run.
        """

    def build(self, data: DataSpec) -> Any:  # each recipe has its own kind of model
        """A new model for that data, with recipe and data stored.

        Args:
            data: Shape and range of one example.

        Raises:
            UsageError: If these options cannot model that data.
        """
        return builder()(self, data)


@register("stage")
@dataclass(frozen=True)
class Stage:
    """A part taken from another run: a new model loads its weights and freezes them.

    Args:
        recipe: The recipe of that run.
        run: Its folder, to load the weights from; empty for a model that already has them.
        training: How it was trained, to show the command that repeats it.
        data: Its data options.

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
    """Every recipe that can be trained by name.

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
