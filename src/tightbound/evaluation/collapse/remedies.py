r"""What helps against what: a table of remedies by symptom, to which recipes contribute rows of their own.

A remedy is a way out for a run, or none where it is no remedy for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from ...options.priors import PixelCNNPrior
from ...options.remedies import Remedy
from ...options.training import TrainingOptions
from .ways import Run, Symptoms, Way, capacity_of, in_words, is_fitted, of_recipe, open_to, option, options_of

__all__ = ["Symptom", "against", "fewer_dimensions", "free_steps", "free_together", "offer", "second_stage", "whose_kl"]

Symptom = Literal[
    "codes collapsed",
    "posterior collapsed",
    "posterior the same for all",
    "decoder ignores the codes",
    "partly collapsed",
    "encoder says too little",
    "encoder says too much",
    "codes unlike the prior",
    "gap of the encoder",
    "gap of the family",
    "codes unused",
]

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

REMEDIES: dict[Symptom, tuple[str, ...]] = {
    "codes collapsed": ("revival", "narrow comparison", "learned scale", "longer"),
    "posterior collapsed": ("later", "free bits", "weaker decoder", "learned scale"),
    "posterior the same for all": ("following prior", "later"),
    "decoder ignores the codes": ("weaker decoder", "learned scale", "later"),
    "partly collapsed": ("fewer dimensions", "free bits of each", "later"),
    "encoder says too little": ("exact posterior", "larger networks", "longer", "later"),
    "encoder says too much": ("exact posterior", "longer", "less overfitting"),
    "codes unlike the prior": ("second stage", "richer prior", "full charge"),
    "gap of the encoder": ("exact posterior", "larger networks", "longer"),
    "gap of the family": ("exact posterior", "richer posterior"),
    "codes unused": ("plain likelihood", "revival", "longer", "narrow comparison", "fewer codes"),
}
"""By symptom the names of what helps, the best first; the rows are below, or of a recipe."""


def against(run: Run, symptom: Symptom) -> Iterator[Way | None]:
    """The ways out of a symptom, the best first: the table's, then what a recipe adds."""
    own = () if run.recipe is None else run.recipe.remedies
    named = {remedy.name: remedy for remedy in own}
    for name in REMEDIES[symptom]:
        if name in named:
            yield _of(run, named[name])
        elif name in ROWS:
            yield ROWS[name](run)
    yield from (_of(run, remedy) for remedy in own if symptom in remedy.symptoms)


def _of(run: Run, remedy: Remedy) -> Way | None:
    """A recipe's remedy, for a run that needs it."""
    options = remedy.options(options_of(run.recipe))
    return None if options is None else Way(remedy.words, options)


def offer(run: Run, *ways: Way | None, otherwise: str = "") -> str:
    """The first few ways that are open to the run; where none is, what is said otherwise, or more training."""
    return "; or ".join(open_to(run, *ways)[:WAYS]) or otherwise or in_words(run, longer(run))


def later(s: Symptoms) -> Way | None:
    """A longer warm-up, if the objective has one and the run's was shorter; else an objective that has."""
    if s.recipe is not None and s.recipe.training_objective.warming != "the KL's weight":
        charged = capacity_of(s) is None and option(s, "beta", 1.0) > 0
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
    scale = option(s, "scale", "")
    fixed = scale == "fixed" or (option(s, "likelihood", ""), scale) == ("gaussian", "auto")
    return of_recipe(s, "let the likelihood learn its scale", scale="shared") if fixed else None


def following_prior(s: Symptoms) -> Way | None:
    """A prior that moves to where the codes are."""
    way = Way("let the prior follow, as a learned Gaussian", {"prior": "diagonal"})
    return way if not s.codes and option(s, "prior", "normal") == "normal" else None


def second_stage(s: Symptoms) -> Way | None:
    """Codes are dependent, and a prior of their own can follow them."""
    if not s.codes or is_fitted(s):
        return None
    flags, second = "tightbound fit-prior RUN --prior pixelcnn --out RUN2", PixelCNNPrior()
    return Way("fit a prior to the codes", flags=flags, second=second)


def plain_likelihood(run: Run) -> Way | None:
    """A probability of levels in place of a density, in which few pixels drown all others."""
    dense = option(run, "likelihood", "") == "logit-laplace" and run.data is not None and run.data.discrete
    words = "take a probability of the levels, as logit-laplace is unbounded at them and few pixels drown all"
    return of_recipe(run, words, likelihood="auto") if dense else None


def richer_prior(s: Symptoms) -> Way | None:
    """A prior of the next larger family."""
    words, now = "let the prior learn where the codes are", option(s, "prior", "normal")
    if s.codes:
        return None
    if now in ("spline", "flow"):
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
    if option(s, "objective", "") == "tc":  # its weights need independent dimensions
        return None
    richer = RICHER_POSTERIOR.get(option(s, "posterior", "gaussian"))
    return None if richer is None else Way("use a richer posterior", {"posterior": richer})


def larger_networks(s: Symptoms) -> Way | None:
    """Networks of twice the width."""
    plain = option(s, "network", "mlp") == "mlp" and isinstance(option(s, "hidden", (128,)), tuple)
    name = "hidden" if plain else "channels"
    sizes = tuple(2 * size for size in option(s, name, (128,))) or (256,)
    return Way("take larger networks", {name: sizes})


ROWS: dict[str, Callable[[Any], Way | None]] = {
    "later": later,
    "longer": longer,
    "free bits": free_bits,
    "free bits of each": lambda s: free_bits(s) if free_together(s) < s.dimensions else None,
    "fewer dimensions": fewer_dimensions,
    "weaker decoder": weaker_decoder,
    "learned scale": learned_scale,
    "following prior": following_prior,
    "second stage": second_stage,
    "plain likelihood": plain_likelihood,
    "richer prior": richer_prior,
    "full charge": full_charge,
    "richer posterior": richer_posterior,
    "larger networks": larger_networks,
    "less overfitting": lambda s: Way("if the training split shows less of it, take more data or a smaller encoder"),
}
"""What helps by its name, for any recipe with such options."""
