"""The commands that train: a model, and a prior for one. Heavy imports are deferred until one runs."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, arg

from ..data import DataOptions
from ..options.choices import CHOICE
from ..options.priors import PixelCNNPrior, SecondPrior
from ..options.training import TrainingOptions
from ..recipes import Recipe
from .arguments import Json, Resume, ResumeFrom, Run, Source

if TYPE_CHECKING:
    from ..training.loop import TrainingResult

__all__ = ["PriorArguments", "TrainArguments", "fit_prior", "train"]

R = TypeVar("R", bound=Recipe)
INTERRUPTED = 130
"""Exit code of a training stopped by a signal, so that chained commands do not run."""


@dataclass(frozen=True)
class TrainArguments(Generic[R]):
    """The arguments of `train`."""

    recipe: Annotated[OmitArgPrefixes[R], arg(help="Options of the model.")]
    data: Annotated[OmitArgPrefixes[DataOptions], arg(help="Options of the data.")]
    training: Annotated[OmitArgPrefixes[TrainingOptions], arg(help="Options of the training.")]
    out: Annotated[Path, arg(metavar="RUN", help="The run folder to write.")]
    resume: Resume = False
    resume_from: ResumeFrom = "last"
    json: FlagCreatePairsOff[Json] = False


def train(arguments: TrainArguments[Any]) -> None:
    """Train a model and write a run folder."""
    from ..data import load_data
    from ..runs import RunFolder
    from ..runtime.budget import within_stored
    from ..training import train as run_training
    from ..training.start import build_seeded

    loaded = load_data(arguments.data)
    last = RunFolder(arguments.out).checkpoint(arguments.resume_from)
    with within_stored(last) if arguments.resume and last.is_file() else nullcontext():
        model = build_seeded(arguments.recipe, loaded.spec, arguments.training.seed)
    result = run_training(
        model,
        loaded,
        out=arguments.out,
        options=arguments.training,
        resume=arguments.resume,
        resume_from=arguments.resume_from,
    )
    following = f"next: tightbound evaluate {result.out}; tightbound report {result.out}"
    if model.space is None and not model.can_sample:
        following = f"next: tightbound sample RUN --guide-with {result.out} --guidance 2, of a diffusion model"
    _conclude(result, arguments.json, following, f"tightbound train --resume --out {result.out}")


def _ending(stopped: str) -> str:
    return {"done": "finished", "early": "stopped early"}.get(stopped, f"saved on {stopped}")


def _same_latents(prior: type[SecondPrior], other: SecondPrior) -> bool:
    return prior.latent_space == other.latent_space


@dataclass(frozen=True)
class PriorArguments:
    """The prior of `fit-prior`."""

    prior: SecondPrior = field(default=PixelCNNPrior(), metadata={**CHOICE, "fits": _same_latents})
    """The new prior; default: pixelcnn if the latents of RUN are codes, flow if they are vectors."""

    @classmethod
    def natural(cls, words: Sequence[str]) -> PriorArguments:
        """The defaults, which depend on the first stage, if the run exists."""
        from ..recipes.two_stage import natural_prior
        from ..runs import RunFolder
        from ..training.stages import stage_of

        others = {following for word, following in pairwise(words) if word in ("--out", "--data", "--latents")}
        named = [word for word in words if not word.startswith("-") and word not in others]
        run = next((word for word in named if RunFolder(Path(word)).config_file.is_file()), None)
        return cls() if run is None else cls(natural_prior(stage_of(run).recipe))


def fit_prior(
    run: Run,
    /,
    prior: Annotated[OmitArgPrefixes[PriorArguments], arg(name="", help="Options of the prior.")],
    training: Annotated[OmitArgPrefixes[TrainingOptions], arg(help="Options of the training.")],
    out: Annotated[Path, arg(metavar="RUN2", help="The run folder to write.")],
    data: Source = None,
    latents: Annotated[
        Path | None, arg(metavar="FILE", help="File with encoded latents; default: in RUN, encoded once.")
    ] = None,
    resume: Resume = False,
    resume_from: ResumeFrom = "last",
    json: FlagCreatePairsOff[Json] = False,
) -> None:
    """Fit a better prior to the latents of a trained model: the second stage of a VQ-VAE or any VAE.

    Example: tightbound fit-prior runs/vq --prior pixelcnn --epochs 20 --out runs/vq-pixelcnn
    """
    from ..training.second_stage import fit_prior as run_fit

    go = {"resume": resume, "resume_from": resume_from}
    result = run_fit(run, out=out, prior=prior.prior, options=training, data=data, latents=latents, **go)
    go_on = f"tightbound fit-prior {run} --resume --out {out}, with the same options"
    _conclude(result, json, f"next: tightbound evaluate {out}; tightbound sample {out}", go_on)


def _conclude(result: TrainingResult, json: bool, following: str, go_on: str) -> None:
    """Reports how a training ended, in the first process, and exits all with the right code."""
    if os.environ.get("RANK", "0") == "0":
        _print_result(result, json, following, go_on)
    if result.stopped not in ("done", "early"):
        raise SystemExit(INTERRUPTED)


def _print_result(result: TrainingResult, json: bool, following: str, go_on: str) -> None:
    if json:
        print(jsonlib.dumps({**dataclasses.asdict(result), "out": str(result.out)}))
        return
    print(f"{result.out}: {_ending(result.stopped)} at step {result.step:,} of {result.steps:,}")
    if result.best_bound is not None:
        when = f" at step {result.best_step:,}" if result.best_step else ""
        print(f"best validation {result.best_in_words}{when}")
    if result.skipped:
        print(f"{result.skipped:,} of {result.step:,} steps skipped: gradients above --skip-norm, or not finite")
    print(following if result.stopped in ("done", "early") else f"resume: {go_on}")
