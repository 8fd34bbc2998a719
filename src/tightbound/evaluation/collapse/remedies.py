r"""Ways out of what is wrong with a model: options of its run, changed.

A way is offered only if the run with these options can be built and is not the run as it is; the words are made from
it. For a model put together by hand it is said in words of the parts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ...errors import TightboundError
from ...options.choices import changed, choices, flat
from ...recipes import PriorOptions, Recipe, TwoStage
from ...runtime.randomness import fixed_noise

if TYPE_CHECKING:
    from ...data import DataSpec
    from ...options.training import TrainingOptions

__all__ = [
    "Run",
    "Symptoms",
    "Way",
    "compared_in_few",
    "exact_posterior",
    "fewer_codes",
    "fewer_dimensions",
    "following_prior",
    "free_bits",
    "free_steps",
    "free_together",
    "full_charge",
    "in_words",
    "is_fitted",
    "larger_networks",
    "later",
    "learned_scale",
    "longer",
    "of_recipe",
    "offer",
    "open_to",
    "option",
    "plain_likelihood",
    "revival",
    "richer_posterior",
    "richer_prior",
    "second_stage",
    "weaker_decoder",
    "whose_kl",
]

Options = dict[str, Any]

FREE_BITS = (0.1, 0.25, 0.5)
"""Nats that are proposed as free for each dimension, from the least."""
LEAST_FREE = 2.0
"""Nats that are proposed as free at least, where they are those of the whole latent."""
WARM_UPS = (0.5, 0.75)
"""Shares of a run that are proposed as warm-up."""
MOST_TRANSFORMS = 8
"""Transformations of a flow that are proposed at most."""
WAYS = 3
"""Ways out that are told at most."""
RICHER_PRIOR = {"normal": "vamp", "diagonal": "vamp", "mixture": "coupling", "vamp": "coupling", "coupling": "spline"}
RICHER_POSTERIOR = {"gaussian": "cholesky", "cholesky": "iaf"}
_PRIORS = {"vamp": "a mixture of posteriors", "coupling": "a flow", "spline": "a flow of splines"}


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
    second: PriorOptions | None = None


def offer(run: Run, *ways: Way | None, otherwise: str = "") -> str:
    """The first few ways that are open to the run; where none is, what is said otherwise, or more training."""
    return "; or ".join(open_to(run, *ways)[:WAYS]) or otherwise or in_words(run, longer(run))


def open_to(run: Run, *ways: Way | None) -> list[str]:
    """The ways that are open to the run, each in words and options."""
    return [text for way in ways if way is not None and (text := in_words(run, way))]


def in_words(run: Run, way: Way) -> str:
    """A way in words and options; empty if the run cannot have them, or has them already."""
    if run.recipe is None:
        return way.words
    options = _changed(_options(run.recipe), way.options)
    training = _changed({} if run.training is None else vars(run.training), way.training)
    if (way.options or way.training) and not (options or training):
        return ""
    if not _can_be_built(run, options, training, way.second):
        return ""
    flags = " and ".join(filter(None, (_typed(options | training | _left_out(run.recipe, options)), way.flags)))
    return f"{way.words}: {flags}" if flags else way.words


def _options(recipe: Recipe | None) -> Options:
    """The options of a run's last stage, which are those that its command takes."""
    return {} if recipe is None else flat(recipe.second if isinstance(recipe, TwoStage) else recipe)


def _changed(now: Options, options: Options) -> Options:
    """Of some options those that there are, and that are not so already."""
    return {name: value for name, value in options.items() if name in now and now[name] != value}


def _left_out(recipe: Recipe | None, options: Options) -> Options:
    """Options of what the run has chosen, such as its objective, that are not of what it is to choose."""
    if recipe is None or isinstance(recipe, TwoStage):
        return {}
    chosen, after = [getattr(recipe, name) for name in choices(recipe)], flat(changed(recipe, options))
    given = [f.name for value in chosen for f in dataclasses.fields(value) if getattr(value, f.name) != f.default]
    return dict.fromkeys(name for name in given if name not in after)


