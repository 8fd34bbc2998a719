"""The second stage: a prior fitted to the latents of a frozen posterior, which replaces the old prior."""

from __future__ import annotations

from pathlib import Path

from ..data import Data, Split
from ..models import LatentVariableModel
from ..options.priors import SecondPrior
from ..options.training import TrainingOptions
from ..recipes import Stage
from ..recipes.two_stage import TwoStage, natural_prior
from ..runs import load_run_data
from ..spec import Option
from .encoded import encoded_data, kept_as
from .loop import TrainingResult, train_on, with_changes
from .stages import first_stage
from .start import build_seeded, start_second_stage
from .steps.prior import PriorStep
from .whitening import resolved, whiten

__all__ = ["fit_prior"]


def fit_prior(
    run: str | Path,
    *,
    out: str | Path,
    prior: SecondPrior | None = None,
    options: TrainingOptions | None = None,
    data: Data | str | Path | None = None,
    latents: str | Path | None = None,
    resume: bool = False,
    resume_from: str = "last",
    **changes: Option,
) -> TrainingResult:
    """Fits a better prior to the latents of a trained model, and writes a run folder of the complete model.

    The latents are encoded once, into ``latents.safetensors`` in the folder of the first stage. Discrete latents are
    encoded to the most probable codes, which are also the posterior of the new model, so its prior is trained, selected
    and evaluated on the same codes.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals and Kavukcuoglu, 2017).

    Args:
        run: The run folder of the first stage.
        out: The run folder of the new model.
        prior: Options of the prior; default: a pixelcnn over codes, a flow over vectors.
        options: How to train it.
        data: Other data than the first stage's own.
        latents: An existing file of latents of this model and data.
        resume: Resume the run in ``out`` where it stopped.
        resume_from: The ``"last"`` or the ``"best"`` checkpoint.
        **changes: Fields of :class:`TrainingOptions` that differ from ``options``.

    Raises:
        UsageError: If the prior does not fit the latents, the file ``latents`` does not exist, or ``out`` already holds
            a run.
        CheckpointError: If ``run`` holds no complete run, or ``latents`` is of another model or damaged.

    Example:
        >>> import tempfile, tightbound as tb
        >>> data, first, second = tb.load_data("digits"), tempfile.mkdtemp(), tempfile.mkdtemp()
        >>> _ = tb.train(tb.recipes.VAE(latent_dim=2).build(data.spec), data, steps=3, out=first)
        >>> fit_prior(first, out=second, steps=3).stopped
        'done'
    """
    options = with_changes(options or TrainingOptions(), changes)
    stage, first = first_stage(run, options.device)
    found = load_run_data(run, data, divide=True)
    path = Path(run) / "latents.safetensors" if latents is None else Path(latents)
    encoded = encoded_data(first, found, path, own=latents is None)
    step = _step(first, stage, prior or natural_prior(stage.recipe), found, encoded.train, options.seed)
    return train_on(step, found, encoded, out=Path(out), options=options, resume=resume, resume_from=resume_from)


def _step(
    first: LatentVariableModel, stage: Stage, prior: SecondPrior, data: Data, encoded: Split, seed: int
) -> PriorStep:
    """The training step of a new prior, whose model has the weights of its first stage."""
    kept = kept_as(first, data.spec)
    prior = resolved(prior, encoded, kept)
    model = build_seeded(TwoStage(stage, prior), data.spec, seed)
    start_second_stage(model, data.train)
    whiten(model.prior, encoded, kept)
    return PriorStep(model, kept, prior.exact)
