r"""From the numbers of a diagnosis to a verdict, its cause, and the options that change it.

A remedy is a list of ways out. Each names options that the run's recipe has and accepts, with values that differ from
the run's; for a model put together by hand it is said in words of the parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import TightboundError

if TYPE_CHECKING:
    from ..recipes.base import Recipe
    from ..training.options import TrainingOptions

__all__ = ["Symptoms", "Verdict", "judge"]

Verdict = Literal["healthy", "partial collapse", "collapsed", "over-regularised", "under-regularised"]
Options = dict[str, Any]
Cause = tuple[str, Options]

NOTHING = 0.1
"""Nats below which a code tells nothing, or a decoder makes no use of it: less than a seventh of a bit."""
CHANGE = 0.15
"""By so much of itself, and by twice its standard error, must the KL change when the bound is tightened before it is
too small or too large."""
MISMATCH = 0.2
"""A mismatch of codes and prior above this share of the KL is what makes samples poor."""
LEAST_MISMATCH = 1.0
"""A smaller mismatch than so many nats does not count."""
LEAST_CAPACITY = 1.0
"""A capacity of so many nats leaves no room for a code."""
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
        active: Active latent dimensions.
        dimensions: All latent dimensions.
        mismatch: How far the aggregate posterior is from the prior at least, nats.
        gap: Log p(x) − ELBO, nats.
        amortisation: The part of it that is the encoder's, nats.
        best_kl: KL of the posterior that is best for each example, nats.
        best_kl_error: Standard error of its difference from ``kl``.
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
    gap: float | None = None
    amortisation: float | None = None
    best_kl: float | None = None
    best_kl_error: float = 0.0
    per_dimension: bool = True
    recipe: Recipe | None = None
    training: TrainingOptions | None = None


@dataclass(frozen=True)
class _Way:
    """A way out: what to do in words of the parts, and the options that do it.

    Args:
        words: What to do, in words that hold for a model without a recipe too.
        options: The recipe's options; None as a value stands for leaving one out.
        flags: Options of training, as they are typed.
    """

    words: str
    options: Options = dataclasses.field(default_factory=dict)
    flags: str = ""


def judge(s: Symptoms) -> tuple[Verdict, str, str]:
    """The verdict, the cause and the remedy that numbers point to.

    Args:
        s: The numbers.

    Example:
        >>> judge(Symptoms(kl=0.02, mutual_information=0.01, decoder_use=0.0, active=0, dimensions=16))[0]
        'collapsed'
    """
    if min(s.mutual_information, s.decoder_use) < NOTHING:
        return "collapsed", *_why_collapsed(s)
    too_little, too_much = _kl_should_change(s)
    if too_little:
        return "over-regularised", *_why_too_little(s)
    if too_much:
        return "under-regularised", *_why_too_much(s)
    if s.mismatch is not None and s.mismatch > max(LEAST_MISMATCH, MISMATCH * s.kl):
        why = f"the codes of all data together are {s.mismatch:.1f} nats from the prior, so its samples are unlike them"
        another = "take a recipe whose prior can learn (vae)"
        return "under-regularised", why, _offer(s, _richer_prior(s), _charged(s), otherwise=another)
    if s.active < s.dimensions / 2:
        why = f"{s.dimensions - s.active} of {s.dimensions} latent dimensions carry nothing"
        return "partial collapse", why, _offer(s, _fewer(s), _free(s) if _group(s) < s.dimensions else None, _later(s))
    return "healthy", *_what_is_left(s)


def _kl_should_change(s: Symptoms) -> tuple[bool, bool]:
    """Whether the KL is too small, and whether it is too large: as measured, or else as the options say."""
    if s.best_kl is not None and s.kl > 0:
        change = s.best_kl - s.kl
        clear = abs(change) > max(CHANGE * s.kl, 2 * s.best_kl_error)
        return clear and change > 0, clear and change < 0
    weight = 1.0 if _option(s, "capacity") is not None else _option(s, "beta", 1.0)
    return weight > 1, weight < 1 or _was_free(s)


def _why_collapsed(s: Symptoms) -> tuple[str, str]:
    capacity, beta = _option(s, "capacity"), _option(s, "beta", 1.0)
    plain = {"capacity": None, "beta": 1.0}
    if capacity is None and beta > 1:
        why = f"a weight of {beta:g} of the {_what_beta_weighs(s)} makes every nat of code cost more than it pays"
        return why, _offer(s, _Way("lower it", plain))
    if capacity is not None and capacity <= LEAST_CAPACITY:
        return f"the KL was held to a capacity of {capacity:g} nats", _offer(s, _Way("do not hold it", plain))
    if s.kl < NOTHING:
        why = "the decoder models the data without z, and the KL was cheaper to save than the code was worth"
        return why, _offer(s, _later(s), _free(s), _weaker_decoder(s), _learned_variance(s))
    if s.mutual_information < NOTHING:
        why = f"the posterior is {s.kl:.1f} nats from the prior, yet the same for all data"
        return why, _offer(s, _following_prior(s), _later(s))
    why = f"the codes tell {s.mutual_information:.1f} nats of the data, yet the decoder ignores them"
    return why, _offer(s, _weaker_decoder(s), _learned_variance(s), _later(s))


def _why_too_little(s: Symptoms) -> tuple[str, str]:
    said, causes = f"codes say less than pays ({_kl_said(s)})", list(_causes(s, too_much=False))
    if causes:
        return _blamed(s, said, causes)
    if s.recipe is None:
        why = f"{said}: the KL weighed too much in training, or the encoder lags behind"
        return why, f"charge the KL at a weight of 1; or {_offer(s, _larger(s), _longer(s))}"
    why = f"{said}, though the KL cost no more than its due: the encoder lags behind"
    return why, _offer(s, _exact(s), _larger(s), _longer(s), _later(s))


def _why_too_much(s: Symptoms) -> tuple[str, str]:
    said, causes = f"codes say more than pays ({_kl_said(s)})", list(_causes(s, too_much=True))
    if causes:
        return _blamed(s, said, causes)
    overfitted = _Way("if the training split shows less of it, take more data or a smaller encoder")
    if s.recipe is None:
        why = f"{said}: the KL was not charged in full in training, or the encoder lags behind or has overfitted"
        return why, f"charge the KL at a weight of 1 and without free bits; or {_offer(s, _longer(s), overfitted)}"
    why = f"{said}, though the KL was charged in full: the encoder lags behind, or has overfitted"
    return why, _offer(s, _exact(s), _longer(s), overfitted)


def _causes(s: Symptoms, *, too_much: bool) -> Iterator[Cause]:
    """Options that make the KL too large or too small, and what undoes them."""
    capacity, beta, objective = _option(s, "capacity"), _option(s, "beta", 1.0), _option(s, "objective", "elbo")
    if capacity is not None and (too_much or s.kl > capacity / 2):
        yield f"the KL was held to a capacity of {capacity:g} nats", {"capacity": None, "beta": 1.0}
    if capacity is None and (beta < 1 if too_much else beta > 1):
        yield f"the {_what_beta_weighs(s)} weighed {beta:g} in training", {"beta": 1.0}
    if objective == "mmd":
        yield "the objective is not the ELBO but the maximum mean discrepancy's", {"objective": "elbo", "beta": 1.0}
    if objective == "iwae" and _option(s, "samples", 1) > 1:
        plain = {"objective": "elbo", "gradient": "path"}
        yield "the posterior was trained to propose samples, not for the ELBO", plain
    if too_much and _was_free(s):
        yield f"{_option(s, 'free_bits'):g} nats {_whose(s)} were free", {"free_bits": 0.0}


def _blamed(s: Symptoms, said: str, causes: list[Cause]) -> tuple[str, str]:
    undone = {name: value for _, options in causes for name, value in options.items()}
    way = _Way("train the plain ELBO", undone)
    return f"{said}: {', and '.join(why for why, _ in causes)}", _offer(s, way)


def _was_free(s: Symptoms) -> bool:
    """Whether free bits are enough to explain the KL, or what of it is too much."""
    groups = -(-s.dimensions // _group(s))
    floor = groups * _option(s, "free_bits", 0.0)
    if groups > 1 and s.best_kl is not None:
        return floor > 0 and floor >= (s.kl - s.best_kl) / 2
    return floor > 0 and floor >= (1 - CHANGE) * s.kl


def _group(s: Symptoms) -> int:
    """Dimensions that have free bits together: all where their KL is one number."""
    size = _option(s, "free_bits_group", 1) if s.per_dimension else 0
    return min(size or s.dimensions, s.dimensions)


def _whose(s: Symptoms) -> str:
    size = _group(s)
    if size == 1:
        return "of each dimension"
    return "in total" if size == s.dimensions else f"of each {size} dimensions"


def _what_beta_weighs(s: Symptoms) -> str:
    return "total correlation" if _option(s, "objective") == "tc" else "KL"


def _kl_said(s: Symptoms) -> str:
    best = "" if s.best_kl is None else f"; the best posteriors of this decoder carry {s.best_kl:.1f}"
    return f"{s.kl:.1f} nats{best}"


def _what_is_left(s: Symptoms) -> tuple[str, str]:
    done = "nothing needs to change"
    if s.gap is None or s.amortisation is None:
        return "the latents are used and the codes agree with the prior", done
    if s.gap < NOTHING:
        return f"the latents are used and the bound is tight ({s.gap:.2f} nats)", done
    approximation = s.gap - s.amortisation
    if s.amortisation >= approximation:
        why = f"what is left of the gap is mostly the encoder's ({s.amortisation:.1f} of {s.gap:.1f} nats)"
        return why, f"{done}; to tighten the bound, {_offer(s, _exact(s), _larger(s), _longer(s))}"
    why = f"what is left of the gap is mostly the posterior's family's ({approximation:.1f} of {s.gap:.1f} nats)"
    richer = _open(s, _exact(s), _richer_posterior(s))
    return why, f"{done}; to tighten the bound, {richer[0]}" if richer else done


def _offer(s: Symptoms, *ways: _Way | None, otherwise: str = "") -> str:
    """The first few ways that are open to the run; where none is, what is said otherwise, or more training."""
    return "; or ".join(_open(s, *ways)[:WAYS]) or otherwise or _said(s, _longer(s))


def _open(s: Symptoms, *ways: _Way | None) -> list[str]:
    return [text for way in ways if way is not None and (text := _said(s, way))]


def _said(s: Symptoms, way: _Way) -> str:
    """A way in words and options; empty if the recipe does not have them, or they change nothing."""
    if s.recipe is None:
        return way.words
    options = {name: value for name, value in way.options.items() if _option(s, name, value) != value}
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


def _option(s: Symptoms, name: str, default: Any = None) -> Any:
    """An option of the run's recipe, or the default if it does not have it."""
    return getattr(s.recipe, name, default)


