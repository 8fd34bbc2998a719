"""The commands that draw: functions whose arguments are their options. Nothing heavy is imported until one runs."""

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
"""What is drawn unless another number is asked for, or a file has more conditions."""


Count = Annotated[
    int | None,
    arg(
        aliases=("-n",),
        help="How many; default: 64, every condition of a file, or with --rank the best 8 of each condition.",
    ),
]
Temperature = Annotated[
    float, arg(help="Factor on the distance of z from the prior's mean; of codes, what divides their logits.")
]
Judge = Annotated[
    Path | None,
    arg(metavar="JUDGE", help="Only those that fit their text best, as a file of train-contrastive or a CLIP finds."),
]


def sample(
    run: Run,
    /,
    n: Count = None,
    condition: Words = (),
    condition_file: WordsFile = None,
    temperature: Temperature = 1.0,
    top_k: Annotated[int | None, arg(help="Of codes, only so many of the most probable.")] = None,
    top_p: Annotated[float | None, arg(help="Of codes, only the most probable that add up to this.")] = None,
    guidance: Annotated[float, arg(help="Of codes given a condition: above 1 they follow it more.")] = 1.0,
    rank: Judge = None,
    among: Annotated[int | None, arg(help="With --rank, how many are drawn for each text; default: 4 n.")] = None,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """New examples from the prior: the mean of p(x|z) and a draw from it, side by side; or the best of many.

    Examples: tightbound sample runs/demo -n 64 --out samples.png
    tightbound sample runs/emoji --condition "face with tears of joy" -n 8 --rank judge.safetensors --among 32
    """
    from ..runtime.randomness import fixed_noise
    from ..training.device import find_device
    from ..views import samples as pictures

    if not 0 <= temperature < float("inf"):
        raise UsageError("A temperature is at least 0.", got=temperature, remedy="Try --temperature 0.7.")
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
        "Among several, a judge chooses.",
        got=f"--among {among} alone",
        expected="--rank JUDGE",
        remedy="Train a judge: tightbound train-contrastive.",
    )


def _conditions(
    run: Path, model: Model, words: Sequence[str], file: Path | None, n: int | None
) -> tuple[Given | None, int]:
    """What was asked for, every condition of a file unless fewer samples were, or some of each; and how many."""
    import torch

    from ..runs import load_run_data
    from ..views import samples as pictures
    from .conditions import read_conditions

    asked = read_conditions(model.condition, words, file, None)
    there = 0 if asked is None else asked.shape[0]
    n = max(SAMPLES, there) if n is None else n
    if n < there:
        print(f"note: the first {n} of {there} conditions; all of them: -n {there}", file=sys.stderr)
    c = None if asked is None else asked[torch.arange(n) % there]
    if model.condition is not None and c is None:
        c = pictures.conditions_to_show(model, load_run_data(run, None).test, n)
    return None if c is None else c.to(model.device), n


def _write_samples(drawn: dict[str, Tensor], texts: list[str], path: Path, spec: DataSpec | None) -> None:
    """Samples under their titles, and what they were asked to be, where that can be said in words."""
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
    """How samples are drawn."""
    from ..distributions import Sampling

    if guidance != 1:
        _check_guidance(model, guidance)
    return Sampling(temperature, top_k, top_p, guidance)


def _check_guidance(model: Model, guidance: float) -> None:
    """Refuses guidance where there is nothing to be guided by, or nothing to compare it with."""
    if model.condition is None:
        raise UsageError(
            "Guidance is towards a condition, and this model is given none.",
            got=f"--guidance {guidance:g}",
            expected="a model that is given a text or a class",
            remedy="Leave it out, or fit a prior that is given one: tightbound fit-prior RUN --condition text.",
        )
    if not model.condition.droppable:
        raise UsageError(
            "Guidance compares what is drawn with and without the condition, and this model never learned without.",
            got=f"--guidance {guidance:g} of a model trained with --drop-condition 0",
            expected="a model that saw some examples without their condition",
            remedy="Leave it out, or train with --drop-condition 0.1.",
        )


def reconstruct(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    n: Annotated[int | None, arg(aliases=("-n",), help="How many; default: 16, or as many as there are.")] = None,
    samples: Annotated[
        int | None, arg(help="Also decode so many samples of q(z|x), and show one of them beside their average.")
    ] = None,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Examples beside what the model makes of them: the mean of p(x|z) and a draw from it.

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
    n: Annotated[int | None, arg(aliases=("-n",), help="How many pairs; default: 8, or as many as there are.")] = None,
    steps: Annotated[int, arg(help="Pictures from one example to the next.")] = 10,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Pairs of examples and the way from one to the other through the latent space.

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
    title = "mean of p(x|z) on the way from one example to another"
    title += "" if not model.decodes_conditions else ", given the condition of the nearer one"
    title += f"; {model.space.between}" if model.space.between else ""
    write({title: walk.mean}, path, model.data_spec, told=named(some, part), names=some.names, latents=walk.z)


def traverse(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    n: Annotated[int, arg(aliases=("-n",), help="How many latent dimensions, the most active first.")] = 10,
    steps: Annotated[int, arg(help="Pictures along each dimension.")] = 10,
    example: Annotated[
        int | None, arg(help="Where to start: an example by its place, from 0; default: of class 0.")
    ] = None,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """One example with one latent dimension after the other moved through the quantiles of the prior.

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
        print("note: one example does not tell which dimensions are active: the first of them", file=sys.stderr)
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
    """The place of the example that was asked for, or of the first of class 0."""
    example = int(part.representative(min(1, len(part))).sum()) if example is None else example
    if not 0 <= example < len(part):
        raise UsageError(f"The {part.name} split has no such example.", got=example, expected=f"0 to {len(part) - 1}")
    return example


def _check_quantiles(model: LatentVariableModel) -> None:
    """Refuses to move through the quantiles of the codes of one example."""
    if not model.can_sample:
        raise UsageError(
            "Without a prior, how far to move is learned from the codes of several examples.",
            got="1 example",
            expected="at least 2",
            remedy="Leave --data out, or give more.",
        )


def complete(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = None,
    n: Annotated[int | None, arg(aliases=("-n",), help="How many; default: 8, or as many as there are.")] = None,
    samples: Annotated[int, arg(help="Completions of each.")] = 6,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Pictures of which a part is seen, several completions of each, and the truth, side by side.

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
