r"""Ways out of what is wrong with a model: options of its run, changed.

A way is offered only if the run with these options can be built and is not the run as it is; the words are made from
it. For a model put together by hand it is said in words of the parts.
"""

from __future__ import annotations

import dataclasses
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
    """What is known of how a model came to be.

    Args:
        recipe: What the model was built from; None for a model put together by hand.
        training: How it was trained.
        data: What it was built for.
    """

    recipe: Recipe | None = None
    training: TrainingOptions | None = None
    data: DataSpec | None = None


@dataclass(frozen=True, kw_only=True)
class Symptoms(Run):
    """The numbers that a verdict rests on, None where a model does not define one; and what is known of the run.

    Args:
        kl: KL of posterior and prior, nats.
        mutual_information: I(x; z) is at least this, nats.
        mutual_information_at_most: And at most this, if that is known.
        decoder_use: Nats that the likelihood loses when the examples' latents are exchanged.
        active: Active latent dimensions, or positions of codes.
        dimensions: All latent dimensions, or positions.
        carrying: Those that carry the KL, or what the codes tell, where that can be told apart.
        mismatch: The aggregate posterior is at least so far from the prior, and at most so far, nats; None where
            neither is known.
        unmeasured: Why neither is known, where that is so.
        gap: Log p(x) − ELBO, nats.
        amortisation: The part of it that is the encoder's, nats.
        best_kl: KL of the posterior that is best for each example, nats.
        best_kl_error: Standard error of its difference from ``kl``.
        codes: None where latents are no codes; else whether the posterior draws them, or chooses one: its KL is then
            no part of training, and a uniform prior's is a constant.
        per_dimension: Whether training charged the KL dimension by dimension, or as one number.
        sameness: How the examples are all alike, in words; empty where they are not.
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

    @property
    def used(self) -> int:
        """Dimensions that are worth having."""
        return self.active if self.carrying is None else self.carrying


@dataclass(frozen=True)
class Way:
    """A way out: what to do in words of the parts, and the options that do it.

    Args:
        words: What to do, in words that hold for a model without a recipe too.
        options: The recipe's options; None as a value stands for leaving one out.
        training: Options of training.
        flags: More that is typed.
        second: The prior of a second stage that is fitted.
    """

    words: str
    options: Options = field(default_factory=dict)
    training: Options = field(default_factory=dict)
    flags: str = ""
    second: SecondPrior | None = None


def open_to(run: Run, *ways: Way | None) -> list[str]:
    """The ways that are open to the run, each in words and options."""
    return [text for way in ways if way is not None and (text := in_words(run, way))]


def in_words(run: Run, way: Way) -> str:
    """A way in words and options; empty if the run cannot have them, or has them already."""
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
    """The options of a run; of a second stage those of its prior alone, which its command takes."""
    if recipe is None:
        return {}
    taken = [*recipe.stages.values()]
    return {name: value for name, value in flat(recipe).items() if value not in taken}


def _changed(now: Options, options: Options) -> Options:
    """Of some options those that there are, and that are not so already."""
    return {name: value for name, value in options.items() if name in now and now[name] != value}


def _left_out(recipe: Recipe | None, options: Options) -> Options:
    """Options of what the run has chosen, such as its objective, that are not of what it is to choose."""
    if recipe is None:
        return {}
    chosen, after = [vars(recipe)[name] for name in choices(recipe)], flat(changed(recipe, options))
    given = [f.name for value in chosen for f in dataclasses.fields(value) if vars(value)[f.name] != f.default]
    return dict.fromkeys(name for name in given if name not in after)


def _can_be_built(run: Run, options: Options, training: Options, second: SecondPrior | None) -> bool:
    """Whether recipe, training and data take these options: data can refuse a kind of part, no size or weight."""
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
    """As they are typed: ``--objective elbo and leave --capacity out``."""
    given = [f"{_flag(name)} {typed(value)}" for name, value in options.items() if value is not None]
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
    """A way for a recipe that has these options; none for a model put together by hand, or another recipe."""
    return Way(words, options) if set(options) <= set(options_of(run.recipe)) else None


def is_fitted(run: Run) -> bool:
    """Whether the prior is that of a second stage, which alone has learned."""
    return first_stage(run) is not None


def first_stage(run: Run) -> Stage | None:
    """The stage whose latents the prior was fitted to, where there is one."""
    return None if run.recipe is None else run.recipe.stages.get("first")
