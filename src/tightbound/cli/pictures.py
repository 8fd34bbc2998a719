"""The commands that draw: functions whose arguments are their options. Heavy imports are deferred until one runs."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import FlagCreatePairsOff, arg

from ..errors import UsageError
from .arguments import (
    NAMED,
    Device,
    Overwrite,
    Picture,
    Run,
    Seed,
    Source,
    SplitName,
    Words,
    WordsFile,
    affordable,
    data_of,
    named,
    part_of,
    representative,
    require_positive,
    seen,
    shown,
)
from .contrastive import captions_to_rank, find_judge, rank_samples, write_ranked
from .guiding import guided_by
from .layers import write_layers
from .output import print_written, write

if TYPE_CHECKING:
    from torch import Tensor

    from ..conditions import Given
    from ..data import DataSpec
    from ..distributions import Sampling
    from ..models import Model

__all__ = ["complete", "reconstruct", "sample"]


SAMPLES = 64
"""Default number of samples, unless a file has more conditions."""


Count = Annotated[
    int | None,
    arg(
        aliases=("-n",),
        help="Number of samples; default: 64, one per condition of a file, with --rank the best 8 of each, or with "
        "--by-layer 8 for each layer.",
    ),
]
Temperature = Annotated[
    tuple[float, ...],
    arg(
        metavar="T",
        help="Sampling temperature: scales the distance of z from the prior mean; for codes, divides the logits. In a "
        "hierarchy one for all layers, or one for each, z1 (next to the data) first.",
    ),
]
ByLayer = Annotated[
    FlagCreatePairsOff[bool],
    arg(
        help="Show what each layer of a hierarchy holds: for each layer, samples with the layers above it fixed, and "
        "it and those below redrawn."
    ),
]
Strength = Annotated[
    float,
    arg(
        help="Strength of guidance of codes and diffusion: 1 is the conditional model, 0 the unconditional one, 2 to 5 "
        "follow the condition more closely. Papers that write w mean this minus 1."
    ),
]
Rescale = Annotated[
    float, arg(help="For diffusion: share by which the contrast of guided samples is set back, 0 to 1.")
]
GuideRun = Annotated[
    Path | None,
    arg(
        metavar="RUN",
        help="For diffusion: guided by this run, of recipe noisy-classifier, or a weaker model of the same data.",
    ),
]
Steps = Annotated[
    int | None,
    arg(
        help="For diffusion and a masked prior: number of steps. Default: 30; for a masked prior 16, each of which "
        "reveals many codes."
    ),
]
Interval = Annotated[
    tuple[float, float] | None,
    arg(
        metavar="LOW HIGH",
        help="For diffusion: ratios of noise to signal (sigma) between which guidance acts. Default: everywhere.",
    ),
]
SamplerName = Annotated[
    Literal["ancestral", "ddim", "euler", "heun", "adaptive", "euler-maruyama", "predictor-corrector", "2m", "2m-sde"]
    | None,
    arg(
        help="For diffusion: ancestral (the chain reversed), ddim, euler, heun, 2m (the ODE, of second order) and "
        "adaptive (the ODE to a tolerance); 2m-sde, euler-maruyama and predictor-corrector draw noise on the way. "
        "Default: 2m."
    ),
]
Judge = Annotated[
    Path | None,
    arg(
        metavar="JUDGE",
        help="Keep the samples that match their text best, judged by a file of train-contrastive or a CLIP folder.",
    ),
]


def sample(
    run: Run,
    /,
    n: Count = None,
    condition: Words = (),
    condition_file: WordsFile = None,
    temperature: Temperature = (1.0,),
    top_k: Annotated[int | None, arg(help="For codes: sample from the k most probable only.")] = None,
    top_p: Annotated[
        float | None, arg(help="For codes: sample from the most probable with this total probability.")
    ] = None,
    guidance: Strength = 1.0,
    guidance_interval: Interval = None,
    guidance_rescale: Rescale = 0.0,
    guide_with: GuideRun = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    by_layer: ByLayer = False,
    rank: Judge = None,
    among: Annotated[int | None, arg(help="With --rank, number of samples drawn for each text; default: 4 n.")] = None,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Sample: latents of the prior, the mean of p(x|z) and a sample of it side by side; or pixels, or by diffusion.

    Examples: tightbound sample runs/demo -n 64 --out samples.png
    tightbound sample runs/ladder --by-layer --temperature 0.7
    tightbound sample runs/vdm --sampler 2m --steps 20 --condition 3 --guidance 2
    tightbound sample runs/emoji --condition "face with tears of joy" -n 8 --rank judge.safetensors --among 32
    """
    from ..runtime.randomness import fixed_noise
    from ..views import samples as pictures

    _check_ranking(rank, among, by_layer)
    name = "layers.png" if by_layer else "samples.png"
    model, path = shown(run, name, out, overwrite, device, condition_file, rank, n=n)
    if guide_with is not None:
        model = guided_by(model, guide_with, device)
    how = _drawing(model, temperature, top_k, top_p, guidance, guide_with is not None)
    acts = (0.0, math.inf) if guidance_interval is None else guidance_interval
    how = dataclasses.replace(how, sampler=sampler, steps=steps, interval=acts, rescale=guidance_rescale)
    if by_layer:
        _sample_by_layer(run, model, condition, condition_file, n, how, path, seed)
    elif rank is None:
        c, n = _conditions(run, model, condition, condition_file, n)
        with fixed_noise(seed):
            drawn = pictures.samples(model, n, c, how)
        _write_samples(drawn, [] if c is None else pictures.described(model, c), path, model.data_spec)
    else:
        among = 4 * (n or 8) if among is None else among
        affordable("--among", among, model)
        c = captions_to_rank(model, condition, condition_file)
        with fixed_noise(seed):
            ranked = rank_samples(model, find_judge(rank, model.data_spec, str(model.device)), c, n or 8, among, how)
        write_ranked(*ranked, path, among)


