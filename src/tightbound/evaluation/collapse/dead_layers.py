"""Dead layers of a hierarchy: which, why, and what to change.

The first dead layer is the first in the order of inference. A chain infers from the data up, and a layer depends on x
only through the one below it, so a dead layer cuts off all above it. A top-down hierarchy infers from the top down, and
every layer sees x, so the layers below a dead one can live.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..latents.positions import NOTHING
from .layers import LayerInformation
from .remedies import against, offer
from .ways import Symptoms, Way, capacity_of, option

__all__ = ["dead_layers", "first_dead", "why_layers_died"]


def dead_layers(
    information: dict[str, LayerInformation], kl: dict[str, float], use: dict[str, float], *, adds_up: bool
) -> dict[str, str]:
    """Why each dead layer is dead, in the order of inference.

    Args:
        information: Information of each layer, in that order.
        kl: KL of each layer that has one, nats; below the top of a chain it does not bound the information.
        use: Loss of likelihood when only this layer's latent is that of another example, nats.
        adds_up: Whether each layer is inferred from x and those before it.
    """
    last = list(information)[-1]
    found = dict[str, str]()
    for name, told in information.items():
        nats = kl.get(name, math.inf)
        bounds = [f"its KL is {nats:.2f} nats"] if (adds_up or name == last) and nats < NOTHING else []
        given = "the data" if adds_up else "what it is inferred from"
        bounds += [f"its posterior hardly depends on {given}"] if told.alone.value < NOTHING else []
        bounds += ["what is generated from it hardly depends on it"] if use[name] < NOTHING else []
        if bounds:
            found[name] = bounds[0]
    return found


def first_dead(s: Symptoms) -> Iterator[str]:
    """Which layer is the first dead one and why, if one is dead."""
    what = "latents from the data up" if not s.adds_up else "layers from the top down"
    for first in list(s.dead)[:1]:
        yield f"{first} is the first dead layer of {len(s.layers)} {what}: {s.dead[first]}"


def why_layers_died(s: Symptoms) -> tuple[str, str]:
    """The cause and the remedy, if some layers are dead."""
    return "; ".join(_cause(s)), offer(s, *_ways(s))


def _cause(s: Symptoms) -> Iterator[str]:
    first, *others = s.dead
    yield from first_dead(s)
    if not s.adds_up and (above := s.layers[s.layers.index(first) + 1 :]):
        yield f"nothing above it ({', '.join(above)}) can depend on the data more than it does"
    elif others:
        yield f"also dead: {', '.join(others)}"
    if _weight(s) > 1:
        yield f"a KL weight of {_weight(s):g} makes each nat cost more than it gains"


def _ways(s: Symptoms) -> Iterator[Way | None]:
    if _weight(s) > 1:
        yield Way("lower the weight", {"beta": 1.0})
    yield from against(s, "layers dead")


def _weight(s: Symptoms) -> float:
    return option(s, "beta", 1.0) if capacity_of(s) is None else 1.0
