r"""Ways out of what is wrong with a model: options that the run's recipe has and accepts, other than the run's own.

For a model put together by hand they are said in words of the parts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import TightboundError

if TYPE_CHECKING:
    from ..recipes.base import Recipe
    from ..training.options import TrainingOptions

__all__ = [
    "Symptoms",
    "Way",
    "compared_in_few",
    "exact_posterior",
    "fewer_dimensions",
    "following_prior",
    "free_bits",
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
WAYS = 3
"""Ways out that are told at most."""
RICHER_PRIOR = {"normal": "vamp", "diagonal": "vamp", "mixture": "coupling", "vamp": "coupling", "coupling": "spline"}
RICHER_POSTERIOR = {"gaussian": "cholesky", "cholesky": "iaf"}


@dataclass(frozen=True)
class Symptoms:
    """The numbers that a verdict rests on, None where a model does not define one; and what is known of the run.

    Args:
        kl: KL of posterior and prior, nats.
        mutual_information: I(x; z), nats.
        decoder_use: Nats that the likelihood loses when the examples' latents are exchanged.
        active: Active latent dimensions, or positions of codes.
        dimensions: All latent dimensions, or positions.
        mismatch: How far the aggregate posterior is from the prior, or from what it is sure to be, nats; None where
            neither is known.
        mismatch_at_least: Whether that is only a lower bound.
        unmeasured: Why neither is known, where that is so.
        gap: Log p(x) − ELBO, nats.
        amortisation: The part of it that is the encoder's, nats.
        best_kl: KL of the posterior that is best for each example, nats.
        best_kl_error: Standard error of its difference from ``kl``.
        codes: None where latents are no codes; else whether the posterior draws them, or chooses one: its KL is then
            no part of training, and a uniform prior's is a constant.
        per_dimension: Whether training charged the KL dimension by dimension, or as one number.
        recipe: What the model was built from; None for a model put together by hand.
        training: How it was trained, if that is known.
    """

    kl: float
    mutual_information: float
    decoder_use: float
    active: int
    dimensions: int
    mismatch: float | None = None
    mismatch_at_least: bool = False
    unmeasured: str = "too few examples tell"
    gap: float | None = None
    amortisation: float | None = None
    best_kl: float | None = None
    best_kl_error: float = 0.0
    codes: Literal["drawn", "chosen"] | None = None
    per_dimension: bool = True
    recipe: Recipe | None = None
    training: TrainingOptions | None = None


@dataclass(frozen=True)
class Way:
    """A way out: what to do in words of the parts, and the options that do it.

    Args:
        words: What to do, in words that hold for a model without a recipe too.
        options: The recipe's options; None as a value stands for leaving one out.
        flags: Options of training, as they are typed.
    """

    words: str
    options: Options = dataclasses.field(default_factory=dict)
    flags: str = ""


def offer(s: Symptoms, *ways: Way | None, otherwise: str = "") -> str:
    """The first few ways that are open to the run; where none is, what is said otherwise, or more training."""
    return "; or ".join(open_to(s, *ways)[:WAYS]) or otherwise or in_words(s, longer(s))


def open_to(s: Symptoms, *ways: Way | None) -> list[str]:
    """The ways that are open to the run, each in words and options."""
    return [text for way in ways if way is not None and (text := in_words(s, way))]


def in_words(s: Symptoms, way: Way) -> str:
    """A way in words and options; empty if the recipe does not have them, or they change nothing."""
    if s.recipe is None:
        return way.words
    options = {name: value for name, value in way.options.items() if option(s, name, value) != value}
    if way.options and not (options and _accepted(s.recipe, options)):
        return ""
    flags = " and ".join(filter(None, (_typed(options), way.flags)))
    return f"{way.words}: {flags}" if flags else way.words


def _accepted(recipe: Recipe, options: Options) -> bool:
    try:
        return dataclasses.replace(recipe, **options) != recipe
    except TightboundError:
        return False


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


def option(s: Symptoms, name: str, default: Any = None) -> Any:
    """An option of the run's recipe, or the default if it does not have it."""
    return getattr(s.recipe, name, default)


def of_recipe(s: Symptoms, words: str, **options: Any) -> Way | None:
    """A way for a recipe that has these options; none for a model put together by hand, or another recipe."""
    return Way(words, options) if all(hasattr(s.recipe, name) for name in options) else None


