"""The commands that draw: functions whose arguments are their options. Heavy imports are deferred until one runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

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
    counted,
    data_of,
    named,
    part_of,
    representative,
    require_positive,
    seen,
    shown,
)
from .contrastive import captions_to_rank, find_judge, rank_samples, write_ranked
from .output import print_written, write

if TYPE_CHECKING:
    from torch import Tensor

    from ..conditions import Given
    from ..data import DataSpec, Split
    from ..distributions import Sampling
    from ..models import LatentVariableModel, Model

__all__ = ["complete", "interpolate", "reconstruct", "sample", "traverse"]


SAMPLES = 64
"""Default number of samples, unless a file has more conditions."""


Count = Annotated[
    int | None,
    arg(
        aliases=("-n",),
        help="Number of samples; default: 64, one per condition of a file, or with --rank the best 8 of each.",
    ),
]
Temperature = Annotated[
    float,
    arg(help="Sampling temperature: scales the distance of z from the prior mean; for codes, divides the logits."),
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
    temperature: Temperature = 1.0,
    top_k: Annotated[int | None, arg(help="For codes: sample from the k most probable only.")] = None,
    top_p: Annotated[
        float | None, arg(help="For codes: sample from the most probable with this total probability.")
    ] = None,
    guidance: Annotated[
        float, arg(help="Classifier-free guidance for codes: values above 1 follow the condition more closely.")
    ] = 1.0,
    rank: Judge = None,
    among: Annotated[int | None, arg(help="With --rank, number of samples drawn for each text; default: 4 n.")] = None,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Sample from the prior: the mean of p(x|z) and a sample of it, side by side; or the best of many.

    Examples: tightbound sample runs/demo -n 64 --out samples.png
    tightbound sample runs/emoji --condition "face with tears of joy" -n 8 --rank judge.safetensors --among 32
    """
    from ..runtime.randomness import fixed_noise
    from ..training.device import find_device
    from ..views import samples as pictures

    if not 0 <= temperature < float("inf"):
        raise UsageError("A temperature must be at least 0.", got=temperature, remedy="Try --temperature 0.7.")
    model, path = shown(run, "samples.png", out, overwrite, device, condition_file, rank, n=n)
    how = _drawing(model, temperature, top_k, top_p, guidance)
    if rank is None:
        if among is not None:
            raise _no_judge(among)
        c, n = _conditions(run, model, condition, condition_file, n)
        with fixed_noise(seed):
            drawn = pictures.samples(model, n, c, how)
        _write_samples(drawn, [] if c is None else pictures.described(model, c), path, model.data_spec)
    else:
        n = 8 if n is None else n
        among = 4 * n if among is None else among
        affordable("--among", among, model)
        c = captions_to_rank(model, condition, condition_file)
        judge = find_judge(rank, model.data_spec, find_device(device))
        with fixed_noise(seed):
            ranked = rank_samples(model, judge, c, n, among, how)
        write_ranked(*ranked, path, among)


def _no_judge(among: int) -> UsageError:
    return UsageError(
        "--among needs --rank.",
        got=f"--among {among} alone",
        expected="--rank JUDGE",
        remedy="Train a judge: tightbound train-contrastive.",
    )


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


def _drawing(model: Model, temperature: float, top_k: int | None, top_p: float | None, guidance: float) -> Sampling:
    """The sampling options."""
    from ..distributions import Sampling

    if guidance != 1:
        _check_guidance(model, guidance)
    return Sampling(temperature, top_k, top_p, guidance)


