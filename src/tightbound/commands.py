"""What the commands do: functions whose arguments are their options. Nothing heavy is imported until one runs."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from .data import DATASETS, DataOptions
from .errors import UsageError
from .output import (
    check_output,
    print_comparison,
    print_diagnosis,
    print_evaluation,
    print_json,
    print_pairs,
    write,
    write_arrays,
)
from .recipes import Recipe
from .spec import registered
from .training.options import TrainingOptions

if TYPE_CHECKING:
    from torch import Tensor

    from .data import Data, Split
    from .models import LatentVariableModel
    from .runs import RunFolder

__all__ = [
    "COMMANDS",
    "TrainArguments",
    "compare",
    "data",
    "diagnose",
    "encode",
    "evaluate",
    "info",
    "interpolate",
    "recipes",
    "reconstruct",
    "report",
    "sample",
    "train",
    "traverse",
]

R = TypeVar("R", bound=Recipe)

Run = Annotated[Positional[Path], arg(metavar="RUN", help="The run folder.")]
Count = Annotated[int, arg(aliases=("-n",), help="How many.")]
Json = Annotated[bool, arg(help="Print JSON.")]
Seed = Annotated[int, arg(help="Seed of all noise.")]
Device = Annotated[str, arg(help="auto, cpu, cuda or mps.")]
SplitName = Annotated[Literal["train", "valid", "test"], arg(help="Which part of the data.")]
Source = Annotated[str | None, arg(metavar="DATA", help="Other data than the run's own.")]
Words = Annotated[
    str | None, arg(metavar="WORDS", help="What the model is given: a class, numbers, a text; default: some of each.")
]
WordsFile = Annotated[
    Path | None,
    arg(metavar="FILE", help="Conditions from a file: a text with one on each line, an .npy array, or a picture."),
]
Picture = Annotated[Path | None, arg(metavar="FILE", help="A .png or an .npz; default: in RUN/samples.")]


@dataclass(frozen=True)
class TrainArguments(Generic[R]):
    """Everything `train` can be told."""

    recipe: Annotated[OmitArgPrefixes[R], arg(help="What the model is.")]
    data: Annotated[OmitArgPrefixes[DataOptions], arg(help="What it learns from.")]
    training: Annotated[OmitArgPrefixes[TrainingOptions], arg(help="How it learns.")]
    out: Annotated[Path, arg(metavar="RUN", help="The run folder to write.")]
    resume: Annotated[FlagCreatePairsOff[bool], arg(help="Go on exactly where the run in --out stopped.")] = False
    resume_from: Annotated[Literal["last", "best"], arg(help="The checkpoint to go on from.")] = "last"
    json: FlagCreatePairsOff[Json] = False


def train(arguments: TrainArguments[Any]) -> None:
    """Trains a model and leaves a run folder."""
    from .data import load_data
    from .training import train as run_training
    from .training.step import build_seeded

    loaded = load_data(arguments.data)
    model = build_seeded(arguments.recipe, loaded.spec, arguments.training.seed)
    result = run_training(
        model,
        loaded,
        out=arguments.out,
        options=arguments.training,
        resume=arguments.resume,
        resume_from=arguments.resume_from,
    )
    if os.environ.get("RANK", "0") != "0":  # of several processes, one speaks
        return
    if arguments.json:
        print(jsonlib.dumps({**dataclasses.asdict(result), "out": str(result.out)}))
        return
    print(f"{result.out}: {_ending(result.stopped)} at step {result.step} of {result.steps}", end="")
    print("" if result.best_bound is None else f", best validation bound {result.best_bound:.2f} nats")
    if result.stopped in ("done", "early"):
        print(f"next: tightbound evaluate {result.out}; tightbound report {result.out}")
    else:
        print(f"go on: tightbound train --resume --out {result.out}")


def _ending(stopped: str) -> str:
    return {"done": "finished", "early": "stopped early"}.get(stopped, f"saved on {stopped}")


def evaluate(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = "test",
    method: Annotated[
        Literal["importance", "prior", "annealed"],
        arg(
            help="Samples of the posterior; of the prior (naive); or annealed from prior to posterior (gold standard)."
        ),
    ] = "importance",
    k: Annotated[
        int | None,
        arg(aliases=("-k",), help="Samples for each example; they cost time, not memory. Default: 1000; annealed: 16."),
    ] = None,
    temperatures: Annotated[int, arg(help="Steps of method annealed.")] = 500,
    limit: Annotated[int | None, arg(help="Only the first so many examples.")] = None,
    precision: Annotated[Literal["float32", "bf16"], arg(help="Arithmetic of the networks.")] = "float32",
    compile: Annotated[bool, arg(help="Compile the density behind the decoder.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """ELBO and its parts, the likelihood with its standard error and doubts, bits per dimension.

    Example: tightbound evaluate runs/demo -k 1000 --json
    """
    from .evaluation import Annealing
    from .evaluation import evaluate as run_evaluation

    annealing = Annealing(steps=temperatures)
    folder, model, loaded = _opened(run, data, device)
    part = _limited(loaded.split(split), limit)
    samples = (16 if method == "annealed" else 1000) if k is None else k
    found = run_evaluation(
        model, part, samples, method=method, annealing=annealing, precision=precision, compile=compile, seed=seed
    ).json()
    print_json(found) if json else print_evaluation(found)
    if data is None and limit is None and split == "test":
        folder.write_evaluation(found)


def diagnose(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = "test",
    limit: Annotated[int, arg(help="Examples at most, evenly spread; they bound the mutual information.")] = 2000,
    gap_examples: Annotated[int, arg(help="Examples at most whose posterior is optimised.")] = 100,
    k: Annotated[int, arg(aliases=("-k",), help="Importance samples of each of these.")] = 1000,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """What is wrong with a model and which option to change: the ELBO taken apart, its gap, the use of the latents.

    Example: tightbound diagnose runs/demo
    """
    from .evaluation import diagnose as run_diagnosis

    _positive("--limit", limit)
    folder, model, loaded = _opened(run, data, device)
    part = loaded.split(split)
    training = folder.config().training
    found = run_diagnosis(model, part, limit=limit, gap_examples=gap_examples, k=k, seed=seed, training=training).json()
    print_json(found) if json else print_diagnosis(found)
    if data is None and split == "test":
        folder.write_diagnosis(found)


def sample(
    run: Run,
    /,
    n: Count = 64,
    condition: Words = None,
    condition_file: WordsFile = None,
    temperature: Annotated[float, arg(help="Factor on the distance of z from the prior's mean.")] = 1.0,
    out: Picture = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """New examples from the prior: the mean of p(x|z) and a draw from it, side by side.

    Example: tightbound sample runs/demo -n 64 --out samples.png
    """
    from . import pictures
    from .conditions import read_conditions
    from .randomness import fixed_noise
    from .runs import load_run_data

    _positive("-n", n)
    if not 0 <= temperature < float("inf"):
        raise UsageError("A temperature is at least 0.", got=temperature, remedy="Try --temperature 0.7.")
    folder, model = _model(run, device)
    path = check_output(out or folder.samples / "samples.png", model.data_spec)
    c = read_conditions(model.condition, condition, condition_file, n)
    with fixed_noise(seed):
        if model.condition is not None and c is None:
            c = pictures.conditions_to_show(model, load_run_data(run, None).test, n)
        drawn = pictures.samples(model(c), n, temperature)
    write(drawn, path, across=True)


def reconstruct(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = "test",
    n: Count = 16,
    out: Picture = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Examples beside what the model makes of them: the mean of p(x|z) and a draw from it.

    Example: tightbound reconstruct runs/demo -n 16 --out reconstructions.png
    """
    from . import pictures
    from .randomness import fixed_noise

    folder, model, loaded = _opened(run, data, device)
    path = check_output(out or folder.samples / "reconstructions.png", model.data_spec)
    with fixed_noise(seed):
        x, c = _first(model, loaded.split(split), n)
        parts = pictures.reconstructions(model(c), x)
    write(parts, path, across=True)