def later(s: Symptoms) -> Way | None:
    """A longer warm-up, if the objective has one and the run's was shorter; else an objective that has."""
    plain = {"objective": "elbo", "gradient": "path"}
    if option(s, "capacity") is not None or option(s, "beta", 1.0) == 0 or s.codes == "chosen" or is_fitted(s):
        return None
    if option(s, "objective", "elbo") not in ("elbo", "mmd") or option(s, "gradient", "path") != "path":
        return of_recipe(s, "train the plain ELBO, whose KL is charged later", **plain)
    flags = _longer_warm_up(s.training)
    return Way("charge the KL later, with a longer warm-up", flags=flags) if flags else None


def _longer_warm_up(training: TrainingOptions | None) -> str:
    """Empty if the run's is long enough."""
    if training is None:
        return "a larger --beta-warmup"
    if (epochs := training.beta_warmup_epochs) is None:
        share = next((share for share in WARM_UPS if share > training.beta_warmup), None)
        return "" if share is None else f"--beta-warmup {share:g}"
    if training.epochs is None:
        return ""
    enough = next((n for share in WARM_UPS if (n := round(share * training.epochs)) > epochs), None)
    return "" if enough is None else f"--beta-warmup-epochs {enough}"


def longer(s: Symptoms) -> Way:
    """More steps or epochs than the run had."""
    training = s.training
    if training is not None and training.steps is not None:
        return Way("train longer", flags=f"--steps {2 * training.steps}")
    if training is not None and training.epochs is not None:
        return Way("train longer", flags=f"--epochs {2 * training.epochs}")
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


def free_bits(s: Symptoms) -> Way | None:
    """Some KL for free, more than the run had: of each dimension, or of all together where it is one number."""
    size = free_together(s)
    steps = [round(nats * size, 2) for nats in FREE_BITS]
    if size == s.dimensions > 1:
        steps = [max(LEAST_FREE, float(round(nats))) for nats in steps]
    nats = next((nats for nats in steps if nats > option(s, "free_bits", 0.0)), None)
    return None if nats is None else Way(f"leave the first {nats:g} nats {whose_kl(s)} free", {"free_bits": nats})


def fewer_dimensions(s: Symptoms) -> Way | None:
    """As many dimensions, or positions, as are used, and a few more."""
    enough, name = max(2, s.active + max(1, s.active // 4)), "positions" if s.codes else "latent_dim"
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


def is_fitted(s: Symptoms) -> bool:
    """Whether the prior is that of a second stage, which alone has learned."""
    return hasattr(s.recipe, "second")


def second_stage(s: Symptoms) -> Way | None:
    """Codes are dependent, and a prior of their own can follow them."""
    if not s.codes or is_fitted(s):
        return None
    return Way("fit a prior to the codes", flags="tightbound fit-prior RUN --prior pixelcnn --out RUN2")


def revival(s: Symptoms) -> Way | None:
    """Codes that start anew, where the run left dead ones alone."""
    unused = option(s, "revive", 1.0) == 0 and option(s, "quantizer") != "fsq"
    return of_recipe(s, "let codes that are not used start anew", revive=0.03) if unused else None


def compared_in_few(s: Symptoms) -> Way | None:
    """A projection in front of the codebook, where its vectors are wide."""
    full = option(s, "project") is None and option(s, "code_dim", 0) > 8
    return of_recipe(s, "compare vectors and codes in few dimensions", project=8) if full else None


def richer_prior(s: Symptoms) -> Way | None:
    """A prior of the next larger family; of codes, one that is learned."""
    words, now = "let the prior learn where the codes are", option(s, "prior", "normal")
    if s.codes:
        way = of_recipe(s, "let the prior learn how probable each code is", prior="learned")
        return way if now == "uniform" else None
    if now == "spline":
        return of_recipe(s, words, transforms=2 * option(s, "transforms", 1))
    richer = RICHER_PRIOR.get(now)
    return None if richer is None else Way(f"{words} ({_PRIORS[richer]})", {"prior": richer})


def full_charge(s: Symptoms) -> Way | None:
    """The KL at its whole weight."""
    way = Way("charge the KL in full", {"beta": 1.0})
    return way if option(s, "beta", 1.0) < 1 else None


_PRIORS = {"vamp": "a mixture of posteriors", "coupling": "a flow", "spline": "a flow of splines"}


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
