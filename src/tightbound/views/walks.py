r"""Walks in latent space: interpolations and traversals.

Convention: a code is the mean of :math:`q(z \mid x)`, or the most probable codes for discrete latents. A walk has one
row for each pair or dimension and one column for each step: latents ``(rows, steps, *latent)``, images ``(rows, steps,
*shape)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.distributions import Normal

from ..conditions import Given
from ..distributions import gaussian_factors
from ..errors import ShapeError, UsageError
from ..models import LatentVariableModel
from ..runtime.modes import evaluating
from ..runtime.randomness import fixed_noise
from .layers import completed_below, require_layer

__all__ = ["Walk", "interpolation", "natural_path", "quantiles", "require_dimensions", "traversal"]

Path = Literal["auto", "linear", "spherical"]


@dataclass(frozen=True)
class Walk:
    """Points in latent space and the model's outputs there.

    Args:
        z: Latents, ``(rows, steps, *latent)``.
        mean: Mean of p(x | z), ``(rows, steps, *shape)``.
        draw: One sample of p(x | z) each, ``(rows, steps, *shape)``.
    """

    z: Tensor
    mean: Tensor
    draw: Tensor


@torch.no_grad()
def interpolation(
    model: LatentVariableModel,
    x0: Tensor,
    x1: Tensor,
    steps: int = 9,
    path: Path = "auto",
    c: Given | None = None,
    c1: Given | None = None,
    *,
    seed: int = 0,
) -> Walk:
    r"""Interpolates from the code of one example to that of another.

    Linear, :math:`z_t = (1 - t) z_0 + t z_1`; or spherical, which rotates at a constant rate and keeps the norm typical
    of a high-dimensional Gaussian prior,

    .. math:: z_t = \frac{\sin((1 - t) \omega)}{\sin \omega} z_0 + \frac{\sin(t \omega)}{\sin \omega} z_1

    References:
        Sampling Generative Networks (White, 2016).

    Args:
        model: The model; in a chain of latents z1 moves, which alone is decoded, in a top-down hierarchy all layers.
        x0: First examples of the rows, ``(rows, *shape)``.
        x1: Last examples, the same shape.
        steps: Points per row, including both ends.
        path: ``"auto"``: spherical where the prior is a product of Gaussians, else linear.
        c: Conditions of the first examples, of shape ``(rows,)``.
        c1: Conditions of the last examples; default: the same. Each point uses the condition of the nearer end.
        seed: Seed of the draws.

    Raises:
        UsageError: If there are fewer than two steps.
        ShapeError: If the two ends differ in shape.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> x = data.test.batch(torch.arange(6)).x
        >>> interpolation(tb.recipes.VAE().build(data.spec), x[:3], x[3:], steps=5).mean.shape
        torch.Size([3, 5, 1, 8, 8])
    """
    _check_ends(x0, x1, steps)
    c1 = c if c1 is None else c1
    path = natural_path(model, c) if path == "auto" else path
    with evaluating(model), fixed_noise(seed):
        z0, z1 = model(c).representative(x0), model(c1).representative(x1)
        t = torch.linspace(0, 1, steps, dtype=z0.dtype, device=z0.device)
        return _seen(model, _between(z0, z1, t, path), _nearer(c, c1, t))


def _nearer(c: Given | None, c1: Given | None, t: Tensor) -> Given | None:
    """The condition of the nearer end of each point, ``(rows, steps)``."""
    return None if c is None or c1 is None else Given.stack([c if at < 0.5 else c1 for at in t.tolist()], dim=1)


def _check_ends(x0: Tensor, x1: Tensor, steps: int) -> None:
    if steps < 2:
        raise UsageError("An interpolation needs at least two steps.", got=f"steps = {steps}", expected="at least 2")
    if x0.shape != x1.shape:
        raise ShapeError("The two ends differ in shape.", got=f"{tuple(x0.shape)} and {tuple(x1.shape)}")


def _between(z0: Tensor, z1: Tensor, t: Tensor, path: Path) -> Tensor:
    """``(rows, steps, *latent)``; rows whose ends are (anti)parallel or zero are linear."""
    shape = (len(z0), len(t), *z0.shape[1:])
    a, b = z0.flatten(1).unsqueeze(1), z1.flatten(1).unsqueeze(1)
    t = t.unsqueeze(-1)
    straight = torch.lerp(a, b, t)
    if path == "linear":
        return straight.reshape(shape)
    cosine = torch.cosine_similarity(a, b, dim=-1).unsqueeze(-1).clamp(-1, 1)
    angle = torch.acos(cosine)
    turned = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
    return torch.where(cosine.abs() < 1 - 1e-4, turned, straight).reshape(shape)


@torch.no_grad()
def traversal(
    model: LatentVariableModel,
    x: Tensor,
    dims: Sequence[int],
    values: Tensor | None = None,
    c: Given | None = None,
    *,
    layer: str | None = None,
    seed: int = 0,
) -> Walk:
    r"""The code of one example, varying one dimension at a time.

    In a chain of latents the layers below the one that varies are the mean of :math:`p(z_{k-1} \mid z_k)`; in a
    top-down hierarchy all other dimensions keep their values.

    Args:
        model: The model; its latent is a vector.
        x: The example, ``(*shape)``.
        dims: Which latent dimensions, one row each.
        values: Values of each dimension, ``(steps,)`` or ``(len(dims), steps)``; default: nine quantiles of the prior.
        c: The example's conditions, of shape ``()``.
        layer: The layer whose dimensions vary, such as ``"z2"``; default: the latent that the likelihood takes, z1 of
            a chain and all layers of a top-down hierarchy, the top first.
        seed: Seed of the draws.

    Raises:
        UnknownName: If there is no such layer.
        UsageError: If a dimension does not exist, latents are codes or not vectors, or the model has no prior for the
            default values.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=4).build(data.spec)
        >>> traversal(model, data.test.batch(torch.arange(1)).x[0], dims=[2, 0]).mean.shape
        torch.Size([2, 9, 1, 8, 8])
    """
    require_dimensions(model, layer)
    with evaluating(model), fixed_noise(seed):
        codes = _codes(model, x, c, layer)
        code = codes[layer]
        _check_dims(code, dims)
        if values is None:
            values = quantiles(model, torch.linspace(0.02, 0.98, 9), c, layer)[:, list(dims)].T
        z = _varied(code, dims, values.to(code).expand(len(dims), -1))
        if layer is not None:
            rows = z.shape[:2]
            kept = {name: codes[name].expand(*rows, *codes[name].shape) for name in model.space.unmoved(layer)}
            z = completed_below(model(c), rows, {layer: z, **kept})
        return _seen(model, z, c)


def _varied(code: Tensor, dims: Sequence[int], values: Tensor) -> Tensor:
    """``(rows, steps, d)``, in each row with the values of one dimension."""
    z = code.repeat(len(dims), values.shape[1], 1)
    for row, dim in enumerate(dims):
        z[row, :, dim] = values[row]
    return z


def _codes(model: LatentVariableModel, x: Tensor, c: Given | None, layer: str | None) -> dict[str | None, Tensor]:
    """The code of an example: of all layers by name, or the one that the likelihood takes, under None."""
    given = None if c is None else c[None]
    if layer is None:
        return {None: model(given).posterior(x.unsqueeze(0)).mean[0]}
    return {name: z[0] for name, z in model.space.latents(x.unsqueeze(0), given).items()}


def require_dimensions(model: LatentVariableModel, layer: str | None = None) -> None:
    """Refuses latents that are codes: single entries of a code vector have no meaning.

    Args:
        model: The model.
        layer: The layer whose dimensions are asked for, if any.

    Raises:
        UnknownName: If there is no such layer.
        UsageError: If the latents are codes.
    """
    if model.codes is not None:
        raise UsageError(
            "The latents are codes, which have no separate dimensions to traverse.",
            got=model.origin,
            expected="a model whose latent is a vector",
            remedy="Try tightbound reconstruct, interpolate or sample; or train a recipe such as vae.",
        )
    if layer is not None:
        require_layer(model.space, layer)


def _check_dims(code: Tensor, dims: Sequence[int]) -> None:
    if code.dim() != 1:
        got, remedy = f"latents of shape {tuple(code.shape)}", "Try an interpolation, or a recipe such as vae."
        raise UsageError("Only the dimensions of a vector can be traversed.", got=got, remedy=remedy)
    if wrong := [d for d in dims if not 0 <= d < len(code)]:
        raise UsageError("The latent dimension is out of range.", got=wrong[0], expected=f"0 ... {len(code) - 1}")


@torch.no_grad()
def quantiles(model: LatentVariableModel, levels: Tensor, c: Given | None = None, layer: str | None = None) -> Tensor:
    """Quantiles of each dimension of the prior: exact for Gaussians, else from 10,000 samples.

    Args:
        model: A model with a prior over vectors.
        levels: Quantile levels between 0 and 1, ``(steps,)``.
        c: Conditions of shape ``()``.
        layer: A layer of latents; default: the latent that the likelihood takes.

    Returns:
        ``(steps, d)``.

    Raises:
        UnknownName: If there is no such layer.
        UsageError: If the model has no prior.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> model = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> quantiles(model, torch.tensor([0.5])).abs()
        tensor([[0., 0.]])
    """
    if not model.can_sample:
        raise UsageError(
            "The model has no prior, so it has no prior quantiles.",
            remedy="Pass the values, for example quantiles of the codes of some data.",
        )
    if layer is not None:
        require_layer(model.space, layer)
        return _of_layer(model, levels, c, layer)
    gaussian = _gaussian(model, c)
    if gaussian is not None:
        return gaussian.icdf(levels.to(gaussian.loc).unsqueeze(-1))
    with fixed_noise():
        z = model(c).sample_latent((10_000,)).flatten(1)
    return z.quantile(levels.to(z), dim=0)


def _of_layer(model: LatentVariableModel, levels: Tensor, c: Given | None, layer: str) -> Tensor:
    """Quantiles of one layer: in a chain the prior is the model of the layers above z1."""
    space = model.space
    if layer == space.names[0] or len(space.layers) == 1:
        return space.split(quantiles(model, levels, c))[layer]
    above = cast(LatentVariableModel, model.prior)
    return _of_layer(above, levels, c, above.space.names[space.names.index(layer) - 1])


def natural_path(model: LatentVariableModel, c: Given | None = None) -> Literal["spherical", "linear"]:
    """The default path of an interpolation: spherical under a zero-mean Gaussian prior, else linear.

    Args:
        model: The model.
        c: Conditions of shape ``(rows,)``.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> natural_path(VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17)))
        'spherical'
    """
    prior = _gaussian(model, None if c is None else c[0])
    return "linear" if prior is None or prior.loc.any() else "spherical"


def _gaussian(model: LatentVariableModel, c: Given | None = None) -> Normal | None:
    """The factors of the prior, if they are Gaussian."""
    base = None if model.prior is None else gaussian_factors(model.prior(c))
    return base if base is not None and base.loc.dim() == 1 else None


def _seen(model: LatentVariableModel, z: Tensor, c: Given | None = None) -> Walk:
    px = model(c).likelihood(z)
    return Walk(z, px.mean, px.sample())
