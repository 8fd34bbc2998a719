"""Every command takes a model whose likelihood is a mixture of discretised logistics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tightbound.cli.main import main

MIXTURE = ["--likelihood", "discretized-logistic-mixture", "--likelihood-components", "2"]
SMALL = ["--steps", "12", "--latent-dim", "3", "--hidden", "16", "--no-pictures", "--device", "cpu"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small colour images as an array."""
    path = tmp_path_factory.mktemp("data") / "colours.npy"
    rng = np.random.default_rng(0)
    grey = rng.integers(40, 200, (120, 6, 6, 1))
    np.save(path, np.clip(grey + rng.integers(-20, 20, (120, 6, 6, 3)), 0, 255).astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def run(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "vae", "--data", str(colours), "--out", str(path), *MIXTURE, *SMALL]) == 0
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_it_is_evaluated_as_a_probability_in_bits(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "evaluate", run, "-k", "5", "--json"))
    assert found["measure"] == "mass"
    assert 0 < found["bits_per_dim"]["value"] < 12
    assert found["decoder_noise"]["std"] > 0


@pytest.mark.parametrize("command", ["sample", "reconstruct"])
def test_it_is_drawn(run: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, command, run, "-n", "3", "--out", tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["mean"].shape[-3:] == (3, 6, 6)
        assert np.isfinite(arrays["mean"]).all()
    printed(capsys, command, run, "-n", "3", "--out", tmp_path / "a.png")


def test_it_is_diagnosed_and_reported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "diagnose", run)
    printed(capsys, "report", run)
    assert "discretized-logistic-mixture" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "digits", "--likelihood-components", "0"], "--likelihood-components"),
        (["--data", "digits", "--binarize", "threshold"], "--likelihood bernoulli"),
        (["--data", "digits", "--dequantize"], "discrete levels"),
        (["--data", "digits", "--scale", "network"], "has no scale"),
    ],
)
def test_bad_usage(words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["train", "vae", "--out", str(tmp_path / "run"), *MIXTURE, *words]) == 2
    assert says in capsys.readouterr().err
