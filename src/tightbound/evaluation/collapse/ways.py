r"""Ways out of a problem: changed options of a run.

A way is offered only if the model can be built with these options and they differ from the run's; the text is generated
from it. For a model built by hand it names parts instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ...errors import TightboundError
from ...options.choices import changed, choices, flat
from ...options.priors import SecondPrior
from ...recipes import Recipe, Stage, TwoStage
from ...runtime.randomness import fixed_noise
from ...spec import typed

if TYPE_CHECKING:
    from ...data import DataSpec
    from ...options.training import TrainingOptions

__all__ = [
    "Run",
    "Symptoms",
    "Way",
    "capacity_of",
    "first_stage",
    "in_words",
    "is_fitted",
    "of_recipe",
    "open_to",
    "option",
    "options_of",
]

Options = dict[str, Any]
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is known about how a model was made.

    Args:
        recipe: The recipe of the model; None for a model built by hand.
        training: Its training options.
        data: The data it was built for.
    """

    recipe: Recipe | None = None
    training: TrainingOptions | None = None
    data: DataSpec | None = None


@dataclass(frozen=True, kw_only=True)
class Symptoms(Run):
    """The numbers for a verdict, None if not defined; and what is known about the run.

    Args:
        kl: KL of posterior and prior, nats.
        mutual_information: Lower bound on I(x; z), nats.
        mutual_information_at_most: Upper bound, if known.
        decoder_use: Loss of log-likelihood when latents are shuffled, nats.
        active: Active latent dimensions, or positions of codes.
        dimensions: All latent dimensions, or positions.
        carrying: Number of those that carry the KL, or the information of codes, if it factorises.
        mismatch: Lower and upper bound on the KL of the aggregate posterior from the prior, nats; None if unknown.
        unmeasured: Why it is unknown, if so.
        gap: Log p(x) − ELBO, nats.
        amortisation: The encoder's part of the gap, nats.
        best_kl: KL of the best posterior of each example, nats.
        best_kl_error: Standard error of its difference from ``kl``.
        codes: None if latents are not codes; else whether the posterior samples codes, or selects one: its KL is then
            not part of training, and constant for a uniform prior.
        per_dimension: Whether training used the KL per dimension, or as one number.
        sameness: How all examples are the same, as text; empty if they differ.
        layers: Names of the layers of a hierarchy in the order of inference; empty for a single latent.
        dead: Of each dead layer why it is called dead, in the same order.
        adds_up: Whether each layer is inferred from x and those before it, not only from the layer below.
    """

    kl: float
    mutual_information: float
    mutual_information_at_most: float | None = None
    decoder_use: float
    active: int
    dimensions: int
    carrying: int | None = None
    mismatch: tuple[float, float] | None = None
    unmeasured: str = "the prior has no exact density"
    gap: float | None = None
    amortisation: float | None = None
    best_kl: float | None = None
    best_kl_error: float = 0.0
    codes: Literal["drawn", "chosen"] | None = None
    per_dimension: bool = True
    sameness: str = ""
    layers: tuple[str, ...] = ()
    dead: Mapping[str, str] = field(default_factory=dict)
    adds_up: bool = False

    @property
    def used(self) -> int:
        """Number of useful dimensions."""
        return self.active if self.carrying is None else self.carrying


@dataclass(frozen=True)
class Way:
    """A way out: what to do, and the options for it.

    Args:
        words: What to do, also valid for a model without a recipe.
        options: The recipe's options; None means to leave an option out.
        training: Training options.
        flags: Further command-line text.
        second: The second-stage prior to fit.
    """

    words: str
    options: Options = field(default_factory=dict)
    training: Options = field(default_factory=dict)
    flags: str = ""
    second: SecondPrior | None = None


def open_to(run: Run, *ways: Way | None) -> list[str]:
    """The applicable ways, each as text with options."""
    return [text for way in ways if way is not None and (text := in_words(run, way))]


def in_words(run: Run, way: Way) -> str:
    """A way as text with options; empty if the run cannot use them or has them already."""
    if run.recipe is None:
        return way.words
    options = _changed(options_of(run.recipe), way.options)
    training = _changed({} if run.training is None else vars(run.training), way.training)
    if (way.options or way.training) and not (options or training):
        return ""
    if not _can_be_built(run, options, training, way.second):
        return ""
    flags = " and ".join(filter(None, (_typed(options | training | _left_out(run.recipe, options)), way.flags)))
    return f"{way.words}: {flags}" if flags else way.words


def options_of(recipe: Recipe | None) -> Options:
    """The options of a run; for a second stage those of its prior only, which its command takes."""
    if recipe is None:
        return {}
    taken = [*recipe.stages.values()]
    return {name: value for name, value in flat(recipe).items() if value not in taken}


def _changed(now: Options, options: Options) -> Options:
    """The options that exist and would change."""
    return {name: value for name, value in options.items() if name in now and now[name] != value}


def _left_out(recipe: Recipe | None, options: Options) -> Options:
    """Options of the run's current choice, such as its objective, that the new choice does not have."""
    if recipe is None:
        return {}
    chosen, after = [vars(recipe)[name] for name in choices(recipe)], flat(changed(recipe, options))
    given = [f.name for value in chosen for f in dataclasses.fields(value) if vars(value)[f.name] != f.default]
    return dict.fromkeys(name for name in given if name not in after)


def _can_be_built(run: Run, options: Options, training: Options, second: SecondPrior | None) -> bool:
    """Whether recipe, training and data take these options: data can rule out kinds of parts only."""
    if run.recipe is None:
        return False
    try:
        recipe = changed(run.recipe, options)
        if run.training is not None:
            dataclasses.replace(run.training, **training)
        if second is not None:
            recipe = TwoStage(Stage(recipe), second)
        if run.data is not None and (second is not None or any(isinstance(v, str) for v in options.values())):
            with fixed_noise():
                recipe.build(run.data)
    except TightboundError:
        return False
    return True


def _typed(options: Options) -> str:
    """As typed on the command line: ``--objective elbo and leave --capacity out``."""
    given = [
        _flag(name) if value is True else f"{_flag(name)} {typed(value)}"
        for name, value in options.items()
        if value is not None
    ]
    left_out = [f"leave {_flag(name)} out" for name, value in options.items() if value is None]
    return " and ".join(filter(None, (" ".join(given), *left_out)))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def option(run: Run, name: str, default: V) -> V:
    """An option of the run's command, or the default if it does not have it."""
    return options_of(run.recipe).get(name, default)


def capacity_of(run: Run) -> float | None:
    """The nats to which the KL was held, where it was."""
    return option(run, "capacity", None)


def of_recipe(run: Run, words: str, **options: str | float) -> Way | None:
    """A way for a recipe that has these options; None for a model built by hand or another recipe."""
    return Way(words, options) if set(options) <= set(options_of(run.recipe)) else None


def is_fitted(run: Run) -> bool:
    """Whether the prior is that of a second stage, the only trained part."""
    return first_stage(run) is not None


def first_stage(run: Run) -> Stage | None:
    """The stage whose latents the prior was fitted to, where there is one."""
    return None if run.recipe is None else run.recipe.stages.get("first")
