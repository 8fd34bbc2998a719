"""The commands that draw: functions whose arguments are their options. Nothing heavy is imported until one runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from .arguments import (
    Count,
    Device,
    Picture,
    Run,
    Seed,
    Source,
    SplitName,
    Words,
    WordsFile,
    affordable,
    first,
    model_of,
    opened,
    positive,
    with_latent,
)
from .contrastive_commands import captions_to_rank, find_judge, rank_samples, write_ranked
from .errors import UsageError
from .output import check_output, write

if TYPE_CHECKING:
    from torch import Tensor

    from .models import LatentVariableModel

__all__ = ["complete", "interpolate", "reconstruct", "sample", "traverse"]


def sample(
    run: Run,
    /,
    n: Annotated[
        int | None, arg(aliases=("-n",), help="How many; default: 64, or with --rank the best 8 of each condition.")
    ] = None,
    condition: Words = None,
    condition_file: WordsFile = None,
    temperature: Annotated[
        float, arg(help="Factor on the distance of z from the prior's mean; of codes, what divides their logits.")
    ] = 1.0,
    top_k: Annotated[int | None, arg(help="Of codes, only so many of the most probable.")] = None,
    top_p: Annotated[float | None, arg(help="Of codes, only the most probable that add up to this.")] = None,
    guidance: Annotated[float, arg(help="Of codes given a condition: above 1 they follow it more.")] = 1.0,
    rank: Annotated[
        Path | None,
        arg(
            metavar="JUDGE", help="Only those that fit their text best, as a file of train-contrastive or a CLIP finds."
        ),
    ] = None,
    among: Annotated[int | None, arg(help="With --rank, how many are drawn for each text; default: 4 n.")] = None,
    out: Picture = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """New examples from the prior: the mean of p(x|z) and a draw from it, side by side; or the best of many.

    Examples: tightbound sample runs/demo -n 64 --out samples.png
    tightbound sample runs/emoji --condition "face with tears of joy" -n 8 --rank judge.safetensors --among 32
    """
    from . import pictures
    from .randomness import fixed_noise
    from .training.device import find_device

    n = n if n is not None else 64 if rank is None else 8
    positive("-n", n)
    if not 0 <= temperature < float("inf"):
        raise UsageError("A temperature is at least 0.", got=temperature, remedy="Try --temperature 0.7.")
    folder, model = model_of(run, device)
    path = check_output(out or folder.samples / "samples.png", model.data_spec)
    affordable("-n", n, model)
    temperature = _choosing(model, temperature, top_k, top_p, guidance)
    if rank is None:
        if among is not None:
            raise _no_judge(among)
        c = _conditions(run, model, condition, condition_file, n)
        with fixed_noise(seed):
            drawn = pictures.samples(model(c), n, temperature)
        _write_samples(drawn, pictures.described(model, c), path)
    else:
        among = 4 * n if among is None else among
        affordable("--among", among, model)
        c = captions_to_rank(model, condition, condition_file)
        judge = find_judge(rank, model.data_spec, find_device(device))
        with fixed_noise(seed):
            ranked = rank_samples(model, judge, c, n, among, temperature)
        write_ranked(*ranked, path, among)


def _no_judge(among: int) -> UsageError:
    return UsageError(
        "Among several, a judge chooses.",
        got=f"--among {among} alone",
        expected="--rank JUDGE",
        remedy="Train a judge: tightbound train-contrastive.",
    )


def _conditions(run: Path, model: LatentVariableModel, words: str | None, file: Path | None, n: int) -> Tensor | None:
    """What was asked for, or some of each."""
    from . import pictures
    from .condition_files import read_conditions
    from .runs import load_run_data

    c = read_conditions(model.condition, words, file, n)
    if model.condition is not None and c is None:
        c = pictures.conditions_to_show(model, load_run_data(run, None).test, n)
    return None if c is None else c.to(next(model.parameters()).device)


def _write_samples(drawn: dict[str, Tensor], texts: list[str], path: Path) -> None:
    """Samples under their titles, and what they were asked to be, where that can be said in words."""
    from . import pictures

    if path.suffix == ".npz" or not texts:
        write(drawn, path, across=True)
        return
    pictures.save_picture(pictures.told(drawn, texts), path)
    print(path)


def _choosing(
    model: LatentVariableModel, temperature: float, top_k: int | None, top_p: float | None, guidance: float
) -> float:
    """Lets a prior over codes, or pixels, draw as told; what is left for the latents of another."""
    from .networks import Sampling
    from .pixels import PixelLikelihood
    from .priors import AutoregressivePrior

    if isinstance(part := model.likelihood, PixelLikelihood) or isinstance(part := model.prior, AutoregressivePrior):
        part.sampling = Sampling(temperature, top_k, top_p, guidance)
        if guidance != 1:
            _check_guidance(model, guidance)
        return 1.0
    if (top_k, top_p, guidance) != (None, None, 1.0):
        raise UsageError(
            "This model does not draw codes one after the other.",
            got="--top-k, --top-p or --guidance",
            expected="--temperature alone",
            remedy="Leave them out, or fit a prior over codes: tightbound fit-prior RUN --prior pixelcnn.",
        )
    return temperature


def _check_guidance(model: LatentVariableModel, guidance: float) -> None:
    """Refuses guidance where there is nothing to be guided by, or nothing to compare it with."""
    if model.condition is None:
        raise UsageError(
            "Guidance is towards a condition, and this model is given none.",
            got=f"--guidance {guidance:g}",
            expected="a model that is given a text or a class",
            remedy="Leave it out, or fit a prior that is given one: tightbound fit-prior RUN --condition text.",
        )
    if getattr(model.condition, "drop", 0) == 0:
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

    folder, model, loaded = opened(run, data, device)
    with_latent(model)
    path = check_output(out or folder.samples / "reconstructions.png", model.data_spec)
    with fixed_noise(seed):
        x, c = first(model, loaded.split(split), n)
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
    from .evaluation.latents import BETWEEN_CODES, interpolation
    from .randomness import fixed_noise

    folder, model, loaded = opened(run, data, device)
    with_latent(model)
    path = check_output(out or folder.samples / "interpolations.png", model.data_spec)
    affordable("--steps", n * steps, model)
    part = loaded.split(split)
    if 2 * n > len(part):
        raise UsageError(f"{n} pairs need {2 * n} examples.", got=f"{len(part)} in the {split} split")
    with fixed_noise(seed):
        x, c = first(model, part, 2 * n)
        c0, c1 = (None, None) if c is None else (c[::2], c[1::2])
        walk = interpolation(model, x[::2], x[1::2], steps, c=c0, c1=c1)
    title = "mean of p(x|z) on the way from one example to another"
    title += "" if c is None or model.prior_only else ", given the condition of the nearer one"
    title += f"; {BETWEEN_CODES}" if hasattr(model.posterior, "codes_of") else ""
    write({title: walk.mean}, path, latents=walk.z)


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

    from .evaluation.latents import check_dimensions, posterior_means, quantiles, traversal
    from .randomness import fixed_noise

    positive("-n", n)
    positive("--steps", steps)
    folder, model, loaded = opened(run, data, device)
    with_latent(model)
    check_dimensions(model)
    affordable("--steps", steps, model)
    path = check_output(out or folder.samples / "traversals.png", model.data_spec)
    part = loaded.split(split)
    if not 0 <= example < len(part):
        raise UsageError(f"The {split} split has no such example.", got=example, expected=f"0 to {len(part) - 1}")
    means, _ = posterior_means(model, part)
    dimensions = means.var(0).argsort(descending=True)[:n]
    levels = torch.linspace(0.02, 0.98, steps)
    with fixed_noise(seed):
        x, c = first(model, part, example + 1)
        given = None if c is None else c[example]
        values = means.quantile(levels, dim=0) if model.prior is None else quantiles(model, levels, given).cpu()
        walk = traversal(model, x[example], dimensions.tolist(), values[:, dimensions].T, given)
    what = "codes" if model.prior is None else "prior"
    title = f"mean of p(x|z), dimensions {str(dimensions.tolist())[1:-1]} of z through the quantiles of the {what}"
    write({title: walk.mean}, path, latents=walk.z, dimensions=dimensions)


def complete(
    run: Run,
    /,
    data: Source = None,
    split: SplitName = "test",
    n: Annotated[int, arg(aliases=("-n",), help="How many pictures.")] = 8,
    samples: Annotated[int, arg(help="Completions of each.")] = 6,
    out: Picture = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Pictures of which a part is seen, several completions of each, and the truth, side by side.

    Example: tightbound complete runs/quadrant -n 8 --samples 6 --out completions.png
    """
    from . import pictures
    from .randomness import fixed_noise

    positive("--samples", samples)
    folder, model, loaded = opened(run, data, device)
    affordable("--samples", n * samples, model)
    path = check_output(out or folder.samples / "completions.png", model.data_spec)
    with fixed_noise(seed):
        x, c = first(model, loaded.split(split), n)
        parts = pictures.completions(model, x, c, samples)
    write(parts, path, across=True)
