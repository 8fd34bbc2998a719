r"""A table of remedies by symptom, to which recipes contribute rows.

A remedy gives a way out for a run, or None if it does not apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from ...options.priors import FlowPrior, PixelCNNPrior
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
    "layers dead",
    "encoder says too little",
    "encoder says too much",
    "codes unlike the prior",
    "gap of the encoder",
    "gap of the family",
    "codes unused",
]

FREE_BITS = (0.1, 0.25, 0.5)
"""Free bits (nats) proposed per dimension, ascending."""
FREE_OF_A_LAYER = (0.5, 1.0, 2.0)
"""Free bits (nats) proposed for each layer of a hierarchy, ascending."""
LEAST_FREE = 2.0
"""Minimum free bits (nats) proposed for the complete latent."""
WARM_UPS = (0.5, 0.75)
"""Proposed warm-up shares of a run."""
MOST_TRANSFORMS = 8
"""Maximum number of flow transformations proposed."""
WAYS = 3
"""Maximum number of remedies listed."""
RICHER_PRIOR = {
    "normal": ("vamp", "mixture"),
    "diagonal": ("vamp",),
    "mixture": ("coupling",),
    "vamp": ("coupling",),
    "coupling": ("spline",),
}
"""The next larger families of priors; the first one that the recipe has is proposed."""
RICHER_POSTERIOR = {"gaussian": "cholesky", "cholesky": "iaf"}
_PRIORS = {
    "vamp": "a mixture of posteriors",
    "mixture": "a mixture",
    "coupling": "a flow",
    "spline": "a flow of splines",
}

REMEDIES: dict[Symptom, tuple[str, ...]] = {
    "codes collapsed": ("revival", "narrow comparison", "learned scale", "longer"),
    "posterior collapsed": ("later", "free bits", "fewer layers", "balanced layers", "weaker decoder", "learned scale"),
    "posterior the same for all": ("following prior", "later", "fewer layers"),
    "decoder ignores the codes": ("weaker decoder", "learned scale", "later", "fewer layers"),
    "partly collapsed": ("fewer dimensions", "free bits of each", "later"),
    "layers dead": ("later", "free bits", "fewer layers", "balanced layers"),
    "encoder says too little": ("exact posterior", "larger networks", "longer", "later"),
    "encoder says too much": ("exact posterior", "longer", "less overfitting"),
    "codes unlike the prior": ("second stage", "richer prior", "full charge"),
    "gap of the encoder": ("exact posterior", "larger networks", "longer"),
    "gap of the family": ("exact posterior", "richer posterior"),
    "codes unused": ("plain likelihood", "revival", "longer", "narrow comparison", "fewer codes"),
}
"""Names of remedies by symptom, best first; they are defined below or by a recipe."""


def against(run: Run, symptom: Symptom) -> Iterator[Way | None]:
    """The remedies of a symptom, best first: those of the table, then those of the recipe."""
    own = () if run.recipe is None else run.recipe.remedies
    named = {remedy.name: remedy for remedy in own}
    for name in REMEDIES[symptom]:
        if name in named:
            yield _of(run, named[name])
        elif name in ROWS:
            yield ROWS[name](run)
    yield from (_of(run, remedy) for remedy in own if symptom in remedy.symptoms)


def _of(run: Run, remedy: Remedy) -> Way | None:
    """A recipe's remedy, for a run to which it applies."""
    options = remedy.options(options_of(run.recipe))
    return None if options is None else Way(remedy.words, options)


def offer(run: Run, *ways: Way | None, otherwise: str = "") -> str:
    """The first few applicable remedies; if none applies, ``otherwise``, or longer training."""
    return "; or ".join(open_to(run, *ways)[:WAYS]) or otherwise or in_words(run, longer(run))


def later(s: Symptoms) -> Way | None:
    """A longer warm-up, if the objective has one and the run's was shorter; else an objective that has."""
    if s.recipe is not None and s.recipe.training_objective.warming != "the KL's weight":
        charged = capacity_of(s) is None and option(s, "beta", 1.0) > 0
        return of_recipe(s, "train the plain ELBO with KL warm-up", objective="elbo") if charged else None
    return _longer_warm_up("use a longer KL warm-up", s.training)


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
    """Train with more steps or epochs than the run."""
    training = run.training
    if training is not None and training.steps is not None:
        return Way("train longer", training={"steps": 2 * training.steps})
    if training is not None and training.epochs is not None:
        return Way("train longer", training={"epochs": 2 * training.epochs})
    return Way("train longer", flags="more --epochs")


def free_together(s: Symptoms) -> int:
    """Number of dimensions sharing free bits: all if the KL does not factorise."""
    size = option(s, "free_bits_group", 1) if s.per_dimension else 0
    return min(size or s.dimensions, s.dimensions)


def whose_kl(s: Symptoms) -> str:
    """The scope of the free bits, as text."""
    size = free_together(s)
    if size == 1:
        return "of each dimension"
    if s.layers and size == s.dimensions:
        return "of each layer"
    return "in total" if size == s.dimensions else f"of each {size} dimensions"


def free_steps(s: Symptoms) -> list[float]:
    """Proposed free bits (nats), ascending: per dimension, or in total if the KL does not factorise."""
    size = free_together(s)
    steps = [round(nats * size, 2) for nats in FREE_BITS]
    return [max(LEAST_FREE, float(round(nats))) for nats in steps] if size == s.dimensions > 1 else steps