def _check_ranking(rank: Path | None, among: int | None, by_layer: bool) -> None:
    if by_layer and (rank is not None or among is not None):
        raise UsageError(
            "--by-layer shows samples in the order in which they are drawn.",
            got="--rank or --among with --by-layer",
            remedy="Leave out one of them.",
        )
    if rank is None and among is not None:
        raise UsageError(
            "--among needs --rank.",
            got=f"--among {among} alone",
            expected="--rank JUDGE",
            remedy="Train a judge: tightbound train-contrastive.",
        )


def _sample_by_layer(
    run: Path,
    model: Model,
    condition: Sequence[str],
    file: Path | None,
    n: int | None,
    how: Sampling,
    path: Path,
    seed: int,
) -> None:
    from ..runtime.randomness import fixed_noise
    from ..views.layers import MOST, redrawn, require_layers

    require_layers(model)
    n = 8 if n is None else n
    affordable("-n", n * MOST, model)
    c, _ = _conditions(run, model, condition, file, 1)
    with fixed_noise(seed):
        views = redrawn(model, n, None if c is None else c[0], how)
    write_layers(views, path, model.data_spec)


def _conditions(
    run: Path, model: Model, words: Sequence[str], file: Path | None, n: int | None
) -> tuple[Given | None, int]:
    """The requested conditions, or a selection, and the number of samples."""
    import torch

    from ..runs import load_run_data
    from ..views import samples as pictures
    from .conditions import read_conditions

    asked = read_conditions(model.condition, words, file, None)
    there = 0 if asked is None else asked.shape[0]
    n = max(SAMPLES, there) if n is None else n
    if n < there:
        print(f"note: using the first {n} of {there} conditions; for all use -n {there}", file=sys.stderr)
    c = None if asked is None else asked[torch.arange(n) % there]
    if model.condition is not None and c is None:
        c = pictures.conditions_to_show(model, load_run_data(run, None).test, n)
    return None if c is None else c.to(model.device), n


def _write_samples(drawn: dict[str, Tensor], texts: list[str], path: Path, spec: DataSpec | None) -> None:
    """Samples under their titles, with their conditions as captions if these are text."""
    from ..pictures import sheets
    from ..views.samples import save_picture

    n = len(next(iter(drawn.values())))
    shown = dict.fromkeys(texts)
    given = ", ".join([*list(shown)[:NAMED], *(["..."] if len(shown) > NAMED else [])])
    told = f"{n} sample{'s' * (n != 1)}{f' given {given}' if texts else ''}"
    if path.suffix == ".npz" or not texts:
        write(drawn, path, spec, across=True, told=told)
        return
    save_picture(sheets.with_captions(drawn, texts, spec), path)
    print_written(path, told)