def interpolate(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = "test",
    n: Count = 8,
    steps: Annotated[int, arg(help="Pictures from one example to the next.")] = 10,
    out: Picture = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Pairs of examples and the way from one to the other through the latent space.

    Example: tightbound interpolate runs/demo -n 8 --steps 10 --out interpolations.png
    """
    from .evaluation.latents import interpolation
    from .randomness import fixed_noise

    folder, model, loaded = _opened(run, data, device)
    path = check_output(out or folder.samples / "interpolations.png", model.data_spec)
    part = loaded.split(split)
    if 2 * n > len(part):
        raise UsageError(f"{n} pairs need {2 * n} examples.", got=f"{len(part)} in the {split} split")
    with fixed_noise(seed):
        x, c = _first(model, part, 2 * n)
        walk = interpolation(model, x[::2], x[1::2], steps, c=None if c is None else c[::2])
    write({"mean of p(x|z) on the way from one example to another": walk.mean}, path, latents=walk.z)


def traverse(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = "test",
    n: Annotated[int, arg(aliases=("-n",), help="How many latent dimensions, the most active first.")] = 10,
    steps: Annotated[int, arg(help="Pictures along each dimension.")] = 10,
    example: Annotated[int, arg(help="Which example to start from.")] = 0,
    out: Picture = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """One example with one latent dimension after the other moved through the quantiles of the prior.

    Example: tightbound traverse runs/demo -n 10 --out traversals.png
    """
    import torch

    from .evaluation.latents import posterior_means, quantiles, traversal
    from .randomness import fixed_noise

    _positive("-n", n)
    _positive("--steps", steps)
    folder, model, loaded = _opened(run, data, device)
    path = check_output(out or folder.samples / "traversals.png", model.data_spec)
    part = loaded.split(split)
    if not 0 <= example < len(part):
        raise UsageError(f"The {split} split has no such example.", got=example, expected=f"0 to {len(part) - 1}")
    means, _ = posterior_means(model, part)
    dimensions = means.var(0).argsort(descending=True)[:n]
    levels = torch.linspace(0.02, 0.98, steps)
    with fixed_noise(seed):
        x, c = _first(model, part, example + 1)
        given = None if c is None else c[example]
        values = means.quantile(levels, dim=0) if model.prior is None else quantiles(model, levels, given).cpu()
        walk = traversal(model, x[example], dimensions.tolist(), values[:, dimensions].T, given)
    what = "codes" if model.prior is None else "prior"
    title = f"mean of p(x|z), dimensions {str(dimensions.tolist())[1:-1]} of z through the quantiles of the {what}"
    write({title: walk.mean}, path, latents=walk.z, dimensions=dimensions)


def encode(
    run: Run,
    /,
    out: Annotated[Path, arg(metavar="FILE", help="The .npz to write.")],
    data: Source = None,
    split: Annotated[Literal["train", "valid", "test", "all"], arg(help="Which part of the data.")] = "all",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """The latents of a whole data set: posterior mean, standard deviation, a sample, and the labels.

    Example: tightbound encode runs/demo --data digits --out latents.npz
    """
    from .evaluation.latents import encode as encoded
    from .randomness import fixed_noise

    if out.suffix != ".npz":
        raise UsageError("Latents are written as arrays.", got=out, expected="a name that ends in .npz")
    _, model, loaded = _opened(run, data, device)
    arrays: dict[str, Any] = {}
    with fixed_noise(seed):
        for name in ("train", "valid", "test") if split == "all" else (split,):
            if len(part := loaded.split(name)):
                arrays |= {f"{name}_{key}": value for key, value in encoded(model, part).items()}
    write_arrays(arrays, out)


def report(
    run: Run,
    /,
    data: Source = None,
    k: Annotated[int | None, arg(aliases=("-k",), help="Importance samples; default: as evaluated, else 1000.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """One self-contained page: curves, pictures, latent map, evaluation with baselines, how to reproduce it.

    Example: tightbound report runs/demo
    """
    from .reporting import write_report

    print(write_report(run, data=data, k=k, device=device, seed=seed))


def compare(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN", help="Two run folders or more.")],
    /,
    data: Source = None,
    split: SplitName = "test",
    k: Annotated[int, arg(aliases=("-k",), help="Importance samples of each example.")] = 200,
    limit: Annotated[int | None, arg(help="Examples at most, evenly spread.")] = None,
    out: Annotated[Path | None, arg(metavar="FILE", help="A .png or an .html to draw them in.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Runs side by side: options that differ, numbers on the same examples, differences with paired errors, pictures.

    Example: tightbound compare runs/demo runs/other --out comparison.png
    """
    from .reporting.comparison import compare as run_comparison
    from .reporting.side_by_side import check_drawing, draw_comparison

    if out is not None:
        check_drawing(out)
    found = run_comparison(runs, data=data, split=split, k=k, limit=limit, device=device, seed=seed)
    print_json(found.json()) if json else print_comparison(found.json())
    if out is not None:
        draw_comparison(found, out)
        print(out, file=sys.stderr if json else sys.stdout)


def info(
    run: Annotated[Positional[Path | None], arg(metavar="RUN", help="A run folder.")] = None, /, json: Json = False
) -> None:
    """What a run is, or without one: versions and devices.

    Example: tightbound info runs/demo
    """
    found = _environment() if run is None else _run_info(run)
    if json:
        print_json(found)
        return
    print_pairs(found)


def recipes(json: Json = False) -> None:
    """The systems that can be trained, and their options.

    Example: tightbound recipes
    """
    found = {
        name: {"is": first_sentence(cls), "options": {f.name: f.default for f in dataclasses.fields(cls)}}
        for name, cls in sorted(registered(Recipe).items())
    }
    if json:
        print_json(found)
        return
    print_pairs({name: f"{entry['is']}\noptions: {', '.join(entry['options'])}" for name, entry in found.items()})
    print("tightbound train RECIPE --help explains every option.")


def data(
    source: Annotated[Positional[str | None], arg(metavar="DATA", help="What to look at.")] = None,
    /,
    json: Json = False,
) -> None:
    """The named data sets, or what is in one of them, a folder, an archive or an array.

    Example: tightbound data digits
    """
    if source is None:
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
        from .data import load_data

        found = load_data(source).summary()
    print_json(found) if json else print_pairs(found)


def _model(run: Path, device: str) -> tuple[RunFolder, LatentVariableModel]:
    from .runs import RunFolder, load
    from .training.device import find_device

    return RunFolder(run), load(run).to(find_device(device))


def _opened(run: Path, source: str | None, device: str) -> tuple[RunFolder, LatentVariableModel, Data]:
    """A run's model, and its data or another that fits the model."""
    from .runs import load_run_data

    folder, model = _model(run, device)
    return folder, model, load_run_data(run, source)


def _limited(split: Split, limit: int | None) -> Split:
    return split if limit is None else split.subset(min(limit, len(split)))


def _first(model: LatentVariableModel, split: Split, n: int) -> tuple[Tensor, Tensor | None]:
    """The first n examples of a split, as the model sees them, and their conditions."""
    import torch

    _positive("-n", n)
    if n > len(split):
        raise UsageError(
            f"The {split.name} split has fewer examples.", got=n, expected=f"at most {len(split)}", remedy="Lower -n."
        )
    parameter = next(model.parameters())
    batch = split.batch(torch.arange(n), parameter.device)
    return batch.x.to(parameter.dtype), model.conditions(batch)


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{name} must be at least 1.", got=value, remedy=f"Try {name} 16.")


def _run_info(run: Path) -> dict[str, Any]:
    from .runs import RunFolder, load, number
    from .spec import to_json

    folder = RunFolder(run)
    config = folder.config()
    bounds = [number(r, "bound") for r in folder.records() if r["split"] == "valid"]
    steps = max((r["step"] for r in folder.records()), default=0)
    weights = folder.weights.is_file() and config.recipe is not None
    return {
        "run": str(run),
        **{k: v for k, v in to_json(config).items() if k not in ("kind", "version")},
        "parameters": sum(p.numel() for p in load(run).parameters()) if weights else None,
        "steps": steps,
        "best_validation_bound": max((bound for bound in bounds if bound is not None), default=None),
        "evaluation": folder.read_evaluation(),
    }


def _environment() -> dict[str, Any]:
    import torch

    from . import __version__

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
    "evaluate": evaluate,
    "diagnose": diagnose,
    "sample": sample,
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
