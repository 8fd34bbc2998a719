"""Figures that are a part of their page, colours that most eyes tell apart, maps whose points tell what they are."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tightbound as tb
from tightbound import checkpoint
from tightbound.data import DataSpec
from tightbound.evaluation import evaluate
from tightbound.evaluation.kept import read_evaluation, write_evaluation
from tightbound.reporting import figures, hover, page, surprise
from tightbound.reporting.colors import CLASS_COLORS
from tightbound.reporting.hover import Frame, Points
from tightbound.reporting.inline import inlined
from tightbound.reporting.latent_map import latent_map
from tightbound.reporting.maps import flat_views
from tightbound.reporting.material import Material, gather
from tightbound.reporting.thumbnails import BYTES, thumbnails
from tightbound.reporting.visuals import photographic
from tightbound.runs import RunFolder
from tightbound.spec import to_json

HOSTILE = '<script>alert("&")</script>'

# -- colours --------------------------------------------------------------------------------------------------------

SIGHT = {
    "all cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""What is seen of linear RGB: Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color
Vision Deficiency (2009), the strongest of each."""
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]


def linear(color: str) -> np.ndarray:
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    t = np.asarray(XYZ) @ rgb / np.array([0.95047, 1.0, 1.08883])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """CIEDE2000."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    c = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 1.5 - 0.5 * math.sqrt(c**7 / (c**7 + 25.0**7))
    c1, c2 = math.hypot(g * a1, b1), math.hypot(g * a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, g * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    h = (h1 + turn / 2) % 360
    dh, l, c = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2)), (l1 + l2) / 2, (c1 + c2) / 2
    cos = lambda factor, shift: math.cos(math.radians(factor * h + shift))
    t = 1 - 0.17 * cos(1, -30) + 0.24 * cos(2, 0) + 0.32 * cos(3, 6) - 0.2 * cos(4, -63)
    sl, sc, sh = 1 + 0.015 * (l - 50) ** 2 / math.sqrt(20 + (l - 50) ** 2), 1 + 0.045 * c, 1 + 0.015 * c * t
    rotation = -2 * math.sqrt(c**7 / (c**7 + 25.0**7)) * math.sin(math.radians(60 * math.exp(-(((h - 275) / 25) ** 2))))
    dl, dc, dh = (l2 - l1) / sl, (c2 - c1) / sc, dh / sh
    return math.sqrt(dl**2 + dc**2 + dh**2 + rotation * dc * dh)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(np.asarray(XYZ)[1] @ linear(color)) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_the_difference_of_colors_is_that_of_its_paper() -> None:
    """Sharma, Wu and Dalal, The CIEDE2000 Color-Difference Formula (2005), table 1."""
    pairs = [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, -1.0, 2.0), (50.0, 0.0, 0.0), 2.3669),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ]
    for one, other, expected in pairs:
        assert difference(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sight", SIGHT)
def test_classes_are_told_apart(sight: str) -> None:
    seen = [lab(np.clip(np.asarray(SIGHT[sight]) @ linear(color), 0, 1)) for color in CLASS_COLORS]
    least = min(difference(one, other) for one, other in itertools.combinations(seen, 2))
    assert least > (18.9 if sight == "all cones" else 13.9)


def test_classes_stand_out_on_either_paper() -> None:
    for name in ("style.css", "figures.css"):
        text = Path(figures.__file__).with_name(name).read_text(encoding="utf8")
        papers = re.findall(r"--paper: (#\w{6})", text)
        assert all(contrast(color, paper) >= 3 for color in CLASS_COLORS for paper in papers)
        assert bool(papers) == (name == "style.css")


# -- figures as a part of a page ------------------------------------------------------------------------------------


def _curve() -> Any:
    steps = np.arange(5.0)
    return figures.curve([("train", steps, steps), ("validation", steps, steps**2)], HOSTILE, (0.0, 3.0))


def test_a_figure_is_text_in_the_pages_ink_and_nothing_more() -> None:
    drawn = page.plot(figures.svg(_curve()), HOSTILE)
    assert html.escape(HOSTILE, quote=False) in drawn
    assert f"<title>{html.escape(HOSTILE)}</title>" in drawn
    assert ">validation</text>" in drawn
    assert "<script" not in drawn
    assert not re.search(r"font-family|http|#333|<style|<metadata|DOCTYPE", drawn)
    assert "currentColor" in drawn


def test_ids_of_figures_do_not_meet() -> None:
    first, second = figures.svg(_curve()), figures.svg(figures.dimension_bars([1.0, 0.0], [True, False], "KL"))
    ids = [set(re.findall(r' id="([^"]+)"', each)) for each in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for each, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', each)) <= {(i, "") for i in own} | {
            ("", i) for i in own
        }
    assert figures.svg(_curve()) == first


def test_only_known_elements_pass() -> None:
    drawn = inlined(
        b'<svg viewBox="0 0 1 1" onload="x()"><script>x()</script><g onclick="x()"><rect x="0.123"/></g></svg>'
    )
    assert drawn == '<svg viewBox="0 0 1 1" class="plot"><g><rect x="0.12"/></g></svg>'


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    import matplotlib

    before = matplotlib.rcParams["svg.fonttype"], matplotlib.rcParams["svg.hashsalt"]
    figures.svg(_curve())
    assert (matplotlib.rcParams["svg.fonttype"], matplotlib.rcParams["svg.hashsalt"]) == before


def test_a_page_runs_its_own_script_alone() -> None:
    text = page.page("x", "", [])
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert len(script) < 6000
    assert not re.search(r"https?:(?!//www.w3.org/2000/svg)|innerHTML|eval|fetch|import", script)


# -- maps -----------------------------------------------------------------------------------------------------------


def _map(names: tuple[str, ...]) -> str:
    rng = np.random.default_rng(0)
    points = Points(rng.normal(size=(90, 2)), np.arange(90) % (len(names) + 1) - 1, names, np.arange(0, 90, 3))
    return hover.plane(Frame(hover.limits_of(points.at), ("z0", HOSTILE)), points, HOSTILE)


def test_a_map_has_a_path_for_each_class_and_places_for_the_pointer() -> None:
    drawn = _map(tuple(f"c{i}" for i in range(12)))
    assert drawn.count('<path class="dots"') == 13
    (at,) = re.findall(r'data-at="([^"]+)"', drawn)
    places = np.array([list(map(float, pair.split(","))) for pair in at.split()])
    assert places.shape == (30, 2)
    assert places.min() >= 0
    assert places.max() < 400
    assert drawn.count(">c") == 12


def test_names_of_strangers_are_text() -> None:
    drawn = _map((HOSTILE[:12], "b"))
    assert "<script" not in drawn + hover.box(drawn, [[HOSTILE]], None)
    told = re.findall(r'data-items="([^"]*)"', hover.box("", [[HOSTILE]], None))
    assert json.loads(html.unescape(told[0])) == [[HOSTILE]]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 90, 40), (3, 200, 200)])
def test_thumbnails_are_few_bytes_whatever_they_show(shape: tuple[int, ...]) -> None:
    made = thumbnails(torch.rand(100, *shape))
    with Image.open(io.BytesIO(made.data)) as image:
        assert image.size == (made.width * made.columns, made.height * 10)
    assert len(made.data) <= BYTES
    if shape == (1, 8, 8):
        assert (made.kind, made.width) == ("png", 8)


def test_the_plane_of_a_map_leads_back_to_the_codes() -> None:
    codes = np.random.default_rng(0).normal(size=(60, 2)) @ np.random.default_rng(1).normal(size=(2, 5)) + 3
    for given in (codes, codes[:, :2]):
        view = flat_views(given)[0][0]
        assert view.plane is not None
        np.testing.assert_allclose(view.points @ view.plane[1] + view.plane[0], given, atol=1e-9)


def test_photographs() -> None:
    assert photographic(DataSpec("x", (1, 64, 64), 256))
    assert not photographic(DataSpec("x", (1, 28, 28), 256))
    assert not photographic(DataSpec("x", (3, 64, 64), 2))


# -- single examples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (tb.recipes.VAE(latent_dim=2, hidden=(8,)), {}),
        (tb.recipes.VAE(latent_dim=2, hidden=(8,)), {"k": 5}),
        (tb.recipes.VAE(latent_dim=2, hidden=(8,)), {"k": 4, "method": "prior"}),
        (tb.recipes.VQVAE(codes=8, channels=(8,), blocks=0, likelihood="categorical"), {"k": 2}),
        (tb.recipes.GumbelVAE(positions=3, classes=4, hidden=(8,)), {"k": 3}),
        (tb.recipes.PixelCNNRecipe(channels=8, layers=1, kernel=3), {}),
        (tb.recipes.LinearVAE(latent_dim=2), {"k": 3}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "-".join(map(str, value.values())),
)
def test_the_nll_is_the_mean_of_those_of_the_examples(recipe: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    data = tb.load_data("digits")
    found = evaluate(recipe.build(data.spec), data.test.subset(30), budget=5, **options)
    assert found.nll is not None
    assert found.nll_per_example is not None
    assert found.nll_per_example.shape == (30,)
    assert found.nll_per_example.mean().item() == pytest.approx(found.nll.value, rel=1e-9)
    assert "nll_per_example" not in to_json(found)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, out = tb.load_data("digits"), tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    recipe = tb.recipes.VAE(latent_dim=2, hidden=(16,))
    tb.train(recipe.build(data.spec), data, out=out, steps=20, pictures=False, device="cpu")
    model = tb.load(out)
    found = tb.evaluate(model, data.test, k=3)
    write_evaluation(RunFolder(out), found, model.loaded_weights)
    return out


@pytest.fixture
def material(run: Path) -> Material:
    return gather(run)


def test_the_examples_are_kept_beside_their_mean(material: Material) -> None:
    assert material.evaluation is not None
    kept = material.evaluation.nll_per_example
    assert kept is not None
    assert kept.shape == (360,)
    assert material.folder.owns(material.folder.examples)


def test_numbers_of_another_evaluation_are_not_shown(run: Path) -> None:
    folder = RunFolder(run)
    kept, weights = folder.examples.read_bytes(), folder.digest()

    def nlls_of() -> Any:
        found = read_evaluation(folder)
        assert found is not None
        return found.nll_per_example

    nlls = checkpoint.read(folder.examples)["nll"]
    try:
        for other in (nlls + 1, nlls[:-1], nlls.float(), nlls.int()):
            checkpoint.write(folder.examples, {"nll": other, "weights": weights})
            assert nlls_of() is None
        checkpoint.write(folder.examples, {"nll": nlls, "weights": "others"})
        assert nlls_of() is None
        for damaged in (b"", b"{}", kept[:-3], kept[:40]):
            folder.examples.write_bytes(damaged)
            assert nlls_of() is None
        assert "tightbound evaluate" in surprise.examples(gather(run), surprise.per_example_numbers(gather(run)))
    finally:
        folder.examples.write_bytes(kept)
    assert nlls_of() is not None


def test_the_ends_are_shown_with_name_class_and_number(material: Material) -> None:
    shown = surprise.examples(material, surprise.per_example_numbers(material))
    assert shown.count("<img") == 2 * surprise.SHOWN
    assert material.evaluation is not None
    nlls = material.evaluation.nll_per_example
    assert nlls is not None
    worst = int(nlls.argmax())
    assert f"{nlls[worst].item():.2f} nats" in shown
    assert f"example {material.test.names[worst]}" in shown


def test_a_map_shows_each_example_and_what_is_decoded_there(material: Material) -> None:
    drawn = latent_map(material, surprise.per_example_numbers(material))
    (told,) = re.findall(r'data-items="([^"]*)"', drawn)
    items = json.loads(html.unescape(told))
    assert len(items) == 360
    assert all(at.count(",") == 360 for at in re.findall(r'data-at="([^"]+)"', drawn))
    assert items[0][-1].endswith(" nats")
    assert "mean of p(x|z) at the same places" in drawn


def test_a_short_run_is_not_cut_off_beside_a_long_one() -> None:
    long = np.arange(1.0, 101.0)
    lines = [("long", long, -80 - 3000 * np.exp(-long)), ("short", long[:10], -120 - 100 * np.exp(-long[:10]))]
    limits = figures.settled_limits(lines)
    assert limits is not None
    assert limits[0] < -120
