"""What is checked and said before a run begins."""

from __future__ import annotations

from collections.abc import Iterator

from ..data import Data, DataSpec
from ..errors import UsageError
from ..likelihoods import measure_of
from ..models.latent import LatentVariableModel
from .options import TrainingOptions

__all__ = ["check_data", "never_warm", "said_before", "steadier"]


def check_data(data: Data) -> None:
    """Refuses what cannot be trained on.

    Raises:
        UsageError: If it is no data, or has no training examples.
    """
    if not isinstance(data, Data):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError("That is no data.", got=type(data).__name__, remedy="Try tightbound.load_data(...).")
    if len(data.train) == 0:
        raise UsageError("There is nothing to train on.", got="an empty training split", remedy="Add examples.")


def said_before(model: LatentVariableModel, spec: DataSpec, examples: int) -> Iterator[str]:
    """What the likelihood is of that data, where that is less than a probability, and what the recipe warns of."""
    if (measure := measure_of(model.likelihood, spec)).kind in ("none", "density"):
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
