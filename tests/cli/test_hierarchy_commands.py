"""Hierarchies of latents at the command line: samples by layer, temperatures, traversals and encodings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tightbound.cli.main import main

SETTINGS = {
    "hvae": ["--layers", "5", "3", "2", "--hidden", "16"],
    "ladder": ["--grids", "1", "4", "--groups", "1", "2", "--channels", "8", "--latent-channels", "2"],
}


@pytest.fixture(scope="module", params=SETTINGS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / request.param
    words = ["--steps", "12", "--no-pictures", "--device", "cpu"]
    assert main(["train", request.param, *SETTINGS[request.param], *words, "--out", str(path)]) == 0
    return path


def refused(capsys: pytest.CaptureFixture[str], *words: object, says: str) -> None:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert "Traceback" not in errors


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def test_samples_by_layer_are_a_sheet_or_arrays(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "8 samples for each of 3 layers" in printed(capsys, "sample", run, "--by-layer")
    with Image.open(run / "samples" / "layers.png") as image:
        assert image.width > 11 * 48
        assert image.height > 3 * 48
    printed(capsys, "sample", run, "--by-layer", "-n", "3", "--temperature", "0", "1", "1", "--out", tmp_path / "a.npz")
    arrays = arrays_of(tmp_path / "a.npz")
    assert arrays["layers"].tolist() == ["z3", "z2", "z1"]
    assert arrays["redrawn"].shape == (3, 3, 1, 8, 8)
    np.testing.assert_allclose(arrays["redrawn"][2], np.broadcast_to(arrays["sample"], (3, 1, 8, 8)), atol=1e-4)
    assert np.ptp(arrays["redrawn"][1], axis=0).max() > 1e-3


def test_a_temperature_of_each_layer(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(*temperatures: str) -> np.ndarray:
        path = tmp_path / f"{'-'.join(temperatures)}.npz"
        printed(capsys, "sample", run, "-n", "4", "--temperature", *temperatures, "--out", path)
        return arrays_of(path)["mean"]

    np.testing.assert_array_equal(drawn("0.5"), drawn("0.5", "0.5", "0.5"))
    assert np.ptp(drawn("0", "0", "0"), axis=0).max() < 1e-4
    assert np.ptp(drawn("0", "0", "1"), axis=0).max() > 1e-4
    refused(capsys, "sample", run, "--temperature", "0.5", "1", says="2 temperatures for 3 layers")
    refused(capsys, "sample", run, "--temperature", "0.5", "1", "-0.1", says="must be at least 0")
    refused(capsys, "sample", run, "--temperature", "nan", says="temperature is out of range")


def test_a_layer_is_traversed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "traverse", run, "--layer", "z3", "-n", "9", "--steps", "4", "--out", tmp_path / "t.npz")
    arrays = arrays_of(tmp_path / "t.npz")
    assert sorted(arrays["dimensions"].tolist()) == [0, 1]
    assert arrays["mean"].shape == (2, 4, 1, 8, 8)
    printed(capsys, "traverse", run, "--layer", "z3", "--out", tmp_path / "t.png")
    printed(capsys, "traverse", run, "-n", "3", "--out", tmp_path / "u.png")
    refused(capsys, "traverse", run, "--layer", "z4", says="Did you mean 'z3'?")


def test_titles_name_dimensions_and_layers(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = list[str]()
    monkeypatch.setattr("tightbound.cli.walks.write", lambda parts, *_, **__: titles.extend(parts))
    for words in (["traverse", "--layer", "z3"], ["traverse"], ["interpolate"]):
        assert main([words[0], str(run), "-n", "2", *words[1:]]) == 0
    assert titles[0] in [
        f"mean of p(x|z), dimensions {d} of z3 through the quantiles of the prior" for d in ("0, 1", "1, 0")
    ]
    if run.name == "hvae":
        assert titles[1].endswith("of z1 through the quantiles of the prior")
        assert titles[2] == "mean of p(x|z), z1 interpolated from one example to another"
    else:
        assert titles[1].count("[") == 2
        assert titles[2] == "mean of p(x|z), all layers interpolated from one example to another"


def test_every_layer_is_encoded(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "encode", run, "--out", tmp_path / "z.npz")
    arrays = arrays_of(tmp_path / "z.npz")
    if run.name == "hvae":
        assert arrays["mean"].shape == (1797, 5)
        assert arrays["z2_mean"].shape == arrays["z2_sample"].shape == (1797, 3)
        assert arrays["z3_standard_deviation"].shape == (1797, 2)
        assert "layers" not in arrays
    else:
        assert arrays["mean"].shape == arrays["standard_deviation"].shape == (1797, 66)
        assert arrays["mean"][:, arrays["layers"] == "z2"].shape == (1797, 32)
        assert arrays["layers"][0] == "z3"


def test_layers_come_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "sample", run, "--by-layer", "--among", "9", says="--by-layer shows samples in the order")
    refused(capsys, "sample", run, "--by-layer", "-n", "0", says="-n must be at least 1")
    refused(capsys, "sample", run, "--by-layer", "-n", "1000000000", says="Too many examples for the memory")


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (["vae", "--latent-dim", "2", "--hidden", "8"], "none lies above another"),
        (["gumbel-vae", "--positions", "3", "--classes", "4", "--hidden", "8"], "none lies above another"),
        (["pixelcnn", "--channels", "8", "--layers", "1"], "no latent"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_models_without_layers_say_so(
    recipe: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *recipe, "--steps", "2", "--no-pictures", "--device", "cpu", "--out", str(run)]) == 0
    refused(capsys, "sample", run, "--by-layer", says=says)
    refused(capsys, "sample", run, "--temperature", "0.5", "0.7", says="Only a hierarchy of latents")
    refused(capsys, "sample", run, "--temperature", says="--temperature")


@pytest.mark.parametrize("prior", ["mixture", "flow"])
def test_a_ladder_with_a_fitted_prior_is_evaluated_diagnosed_and_reported(
    prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    words = ["--steps", "12", "--no-pictures", "--device", "cpu"]
    printed(capsys, "train", "ladder", *SETTINGS["ladder"], *words, "--out", first)
    printed(capsys, "fit-prior", first, "--prior", prior, *words, "--out", second)
    for run in (first, second):
        printed(capsys, "evaluate", run, "--limit", "20", "-k", "5")
    few = ["--limit", "40", "--gap-examples", "3", "-k", "5"]
    assert "first dead layer" in printed(capsys, "diagnose", second, *few)
    found = json.loads((second / "diagnosis.json").read_text())
    layers = {layer["name"]: layer["kl"] for layer in found["layers"]}
    assert layers == {"z1": None, "z2": None, "z3": None}
    printed(capsys, "report", second, "-k", "5")
    assert "Each layer: what it alone tells" in (second / "report.html").read_text()
    printed(capsys, "compare", first, second, "--limit", "20", "-k", "5", "--out", tmp_path / "c.html")
