"""The notes of a diagnosis: what its numbers can and cannot show."""

from __future__ import annotations

from collections.abc import Iterator

from ..latents.positions import NOTHING
from ..results import Evaluation
from .decomposition import Decomposition
from .gaps import Gaps
from .remedies import fewer_dimensions
from .verdict import mismatch_matters, shares
from .ways import Symptoms, open_to

__all__ = ["notes", "values_of"]


def values_of(wise: dict[str, tuple[float, ...]]) -> tuple[float, ...]:
    """Values of all latents, concatenated."""
    return tuple(nats for each in wise.values() for nats in each)


def notes(
    s: Symptoms,
    found: Evaluation,
    parts: Decomposition,
    gap: Gaps | None,
    wise: dict[str, tuple[float, ...]] | None,
    carried: tuple[int, ...] | None,
) -> Iterator[str]:
    """The notes of a diagnosis.

    Args:
        s: The numbers of the verdict.
        found: The evaluation.
        parts: The decomposed ELBO.
        gap: The gap, if measured.
        wise: KL of each dimension by layer, if it factorises.
        carried: The dimensions that carry it, if known.
    """
    if s.codes:
        yield f"latents are codes: a dimension is a position, active if its information is above {NOTHING} nats"
    n = parts.n if s.adds_up else found.n
    yield f"{n} examples give bounds for all data; they can show a mutual information of at most ln {n}"
    yield from _on_layers(s)
    if mismatch_matters(s) is None and s.mismatch is not None:
        yield "whether the aggregate posterior matches the prior is undecided: the threshold is between its bounds"
    if carried is not None and len(carried) < s.dimensions:
        yield _unused(s, carried, wise)
    if wise is None:
        yield "the KL of this posterior and prior does not factorise by dimension"
    if found.method == "bound":
        yield "the prior's log-probability is only bounded: the fit and the KL are upper bounds"
    if s.codes == "chosen":
        yield "the posterior is one code: the fit is the bound itself, and its gap to log p(x) is not measured"
    elif gap is None:
        yield "the prior has no exact density: there is no likelihood and no gap"
    else:
        yield from gap.notes


def _unused(s: Symptoms, carried: tuple[int, ...], wise: dict[str, tuple[float, ...]] | None, most: int = 8) -> str:
    """The unused dimensions, their share of the KL, and how many dimensions would suffice."""
    rest = [i for i in range(s.dimensions) if i not in carried]
    named = ", ".join(map(str, rest[:most])) + (f" and {len(rest) - most} more" if len(rest) > most else "")
    held = "" if wise is None or s.codes else f" and hold {sum(values_of(wise)[i] for i in rest):.2f} nats of the KL"
    fewer = open_to(s, fewer_dimensions(s))
    what = "position" if s.codes else "dimension"
    some = f"{what} {named} is" if len(rest) == 1 else f"{what}s {named} are"
    return "; ".join([f"{shares(s)}: {some} hardly used{held}", *fewer])


def _on_layers(s: Symptoms) -> Iterator[str]:
    """What the numbers of the layers of a hierarchy are."""
    if not s.layers:
        return
    if s.adds_up:
        yield (
            "information of a layer: I(x; z_l | the layers above), at least; all layers together can show no more than "
            "that limit, so below informative layers little is left to show"
        )
        yield "alone: how well a layer tells the examples apart, given the state of the layers above it"
        yield "used: loss of the likelihood when the noise of this layer alone is that of another example"
        return
    yield (
        "information of a layer: I(z_{l-1}; z_l) with the layer below it, at least; z_0 is the data. Its information "
        "about the data is at most that of every layer below"
    )
    yield "used: loss of the likelihood of what is generated from a layer, x or the layer below, when it is exchanged"
