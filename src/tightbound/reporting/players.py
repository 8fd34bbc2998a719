"""The two players of a training: a section of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..evaluation.players import players_of
from ..options.adversarial import Adversarial
from . import figures, page
from .curve_panels import Panel, curve_panels
from .material import Material

__all__ = ["section", "summary"]


def section(m: Material) -> str:
    """Their health in words, and curves of what the log has of both, as HTML; empty if there is one player."""
    if not _plays(m):
        return ""
    records = [record for record in m.folder.records() if record["split"] == "train"]
    said = [page.instructive(sentence, "verdict") for sentence in players_of(m.folder)]
    return "".join([*said, *(_panel(title, drawn) for title, drawn in _panels(records))])


def summary(m: Material) -> str:
    """The first sentence up to its colon, as text."""
    found = players_of(m.folder) if _plays(m) else ()
    return found[0].partition(":")[0] if found else ""


def _plays(m: Material) -> bool:
    return m.config.recipe is not None and isinstance(m.config.recipe.training_objective, Adversarial)


def _panel(title: str, panels: Sequence[Panel]) -> str:
    return page.figure(page.plot(figures.svg(curve_panels(panels)), alt=title), title)


def _panels(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Panel]]]:
    """The figures: a title, and the panels of each."""
    of = {name: _line(records, name) for name in ("gap", "accuracy", "adaptive_weight", "ramp", "perceptual")}
    players = [
        Panel("gap of the logits", [("", *of["gap"])]),
        Panel("accuracy", [("", *of["accuracy"])], (0.0, 1.0)),
        Panel("adaptive weight", [("", *of["adaptive_weight"])]),
        Panel("ramp", [("", *of["ramp"])], (0.0, 1.05)),
    ]
    latents = [
        Panel(f"latent {what}", _channels(records, f"latent_{name}"))
        for what, name in (("mean", "means"), ("deviation", "deviations"))
    ]
    distance = Panel("perceptual distance [nats]", [("", *of["perceptual"])])
    others = [*latents, distance, Panel("largest activation", [("", *_line(records, "largest_activation"))])]
    titles = (
        "The discriminator: the mean logit of images less that of reconstructions, the share of patches that it tells "
        "apart, and the weight of its judgement",
        "The model: mean and deviation of every channel of the latent, the perceptual distance, and the largest output "
        "of any layer",
    )
    drawn = ([panel for panel in panels if panel.drawn] for panels in (players, others))
    return [(title, panels) for title, panels in zip(titles, drawn, strict=True) if panels]


def _line(records: Sequence[Mapping[str, Any]], name: str) -> tuple[figures.Array, figures.Array]:
    pairs = [(r["step"], r[name]) for r in records if isinstance(r.get(name), int | float)]
    steps, values = np.asarray(pairs, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def _channels(records: Sequence[Mapping[str, Any]], name: str) -> list[figures.Line]:
    found = [r for r in records if isinstance(r.get(name), list)]
    if not found or len({len(r[name]) for r in found}) != 1:
        return []
    steps = np.asarray([r["step"] for r in found], dtype=np.float64)
    values = np.asarray([r[name] for r in found], dtype=np.float64)
    return [(str(i), steps, values[:, i]) for i in range(values.shape[1])]