def _drawing(
    model: Model,
    temperature: tuple[float, ...],
    top_k: int | None,
    top_p: float | None,
    guidance: float,
    guided: bool,
) -> Sampling:
    """The sampling options."""
    from ..distributions import Sampling

    if guidance < 0:
        raise UsageError("Guidance must be at least 0.", got=f"--guidance {guidance:g}", expected="1 for none, 2 to 5")
    if guidance != 1 and not guided:
        _check_guidance(model, guidance)
    if not temperature:
        raise UsageError("--temperature needs a number.", got="none", remedy="Try --temperature 0.7.")
    if len(temperature) == 1:
        return Sampling(temperature[0], top_k, top_p, guidance)
    how = Sampling(top_k=top_k, top_p=top_p, guidance=guidance, layers=temperature)
    how.require_layers(1 if model.space is None else len(model.space.names))
    return how


def _check_guidance(model: Model, guidance: float) -> None:
    """Refuses guidance without a condition, or for a model never trained without one."""
    if model.condition is None:
        raise UsageError(
            "Guidance needs a condition, but this model is unconditional.",
            got=f"--guidance {guidance:g}",
            expected="a model conditioned on a text or a class",
            remedy="Leave it out; or train diffusion with --condition class, or add --guide-with RUN to it; or fit a "
            "conditional prior to codes: tightbound fit-prior RUN --condition text.",
        )
    if not model.condition.droppable:
        raise UsageError(
            "Guidance needs a model that was trained to work without its condition too.",
            got=f"--guidance {guidance:g} of a model trained with --drop-condition 0",
            expected="a model trained with --drop-condition above 0",
            remedy="Leave it out, or train with --drop-condition 0.1.",
        )


def reconstruct(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    n: Annotated[int | None, arg(aliases=("-n",), help="Number of examples; default: 16, or all if fewer.")] = None,
    samples: Annotated[
        int | None, arg(help="Also decode this many samples of q(z|x), and show one of them beside their average.")
    ] = None,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Reconstruct examples: the mean of p(x|z) and a sample of it, beside the data.

    Examples: tightbound reconstruct runs/demo -n 16 --out reconstructions.png
    tightbound reconstruct runs/demo --samples 100 --out averaged.png
    """
    from ..models.latent import with_latents
    from ..runtime.randomness import fixed_noise
    from ..views import samples as pictures

    if samples is not None:
        require_positive("--samples", samples)
    model, path = shown(run, "reconstructions.png", out, overwrite, device, data)
    loaded = data_of(run, data)
    model = with_latents(model)
    part = part_of(loaded, split)
    some = representative(part, min(16, len(part)) if n is None else n)
    affordable("--samples", len(some) * (samples or 1), model)
    with fixed_noise(seed):
        x, c = seen(model, some)
        parts = pictures.reconstructions(model(c), x)
        parts |= {} if samples is None else pictures.averaged(model(c), x, samples)
    write(parts, path, model.data_spec, across=True, told=named(some, part), names=some.names)


def complete(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    n: Annotated[int | None, arg(aliases=("-n",), help="Number of examples; default: 8, or all if fewer.")] = None,
    samples: Annotated[int, arg(help="Completions per example.")] = 6,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Complete images from an observed part: the part, several completions, and the original, side by side.

    Example: tightbound complete runs/quadrant -n 8 --samples 6 --out completions.png
    """
    from ..runtime.randomness import fixed_noise
    from ..views import samples as pictures

    require_positive("--samples", samples)
    model, path = shown(run, "completions.png", out, overwrite, device, data)
    loaded = data_of(run, data)
    part = part_of(loaded, split)
    some = representative(part, min(8, len(part)) if n is None else n)
    affordable("--samples", len(some) * samples, model)
    with fixed_noise(seed):
        x, c = seen(model, some)
        parts = pictures.completions(model, x, c, samples)
    write(parts, path, model.data_spec, across=True, told=named(some, part), names=some.names)
