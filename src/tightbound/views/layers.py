"""Views of the layers of a hierarchy: which part of a sample each of them decides.

Convention: layers are named from the data up, z1, z2, ...; an image is a mean of p(x | z), ``(*shape)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..conditions import Given
from ..distributions import Sampling
from ..errors import UnknownName, UsageError
from ..models import LatentVariableModel, Marginal, Model
from ..models.latent import with_latents
from ..posteriors import Space
from ..runtime.modes import evaluating
from ..runtime.progress import progress

__all__ = ["LayerViews", "completed_below", "evenly_chosen", "redrawn", "require_layer", "require_layers"]

MOST = 8
"""Maximum number of layers that are shown."""
_AT_ONCE = 256
"""Batch size for sampling."""


@dataclass(frozen=True)
class LayerViews:
    """One sample, and others that share its upper layers.

    Args:
        names: All layers, from the data up.
        sample: The mean of p(x | z) at one sample of all layers, ``(*shape)``.
        redrawn: By the name of each layer shown, the top first: the same, ``(n, *shape)``, with the layers above it
            fixed, and it and those below sampled again given these.
    """

    names: tuple[str, ...]
    sample: Tensor
    redrawn: Mapping[str, Tensor]

    def title(self, layer: str) -> str:
        """Which layers are sampled again, and which are fixed.

        Example:
            >>> LayerViews(("z1", "z2", "z3"), torch.zeros(1), {}).title("z2")
            'z1 and z2 redrawn, z3 fixed'
        """
        count = self.names.index(layer) + 1
        below, above = self.names[:count], self.names[count:]
        return f"{_span(below)} redrawn, {_span(above)} fixed" if above else f"{_span(below)} redrawn, none fixed"

    @property
    def omitted(self) -> str:
        """Which layers are shown, as text; empty if all are."""
        shown, there = len(self.redrawn), len(self.names)
        return "" if shown == there else f"{shown} of {there} layers, evenly spaced"


def _span(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{names[0]} to {names[-1]}"


@torch.no_grad()
def redrawn(
    model: Model,
    n: int = 8,
    c: Given | None = None,
    how: Sampling = Sampling(),  # noqa: B008 - frozen
    most: int = MOST,
) -> LayerViews:
    r"""What each layer holds: samples that share the layers above one of them.

    For each layer l, n samples of :math:`p(z_1, \dots, z_l \mid z_{>l})` at the same :math:`z_{>l}`. What they have in
    common was decided above layer l; what differs from the row above is what the layer above l decided.

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020).

    Args:
        model: A hierarchy.
        n: Samples for each layer.
        c: Conditions of shape ``()``.
        how: How each layer is sampled.
        most: Maximum number of layers shown, evenly spaced, with the first and the last.

    Raises:
        UsageError: If the model has one latent or none, or n is less than 1.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import HVAE
        >>> model = HVAE(layers=(4, 2), hidden=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> {name: tuple(x.shape) for name, x in redrawn(model, n=5).redrawn.items()}
        {'z2': (5, 1, 8, 8), 'z1': (5, 1, 8, 8)}
    """
    hierarchy = require_layers(model)
    if n < 1:
        raise UsageError("At least one sample of each layer is needed.", got=f"n = {n}", expected="1 or more")
    with evaluating(model):
        px, names = hierarchy(c), hierarchy.space.names
        fixed, found = px.sample_layers((), how), dict[str, Tensor]()
        shown = evenly_chosen(names[::-1], most)
        with progress("layers", len(shown)) as advance:
            for name in shown:
                above = {other: fixed[other] for other in names[names.index(name) + 1 :]}
                found[name] = _redrawn(px, above, n, how)
                advance(1)
        return LayerViews(names, _mean(px, fixed).cpu(), found)


def _redrawn(px: Marginal, above: Mapping[str, Tensor], n: int, how: Sampling) -> Tensor:
    """Means of p(x | z), ``(n, *shape)``, on the CPU."""
    parts = list[Tensor]()
    for part in torch.arange(n).split(_AT_ONCE):
        given = {name: z.expand(len(part), *z.shape) for name, z in above.items()}
        parts.append(_mean(px, px.sample_layers((len(part),), how, given)).cpu())
    return torch.cat(parts)


def _mean(px: Marginal, latents: Mapping[str, Tensor]) -> Tensor:
    return px.likelihood(px.model.space.joined(latents)).mean


def completed_below(px: Marginal, shape: tuple[int, ...], latents: Mapping[str, Tensor]) -> Tensor:
    """The latent as the likelihood takes it; layers that are missing are the mean of their prior, given those above.

    Args:
        px: The distribution of a hierarchy, or of a model with one latent.
        shape: Leading shape of the latents.
        latents: Some layers, with all above them, ``(*shape, *latent)``.
    """
    space = px.model.space
    whole = latents if space.names[0] in latents else px.sample_layers(shape, Sampling(temperature=0.0), latents)
    return space.joined(whole)


def evenly_chosen(names: Sequence[str], most: int) -> list[str]:
    """At most that many names, evenly spaced, with the first and the last.

    Example:
        >>> evenly_chosen(["z5", "z4", "z3", "z2", "z1"], 3)
        ['z5', 'z3', 'z1']
    """
    if len(names) <= most:
        return list(names)
    places = torch.linspace(0, len(names) - 1, most).round().long().tolist()
    return [names[int(place)] for place in places]


def require_layers(model: Model) -> LatentVariableModel:
    """The model, which must have several layers of latents.

    Raises:
        UsageError: If it has one or none.
    """
    found = with_latents(model)
    if len(found.space.names) < 2:
        raise UsageError(
            "This model has one layer of latents, so none lies above another.",
            got=model.origin,
            expected="a hierarchy of latents",
            remedy="Sample it without --by-layer, or train a hierarchy: tightbound train hvae, ladder or vdvae.",
        )
    return found


def require_layer(space: Space, name: str) -> None:
    """Refuses a layer that does not exist.

    Raises:
        UnknownName: If it does not.
    """
    if name not in space.names:
        raise UnknownName("layer of latents", name, space.names)
