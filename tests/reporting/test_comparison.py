"""Runs side by side: the same numbers as alone, differences with paired errors, and nothing compared that cannot be."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import io
import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tightbound as tb
from tightbound.cli.main import main
from tightbound.data import Data
from tightbound.errors import UsageError
from tightbound.objectives import Elbo
from tightbound.options.priors import MixturePrior
from tightbound.reporting.comparing.comparison import compare, differing_options
from tightbound.reporting.comparing.poster import WIDTH
from tightbound.reporting.comparing.side_by_side import draw_comparison
from tightbound.runs import RunConfig, load
from tightbound.training import TrainingOptions

EXAMPLES = Path(__file__).parents[2] / "examples"
LOOK = {"pictures": False, "device": "cpu"}


def trained(out: Path, recipe: tb.recipes.Recipe, data: Data | None = None, **options: Any) -> Path:
    data = tb.load_data("digits") if data is None else data
    torch.manual_seed(0)
    tb.train(recipe.build(data.spec), data, out=out, **{"steps": 30, **LOOK, **options})
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    return trained(folder / "plain", tb.recipes.VAE(latent_dim=3, hidden=(16,)))


@pytest.fixture(scope="module")
def heavy(folder: Path) -> Path:
    return trained(folder / "heavy", tb.recipes.VAE(latent_dim=3, hidden=(16,), objective=Elbo(beta=5.0)), log_every=10)


@pytest.fixture(scope="module")
def autoencoder(folder: Path) -> Path:
    return trained(folder / "ae", tb.recipes.Autoencoder(latent_dim=1, hidden=(16,)))


# -- numbers --------------------------------------------------------------------------------------------------------


def test_a_run_has_the_numbers_that_it_has_alone(plain: Path, heavy: Path) -> None:
    found = compare([plain, heavy], k=20, seed=3)
    test = tb.load_data("digits").test
    for run in found.runs:
        alone = tb.evaluate(load(run.run), test, k=20, seed=3)
        for name in ("nll", "bits_per_dim", "elbo", "reconstruction", "kl"):
            assert getattr(run.found, name) == getattr(alone, name)
        assert run.found == alone
    assert (found.n, found.k, found.split) == (360, 20, "test")


def test_a_difference_is_that_of_the_values_and_its_error_is_paired(plain: Path, heavy: Path) -> None:
    found = compare([plain, heavy], k=20)
    a, b, difference = *found.runs, found.differences[0]
    for name in ("nll", "elbo", "squared_error"):
        each = a.per_example[name] - b.per_example[name]
        of = getattr(difference, name)
        assert of.value == pytest.approx(getattr(a.found, name).value - getattr(b.found, name).value, abs=1e-4)
        assert of.standard_error == pytest.approx(each.numpy().std(ddof=1) / math.sqrt(len(each)), rel=1e-9)
    assert difference.nll is not None
    apart = [run.found.nll.standard_error for run in (a, b) if run.found.nll and run.found.nll.standard_error]
    assert difference.nll.standard_error is not None
    assert difference.nll.standard_error < 0.9 * math.hypot(*apart)  # what is hard for both runs cancels
    assert difference.reason == ""


def test_a_run_does_not_differ_from_its_copy(plain: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(plain, tmp_path / "plain")
    found = compare([plain, copy], k=5)
    for name in ("nll", "elbo", "squared_error"):
        assert dataclasses.asdict(getattr(found.differences[0], name)) == {"value": 0.0, "standard_error": 0.0}
    assert [run.options for run in found.runs] == [{}, {}]
    assert [run.label for run in found.runs] == [plain.as_posix(), copy.as_posix()]  # the folders' names are alike


def test_options_that_differ_are_told_and_no_others(plain: Path, heavy: Path, autoencoder: Path) -> None:
    first, second, third = compare([plain, heavy, autoencoder], k=2, limit=20).runs
    assert first.options == {"latent_dim": 3, "likelihood": "auto", "beta": 1.0}
    assert second.options == {"latent_dim": 3, "likelihood": "auto", "beta": 5.0}  # log_every changes no model
    assert third.options == {"latent_dim": 1, "likelihood": "gaussian"}
    assert [run.label for run in (first, second, third)] == ["plain", "heavy", "ae"]


def test_few_examples_are_taken_evenly(plain: Path, heavy: Path) -> None:
    run = compare([plain, heavy], k=2, limit=7).runs[0]
    whole = compare([plain, heavy], k=2).runs[0]
    places = torch.linspace(0, 359, 7, dtype=torch.float64).round().long()
    assert len(run.codes) == 7
    torch.testing.assert_close(run.codes, whole.codes[places])


# -- what cannot be compared ----------------------------------------------------------------------------------------


def test_a_model_without_likelihood_is_compared_by_its_reconstructions(plain: Path, autoencoder: Path) -> None:
    found = compare([plain, autoencoder], k=5)
    run, difference = found.runs[1], found.differences[0]
    assert (run.found.nll, run.found.elbo, run.found.kl, run.found.measure) == (None, None, None, "none")
    assert (difference.nll, difference.elbo) == (None, None)
    assert "ae has no likelihood of this data" in difference.reason
    assert difference.squared_error is not None
    first, second = found.runs[0].found.squared_error, run.found.squared_error
    assert first is not None
    assert second is not None
    assert difference.squared_error.value == pytest.approx(first.value - second.value, abs=1e-9)


def test_grey_levels_and_their_binarisation_have_no_nats_in_common(plain: Path, tmp_path: Path) -> None:
    data = tb.load_data("digits", binarize="dynamic")
    binary = trained(tmp_path / "binary", tb.recipes.VAE(latent_dim=3, hidden=(16,)), data)
    difference = compare([plain, binary], k=5).differences[0]
    assert (difference.nll, difference.elbo, difference.squared_error) == (None, None, None)
    assert "different values" in difference.reason


def test_a_bound_by_dequantisation_is_nats_of_the_same_data(plain: Path, tmp_path: Path) -> None:
    data = tb.load_data("digits", dequantize=True)
    recipe = tb.recipes.VAE(latent_dim=3, hidden=(16,), likelihood="gaussian", scale="per-dimension")
    found = compare([plain, trained(tmp_path / "noisy", recipe, data)], k=5)
    mass, bound = (run.found for run in found.runs)
    assert (mass.measure, bound.measure) == ("mass", "bound")
    difference = found.differences[0]
    assert mass.nll is not None
    assert bound.nll is not None
    assert difference.nll is not None
    assert difference.nll.value == pytest.approx(mass.nll.value - bound.nll.value, abs=1e-3)
    assert difference.squared_error is None
    alone = tb.evaluate(load(found.runs[1].run), data.test, k=5).nll
    assert alone is not None
    assert bound.nll.value == pytest.approx(alone.value, rel=1e-6)


def test_a_density_and_a_probability_are_not_subtracted(plain: Path, tmp_path: Path) -> None:
    recipe = tb.recipes.VAE(latent_dim=3, hidden=(16,), likelihood="gaussian")
    density = trained(tmp_path / "density", recipe)
    other = trained(tmp_path / "other", dataclasses.replace(recipe, latent_dim=2))
    found = compare([density, plain, other], k=5)
    assert found.runs[0].found.measure == "density"
    assert found.differences[0].nll is None
    assert "a density (density) and a probability (plain)" in found.differences[0].reason
    assert found.differences[1].nll is not None  # of one kind


def test_runs_on_different_data_are_refused_unless_there_is_common_data(plain: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=rng.integers(0, 17, (60, 8, 8), dtype=np.uint8), levels=17)
    data = tb.load_data(str(tmp_path / "a.npz"))
    other = trained(tmp_path / "other", tb.recipes.VAE(latent_dim=2, hidden=(8,)), data, steps=3)
    with pytest.raises(UsageError, match="different examples") as error:
        compare([plain, other], k=2)
    assert "--data DATA" in str(error.value)
    found = compare([plain, other], data=tmp_path / "b.npz", k=2)
    assert found.differences[0].nll is not None
    assert [run.data for run in found.runs] == ["digits", "a"]


def test_too_few_runs_or_examples(plain: Path, heavy: Path) -> None:
    for runs in ([], [plain], plain):
        with pytest.raises(UsageError, match="needs two runs"):
            compare(runs)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="--limit must be at least 1"):
        compare([plain, heavy], limit=0)
    with pytest.raises(UsageError, match="At least one sample"):
        compare([plain, heavy], k=0)


# -- pictures -------------------------------------------------------------------------------------------------------


def test_a_picture_has_a_column_for_each_run(plain: Path, heavy: Path, autoencoder: Path, tmp_path: Path) -> None:
    sizes = {}
    for runs in ([plain, autoencoder], [plain, heavy, autoencoder]):
        found = compare(runs, k=2, limit=40)
        with Image.open(draw_comparison(found, tmp_path / "c.png")) as image:
            sizes[len(runs)] = image.size
            pixels = np.asarray(image.convert("L"))
        assert len(np.unique(pixels)) > 100
        columns = np.array_split(pixels[300:], len(runs), axis=1)
        assert min((column < 128).mean() for column in columns) > 0.02
    assert sizes[3][0] - sizes[2][0] > 150 * WIDTH
    first = (tmp_path / "c.png").read_bytes()
    draw_comparison(compare([plain, heavy, autoencoder], k=2, limit=40), tmp_path / "again.png")
    assert first == (tmp_path / "again.png").read_bytes()


def test_a_page_needs_nothing_but_itself(plain: Path, autoencoder: Path, tmp_path: Path) -> None:
    strange = shutil.copytree(autoencoder, tmp_path / "a<b>&c")
    found = compare([plain, strange], k=2, limit=40)
    text = draw_comparison(found, tmp_path / "c.html").read_text(encoding="utf8")
    assert "a&lt;b&gt;&amp;c" in text
    assert "<b>" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert all(source.startswith("data:image/") for source in _sources(text))
    assert (len(_sources(text)), text.count("<svg ")) == (2 * 5 - 1, 2)  # a latent of one has no t-SNE
    assert "has no likelihood" in text


def test_maps_by_neighbours_are_drawn_where_there_are_more_than_two_dimensions(
    plain: Path, heavy: Path, autoencoder: Path, tmp_path: Path
) -> None:
    flat = [trained(tmp_path / f"flat-{seed}", tb.recipes.VAE(latent_dim=2, hidden=(8,)), steps=2) for seed in (0, 1)]
    sizes = {}
    for name, runs, limit in (("flat", flat, 40), ("deep", [plain, heavy], 40), ("few", [plain, autoencoder], 8)):
        text = draw_comparison(compare(runs, k=2, limit=limit), tmp_path / f"{name}.html").read_text(encoding="utf8")
        assert ("t-SNE" in text) == (name != "flat")
        images = [io.BytesIO(base64.b64decode(part.split(",")[1])) for part in _sources(text)]
        sizes[name] = [Image.open(image).height for image in images]
    assert min(sizes["deep"][2:4]) > 200
    assert (len(sizes["deep"]), len(sizes["few"])) == (10, 8)
    assert "a map needs two" in text  # of eight examples, or one dimension, there is a sentence


def _sources(text: str) -> list[str]:
    return [part.split('"')[0] for part in text.split('src="')[1:]]


def test_vectors_without_labels_have_maps_and_curves_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", x=np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    data = tb.load_data(str(tmp_path / "v.npz"))
    runs = [
        trained(tmp_path / f"run-{dim}", tb.recipes.VAE(latent_dim=dim, hidden=(8,)), data, steps=3) for dim in (1, 4)
    ]
    found = compare(runs, k=2)
    assert found.differences[0].nll is not None  # densities of the same values
    text = draw_comparison(found, tmp_path / "c.html").read_text(encoding="utf8")
    assert (len(_sources(text)), text.count("<svg ")) == (2, 1)


def test_a_run_without_readings_is_drawn(plain: Path, heavy: Path, tmp_path: Path) -> None:
    silent = shutil.copytree(heavy, tmp_path / "silent")
    (silent / "metrics.jsonl").unlink()
    assert draw_comparison(compare([plain, silent], k=2, limit=10), tmp_path / "c.png").stat().st_size > 10_000


# -- command --------------------------------------------------------------------------------------------------------


def test_the_command(plain: Path, heavy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c.png"
    words = ["compare", str(plain), str(heavy), "-k", "3", "--limit", "30", "--device", "cpu"]
    assert main([*words, "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["label"] for run in found["runs"]] == ["plain", "heavy"]
    assert set(found["differences"][0]["nll"]) == {"value", "standard_error"}
    assert out.stat().st_size > 10_000
    assert "codes" not in found["runs"][0]
    known = {"run", "label", "recipe", "options", "data", "steps", "parameters"}
    measured = {"nll", "bits_per_dim", "elbo", "reconstruction", "kl", "squared_error", "active_units", "dimensions"}
    assert known | measured | {"measure", "trusted", "notes"} <= set(found["runs"][0])
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "--beta" in printed
    assert "plain − heavy" in printed
    assert "30 test examples, k = 3" in printed


def test_what_the_command_refuses(plain: Path, heavy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(plain)]) == 2
    assert "needs two runs" in capsys.readouterr().err
    assert main(["compare", str(plain), str(heavy), "--out", "c.gif"]) == 2
    assert ".png or .html" in capsys.readouterr().err
    assert main(["compare", str(plain), "no/such/run"]) == 1
    assert "no run in no/such/run" in capsys.readouterr().err


# -- the example ----------------------------------------------------------------------------------------------------


def test_the_autoencoder_against_the_vae(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("ae_against_vae", EXAMPLES / "ae_against_vae.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.pop("ae_against_vae", None)
    spec.loader.exec_module(module)
    assert module.main(["--out", str(tmp_path / "out"), "--epochs", "2", "-n", "50"]) == 0
    found = json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf8"))
    assert (tmp_path / "out" / "table.md").read_text(encoding="utf8") in capsys.readouterr().out
    for name in ("ae", "vae"):
        shares = {key: value for key, value in found[name].items() if "classes" in key or "as near" in key}
        assert len(shares) == 2
        assert all(0 <= value <= 1 for value in shares.values())
        assert found[name]["squared error of reconstructions"] > 0
    with Image.open(tmp_path / "out" / "ae_against_vae.png") as image:
        assert min(image.size) > 800
    assert found["maps"]["ae"]["KL [nats]"] is None
    assert found["maps"]["mean"]["KL [nats]"] < found["maps"]["vae"]["KL [nats]"]
    with Image.open(tmp_path / "out" / "maps.png") as image:
        assert image.size[0] > 2.5 * image.size[1]
    assert compare([tmp_path / "out" / "vae", tmp_path / "out" / "ae"], k=2, limit=10).runs[1].recipe == "autoencoder"


def test_stages_are_told_option_by_option() -> None:
    """Of a first stage by the names of a run of its own, so that it can be held against one; no Python within."""
    spec = tb.load_data("digits").spec
    first, second = tb.recipes.VAE(latent_dim=3), MixturePrior(components=7)
    recipes = [
        first,
        tb.recipes.TwoStage(tb.recipes.Stage(first), second),
        tb.recipes.TwoStage(tb.recipes.Stage(first), MixturePrior(components=8)),
    ]
    told = differing_options([RunConfig(spec, TrainingOptions(), recipe) for recipe in recipes])
    assert [options.get("prior") for options in told] == ["normal", "mixture", "mixture"]
    assert [options.get("components") for options in told] == [100, 7, 8]
    assert not any(dataclasses.is_dataclass(value) for options in told for value in options.values())


@pytest.mark.parametrize("trusted", [True, False])
def test_a_difference_of_bounds_has_no_error(plain: Path, heavy: Path, tmp_path: Path, trusted: bool) -> None:
    found = compare([plain, heavy], k=30, limit=40)
    runs = tuple(
        dataclasses.replace(run, found=dataclasses.replace(run.found, trusted=told))
        for run, told in zip(found.runs, (True, trusted), strict=True)
    )
    text = draw_comparison(dataclasses.replace(found, runs=runs), tmp_path / "x.html").read_text(encoding="utf8")
    table = text[text.index("<h3>Differences") :].split("<tbody>")[1].split("</tbody>")[0]
    nll, *_, last = cells = re.findall("<td[^>]*>(.*?)</td>", table)
    assert ("±" in nll, "is a bound" in last, len(cells)) == (trusted, not trusted, 3 if trusted else 4)
