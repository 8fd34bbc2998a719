"""Values of single examples, and the most and least probable examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..evaluation import reconstruction_errors
from ..runtime.randomness import fixed_noise
from ..views import samples as pictures
from . import figures, page
from .material import Material
from .sheet import sheet

__all__ = ["Told", "examples", "per_example_numbers"]

SHOWN = 6
"""Examples of either end."""
VALUES = 6
"""Number of table columns that describe an example."""
MANY = 1000
"""Number of dimensions above which nats per dimension are not shown."""


@dataclass(frozen=True)
class Told:
    """One number for each example.

    Args:
        values: ``(n,)``, lower is better.
        name: What they are.
        unit: Their unit.
        mean: Their mean, as text.
        other: Another unit and its factor.
    """

    values: Tensor
    name: str
    unit: str
    mean: str
    other: tuple[str, float] | None = None

    def of(self, index: int) -> str:
        """The number of one example, as text."""
        digits = 3 if self.unit == "bits per dimension" else 2
        unit = "bits/dim" if digits == 3 else self.unit
        return f"{self.values[index].item():.{digits}f} {unit}".replace("-", "−").strip()


def per_example_numbers(m: Material) -> Told | None:
    """What is known of the single examples: bits per dimension where they are known, else nats, else the error.

    Args:
        m: The run.

    Returns:
        None where the model has a likelihood, and what it is of the single examples was not kept.
    """
    e = m.evaluation
    if e is None:
        return None
    if e.nll is None or e.measure == "none":
        if m.model.space is None:
            return None
        errors, _ = reconstruction_errors(m.latent, m.test, seed=m.seed)
        return Told(errors, "squared error of the reconstruction", "", f"mean {errors.mean().item():.2f}")
    if e.nll_per_example is None:
        return None
    name = "negative log-density" if e.measure == "density" else "negative log-likelihood"
    most = "at most " if e.trusted is False or e.measure == "bound" else ""
    share = 0.0 if e.bits_per_dim is None or not e.nll.value else e.bits_per_dim.value / e.nll.value
    if e.bits_per_dim is None or not share or m.spec.dimensions < MANY:
        other = ("bits per dimension", share) if share else None
        return Told(e.nll_per_example, name, "nats", f"mean {most}{e.nll.value:.2f}".replace("-", "−"), other)
    return Told(e.nll_per_example * share, name, "bits per dimension", f"mean {most}{e.bits_per_dim.value:.3f}")


def examples(m: Material, found: Told | None) -> str:
    """How the numbers of the single examples are distributed, and the examples at both ends, as HTML.

    Args:
        m: The run.
        found: What is known of them.
    """
    if found is None:
        return page.paragraph(_missing(m))
    values = found.values.numpy()
    if len(values) < 2 or not np.isfinite(values).all():
        return page.paragraph("Ranking needs at least two examples with finite values.")
    label = f"{found.name} [{found.unit}]" if found.unit else found.name
    drawn = figures.histogram(values, found.mean, label, found.other)
    where = f"{len(values):,} {m.test.name} examples" if m.test.name != "all" else f"{len(values):,} examples"
    title = f"{found.name.capitalize()} of {where}"
    return page.figure(page.plot(figures.svg(drawn), title), title) + _ends(m, found)


def _missing(m: Material) -> str:
    if m.evaluation is None:
        return f"Not evaluated yet: run tightbound evaluate {m.folder.path.as_posix()}, then report again."
    if m.evaluation.nll is None:
        return "The model has no comparable values of single examples."
    again = f"To get it: tightbound evaluate {m.folder.path.as_posix()}, then report again."
    if m.folder.examples.is_file():
        return f"{m.folder.examples.name} is damaged or of another evaluation. {again}"
    return f"The negative log-likelihood of each example was not stored when this run was evaluated. {again}"


def _ends(m: Material, found: Told) -> str:
    order = found.values.argsort(stable=True)
    count = min(SHOWN, len(order) // 2)
    best, worst = order[:count], order[len(order) - count :].flip(0)
    probable = not found.name.startswith("squared")
    titles = ("Most probable", "Least probable") if probable else ("Best reconstructed", "Worst reconstructed")
    text = page.paragraph(_told_beside(m)) if m.spec.image else ""
    parts = [page.tag("h3", title) + _cards(m, found, ids) for title, ids in zip(titles, (best, worst), strict=True)]
    return text + "".join(parts)


def _told_beside(m: Material) -> str:
    beside = " beside its reconstruction, the mean of p(x|z)," if _rebuilt(m) else ""
    return f"Each example{beside} with its name in the data, its class and its number."


def _rebuilt(m: Material) -> bool:
    """Whether there is a reconstruction of an example."""
    return m.model.space is not None


def _cards(m: Material, found: Told, indices: Tensor) -> str:
    drawn, rows = _pairs(m, indices), _values(m, indices)
    cards = []
    for place, index in enumerate(indices.tolist()):
        lines = [*described(m, index), found.of(index), *rows[place : place + 1]]
        text = "".join(page.tag("span", page.escape(line)) for line in lines)
        picture = drawn[place] if drawn else ""
        cards.append(page.tag("figure", picture, page.tag("figcaption", text)))
    return page.tag("div", *cards, class_="examples")


def described(m: Material, index: int) -> list[str]:
    """Name and class of an example."""
    name, classes = m.test.names[index], m.spec.classes
    name = f"example {name}" if m.test.files is None else name
    if m.labels is None:
        return [name]
    label = int(m.labels[index])
    return [f"class {classes[label] if 0 <= label < len(classes) else label}", name]


def _values(m: Material, indices: Tensor) -> list[str]:
    """The first values of each example of a table, in the data's own units."""
    spec = m.spec
    if len(spec.shape) != 1:
        return []
    x = m.examples(indices)[0].double().cpu()
    if spec.levels is not None:
        x = spec.low + x * (spec.high - spec.low)
    elif spec.scale:
        x = torch.tensor(spec.location, dtype=torch.float64) + x * torch.tensor(spec.scale, dtype=torch.float64)
    more = ", …" if spec.shape[0] > VALUES else ""
    lines = (", ".join(f"{value:.4g}" for value in row) for row in x[:, :VALUES].tolist())
    return [f"values {line}{more}".replace("-", "−") for line in lines]


def _pairs(m: Material, indices: Tensor) -> list[str]:
    """Each example beside its reconstruction."""
    if not m.spec.image:
        return []
    with fixed_noise(m.seed), torch.no_grad():
        x, c = m.examples(indices)
        parts = [x]
        if _rebuilt(m):
            parts.append(pictures.reconstructions(m.model(c), x)["mean of p(x|z)"])
    lossy = m.spec.shape[0] == 3 and math.prod(m.spec.shape[1:]) > 32 * 32
    both = torch.stack([pictures.drawable(part, m.spec) for part in parts], dim=1)
    beside = " and its reconstruction" if _rebuilt(m) else ""
    alts = [f"{' · '.join(described(m, i))}{beside}" for i in indices.tolist()]
    return [page.picture(sheet(each, len(parts)), alt, lossy=lossy) for each, alt in zip(both, alts, strict=True)]
