"""Checks and notes before a run starts."""

from __future__ import annotations

from collections.abc import Iterator

from ..data import Batch, Data, DataSpec
from ..data.observed import one_binary_value
from ..errors import UsageError
from ..models import Model
from ..options.objectives import Objective
from ..options.training import TrainingOptions

__all__ = [
    "idle_balance",
    "require_float32_range",
    "require_trainable",
    "said_of_data",
    "steadier",
    "values_too_large",
    "warmup_outlasts_run",
    "warnings_before_training",
]


def require_trainable(data: Data) -> None:
    """Refuses data that cannot be trained on.

    Raises:
        UsageError: If it is not Data, has no training examples, or is constant after binarization.
    """
    if not isinstance(data, Data):
        raise UsageError(
            "The data must be a Data object.", got=type(data).__name__, remedy="Try tightbound.load_data(...)."
        )
    if len(data.train) == 0:
        raise UsageError("The training split is empty.", got="no training examples", remedy="Add examples.")
    if one := one_binary_value(data.train):
        raise UsageError(
            f"After binarization all values of {data.spec.name!r} are the same.",
            got=f"binarize={data.options.binarize!r} of {one}",
            expected="values on both sides of one half",
            remedy="Set the levels: --levels 2 for masks of 0 and 1, or --levels stretch.",
        )


def said_of_data(data: Data) -> Iterator[str]:
    """Lines that describe the data, with notes."""
    yield f"data: {data.description}"
    for note in data.notes:
        yield f"note: {note}"


MOST = 2.0**12
"""The square of a larger value exceeds 2^24, above which float32 cannot resolve one nat."""


def require_float32_range(model: Model, spec: DataSpec) -> None:
    """Refuses values too large for float32 likelihoods; a model built by hand may scale them itself.

    Raises:
        UsageError: If unscaled values are too large.
    """
    if model.recipe is None or spec.levels is not None or spec.scale or max(-spec.low, spec.high) <= MOST:
        return
    raise UsageError(
        "The values are too large without standardisation.",
        got=f"{spec.low:.4g} to {spec.high:.4g}, with --standardize none",
        expected=f"at most {MOST:g}; float32 cannot resolve one nat of likelihood above it",
        remedy="Leave --standardize auto: densities and errors stay in the data's own units.",
    )


def values_too_large(batch: Batch) -> str:
    """The remedy if the first loss is not finite, so that the data is the cause."""
    seen = f"The model sees values from {batch.x.min():.3g} to {batch.x.max():.3g}"
    if batch.conditions is not None:
        known = batch.conditions[~batch.conditions.isnan()]
        seen += f" and conditions, which are not standardised, from {known.min():.3g} to {known.max():.3g}"
    return (
        f"{seen}. Rescale values far from 1: continuous data by --standardize auto, conditions before they "
        "are saved; else try --precision 32-true. Then start a new run."
    )


def warnings_before_training(model: Model, spec: DataSpec, examples: int) -> Iterator[str]:
    """Notes on the meaning of the likelihood, and warnings of the recipe."""
    if (measure := model.measure(spec)).kind in ("none", "density"):
        yield f"note: {measure.note}"
    for caution in model.recipe.cautions(model, examples) if model.recipe else ():
        yield f"warning: {caution}"


def warmup_outlasts_run(what: str, warmup: int, steps: int, last: float) -> str:
    """The warning that a run ends before warm-up does."""
    return (
        f"warning: warm-up of {what} takes {warmup} steps, the run {steps}: it reaches {last:.2f} of its value; lower "
        "--beta-warmup-epochs or train longer"
    )


def idle_balance(objective: Objective, layers: int, warmup: int) -> Iterator[str]:
    """The warning that balancing the layers has no effect.

    Args:
        objective: The objective.
        layers: Number of latents.
        warmup: Steps over which the weight of the KL rises.

    Example:
        >>> from tightbound.objectives import Elbo
        >>> list(idle_balance(Elbo(balance=True), layers=6, warmup=0))
        ['warning: --balance has no effect: it acts during warm-up, and --beta-warmup is 0']
    """
    if objective.weighs_layers and (layers < 2 or not warmup):
        why = "the model has one latent" if layers < 2 else "it acts during warm-up, and --beta-warmup is 0"
        yield f"warning: --balance has no effect: {why}"


def steadier(options: TrainingOptions) -> str:
    """Options against divergence that the run did not use.

    Example:
        >>> steadier(TrainingOptions(clip_norm=1.0, precision="32-true"))
        'a lower --lr (it was 0.001), or --skip-nonfinite if only few steps are to blame'
    """
    ways = [f"a lower --lr (it was {options.lr:g})"]
    if isinstance(options.clip_norm, str) or options.clip_norm > 1:
        ways.append("--clip-norm 1")
    if options.precision not in ("32-true", "64-true"):
        ways.append("--precision 32-true")
    if not options.skip_nonfinite:
        ways.append("--skip-nonfinite if only few steps are to blame")
    return ", or ".join([", ".join(ways[:-1]), ways[-1]] if len(ways) > 1 else ways)
