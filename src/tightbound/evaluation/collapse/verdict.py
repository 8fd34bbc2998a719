r"""The verdict of a diagnosis, its cause, and the options to change.

A remedy is a list of ways out. Each names options that the run's recipe has and accepts, with values other than the
run's; for a model built by hand it names parts instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

from ..latents.positions import CARRIED, NOTHING
from .dead_layers import first_dead, why_layers_died
from .remedies import against, fewer_dimensions, free_steps, free_together, offer, second_stage, whose_kl
from .ways import Symptoms, Way, capacity_of, first_stage, in_words, is_fitted, open_to, option

__all__ = ["NOTHING", "Symptoms", "Verdict", "judge", "mismatch_matters", "shares"]

Verdict = Literal["healthy", "partial collapse", "collapsed", "over-regularised", "under-regularised", "constant data"]
Cause = tuple[str, dict[str, Any]]

CHANGE = 0.15
"""Minimum relative change of the KL (and at least twice its standard error) when the bound is tightened, for a KL to
count as too small or too large."""
MISMATCH = 0.2
"""A mismatch of codes and prior above this share of the KL makes samples poor."""
LEAST_MISMATCH = 1.0
"""Smaller mismatches (nats) are ignored."""
LEAST_CAPACITY = 1.0
"""A capacity up to this many nats is too small for a code."""
DONE = "no change needed"
PLAIN: dict[str, Any] = {"objective": "elbo", "beta": 1.0}


def judge(s: Symptoms) -> tuple[Verdict, str, str]:
    """The verdict, cause and remedy that follow from the numbers.

    Args:
        s: The numbers.

    Example:
        >>> judge(Symptoms(kl=0.02, mutual_information=0.01, decoder_use=0.0, active=0, dimensions=16))[0]
        'collapsed'
    """
    if s.sameness:
        return "constant data", f"{s.sameness}, so a latent has nothing to encode", "use data that varies"
    if min(_information_at_most(s), s.decoder_use) < NOTHING:
        return "collapsed", *_in_first_stage(s, _why_collapsed)
    if s.dead:
        return "partial collapse", *_in_first_stage(s, why_layers_died)
    too_little, too_much = _kl_should_change(s)
    if too_little:
        return "over-regularised", *_why_too_little(s)
    if too_much:
        return "under-regularised", *_why_too_much(s)
    if mismatch_matters(s):
        fixed = s.recipe is None or not option(s, "prior", "")
        another = "use a recipe with a learned prior (vae)" if fixed else ""
        why = f"the aggregate posterior is {_mismatch_said(s)} from the prior, so prior samples differ from the codes"
        return "under-regularised", why, offer(s, *against(s, "codes unlike the prior"), otherwise=another)
    if s.used < s.dimensions / 2 and not s.layers:
        return "partial collapse", *_in_first_stage(s, _why_partly)
    return "healthy", *_what_is_left(s)


def shares(s: Symptoms) -> str:
    """How many dimensions are used, by their share of the KL and by Burda's convention."""
    what = "positions" if s.codes else "latent dimensions"
    if s.codes:
        convention = f"{s.active} of {s.dimensions} {what} have more than {NOTHING:g} nats of information"
    else:
        convention = f"{s.active} of {s.dimensions} {what} pass Burda's 0.01"
    if s.carrying is None:
        return convention
    carried = "of their information" if s.codes else "of the KL" if s.per_dimension else "of the information"
    short = convention.replace(f" of {s.dimensions} {what}", "")
    return f"{s.carrying} of {s.dimensions} {what} carry {CARRIED:.0%} {carried}; {short}"


def mismatch_matters(s: Symptoms) -> bool | None:
    """Whether codes and prior differ too much: None if the two bounds disagree."""
    if s.mismatch is None:
        return None
    at_least, at_most = (nats > max(LEAST_MISMATCH, MISMATCH * s.kl) for nats in s.mismatch)
    return at_least if at_least == at_most else None


def _mismatch_said(s: Symptoms) -> str:
    at_least, at_most = s.mismatch or (0.0, 0.0)
    return f"{max(0.0, at_least):.1f} to {max(0.0, at_most):.1f} nats"