def _check_guidance(model: Model, guidance: float) -> None:
    """Refuses guidance without a condition, or for a model never trained without one."""
    if model.condition is None:
        raise UsageError(
            "Guidance needs a condition, but this model is unconditional.",
            got=f"--guidance {guidance:g}",
            expected="a model conditioned on a text or a class",
            remedy="Leave it out, or fit a conditional prior: tightbound fit-prior RUN --condition text.",
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


def interpolate(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    n: Annotated[int | None, arg(aliases=("-n",), help="Number of pairs; default: 8, or all if fewer.")] = None,
    steps: Annotated[int, arg(help="Images from one example to the other.")] = 10,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Interpolate between pairs of examples in latent space.

    Example: tightbound interpolate runs/demo -n 8 --steps 10 --out interpolations.png
    """
    from ..models.latent import with_latents
    from ..runtime.randomness import fixed_noise
    from ..views.latents import interpolation

    model, path = shown(run, "interpolations.png", out, overwrite, device, data)
    loaded = data_of(run, data)
    model = with_latents(model)
    part = part_of(loaded, split)
    n = max(1, min(8, len(part) // 2)) if n is None else n
    affordable("--steps", n * steps, model)
    if 2 * n > len(part):
        raise UsageError(f"{n} pair{'s need' if n > 1 else ' needs'} {2 * n} examples.", got=counted([part]))
    some = representative(part, 2 * n)
    with fixed_noise(seed):
        x, c = seen(model, some)
        c0, c1 = (None, None) if c is None else (c[::2], c[1::2])
        walk = interpolation(model, x[::2], x[1::2], steps, c=c0, c1=c1)
    title = "mean of p(x|z), interpolated from one example to another"
    title += "" if not model.decodes_conditions else ", given the condition of the nearer one"
    title += f"; {model.space.between}" if model.space.between else ""
    write({title: walk.mean}, path, model.data_spec, told=named(some, part), names=some.names, latents=walk.z)


def traverse(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    n: Annotated[int, arg(aliases=("-n",), help="Number of latent dimensions, the most active first.")] = 10,
    steps: Annotated[int, arg(help="Images along each dimension.")] = 10,
    example: Annotated[int | None, arg(help="Index of the starting example, from 0; default: one of class 0.")] = None,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Vary one latent dimension of an example at a time, through the quantiles of the prior.

    Example: tightbound traverse runs/demo -n 10 --out traversals.png
    """
    import torch

    from ..models.latent import with_latents
    from ..runtime.randomness import fixed_noise
    from ..views.latents import posterior_means, quantiles, require_dimensions, traversal

    require_positive("-n", n)
    require_positive("--steps", steps)
    model, path = shown(run, "traversals.png", out, overwrite, device, data)
    loaded = data_of(run, data)
    model = with_latents(model)
    require_dimensions(model)
    affordable("--steps", steps, model)
    part = part_of(loaded, split)
    example = _start(part, example)
    if len(part) < 2:
        _check_quantiles(model)
        print("note: active dimensions are unknown from one example: using the first ones", file=sys.stderr)
    means, _ = posterior_means(model, part)
    dimensions = means.var(0, correction=0).argsort(descending=True, stable=True)[:n]
    levels = torch.linspace(0.02, 0.98, steps)
    with fixed_noise(seed):
        x, c = seen(model, part.subset(torch.tensor([example])))
        given = None if c is None else c[0]
        values = means.quantile(levels, dim=0) if not model.can_sample else quantiles(model, levels, given).cpu()
        walk = traversal(model, x[0], dimensions.tolist(), values[:, dimensions].T, given)
    what = "codes" if not model.can_sample else "prior"
    title = f"mean of p(x|z), dimensions {str(dimensions.tolist())[1:-1]} of z through the quantiles of the {what}"
    told = f"from {part.names[example]}, of {counted([part])}"
    write({title: walk.mean}, path, model.data_spec, told=told, latents=walk.z, dimensions=dimensions)


def _start(part: Split, example: int | None) -> int:
    """The index of the starting example; by default the first of class 0."""
    example = int(part.representative(min(1, len(part))).sum()) if example is None else example
    if not 0 <= example < len(part):
        raise UsageError(
            f"The {part.name} split has no example with that index.", got=example, expected=f"0 to {len(part) - 1}"
        )
    return example


def _check_quantiles(model: LatentVariableModel) -> None:
    """Refuses quantiles of the codes of a single example."""
    if not model.can_sample:
        raise UsageError(
            "Without a prior, the range of a traversal needs the codes of several examples.",
            got="1 example",
            expected="at least 2",
            remedy="Leave --data out, or give more.",
        )


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