def _can_be_built(run: Run, options: Options, training: Options, second: PriorOptions | None) -> bool:
    """Whether recipe, training and data take these options: data can refuse a kind of part, no size or weight."""
    recipe: Any = run.recipe
    try:
        if isinstance(recipe, TwoStage):
            recipe = dataclasses.replace(recipe, second=changed(recipe.second, options))
        else:
            recipe = changed(recipe, options)
        if training:
            dataclasses.replace(run.training, **training)  # pyright: ignore[reportArgumentType]
        if second is not None:
            recipe = TwoStage(recipe, second)
        if run.data is not None and (second is not None or any(isinstance(v, str) for v in options.values())):
            with fixed_noise():
                recipe.build(run.data)
    except TightboundError:
        return False
    return True


def _typed(options: Options) -> str:
    """As they are typed: ``--beta 1 and leave --capacity out``."""
    given = [f"{_flag(name)} {_value(value)}" for name, value in options.items() if value is not None]
    left_out = [f"leave {_flag(name)} out" for name, value in options.items() if value is None]
    return " and ".join(filter(None, (" ".join(given), *left_out)))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def option(run: Run, name: str, default: Any = None) -> Any:
    """An option of the run's command, or the default if it does not have it."""
    return _options(run.recipe).get(name, default)


def of_recipe(run: Run, words: str, **options: Any) -> Way | None:
    """A way for a recipe that has these options; none for a model put together by hand, or another recipe."""
    return Way(words, options) if set(options) <= set(_options(run.recipe)) else None


def later(s: Symptoms) -> Way | None:
    """A longer warm-up, if the objective has one and the run's was shorter; else an objective that has."""
    if s.recipe is not None and s.recipe.training_objective.warming != "the KL's weight":
        charged = option(s, "capacity") is None and option(s, "beta", 1.0) > 0
        return of_recipe(s, "train the plain ELBO, whose KL is charged later", objective="elbo") if charged else None
    return _longer_warm_up("charge the KL later, with a longer warm-up", s.training)


def _longer_warm_up(words: str, training: TrainingOptions | None) -> Way | None:
    """None if the run's is long enough."""
    if training is None:
        return Way(words, flags="a larger --beta-warmup")
    if (epochs := training.beta_warmup_epochs) is None:
        share = next((share for share in WARM_UPS if share > training.beta_warmup), None)
        return None if share is None else Way(words, training={"beta_warmup": share})
    steps = [round(share * training.epochs) for share in WARM_UPS] if training.epochs is not None else []
    enough = next((n for n in steps if n > epochs), None)
    return None if enough is None else Way(words, training={"beta_warmup_epochs": enough})


def longer(run: Run) -> Way:
    """More steps or epochs than the run had."""
    training = run.training
    if training is not None and training.steps is not None:
        return Way("train longer", training={"steps": 2 * training.steps})
    if training is not None and training.epochs is not None:
        return Way("train longer", training={"epochs": 2 * training.epochs})
    return Way("train longer", flags="more --epochs")


def free_together(s: Symptoms) -> int:
    """Dimensions that have free bits together: all where their KL is one number."""
    size = option(s, "free_bits_group", 1) if s.per_dimension else 0
    return min(size or s.dimensions, s.dimensions)


def whose_kl(s: Symptoms) -> str:
    """To what the nats of free bits belong, in words."""
    size = free_together(s)
    if size == 1:
        return "of each dimension"
    return "in total" if size == s.dimensions else f"of each {size} dimensions"


def free_steps(s: Symptoms) -> list[float]:
    """Nats that are proposed as free, from the least: of each dimension, or of all together where it is one number."""
    size = free_together(s)
    steps = [round(nats * size, 2) for nats in FREE_BITS]
    return [max(LEAST_FREE, float(round(nats))) for nats in steps] if size == s.dimensions > 1 else steps


def free_bits(s: Symptoms) -> Way | None:
    """Some KL for free, more than the run had."""
    nats = next((nats for nats in free_steps(s) if nats > option(s, "free_bits", 0.0)), None)
    return None if nats is None else Way(f"leave the first {nats:g} nats {whose_kl(s)} free", {"free_bits": nats})


