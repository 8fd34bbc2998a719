"""What a diagnosis tells of each layer of a hierarchy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...spec import register
from ..estimate import Estimate
from ..results import Evaluation
from .layers import LayerInformation

__all__ = ["COLUMNS", "Layer", "cells", "layers_of"]

COLUMNS = ("layer", "KL", "information", "alone", "used", "active", "")
"""Titles of the columns of :func:`cells`."""


@register("layer", record=True)
@dataclass(frozen=True, kw_only=True)
class Layer:
    r"""What one layer of a hierarchy carries, nats.

    Args:
        name: Its name.
        kl: Its KL. Of a top-down hierarchy, and at the top of a chain, the information is at most this. None if the
            prior does not factorise over the layers, as a fitted one.
        information: Lower bound on :math:`I(x; z_l \mid z_{>l})`, or in a chain on :math:`I(z_{l-1}; z_l)`.
        alone: How well it alone tells the examples apart, given the layers inferred before it.
        decoder_use: Loss of likelihood of what is generated from it, when its latent is that of another example.
        active_units: Number of active dimensions.
        dimensions: Number of dimensions.
        dead: Whether one of these says that it is not used.

    Example:
        >>> nats = dict.fromkeys(("information", "alone", "decoder_use"), Estimate(0.01, 0.02))
        >>> next(cells([Layer(name="z2", kl=0.0, **nats, active_units=0, dimensions=8, dead=True)]))
        ('z2', '0.00', '0.01 ± 0.02', '0.01 ± 0.02', '0.01 ± 0.02', '0/8', 'dead')
    """

    name: str
    kl: float | None
    information: Estimate
    alone: Estimate
    decoder_use: Estimate
    active_units: int
    dimensions: int
    dead: bool


def layers_of(
    found: Evaluation,
    information: Mapping[str, LayerInformation],
    use: Mapping[str, Estimate],
    dead: Collection[str],
) -> tuple[Layer, ...] | None:
    """The layers of a hierarchy, from the data up; None for a single latent.

    Args:
        found: The evaluation of the same model.
        information: The information of each layer.
        use: The decoder's use of each layer, from the data up.
        dead: Names of the dead layers.
    """
    wise, active, of = found.kl_per_dimension or {}, found.active_per_layer or {}, found.dimensions_per_layer or {}
    layers = (
        Layer(
            name=name,
            kl=sum(wise[name]) if name in wise else None,
            information=information[name].information,
            alone=information[name].alone,
            decoder_use=lost,
            active_units=active[name],
            dimensions=of[name],
            dead=name in dead,
        )
        for name, lost in use.items()
    )
    return tuple(layers) or None


def cells(layers: Sequence[Layer]) -> Iterator[tuple[str, ...]]:
    """The rows of a table of layers as text, with the columns :data:`COLUMNS`.

    Args:
        layers: The layers.
    """
    for layer in layers:
        nats = (str(layer.information), str(layer.alone), str(layer.decoder_use))
        units = f"{layer.active_units}/{layer.dimensions}"
        kl = "–" if layer.kl is None else f"{layer.kl:.2f}"
        yield layer.name, kl, *nats, units, "dead" if layer.dead else ""
