"""The commands that measure runs: numbers, latents, a page, a comparison. Nothing heavy is imported until one runs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from ..errors import CheckpointError, UsageError
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
    require_positive,
    require_writable,
)
from .output import as_names, print_comparison, print_diagnosis, print_evaluation, print_json, write_arrays

__all__ = ["compare", "diagnose", "encode", "evaluate", "report"]


Method = Annotated[
    Literal["auto", "importance", "prior", "annealed"],
    arg(
        help="What each example needs; or, for all: samples of the posterior, of the prior (naive), or annealed "
        "from prior to posterior (gold standard)."
    ),
]
Samples = Annotated[
    int | None,
    arg(
        aliases=("-k",),
        help="Samples for each example, and no more; they cost time, not memory. Default: what each example "
        "needs; for a method given, 1000, annealed 16.",
    ),
]
Budget = Annotated[
    float, arg(metavar="SECONDS", help="Method auto begins nothing new after so long; the first samples are taken.")
]
Quality = Annotated[
    FlagCreatePairsOff[bool],
    arg(help="Also the Fréchet distance of samples from the data, in features trained on its labels."),
]


def evaluate(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    method: Method = "auto",
    k: Samples = None,
    budget: Budget = 120.0,
    temperatures: Annotated[int, arg(help="Steps of annealing.")] = 500,
    limit: Annotated[int | None, arg(help="Only so many examples, at even distances.")] = None,
    precision: Annotated[Literal["float32", "bf16"], arg(help="Arithmetic of the networks.")] = "float32",
    compile: Annotated[bool, arg(help="Compile the density behind the decoder.")] = False,
    sample_quality: Quality = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """ELBO and its parts, the likelihood with its standard error and doubts, bits per dimension.

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
    part, quality = evenly_spaced(part_of(loaded, split), limit), None
    if sample_quality:
        quality = quality_of(model, load_run_data(run) if loaded.new else loaded, part, seed=seed)
    way = {"method": method, "annealing": annealing, "budget": budget, "precision": precision, "compile": compile}
    found = dataclasses.replace(run_evaluation(model, part, k, **way, seed=seed), sample_quality=quality)
    print_json(as_json(found)) if json else print_evaluation(found, part.spec.units)
    if data is None and limit is None and part.name == "test":
        _keep(partial(write_evaluation, folder, found, model.loaded_weights))


def diagnose(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
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
    """Stores in the run folder what has been printed, or says why not."""
    try:
        write()
    except CheckpointError as error:
        print(f"note: what was found is not stored. {error}", file=sys.stderr)


def encode(
    run: Run,
    /,
    out: Annotated[Path, arg(metavar="FILE", help="The .npz to write.")],
    overwrite: Overwrite = False,
    data: Source = None,
    split: Annotated[Literal["train", "valid", "test", "all"], arg(help="Which part of the data.")] = "all",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """The latents of a whole data set: posterior mean, standard deviation, a sample, codes, and the labels; of every
    row its file or number, and the split that it came from.

    Example: tightbound encode runs/demo --data photographs/ --out latents.npz
    """
    import torch

    from ..models.latent import with_latents
    from ..views.latents import encode as encoded

    if out.suffix != ".npz":
        raise UsageError("Latents are written as arrays.", got=out, expected="a name that ends in .npz")
    require_writable(out, overwrite, run, data)
    _, model, loaded = open_run(run, data, device)
    model = with_latents(model)
    parts = loaded.parts(split)
    found = [encoded(model, part, seed=seed) for part in parts]
    arrays: dict[str, Any] = {name: torch.cat([each[name] for each in found]).numpy() for name in _common(found)}
    arrays["names"] = as_names([name for part in parts for name in part.names])
    arrays["split"] = as_names([part.name for part in parts for _ in range(len(part))])
    write_arrays(arrays, out, counted(parts))


def _common(found: list[dict[str, Any]]) -> list[str]:
    """What was found of every part: labels are left out where a part has none."""
    return [name for name in found[0] if all(name in each for each in found)]


def report(
    run: Run,
    /,
    data: Source = None,
    k: Annotated[
        int | None,
        arg(
            aliases=("-k",), help="Importance samples, where they are not those of the stored evaluation; see --quick."
        ),
    ] = None,
    quick: Annotated[
        float,
        arg(
            metavar="SECONDS",
            help="Time to measure, on a few examples, what `evaluate` and `diagnose` have not stored; 0: nothing is.",
        ),
    ] = 6.0,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """One self-contained page: pictures, latent map, what was measured, curves, how to reproduce it.

    Example: tightbound report runs/demo
    """
    from ..reporting import write_report

    print(write_report(run, data=data, k=k, quick=quick, device=device, seed=seed))


def compare(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN", help="Two run folders or more.")],
    /,
    data: Source = None,
    split: SplitName = None,
    k: Annotated[int, arg(aliases=("-k",), help="Importance samples of each example.")] = 200,
    limit: Annotated[int | None, arg(help="Examples at most, evenly spread.")] = None,
    out: Annotated[Path | None, arg(metavar="FILE", help="A .png or an .html to draw them in.")] = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Runs side by side: options that differ, numbers on the same examples, differences with paired errors, pictures.

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
