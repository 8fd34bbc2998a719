"""The report of a hierarchy: what each layer holds, and how much of it is used."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import tightbound as tb
from tightbound.data import Data
from tightbound.evaluation import evaluate
from tightbound.recipes import HVAE, VAE, Ladder
from tightbound.reporting import figures, headline, layers, visuals, write_report
from tightbound.reporting.material import Material, gather

RECIPES = {
    "chain": HVAE(layers=(5, 3, 2), hidden=(16,)),
    "packed": Ladder(grids=(1, 4), groups=(1, 2), channels=8, latent_channels=2),
}


@pytest.fixture(scope="module")
def few() -> Data:
    data = tb.load_data("digits")
    return dataclasses.replace(data, train=data.train.subset(200), test=data.test.subset(40))


def trained(recipe: Any, data: Data, folder: Path, steps: int = 20) -> Path:
    torch.manual_seed(0)
    tb.train(recipe.build(data.spec), data, out=folder, steps=steps, batch_size=50, pictures=False, device="cpu")
    return folder


@pytest.fixture(scope="module", params=RECIPES)
def run(request: pytest.FixtureRequest, few: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(RECIPES[request.param], few, tmp_path_factory.mktemp("runs") / request.param)


@pytest.fixture(scope="module")
def material(run: Path, few: Data) -> Material:
    found = gather(run, data=few, quick=0)
    evaluation = evaluate(found.latent, few.test, 5)
    return dataclasses.replace(found, evaluation=evaluation, measured=few.test)


def text_of(content: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", content)).replace("\N{NO-BREAK SPACE}", " ").split())


def test_a_hierarchy_has_a_report(run: Path, few: Data) -> None:
    page = write_report(run, data=few, k=3).read_text(encoding="utf8")
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings[:6] == [
        *("Reconstructions", "Samples", "What each layer holds", "Latent map", "Interpolations", "Traversals"),
    ]
    text = text_of(page)
    assert "z1 redrawn, z2 and z3 fixed; pixels deviate by 0." in text
    assert "KL of each layer, the top first" in text
    assert "Those of a hierarchy: z1 is next to the data" in text


def test_a_model_with_one_latent_has_no_words_of_layers(few: Data, tmp_path: Path) -> None:
    folder = trained(VAE(latent_dim=2, hidden=(8,)), few, tmp_path / "run", steps=3)
    m = gather(folder, data=few, quick=0)
    assert layers.held(m) == layers.bars(m) == ""
    assert not m.hierarchy
    assert "ayer" not in text_of(visuals.activity(m) + visuals.traversals(m) + visuals.interpolations(m))


def test_active_units_are_those_of_all_layers(material: Material) -> None:
    there = {name: of for name, (_, of) in material.activity.items()}
    assert there in ({"z1": 5, "z2": 3, "z3": 2}, {"z1": 32, "z2": 32, "z3": 2})
    total = sum(there.values())
    active = sum(int((means.double().var(0) > 0.01).sum()) for means in material.layers.values())
    assert material.active_units == (active, total)
    assert f"{active} of {total} latent dimensions are active" in headline.latents(material)
    assert f"{active} of {total} dimensions are active" in text_of(visuals.activity(material))


def test_every_layers_kl_is_a_bar_with_its_number(material: Material) -> None:
    evaluation = material.evaluation
    assert evaluation is not None
    assert evaluation.kl is not None
    assert sum(material.kl_per_layer.values()) == pytest.approx(evaluation.kl.value, abs=1e-4)
    text = text_of(layers.bars(material))
    for name, nats in material.kl_per_layer.items():
        active, there = material.activity[name]
        assert f"{nats:.2f} nats · {active} of {there} active" in text
    dead = [name for name, (active, _) in material.activity.items() if not active]
    assert ("no active dimension" in text) == bool(dead)


def test_the_kl_of_each_dimension_is_of_the_dimension_named(material: Material) -> None:
    wise = material.kl_per_dimension
    assert wise is not None
    there = [f"{name}[{i}]" for name, means in material.layers.items() for i in range(means.shape[1])]
    evaluation = material.evaluation
    assert evaluation is not None
    assert evaluation.kl_per_dimension is not None
    for name, nats in zip(there, wise, strict=True):
        layer, _, index = name.removesuffix("]").partition("[")
        assert nats == evaluation.kl_per_dimension[layer][int(index)]


def test_without_an_evaluation_there_are_no_bars(material: Material) -> None:
    bare = dataclasses.replace(material, evaluation=None)
    assert layers.bars(bare) == ""
    assert "z1 redrawn" in layers.held(bare)


def test_every_layer_is_traversed_the_top_first(material: Material) -> None:
    found = layers.traversals(material)
    assert [title[:2] for title, _ in found] == ["z3", "z3", "z2", "z2", "z1", "z1"]
    assert all(x.shape == (9, 1, 8, 8) for _, x in found)
    text = text_of(visuals.traversals(material))
    chain = len(material.latent.space.layers) > 1
    assert ("each layer below is the mean" in text) == chain
    assert ("all others stay" in text) != chain


def test_a_bar_of_nothing_has_its_number_too() -> None:
    figure = figures.layer_bars([("z2", 0.0, "0.00 nats"), ("z1", -0.1, "-0.10 nats")], "KL [nats]")
    assert [t.get_text() for t in figure.axes[0].texts] == ["0.00 nats", "-0.10 nats"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["z2", "z1"]


def test_of_very_many_dimensions_the_first_are_drawn_and_all_counted() -> None:
    axes = figures.dimension_bars(range(2000), [i > 900 for i in range(2000)], "KL").axes[0]
    assert len(axes.patches) == figures.MOST_BARS
    assert axes.get_xlabel() == "latent dimension, sorted, the first 500 of 2,000"
    legend = axes.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["active (1099)"]