def _of_recipe(s: Symptoms, words: str, **options: Any) -> _Way | None:
    """A way for a recipe that has these options; none for a model put together by hand, or another recipe."""
    return _Way(words, options) if all(hasattr(s.recipe, name) for name in options) else None


def _later(s: Symptoms) -> _Way | None:
    """A longer warm-up, if the objective has one and the run's was shorter; else an objective that has."""
    plain = {"objective": "elbo", "gradient": "path"}
    if _option(s, "capacity") is not None or _option(s, "beta", 1.0) == 0:
        return None
    if _option(s, "objective", "elbo") not in ("elbo", "mmd") or _option(s, "gradient", "path") != "path":
        return _of_recipe(s, "train the plain ELBO, whose KL is charged later", **plain)
    flags = _longer_warm_up(s.training)
    return _Way("charge the KL later, with a longer warm-up", flags=flags) if flags else None


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


def _longer(s: Symptoms) -> _Way:
    training = s.training
    if training is not None and training.steps is not None:
        return _Way("train longer", flags=f"--steps {2 * training.steps}")
    if training is not None and training.epochs is not None:
        return _Way("train longer", flags=f"--epochs {2 * training.epochs}")
    return _Way("train longer", flags="more --epochs")


def _free(s: Symptoms) -> _Way | None:
    """Some KL for free, more than the run had: of each dimension, or of all together where it is one number."""
    size = _group(s)
    steps = [round(nats * size, 2) for nats in FREE_BITS]
    if size == s.dimensions > 1:
        steps = [max(LEAST_FREE, float(round(nats))) for nats in steps]
    nats = next((nats for nats in steps if nats > _option(s, "free_bits", 0.0)), None)
    return None if nats is None else _Way(f"leave the first {nats:g} nats {_whose(s)} free", {"free_bits": nats})


