"""A diffusion model in a report: the way from noise to samples, what its noise levels cost, and fields of two numbers.

Convention: the HTML is empty for other models.
"""

from __future__ import annotations

import torch

from ..data.transform import in_data_units
from ..diffusion import Diffusion
from ..evaluation.levels import LevelDiagnosis, diagnose_levels
from ..runtime.randomness import fixed_noise
from ..views import samples as pictures
from ..views.diffusion import Field, fields, film
from . import page
from .figures import svg
from .level_figures import field_figure, level_figure
from .material import Material
from .sheet import sheet

__all__ = ["field", "levels", "way"]


def way(m: Material, count: int = 6, frames: int = 10) -> str:
    """Samples on their way from noise to data, a row for each, as HTML."""
    model = m.model
    if not isinstance(model, Diffusion) or not m.spec.image:
        return ""
    with fixed_noise(m.seed):
        c = pictures.conditions_to_show(model, m.test, count)
        found = film(model, count, frames, c, m.seed)
    shown = pictures.drawable(found.flatten(0, 1).cpu(), m.spec)
    text = "From noise to samples, a row for each: what the network expects of the data, at ever less noise."
    return page.paragraph(text) + page.wide(page.picture(sheet(shown, frames), f"{count} samples on their way"))


def levels(m: Material, limit: int = 200) -> str:
    """What each noise level costs, as HTML."""
    if not isinstance(m.model, Diffusion):
        return ""
    found = diagnose_levels(m.model, m.data, m.test, limit=limit, seed=m.seed)
    drawn = page.plot(svg(level_figure(found)), "cost of each noise level")
    title = f"Cost of the noise levels, of {found.n} {found.split} and as many training examples"
    return _in_words(found) + page.figure(drawn, title)


def _in_words(found: LevelDiagnosis) -> str:
    low, high = found.dearest
    text = (
        f"The bound costs {-found.reconstruction:.2f} nats at the least noise, {found.prior_term:.2f} at the most, and "
        f"{sum(found.nats):.2f} between, most of them from gamma {low:.1f} to {high:.1f}."
    )
    return page.paragraph(text) + "".join(page.paragraph(each) for each in found.remarks)


def field(m: Material, points: int = 400) -> str:
    """For data of two numbers, where the network leads noised points and samples, as HTML."""
    model = m.model
    if not isinstance(model, Diffusion) or model.shape != (2,) or model.condition is not None:
        return ""
    seen = m.test.batch(torch.arange(min(points, len(m.test))), "cpu").x.float()
    samples = model().sample((len(seen),), seed=m.seed).cpu()
    units = lambda values: in_data_units(values, m.spec).double()
    shown = [
        Field(each.sigma, units(each.points), units(each.aims), units(each.ways))
        for each in fields(model, seen, seed=m.seed)
    ]
    title = (
        "Arrows: from noised points towards what the network expects of the data, the direction of the score. "
        "Lines: samples from there on, to the points where they end"
    )
    return page.wide(
        page.figure(page.plot(svg(field_figure(units(seen).numpy(), shown, units(samples).numpy())), title), title)
    )