def _information_at_most(s: Symptoms) -> float:
    return s.mutual_information if s.mutual_information_at_most is None else s.mutual_information_at_most


def _in_first_stage(s: Symptoms, why: Callable[[Symptoms], tuple[str, str]]) -> tuple[str, str]:
    """For a fitted prior: posterior and likelihood belong to the first stage, so the remedy does too."""
    if (first := first_stage(s)) is None:
        return why(s)
    cause, remedy = why(dataclasses.replace(s, recipe=first.recipe, training=first.training))
    return cause, f"train the first stage again: {remedy}"


def _kl_should_change(s: Symptoms) -> tuple[bool, bool]:
    """Whether the KL is too small, and whether it is too large: as measured, else from the options."""
    if is_fitted(s):  # its posterior was trained with another prior
        return False, False
    if s.best_kl is not None and s.kl > 0:
        change = _clear_change(s)
        return change > 0, change < 0 and not _free_as_proposed(s)
    weight = option(s, "beta", 1.0) if capacity_of(s) is None else 1.0
    return weight > 1, weight < 1 or (_was_free(s) and not _free_as_proposed(s))


def _clear_change(s: Symptoms) -> float:
    """The significant increase of the KL in the best posteriors, else 0."""
    change = 0.0 if s.best_kl is None else s.best_kl - s.kl
    return change if abs(change) > max(CHANGE * s.kl, 2 * s.best_kl_error) else 0.0


def _why_partly(s: Symptoms) -> tuple[str, str]:
    return shares(s), offer(s, *against(s, "partly collapsed"))


def _why_collapsed(s: Symptoms) -> tuple[str, str]:
    cause, remedy = _why_nothing_is_said(s)
    return "; ".join([cause, *first_dead(s)]), remedy


def _why_nothing_is_said(s: Symptoms) -> tuple[str, str]:
    capacity, beta = capacity_of(s), option(s, "beta", 1.0)
    if capacity is None and beta > 1:
        why = f"a weight of {beta:g} of the {_what_beta_weighs(s)} makes each nat of code cost more than it gains"
        return why, offer(s, Way("lower the weight", {"beta": 1.0}))
    if capacity is not None and capacity <= LEAST_CAPACITY:
        return f"the KL was held to a capacity of {capacity:g} nats", offer(s, Way("train the plain ELBO", PLAIN))
    if s.codes == "chosen":
        what = (
            "all examples have the same codes" if _information_at_most(s) < NOTHING else "the decoder ignores the codes"
        )
        return what, offer(s, *against(s, "codes collapsed"))
    if s.kl < NOTHING:
        why = "the decoder models the data without z, so encoding costs more KL than it gains"
        return why, offer(s, *against(s, "posterior collapsed"))
    if _information_at_most(s) < NOTHING:
        why = f"the posterior is {s.kl:.1f} nats from the prior, yet the same for all data"
        return why, offer(s, *against(s, "posterior the same for all"))
    why = f"the codes carry {s.mutual_information:.1f} nats of information about the data, yet the decoder ignores them"
    return why, offer(s, *against(s, "decoder ignores the codes"))


def _why_too_little(s: Symptoms) -> tuple[str, str]:
    said, causes = f"codes carry less information than optimal ({_kl_said(s)})", list(_causes(s, too_much=False))
    if causes:
        return _blamed(s, said, causes)
    if s.recipe is None:
        why = f"{said}: the KL weight was too high in training, or the encoder lags behind"
        return why, f"use a KL weight of 1; or {offer(s, *against(s, 'gap of the encoder'))}"
    why = f"{said}, though the KL weight was not too high: the encoder lags behind"
    return why, offer(s, *against(s, "encoder says too little"))


def _why_too_much(s: Symptoms) -> tuple[str, str]:
    said, causes = f"codes carry more information than optimal ({_kl_said(s)})", list(_causes(s, too_much=True))
    if causes:
        return _blamed(s, said, causes)
    ways = against(s, "encoder says too much")
    if s.recipe is None:
        why = f"{said}: the KL weight was too low in training, or the encoder lags behind or has overfitted"
        return why, f"use a KL weight of 1 and without free bits; or {offer(s, *ways)}"
    why = f"{said}, though the KL had its full weight: the encoder lags behind, or has overfitted"
    return why, offer(s, *ways)