def free_bits(s: Symptoms) -> Way | None:
    """More free bits than the run had; in a hierarchy the same for each layer, however many dimensions it has."""
    if s.layers:
        now = option(s, "free_bits", 0.0) if option(s, "free_bits_group", 1) == 0 else 0.0
        nats = next((nats for nats in FREE_OF_A_LAYER if nats > now), None)
        changes: dict[str, float] = {"free_bits": nats or 0.0, "free_bits_group": 0}
        return None if nats is None else Way(f"allow {nats:g} nats of each layer as free bits", changes)
    nats = next((nats for nats in free_steps(s) if nats > option(s, "free_bits", 0.0)), None)
    return None if nats is None else Way(f"allow {nats:g} nats {whose_kl(s)} as free bits", {"free_bits": nats})


def fewer_dimensions(s: Symptoms) -> Way | None:
    """Slightly more dimensions, or positions, than are used."""
    enough, name = max(2, s.used + max(1, s.used // 4)), "positions" if s.codes else "latent_dim"
    if enough >= s.dimensions or option(s, name, s.dimensions) != s.dimensions:
        return None
    return Way(f"{enough} {'positions' if s.codes else 'dimensions'} would suffice", {name: enough})


def fewer_layers(s: Symptoms) -> Way | None:
    """The same hierarchy without its dead layers; if none is left, with the first in the order of inference."""
    if not s.dead or len(s.layers) < 2:
        return None
    if s.recipe is None or s.data is None:
        return Way("use fewer layers")
    alive, first = [name not in s.dead for name in s.layers], [True, *[False] * (len(s.layers) - 1)]
    fewer = s.recipe.without_dead(alive, s.data) or s.recipe.without_dead(first, s.data)
    return Way("use fewer layers", fewer) if fewer else None


def balanced_layers(s: Symptoms) -> Way | None:
    """A KL weighed by layer in warm-up, so that no layer is closed before it is used."""
    return of_recipe(s, "balance the layers' KL in warm-up", balance=True) if s.layers else None


def weaker_decoder(s: Symptoms) -> Way | None:
    """A decoder that depends on z."""
    if option(s, "likelihood", "autoregressive") != "autoregressive":
        return None
    return Way("use a weaker decoder, with independent entries given z", {"likelihood": "auto"})


def learned_scale(s: Symptoms) -> Way | None:
    """Learn the scale of a decoder with fixed noise, which may be too large for z to matter."""
    scale = option(s, "scale", "")
    fixed = scale == "fixed" or (option(s, "likelihood", ""), scale) == ("gaussian", "auto")
    return of_recipe(s, "learn the scale of the likelihood", scale="shared") if fixed else None


def following_prior(s: Symptoms) -> Way | None:
    """A prior that adapts to the codes."""
    way = Way("use a learned Gaussian prior", {"prior": "diagonal"})
    return way if not s.codes and option(s, "prior", "normal") == "normal" else None


def second_stage(s: Symptoms) -> Way | None:
    """A second-stage prior that models dependent codes, or the packed latents of a top-down hierarchy."""
    if is_fitted(s) or not (s.codes or s.adds_up):
        return None
    if not s.codes:
        flags = "tightbound fit-prior RUN --prior flow --out RUN2"
        return Way("fit a prior to all latents together", flags=flags, second=FlowPrior())
    flags, second = "tightbound fit-prior RUN --prior pixelcnn --out RUN2", PixelCNNPrior()
    return Way("fit a prior to the codes", flags=flags, second=second)


def plain_likelihood(run: Run) -> Way | None:
    """A probability mass over levels instead of a density dominated by a few pixels."""
    dense = option(run, "likelihood", "") == "logit-laplace" and run.data is not None and run.data.discrete
    words = "use a probability mass over levels, since the logit-laplace density is dominated by a few pixels"
    return of_recipe(run, words, likelihood="auto") if dense else None


def richer_prior(s: Symptoms) -> Way | None:
    """A prior of the next larger family."""
    words, now = "use a prior that adapts to the codes", option(s, "prior", "normal")
    if s.codes:
        return None
    if now in ("spline", "flow"):
        more = 2 * option(s, "transforms", 1)
        return of_recipe(s, words, transforms=more) if more <= MOST_TRANSFORMS else None
    if is_fitted(s):
        return of_recipe(s, f"{words} (a flow)", prior="flow")
    ways = [Way(f"{words} ({_PRIORS[richer]})", {"prior": richer}) for richer in RICHER_PRIOR.get(now, ())]
    return next((way for way in ways if in_words(s, way)), None)


def full_charge(s: Symptoms) -> Way | None:
    """The KL at full weight."""
    way = Way("use the full KL weight", {"beta": 1.0})
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
    return Way("use larger networks", {name: sizes})


ROWS: dict[str, Callable[[Any], Way | None]] = {
    "later": later,
    "longer": longer,
    "free bits": free_bits,
    "free bits of each": lambda s: free_bits(s) if free_together(s) < s.dimensions else None,
    "fewer dimensions": fewer_dimensions,
    "fewer layers": fewer_layers,
    "balanced layers": balanced_layers,
    "weaker decoder": weaker_decoder,
    "learned scale": learned_scale,
    "following prior": following_prior,
    "second stage": second_stage,
    "plain likelihood": plain_likelihood,
    "richer prior": richer_prior,
    "full charge": full_charge,
    "richer posterior": richer_posterior,
    "larger networks": larger_networks,
    "less overfitting": lambda s: Way("if this is weaker on the training split, use more data or a smaller encoder"),
}
"""Remedies by name, for any recipe with these options."""
