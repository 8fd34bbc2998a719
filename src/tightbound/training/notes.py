"""What is checked and said before a run begins."""

from __future__ import annotations

from collections.abc import Iterator

from ..data import Batch, Data, DataSpec
from ..data.observed import one_binary_value
from ..errors import UsageError
from ..models import Model
from ..options.training import TrainingOptions

__all__ = [
    "check_data",
    "check_range",
    "never_warm",
    "said_before",
    "said_of_data",
    "steadier",
    "values_too_large",
]


def check_data(data: Data) -> None:
    """Refuses what cannot be trained on.

    Raises:
        UsageError: If it is no data, has no training examples, or nothing is left of them when they are binarized.
    """
    if not isinstance(data, Data):
        raise UsageError("That is no data.", got=type(data).__name__, remedy="Try tightbound.load_data(...).")
    if len(data.train) == 0:
        raise UsageError("There is nothing to train on.", got="an empty training split", remedy="Add examples.")
    if one := one_binary_value(data.train):
        raise UsageError(
            f"Binarized, all values of {data.spec.name!r} are the same.",
            got=f"binarize={data.options.binarize!r} of {one}",
            expected="values on both sides of one half",
            remedy="Say what the values are: --levels 2 for masks of 0 and 1; or spread them: --levels stretch.",
        )


def said_of_data(data: Data) -> Iterator[str]:
    """What there is to learn from, and what is worth a look in it."""
    yield f"data: {data.description}"
    for note in data.notes:
        yield f"note: {note}"


MOST = 2.0**12
"""The square of a larger value is beyond 2^24, where float32 no longer tells one nat from the next."""


def check_range(model: Model, spec: DataSpec) -> None:
    """Refuses values whose likelihood float32 cannot hold; a model put together by hand may scale them itself.

    Raises:
        UsageError: If they are that large as they are.
    """
    if model.recipe is None or spec.levels is not None or spec.scale or max(-spec.low, spec.high) <= MOST:
        return
    raise UsageError(
        "The values are too large to be learned as they are.",
        got=f"{spec.low:.4g} to {spec.high:.4g}, with --standardize none",
        expected=f"at most {MOST:g}, beyond which float32 cannot tell the likelihood to a nat",
        remedy="Leave --standardize auto: densities and errors stay in the data's own units.",
    )


def values_too_large(batch: Batch) -> str:
    """What to do where the first loss is no number: nothing has been learned yet that could have gone wrong."""
    seen = f"The model sees values from {batch.x.min():.3g} to {batch.x.max():.3g}"
    if batch.conditions is not None:
        known = batch.conditions[~batch.conditions.isnan()]
        seen += f" and conditions, which are not standardised, from {known.min():.3g} to {known.max():.3g}"
    return (
        f"{seen}. Bring what is far from 1 into range: continuous data by --standardize auto, conditions before they "
        "are saved; else try --precision 32-true. Then start a new run."
    )


def said_before(model: Model, spec: DataSpec, examples: int) -> Iterator[str]:
    """What the likelihood is of that data, where that is less than a probability, and what the recipe warns of."""
    if (measure := model.measure(spec)).kind in ("none", "density"):
        yield f"note: {measure.note}"
    for caution in model.recipe.cautions(model, examples) if model.recipe else ():
        yield f"warning: {caution}"


def never_warm(what: str, warmup: int, steps: int, last: float) -> str:
    """That a run ends before the warm-up of something does, at so much of its value."""
    return (
        f"warning: warm-up of {what} takes {warmup} steps, the run {steps}: it ends at {last:.2f} of its value; lower "
        "--beta-warmup-epochs or train longer"
    )


def steadier(options: TrainingOptions) -> str:
    """What keeps a loss from diverging that a run did not have.

    Example:
        >>> steadier(TrainingOptions(clip_norm=1.0, precision="32-true"))
        'a lower --lr (it was 0.001)'
    """
    ways = [f"a lower --lr (it was {options.lr:g})"]
    if options.clip_norm is None or options.clip_norm > 1:
        ways.append("--clip-norm 1")
    if options.precision not in ("32-true", "64-true"):
        ways.append("--precision 32-true")
    return ", or ".join([", ".join(ways[:-1]), ways[-1]] if len(ways) > 1 else ways)
