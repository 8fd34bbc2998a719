r"""Latents of a data set: the codes of its examples, and what their images lack.

Convention: ``x`` is ``(n, *shape)``; a code is the mean of :math:`q(z \mid x)`, or the most probable codes for discrete
latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data import Batch, Split
from ..errors import UsageError
from ..models import LatentVariableModel, Model
from ..models.latent import with_latents
from ..runtime.modes import evaluating
from ..runtime.progress import progress
from ..runtime.randomness import fixed_noise

__all__ = ["encode", "layer_means", "posterior_means", "residual"]

CHUNK = 500
"""Batch size for encoding."""


def posterior_means(model: Model, split: Split, *, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    r"""The mean of :math:`q(z \mid x)` of every example, flattened.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        seed: Seed of binarisation and dequantisation.

    Returns:
        Means ``(n, d)`` and labels ``(n,)``, both on the CPU; None if there are no labels.

    Raises:
        UsageError: If the split is empty.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> posterior_means(model, data.test)[0].shape
        torch.Size([360, 2])
    """
    if not isinstance(model, LatentVariableModel):
        return torch.zeros(len(split), 0), None if split.labels is None else split.labels.cpu()
    arrays = encode(model, split, seed=seed)
    return arrays["mean"].flatten(1), arrays.get("labels")


def layer_means(model: Model, split: Split, *, seed: int = 0) -> dict[str, Tensor]:
    """The posterior means of each layer by its name, from the data up, ``(n, d)`` each, as :func:`encode` has them.

    A model without latents has none.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        seed: Seed of binarisation and dequantisation.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.HVAE(layers=(4, 2), hidden=(8,)).build(data.spec)
        >>> {name: tuple(means.shape) for name, means in layer_means(model, data.test).items()}
        {'z1': (360, 4), 'z2': (360, 2)}
    """
    if model.space is None:
        return {}
    arrays, space = encode(with_latents(model), split, seed=seed), model.space
    own = space.split(arrays["mean"].flatten(1))
    return {name: own[name] if name in own else arrays[f"{name}_mean"].flatten(1) for name in space.names}


@torch.no_grad()
def encode(model: LatentVariableModel, split: Split, *, seed: int = 0) -> dict[str, Tensor]:
    r"""The latents of a split.

    Args:
        model: The model, on the device to compute on.
        split: The data.
        seed: Seed of all noise: binarisation, dequantisation, the sample.

    Returns:
        On the CPU, ``mean`` and ``sample`` of :math:`q(z \mid x)`, ``(n, *latent)``; ``standard_deviation`` of the same
        shape if the posterior has a density; ``codes``, the most probable ones, int32 ``(n, *grid)``, for discrete
        latents: with several levels ``codes_0`` (the top), ``codes_1`` and so on; ``labels``, ``(n,)`` int64, if the
        data has them.

        Of a chain of latents these are of z1, and ``z2_mean``, ``z2_standard_deviation``, ``z2_sample``, ``z3_mean``
        and so on follow: mean and deviation of :math:`q(z_l \mid z_{l-1})` at the mean of the layer below, and a sample
        at its sample, so that the samples are one of all layers. A top-down hierarchy has one vector of all layers,
        which ``model.space.split`` takes apart; each layer's mean and deviation are given the means of those above.

    Raises:
        UsageError: If the split is empty.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> sorted(encode(tb.recipes.VAE(latent_dim=2).build(data.spec), data.test))
        ['labels', 'mean', 'sample', 'standard_deviation']
    """
    if len(split) == 0:
        raise UsageError(f"The {split.name} split is empty.", remedy="Encode another, or all: --split all.")
    model.require_weights()
    parts = list[dict[str, Tensor]]()
    with evaluating(model), fixed_noise(seed), progress("encoding", len(split)) as advance:
        for batch in split.batches(CHUNK, model.device):
            x, c = model.see(batch)
            part = model.space.described(x, c)
            if batch.labels is not None:
                part["labels"] = batch.labels
            parts.append({name: value.cpu() for name, value in part.items()})
            advance(len(batch.x))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def residual(model: LatentVariableModel, batch: Batch) -> Tensor:
    """Examples minus the mean of p(x | z) at their representative latents, as the model sees them, ``(n, *shape)``.

    Args:
        model: The model, in evaluation mode.
        batch: Examples, on its device.
    """
    x, c = model.see(batch)
    px = model(c)
    return x - px.likelihood(px.representative(x)).mean
