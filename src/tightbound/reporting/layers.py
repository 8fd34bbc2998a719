"""The layers of a hierarchy in a report: what each holds, and how much of it is used.

Convention: the HTML is empty if the model has one latent or none.
"""

from __future__ import annotations

from torch import Tensor

from ..pictures.sheets import beside, layer_rows
from ..runtime.randomness import fixed_noise
from ..views import samples as pictures
from ..views.layers import MOST, evenly_chosen, redrawn
from ..views.walks import traversal
from . import figures, page
from .material import Material
from .sheet import sheet

__all__ = ["bars", "held", "traversals"]

LOSSLESS = 32
"""Colour images above this side are embedded as JPEG."""


def held(m: Material, n: int = 7) -> str:
    """Samples that share their upper layers, a row for each layer, as HTML."""
    if not m.hierarchy or not m.spec.image or not m.model.can_sample:
        return ""
    c = pictures.conditions_to_show(m.model, m.test, 1)
    if not m.latent(None if c is None else c[0]).layered:
        return page.paragraph("Under this prior the layers depend on each other, so none is redrawn by itself.")
    with fixed_noise(m.seed):
        views = redrawn(m.model, n, None if c is None else c[0])
    head, rows = layer_rows(views, m.spec)
    lossy = m.spec.shape[0] == 3 and max(m.spec.shape[-2:]) > LOSSLESS
    strips = [(title, _strip(parts, title, lossy)) for title, parts in rows]
    return page.paragraph(f"{_HELD} {head}.") + page.strips(strips)


def _strip(parts: list[Tensor], alt: str, lossy: bool) -> str:
    return page.picture(beside([sheet(each, len(each)) for each in parts]), alt, lossy=lossy)


def bars(m: Material) -> str:
    """The KL of each layer, with its number and its active dimensions, as HTML."""
    if not m.hierarchy or not (kl := m.kl_per_layer) or set(kl) != set(m.activity):
        return ""
    used = {name: f"{active} of {there} active" for name, (active, there) in m.activity.items()}
    rows = [(name, nats, f"{nats:.2f} nats · {used[name]}") for name, nats in reversed(kl.items())]
    drawn = figures.svg(figures.layer_bars(rows, "KL [nats]"))
    figure = page.figure(page.plot(drawn, "KL of each layer of latents"), "KL of each layer, the top first")
    dead = [name for name, (active, _) in m.activity.items() if not active]
    told = f"{' and '.join(dead)} {'have' if len(dead) > 1 else 'has'} no active dimension, so nothing of the data."
    return figure + (page.paragraph(told) if dead else "")


def traversals(m: Material, rows: int = 8) -> list[tuple[str, Tensor]]:
    """Titles and images of the most active dimensions of each layer, the top first.

    Args:
        m: The run.
        rows: Number of dimensions in all, at least one for each layer shown.
    """
    x, c = m.examples(m.representative(1))
    shown, given = evenly_chosen([*m.layers][::-1], MOST), None if c is None else c[0]
    found = list[tuple[str, Tensor]]()
    for name in shown:
        variance = m.layers[name].double().var(0, correction=0)
        dims = variance.argsort(descending=True, stable=True)[: max(1, rows // len(shown))].tolist()
        walk = traversal(m.latent, x[0], dims, None, given, layer=name)
        titles = [f"{name}[{d}] · variance {variance[d]:.2f}" for d in dims]
        found.extend(zip(titles, walk.mean, strict=True))
    return found


_HELD = (
    "One sample of all layers of latents, and in each row others that share its upper layers: one layer and those "
    "below are sampled again. The fixed layers decide what the pictures of a row have in common, and the redrawn ones "
    "decide the rest."
)