def _causes(s: Symptoms, *, too_much: bool) -> Iterator[Cause]:
    """Options that make the KL too large or too small, with the changes that undo them."""
    capacity, beta, objective = capacity_of(s), option(s, "beta", 1.0), option(s, "objective", "elbo")
    if capacity is not None and (too_much or s.kl > capacity / 2):
        yield f"the KL was held to a capacity of {capacity:g} nats", PLAIN
    if capacity is None and (beta < 1 if too_much else beta > 1):
        yield f"the {_what_beta_weighs(s)} had weight {beta:g} in training", {"beta": 1.0}
    if objective == "mmd":
        yield "the objective is mmd, not the ELBO", PLAIN
    if objective == "iwae" and option(s, "samples", 1) > 1:
        yield "the posterior was trained to propose samples, not for the ELBO", {"objective": "elbo"}
    if too_much and _was_free(s):
        yield f"{option(s, 'free_bits', 0.0):g} nats {whose_kl(s)} were free", {"free_bits": 0.0}


def _blamed(s: Symptoms, said: str, causes: list[Cause]) -> tuple[str, str]:
    undone = {name: value for _, options in causes for name, value in options.items()}
    way = Way("train the plain ELBO", undone)
    return f"{said}: {', and '.join(why for why, _ in causes)}", offer(s, way)


def _was_free(s: Symptoms) -> bool:
    """Whether free bits explain the KL, or its excess."""
    groups = len(s.layers) if s.layers and free_together(s) == s.dimensions else -(-s.dimensions // free_together(s))
    floor = groups * option(s, "free_bits", 0.0)
    if groups > 1 and s.best_kl is not None:
        return floor > 0 and floor >= (s.kl - s.best_kl) / 2
    return floor > 0 and floor >= (1 - CHANGE) * s.kl


def _free_as_proposed(s: Symptoms) -> bool:
    """Whether the excess is within free bits, and these are no more than proposed against collapse."""
    others = [cause for cause in _causes(s, too_much=True) if "free_bits" not in cause[1]]
    return _was_free(s) and not others and option(s, "free_bits", 0.0) <= free_steps(s)[-1]


def _what_beta_weighs(s: Symptoms) -> str:
    return "total correlation" if option(s, "objective", "") == "tc" else "KL"


def _kl_said(s: Symptoms) -> str:
    best = "" if s.best_kl is None else f"; the best posteriors of this decoder carry {s.best_kl:.1f}"
    return f"{s.kl:.1f} nats{best}"


def _what_is_left(s: Symptoms) -> tuple[str, str]:
    fewer = open_to(s, fewer_dimensions(s))
    done = "; ".join([DONE, *fewer])
    if not is_fitted(s) and _free_as_proposed(s) and (s.best_kl is None or _clear_change(s) < 0):
        free = f"{option(s, 'free_bits', 0.0):g} nats {whose_kl(s)} were free"
        return f"the latents are used, as {free} in training ({_kl_said(s)})", done
    agree = mismatch_matters(s) is False
    if s.gap is None or s.amortisation is None:
        if agree:
            return "the latents are used and the codes match the prior", done
        unknown = "whether the aggregate posterior matches the prior is unknown"
        reason = s.unmeasured if s.mismatch is None else f"they are {_mismatch_said(s)} from it"
        way = f"; for better samples, {in_words(s, second)}" if (second := second_stage(s)) else ""
        return f"the latents are used; {unknown}: {reason}", done + way
    if s.gap < NOTHING:
        return f"the latents are used and the bound is tight ({s.gap:.2f} nats)", done
    approximation = s.gap - s.amortisation
    if s.amortisation >= approximation:
        why = f"the remaining gap is mostly the encoder's ({s.amortisation:.1f} of {s.gap:.1f} nats)"
        if is_fitted(s):  # training the prior does not change that
            return why, done
        tighter = offer(s, *against(s, "gap of the encoder"))
        return why, f"{done}; to tighten the bound, {tighter}"
    why = f"the remaining gap is mostly the posterior family's ({approximation:.1f} of {s.gap:.1f} nats)"
    richer = open_to(s, *against(s, "gap of the family"))
    return why, f"{done}; to tighten the bound, {richer[0]}" if richer else done
