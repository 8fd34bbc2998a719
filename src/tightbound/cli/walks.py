"""The commands that walk in latent space. Heavy imports are deferred until one runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from ..errors import UsageError
from .arguments import (
    Device,
    Overwrite,
    Picture,
    Run,
    Seed,
    Source,
    SplitName,
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
from .output import write

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Split
    from ..models import LatentVariableModel

__all__ = ["interpolate", "traverse"]


LayerName = Annotated[
    str | None,
    arg(
        metavar="NAME",
        help="In a hierarchy, the layer whose dimensions vary, such as z2; default: z1 of a chain, all layers of a "
        "top-down hierarchy. The layers below it follow in a chain, and stay as they are in a top-down hierarchy.",
    ),
]


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
    """Interpolate between pairs of examples in latent space: in a chain of latents z1, else all layers at once.

    Example: tightbound interpolate runs/demo -n 8 --steps 10 --out interpolations.png
    """
    from ..models.latent import with_latents
    from ..runtime.randomness import fixed_noise
    from ..views.walks import interpolation

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
    moving = f"{model.space.taken} " if model.space.taken else ""
    title = f"mean of p(x|z), {moving}interpolated from one example to another"
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
    layer: LayerName = None,
    example: Annotated[int | None, arg(help="Index of the starting example, from 0; default: one of class 0.")] = None,
    out: Picture = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Vary one latent dimension of an example at a time, through the quantiles of the prior.

    Examples: tightbound traverse runs/demo -n 10 --out traversals.png
    tightbound traverse runs/ladder --layer z2
    """
    import torch

    from ..models.latent import with_latents
    from ..runtime.randomness import fixed_noise
    from ..views.walks import quantiles, require_dimensions, traversal

    require_positive("-n", n)
    require_positive("--steps", steps)
    model, path = shown(run, "traversals.png", out, overwrite, device, data)
    loaded = data_of(run, data)
    model = with_latents(model)
    require_dimensions(model, layer)
    affordable("--steps", steps, model)
    part = part_of(loaded, split)
    example = _start(part, example)
    means = _means(model, part, layer)
    dimensions = means.var(0, correction=0).argsort(descending=True, stable=True)[:n]
    levels = torch.linspace(0.02, 0.98, steps)
    with fixed_noise(seed):
        x, c = seen(model, part.subset(torch.tensor([example])))
        given = None if c is None else c[0]
        values = means.quantile(levels, dim=0) if not model.can_sample else quantiles(model, levels, given, layer).cpu()
        walk = traversal(model, x[0], dimensions.tolist(), values[:, dimensions].T, given, layer=layer)
    which = _dimensions(model, dimensions, means.shape[1], layer)
    title = f"mean of p(x|z), {which} through the quantiles of the {'prior' if model.can_sample else 'codes'}"
    told = f"from {part.names[example]}, of {counted([part])}"
    write({title: walk.mean}, path, model.data_spec, told=told, latents=walk.z, dimensions=dimensions)


def _means(model: LatentVariableModel, part: Split, layer: str | None) -> Tensor:
    """The posterior means of a layer, or of the latent that the likelihood takes."""
    from ..views.latents import layer_means, posterior_means

    if len(part) < 2:
        _check_quantiles(model)
        print("note: active dimensions are unknown from one example: using the first ones", file=sys.stderr)
    return posterior_means(model, part)[0] if layer is None else layer_means(model, part)[layer]


def _dimensions(model: LatentVariableModel, chosen: Tensor, n: int, layer: str | None) -> str:
    """Which dimensions vary, as text: of several layers with the layer of each."""
    import torch

    indices, layers = chosen.tolist(), [layer] if layer is not None else [*model.space.split(torch.zeros(n))]
    if len(layers) == 1:
        return f"dimensions {str(indices)[1:-1]} of {layers[0]}"
    names = model.space.dimension_names(n)
    return f"dimensions {', '.join(names[i] for i in indices)}"


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
