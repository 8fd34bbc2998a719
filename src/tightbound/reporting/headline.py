"""The top of the page: summary sentence, three main numbers with their reliability, and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..evaluation import Estimate, Evaluation
from ..evaluation.baselines.baselines import Baseline
from ..spec import to_json
from . import page
from .command import command_on
from .material import Material
from .words import cell

__all__ = ["cards", "latents", "measured", "notes", "recipe_name", "title", "verdict", "warnings"]

_OTHER = (
    "The model was trained on different examples: numbers and images are of the data here, curves and "
    "configuration of the run."
)


def title(m: Material) -> str:
    """The title of the page, as text."""
    return f"{recipe_name(m)} on {m.spec.name}"


def recipe_name(m: Material) -> str:
    """Name of the recipe."""
    return "a model built by hand" if m.config.recipe is None else to_json(m.config.recipe)["kind"]


# -- the verdict ------------------------------------------------------------------------------------------------------


def verdict(m: Material, rows: list[Baseline]) -> str:
    """The result of the run, in a sentence."""
    e = m.evaluation
    if e is None:
        return f"This run has not been evaluated yet; {latents(m)}."
    where = f"On {_examples(m, e)}"
    if e.nll is None or e.measure == "none":
        return f"{where} {_error(m, rows)}; the model gives no likelihood of this data; {latents(m)}."
    estimate = e.nll.bare if e.doubtful else e.nll
    if e.measure == "density":
        limit = "" if m.spec.levels is None else ", which is not a likelihood of this discrete data"
        least = "at least " if e.bounded else ""
        return f"{where} the log-density is {least}{cell(-estimate)} nats{limit}; {latents(m)}."
    most = "at most " if e.bounded else ""
    bits = "" if e.bits_per_dim is None else f", {most}{cell(_told(e, e.bits_per_dim), 3)} bits per dimension"
    pixels = next((r.nll for r in rows if r.name == "independent pixels"), None)
    gain = "" if pixels is None else _gain(pixels.value - e.nll.value, e.bounded)
    return f"{where} the negative log-likelihood is {most}{cell(estimate)} nats{bits}{gain}; {latents(m)}."


def measured(m: Material) -> str:
    """The likelihood and its examples, as text."""
    e = m.evaluation
    return "not evaluated yet" if e is None else f"{_reached(e)}, on {_examples(m, e)}"


def _reached(e: Evaluation) -> str:
    """The headline of the evaluation, with numbers formatted for the page."""
    if e.nll is None or e.measure == "none":
        return f"no likelihood of this data; reconstruction {cell(e.reconstruction)} nats"
    name = "negative log-density" if e.measure == "density" else "NLL"
    return f"{name} {'≤ ' if e.bounded else ''}{cell(_told(e, e.nll))} nats"


def _examples(m: Material, e: Evaluation) -> str:
    """The number of examples used, of all."""
    there = len(m.whole)
    what = "examples" if e.split == "all" else f"{e.split} examples"
    return f"{e.n:,}{'' if e.n == there else f' of {there:,}'} {what}"


def _error(m: Material, rows: list[Baseline]) -> str:
    own = rows[0].squared_error
    if own is None:
        return "nothing could be evaluated"
    pca = next((r.squared_error for r in rows if r.name == "PCA"), None)
    many = "components as positions" if m.model.codes is not None else "dimensions"
    compared = f", that of PCA with as many {many} {cell(pca)}" if pca else ""
    return f"the squared error of a reconstruction is {cell(own)} ({m.spec.units}){compared}"


def latents(m: Material) -> str:
    """How much of the latent is used, as text."""
    active, there = m.active_units
    return f"{active} of {there} {_parts(m)} are active" if there else "it has no latent"


def _parts(m: Material) -> str:
    return "positions of codes" if m.model.codes is not None else "latent dimensions"


def _gain(nats: float, bound: bool) -> str:
    """How much better than independent pixels; a bound cannot show how much worse."""
    if bound and nats <= 0:
        return ""
    least = "at least " if bound else ""
    return f", {least}{abs(nats):,.1f} nats {'better' if nats > 0 else 'worse'} than independent pixels"


# -- three numbers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Card:
    """A number with its reliability.

    Args:
        name: Its name.
        number: Its value and unit.
        beside: The same in another unit, or a comparison.
        trust: Its reliability: ``"good"``, ``"bound"`` or ``"bad"``, with the reason; or None.
        meaning: A one-line explanation.
    """

    name: str
    number: str
    beside: str
    trust: tuple[str, str] | None
    meaning: str


def cards(m: Material) -> str:
    """The likelihood, the bound and the unused latent dimensions, where defined, as HTML."""
    shown = [_card(each) for each in (_likelihood(m), _bound(m), _unused(m)) if each is not None]
    return page.tag("div", *shown, class_="cards") + _measured(m)


def _card(card: _Card) -> str:
    trust = () if card.trust is None else (page.paragraph(card.trust[1], f"trust {card.trust[0]}"),)
    return page.tag(
        "div",
        page.paragraph(card.name, "name"),
        page.paragraph(card.number, "value"),
        page.paragraph(card.beside, "beside") if card.beside else "",
        *trust,
        page.paragraph(card.meaning, "soft"),
        class_="card",
    )


def _likelihood(m: Material) -> _Card:
    e = m.evaluation
    if e is None:
        return _Card("Likelihood", "not measured", page.Verbatim(command_on(m.folder.path, "evaluate")), None, _COST)
    if e.nll is None or e.measure == "none":
        number = "–" if e.squared_error is None else cell(e.squared_error)
        beside = f"summed over an example; {m.spec.units}"
        return _Card("Squared error", number, beside, ("bad", _NONE), _FAR)
    mark = "≤ " if e.bounded else ""
    nats = f"{mark}{cell(_told(e, e.nll))} nats per example"
    if e.measure == "density":
        return _Card("Negative log-density", nats, "", _trust(m, e), _DENSITY)
    if e.bits_per_dim is None:
        return _Card("Negative log-likelihood", nats, "", _trust(m, e), _COST)
    return _Card("Bits per dimension", f"{mark}{cell(_told(e, e.bits_per_dim), 3)}", nats, _trust(m, e), _COST)


def _trust(m: Material, e: Evaluation) -> tuple[str, str]:
    if e.measure == "density" and m.spec.levels is not None:
        return "bad", _NONE
    if e.doubtful:
        same = "it is the bound itself" if _is_elbo(e) else "there are too few samples to trust the estimate"
        return "bound", f"an upper bound: {same}"
    if e.measure == "bound":
        return "bound", f"an upper bound: {e.meaning}"
    if not m.codes.shape[1]:
        return ("bound", f"an upper bound: {e.meaning}") if e.bounded else ("good", "exact")
    return "good", "trusted" if e.measure == "mass" else f"trusted: {e.meaning}"


def _told(e: Evaluation, estimate: Estimate) -> Estimate:
    return estimate.bare if e.doubtful else estimate


def _bound(m: Material) -> _Card | None:
    e = m.evaluation
    if e is None or e.elbo is None or not m.codes.shape[1]:
        return None
    return _Card("Bound (ELBO)", f"{cell(e.elbo)} nats", _gap(e, e.elbo), None, _TIGHT)


def _gap(e: Evaluation, elbo: Estimate) -> str:
    if e.nll is None:
        return ""
    if _is_elbo(e):
        return "its gap to log p(x) is unknown"
    below = f"{max(-e.nll.value - elbo.value, 0.0):,.2f} nats below"
    return f"at least {below} log p(x)" if e.doubtful else f"{below} the estimate of log p(x)"


def _is_elbo(e: Evaluation) -> bool:
    """Whether the likelihood is known only by its bound."""
    return e.nll is not None and e.elbo is not None and abs(e.nll.value + e.elbo.value) < 1e-6


def _unused(m: Material) -> _Card | None:
    active, there = m.active_units
    if not there:
        return None
    return _Card(f"Unused {_parts(m)}", f"{there - active} of {there}", "", None, _IDLE)


def _measured(m: Material) -> str:
    """The examples behind the numbers, and whether the evaluation was a quick one."""
    e = m.evaluation
    if e is None:
        return ""
    if m.stored:
        return page.paragraph(f"Evaluated on {_examples(m, e)}.", "soft")
    command = command_on(m.folder.path, "evaluate")
    text = f"Evaluated quickly, on {_examples(m, e)}, and not stored: {command} is more accurate."
    return page.instructive(text, "quick", command)


_NONE = "not a likelihood of this data"
_COST = "The cost of storing an example losslessly with this model: lower is better."
_DENSITY = "How surprised the model is by an example, for continuous values: lower is better."
_FAR = "The distance of a reconstruction from its example: lower is better."
_TIGHT = "The training objective. Its gap to log p(x) is the error of the approximate posterior."
_IDLE = "Those that hardly vary with the data. A few are normal; if many, use a smaller latent."


# -- what to beware of ------------------------------------------------------------------------------------------------


def warnings(m: Material) -> str:
    """Warnings about the numbers, as HTML."""
    boxes = [page.box("Not the data of this run.", [_OTHER, *m.data.said], "note")] if m.other else []
    if m.evaluation is not None:
        boxes.extend(_warnings(m.evaluation, m.spec.levels is None))
    return "".join(boxes)


def _warnings(e: Evaluation, continuous: bool) -> Iterator[str]:
    if e.measure == "density" and continuous:
        yield page.box("A density, not a probability: its nats depend on the units of the data.", _worded(e), "note")
    elif e.measure in ("none", "density"):
        advice = "Do not compare these numbers with likelihoods, here or in the literature."
        yield page.box("Not a likelihood of this data.", [*_worded(e), advice])
    elif e.doubtful:
        yield notes(e)


def notes(e: Evaluation) -> str:
    """Notes on the numbers, as HTML; may be empty."""
    told = _worded(e)[1:]
    return page.box("Notes on these numbers.", told, "note") if told else ""


def _worded(e: Evaluation) -> list[str]:
    """The notes in the page's wording, without those on what the page counts or lists itself."""
    told = [note for note in e.notes if not note.startswith(_ELSEWHERE)]
    return [note.replace("the nll", "the NLL").replace("increase --budget", _MORE_TIME) for note in told]


_ELSEWHERE = ("number of examples by proposal", "active units are those of")
_MORE_TIME = "run tightbound evaluate RUN --budget SECONDS"
