"""The commands: functions whose arguments are their options. Heavy imports are deferred until one runs."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from ..data import DATASETS, DataOptions
from ..errors import CheckpointError, UsageError
from ..options.choices import CHOICE, flat
from ..options.priors import PixelCNNPrior, SecondPrior
from ..options.training import TrainingOptions
from ..recipes import Recipe
from ..recipes.base import recipes_by_name
from .arguments import (
    Device,
    Json,
    Overwrite,
    Run,
    Seed,
    Source,
    SplitName,
    counted,
    evenly_spaced,
    open_run,
    part_of,
    require_latent,
    require_positive,
    require_writable,
)
from .contrastive import train_contrastive
from .output import as_names, print_comparison, print_diagnosis, print_evaluation, print_json, print_pairs, write_arrays
from .pictures import complete, interpolate, reconstruct, sample, traverse

if TYPE_CHECKING:
    from ..training.loop import TrainingResult

__all__ = [
    "COMMANDS",
    "PriorArguments",
    "TrainArguments",
    "compare",
    "complete",
    "data",
    "diagnose",
    "encode",
    "evaluate",
    "fit_prior",
    "info",
    "interpolate",
    "recipes",
    "reconstruct",
    "report",
    "sample",
    "train",
    "train_contrastive",
    "traverse",
]

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
    resume: Annotated[FlagCreatePairsOff[bool], arg(help="Resume the run in --out exactly where it stopped.")] = False
    resume_from: Annotated[Literal["last", "best"], arg(help="The checkpoint to resume from.")] = "last"
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
    _conclude(result, arguments.json, following, f"tightbound train --resume --out {result.out}")


def _ending(stopped: str) -> str:
    return {"done": "finished", "early": "stopped early"}.get(stopped, f"saved on {stopped}")


@dataclass(frozen=True)
class PriorArguments:
    """The prior of `fit-prior`."""

    prior: SecondPrior = field(default=PixelCNNPrior(), metadata=CHOICE)
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
    prior: Annotated[OmitArgPrefixes[PriorArguments], arg(help="Options of the prior.")],
    training: Annotated[OmitArgPrefixes[TrainingOptions], arg(help="Options of the training.")],
    out: Annotated[Path, arg(metavar="RUN2", help="The run folder to write.")],
    data: Source = None,
    latents: Annotated[
        Path | None, arg(metavar="FILE", help="File with encoded latents; default: in RUN, encoded once.")
    ] = None,
    resume: Annotated[FlagCreatePairsOff[bool], arg(help="Resume the run in --out exactly where it stopped.")] = False,
    resume_from: Annotated[Literal["last", "best"], arg(help="The checkpoint to resume from.")] = "last",
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
    print(following if result.stopped in ("done", "early") else f"resume: {go_on}")


def evaluate(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    method: Annotated[
        Literal["auto", "importance", "prior", "annealed"],
        arg(
            help="Source of the samples: auto (adapted to each example), the posterior, the prior (naive), or annealed "
            "from prior to posterior (gold standard)."
        ),
    ] = "auto",
    k: Annotated[
        int | None,
        arg(
            aliases=("-k",),
            help="Fixed number of samples per example; more cost time, not memory. Default: adapted to each example; "
            "with a given method 1000, annealed 16.",
        ),
    ] = None,
    budget: Annotated[
        float,
        arg(
            metavar="SECONDS",
            help="Time after which method auto starts no further step; its first samples are always drawn.",
        ),
    ] = 120.0,
    temperatures: Annotated[int, arg(help="Number of annealing temperatures.")] = 500,
    limit: Annotated[int | None, arg(help="Evaluate at most N evenly spaced examples.")] = None,
    precision: Annotated[Literal["float32", "bf16"], arg(help="Precision of the networks.")] = "float32",
    compile: Annotated[bool, arg(help="Compile the density after the decoder.")] = False,
    sample_quality: Annotated[
        FlagCreatePairsOff[bool],
        arg(help="Also compute the Fréchet distance between samples and data, in features trained on its labels."),
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Evaluate a run: ELBO and its terms, likelihood with standard error and reliability, bits per dimension.

    Example: tightbound evaluate runs/demo --budget 300 --json
    """
    from ..evaluation import Annealing
    from ..evaluation import evaluate as run_evaluation
    from ..evaluation import sample_quality as quality_of
    from ..evaluation.kept import as_json, write_evaluation
    from ..runs import load_run_data
    from ..runtime.processor import slow_arithmetic

    annealing = Annealing(steps=temperatures)
    folder, model, loaded = open_run(run, data, device)
    for line in slow_arithmetic(precision, model.device.type):
        print(line, file=sys.stderr)
    part = evenly_spaced(part_of(loaded, split), limit)
    quality = (
        quality_of(model, load_run_data(run) if loaded.new else loaded, part, seed=seed) if sample_quality else None
    )
    measured = run_evaluation(
        model,
        part,
        k,
        method=method,
        annealing=annealing,
        budget=budget,
        precision=precision,
        compile=compile,
        seed=seed,
    )
    found = dataclasses.replace(measured, sample_quality=quality)
    print_json(as_json(found)) if json else print_evaluation(found, part.spec.units)
    if data is None and limit is None and part.name == "test":
        _keep(partial(write_evaluation, folder, found, model.loaded_weights))