def fewer_dimensions(s: Symptoms) -> Way | None:
    """As many dimensions, or positions, as are used, and a few more."""
    enough, name = max(2, s.used + max(1, s.used // 4)), "positions" if s.codes else "latent_dim"
    if enough >= s.dimensions or option(s, name, s.dimensions) != s.dimensions:
        return None
    return Way(f"{enough} {'positions' if s.codes else 'dimensions'} would do", {name: enough})


def weaker_decoder(s: Symptoms) -> Way | None:
    """A decoder that cannot do without z."""
    if option(s, "likelihood", "autoregressive") != "autoregressive":
        return None
    return Way("use a weaker decoder, of entries that are independent given z", {"likelihood": "auto"})


def learned_scale(s: Symptoms) -> Way | None:
    """For decoders of fixed noise, which may be too large for z to matter."""
    fixed = (option(s, "likelihood"), option(s, "scale")) == ("gaussian", "auto") or option(s, "scale") == "fixed"
    return of_recipe(s, "let the likelihood learn its scale", scale="shared") if fixed else None


def following_prior(s: Symptoms) -> Way | None:
    """A prior that moves to where the codes are."""
    way = Way("let the prior follow, as a learned Gaussian", {"prior": "diagonal"})
    return way if not s.codes and option(s, "prior", "normal") == "normal" else None


def is_fitted(run: Run) -> bool:
    """Whether the prior is that of a second stage, which alone has learned."""
    return isinstance(run.recipe, TwoStage)


def second_stage(s: Symptoms) -> Way | None:
    """Codes are dependent, and a prior of their own can follow them."""
    if not s.codes or is_fitted(s):
        return None
    flags, second = "tightbound fit-prior RUN --prior pixelcnn --out RUN2", PriorOptions(prior="pixelcnn")
    return Way("fit a prior to the codes", flags=flags, second=second)


def revival(run: Run) -> Way | None:
    """Codes that start anew, where the run left dead ones alone."""
    unused = option(run, "revive", 1.0) == 0 and option(run, "quantizer") != "fsq"
    return of_recipe(run, "let codes that are not used start anew", revive=0.03) if unused else None


def compared_in_few(run: Run) -> Way | None:
    """A projection in front of the codebook, where its vectors are wide."""
    full = option(run, "project") is None and option(run, "code_dim", 0) > 8
    return of_recipe(run, "compare vectors and codes in few dimensions", project=8) if full else None


def fewer_codes(run: Run) -> Way | None:
    """Half the codebook."""
    half = option(run, "codes", 0) // 2
    return of_recipe(run, "take fewer codes", codes=half) if half > 1 and option(run, "quantizer") != "fsq" else None


def plain_likelihood(run: Run) -> Way | None:
    """A probability of levels in place of a density, in which few pixels drown all others."""
    dense = option(run, "likelihood") == "logit-laplace" and run.data is not None and run.data.discrete
    words = "take a probability of the levels, as logit-laplace is unbounded at them and few pixels drown all"
    return of_recipe(run, words, likelihood="auto") if dense else None


def richer_prior(s: Symptoms) -> Way | None:
    """A prior of the next larger family; of codes, one that is learned."""
    words, now = "let the prior learn where the codes are", option(s, "prior", "normal")
    if s.codes:
        way = of_recipe(s, "let the prior learn how probable each code is", prior="learned")
        return way if now == "uniform" else None
    if now in ("spline", "flow", "auto"):
        more = 2 * option(s, "transforms", 1)
        return of_recipe(s, words, transforms=more) if more <= MOST_TRANSFORMS else None
    if is_fitted(s):
        return of_recipe(s, f"{words} (a flow)", prior="flow")
    richer = RICHER_PRIOR.get(now)
    return None if richer is None else Way(f"{words} ({_PRIORS[richer]})", {"prior": richer})


def full_charge(s: Symptoms) -> Way | None:
    """The KL at its whole weight."""
    way = Way("charge the KL in full", {"beta": 1.0})
    return way if option(s, "beta", 1.0) < 1 else None


def richer_posterior(s: Symptoms) -> Way | None:
    """A posterior of the next larger family."""
    if option(s, "objective") == "tc":  # its weights need independent dimensions
        return None
    richer = RICHER_POSTERIOR.get(option(s, "posterior", "gaussian"))
    return None if richer is None else Way("use a richer posterior", {"posterior": richer})


def exact_posterior(s: Symptoms) -> Way | None:
    """The posterior that leaves no gap, of recipes that have it."""
    return of_recipe(s, "use the exact posterior", posterior="exact")


def larger_networks(s: Symptoms) -> Way | None:
    """Networks of twice the width."""
    plain = option(s, "network", "mlp") == "mlp" and isinstance(option(s, "hidden", ()), tuple)
    name = "hidden" if plain else "channels"
    sizes = tuple(2 * size for size in option(s, name, ())) or (256,)
    return Way("take larger networks", {name: sizes})