def _fewer(s: Symptoms) -> _Way | None:
    enough = max(2, s.active + max(1, s.active // 4))
    if enough >= s.dimensions or _option(s, "latent_dim", s.dimensions) != s.dimensions:
        return None
    return _Way(f"{enough} dimensions would do", {"latent_dim": enough})


def _weaker_decoder(s: Symptoms) -> _Way | None:
    if _option(s, "likelihood", "autoregressive") != "autoregressive":
        return None
    return _Way("use a weaker decoder, of entries that are independent given z", {"likelihood": "auto"})


def _learned_variance(s: Symptoms) -> _Way | None:
    """For decoders of fixed noise, which may be too large for z to matter."""
    fixed = (_option(s, "likelihood"), _option(s, "scale")) == ("gaussian", "auto") or _option(s, "scale") == "fixed"
    return _of_recipe(s, "let the likelihood learn its scale", scale="shared") if fixed else None


def _following_prior(s: Symptoms) -> _Way | None:
    way = _Way("let the prior follow, as a learned Gaussian", {"prior": "diagonal"})
    return way if _option(s, "prior", "normal") == "normal" else None


def _richer_prior(s: Symptoms) -> _Way | None:
    words, now = "let the prior learn where the codes are", _option(s, "prior", "normal")
    if now == "spline":
        return _of_recipe(s, words, transforms=2 * _option(s, "transforms", 1))
    richer = RICHER_PRIOR.get(now)
    return None if richer is None else _Way(f"{words} ({_PRIORS[richer]})", {"prior": richer})


def _charged(s: Symptoms) -> _Way | None:
    way = _Way("charge the KL in full", {"beta": 1.0})
    return way if _option(s, "beta", 1.0) < 1 else None


_PRIORS = {"vamp": "a mixture of posteriors", "coupling": "a flow", "spline": "a flow of splines"}


def _richer_posterior(s: Symptoms) -> _Way | None:
    if _option(s, "objective") == "tc":  # its weights need independent dimensions
        return None
    richer = RICHER_POSTERIOR.get(_option(s, "posterior", "gaussian"))
    return None if richer is None else _Way("use a richer posterior", {"posterior": richer})


def _exact(s: Symptoms) -> _Way | None:
    return _of_recipe(s, "use the exact posterior", posterior="exact")


def _larger(s: Symptoms) -> _Way | None:
    """Networks of twice the width."""
    words, name = "take larger networks", "channels" if _option(s, "network") == "convolutional" else "hidden"
    sizes = tuple(2 * size for size in _option(s, name, ())) or (256,)
    return _Way(words, {name: sizes})