def diagnose(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    limit: Annotated[
        int, arg(help="Use at most N evenly spaced examples; ln N limits the mutual information that can be found.")
    ] = 2000,
    gap_examples: Annotated[int, arg(help="Optimise the posterior of at most N examples.")] = 100,
    k: Annotated[int, arg(aliases=("-k",), help="Importance samples for each of these.")] = 1000,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Diagnose a model and suggest options to change: parts of the ELBO, its gap, use of the latents.

    Example: tightbound diagnose runs/demo
    """
    from ..evaluation import diagnose as run_diagnosis
    from ..evaluation.kept import as_json, write_diagnosis

    require_positive("--limit", limit)
    folder, model, loaded = open_run(run, data, device)
    part = part_of(loaded, split)
    training = folder.config().training
    found = run_diagnosis(model, part, limit=limit, gap_examples=gap_examples, k=k, seed=seed, training=training)
    print_json(as_json(found)) if json else print_diagnosis(found)
    if data is None and part.name == "test":
        _keep(partial(write_diagnosis, folder, found, model.loaded_weights))


def _keep(write: Callable[[], None]) -> None:
    """Stores the printed result in the run folder, or prints why not."""
    try:
        write()
    except CheckpointError as error:
        print(f"note: the result is not stored. {error}", file=sys.stderr)


def encode(
    run: Run,
    /,
    out: Annotated[Path, arg(metavar="FILE", help="The .npz to write.")],
    overwrite: Overwrite = False,
    data: Source = None,
    split: Annotated[Literal["train", "valid", "test", "all"], arg(help="Split of the data.")] = "all",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Encode a data set: posterior means, standard deviations, samples, codes, labels and sources of all rows.

    Example: tightbound encode runs/demo --data photographs/ --out latents.npz
    """
    import torch

    from ..views.latents import encode as encoded

    if out.suffix != ".npz":
        raise UsageError("Latents can only be written as arrays.", got=out, expected="a name that ends in .npz")
    require_writable(out, overwrite, run, data)
    _, model, loaded = open_run(run, data, device)
    model = require_latent(model)
    parts = loaded.parts(split)
    found = [encoded(model, part, seed=seed) for part in parts]
    arrays: dict[str, Any] = {name: torch.cat([each[name] for each in found]).numpy() for name in _common(found)}
    arrays["names"] = as_names([name for part in parts for name in part.names])
    arrays["split"] = as_names([part.name for part in parts for _ in range(len(part))])
    write_arrays(arrays, out, counted(parts))


def _common(found: list[dict[str, Any]]) -> list[str]:
    """The results of all parts, concatenated; labels are left out if a part has none."""
    return [name for name in found[0] if all(name in each for each in found)]


def report(
    run: Run,
    /,
    data: Source = None,
    k: Annotated[
        int | None,
        arg(aliases=("-k",), help="Importance samples, if there is no stored evaluation; see --quick."),
    ] = None,
    quick: Annotated[
        float,
        arg(
            metavar="SECONDS",
            help="Time to measure, on a few examples, results not stored by `evaluate` and `diagnose`; 0: skip these.",
        ),
    ] = 6.0,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Write a self-contained HTML page: images, latent map, results, curves, and how to reproduce them.

    Example: tightbound report runs/demo
    """
    from ..reporting import write_report

    print(write_report(run, data=data, k=k, quick=quick, device=device, seed=seed))


def compare(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN", help="Two or more run folders.")],
    /,
    data: Source = None,
    split: SplitName = None,
    k: Annotated[int, arg(aliases=("-k",), help="Importance samples per example.")] = 200,
    limit: Annotated[int | None, arg(help="Use at most N evenly spaced examples.")] = None,
    out: Annotated[Path | None, arg(metavar="FILE", help="File to write, .png or .html.")] = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compare runs: options that differ, results on the same examples, paired differences with errors, images.

    Example: tightbound compare runs/demo runs/other --out comparison.png
    """
    from ..reporting.comparing.comparison import compare as run_comparison
    from ..reporting.comparing.side_by_side import check_drawing, draw_comparison

    if out is not None:
        check_drawing(out)
        require_writable(out, overwrite, data, *runs)
    found = run_comparison(runs, data=data, split=split, k=k, limit=limit, device=device, seed=seed)
    print_json(found.json()) if json else print_comparison(found)
    if out is not None:
        draw_comparison(found, out)
        print(out, file=sys.stderr if json else sys.stdout)


def info(
    run: Annotated[Positional[Path | None], arg(metavar="RUN", help="A run folder.")] = None, /, json: Json = False
) -> None:
    """Describe a run, or without RUN: versions and devices.

    Example: tightbound info runs/demo
    """
    found = _environment() if run is None else _run_info(run)
    if json:
        print_json(found)
        return
    if evaluation := found.get("evaluation"):
        found["evaluation"] = evaluation["headline"]
    print_pairs(found)


def recipes(json: Json = False) -> None:
    """List the recipes that can be trained, and their options.

    Example: tightbound recipes
    """
    found = {
        name: {"is": first_sentence(cls), "options": flat(cls())} for name, cls in sorted(recipes_by_name().items())
    }
    if json:
        print_json(found)
        return
    print_pairs({name: f"{entry['is']}\noptions: {', '.join(entry['options'])}" for name, entry in found.items()})
    print("tightbound train RECIPE --help explains every option.")


def data(
    source: Annotated[Positional[str | None], arg(metavar="DATA", help="The data to describe.")] = None,
    /,
    options: Annotated[OmitArgPrefixes[DataOptions], arg(help="Options of the data.")] = DataOptions(),  # noqa: B008
    json: FlagCreatePairsOff[Json] = False,
) -> None:
    """List the named data sets, or describe one, or a folder, archive, array or table.

    Example: tightbound data scans/ --levels stretch
    """
    if source is not None and options.data not in (DataOptions().data, source):
        raise UsageError("Which data?", got=f"{source!r} and --data {options.data!r}", expected="one of the two")
    if source is None and options == DataOptions():
        found: dict[str, Any] = {
            name: {
                "is": entry.description,
                "shape": entry.shape,
                "levels": entry.levels,
                "examples": entry.examples,
                "licence": entry.licence,
            }
            for name, entry in DATASETS.items()
        }
    else:
        from ..data import load_data

        found = load_data(dataclasses.replace(options, data=source or options.data)).summary()
    if json:
        print_json(found)
        return
    notes = found.pop("notes", [])
    print_pairs(found)
    for note in notes:
        print(f"note: {note}")


def _run_info(run: Path) -> dict[str, Any]:
    from ..evaluation import learned_sigma
    from ..evaluation.kept import as_json, read_evaluation
    from ..runs import RunFolder, load, number
    from ..spec import to_json

    folder = RunFolder(run)
    config = folder.config()
    valid = [r for r in folder.records() if r["split"] == "valid"]
    best = {name: [v for r in valid if (v := number(r, name)) is not None] for name in ("bound", "log_prior")}
    steps = max((r["step"] for r in folder.records()), default=0)
    model = load(run) if folder.weights.is_file() and config.recipe is not None else None
    evaluation = read_evaluation(folder)
    return {
        "run": str(run),
        **{k: v for k, v in to_json(config).items() if k not in ("kind", "version")},
        "parameters": model and sum(p.numel() for p in model.parameters()),
        "decoder_sigma": model and learned_sigma(model.parts.get("decoder"), model.data_spec),
        "steps": steps,
        **{f"best_validation_{name}": max(values, default=None) for name, values in best.items() if values},
        "evaluation": evaluation and as_json(evaluation),
    }


def _environment() -> dict[str, Any]:
    import torch

    from .. import __version__

    return {
        "tightbound": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "data_folder": os.environ.get("TIGHTBOUND_DATA"),
    }


def first_sentence(cls: type) -> str:
    """The first line of a docstring."""
    return (cls.__doc__ or "").split("\n")[0]


COMMANDS = {
    "train": train,
    "fit-prior": fit_prior,
    "train-contrastive": train_contrastive,
    "evaluate": evaluate,
    "diagnose": diagnose,
    "sample": sample,
    "complete": complete,
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "traverse": traverse,
    "encode": encode,
    "report": report,
    "compare": compare,
    "info": info,
    "recipes": recipes,
    "data": data,
}
