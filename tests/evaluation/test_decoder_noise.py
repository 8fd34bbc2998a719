"""The decoder's sigma is told where there is one, beside the spread of the data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tightbound as tb
from instances import GREY, LATENT, LEVELS, LIKELIHOODS, Part, double, named, within_error
from tightbound.cli.main import main
from tightbound.data import Data
from tightbound.evaluation import DecoderNoise, decoder_noise, evaluate, learned_sigma
from tightbound.recipes import VAE, LinearVAE

MIXTURES = [part for part in LIKELIHOODS if part.name.startswith("mixture")]
NOISY = [part for part in LIKELIHOODS if "gaussian" in part.name or "logistic" in part.name]
EXACT = [part for part in NOISY if part not in MIXTURES or part.spec.shape[0] == 1]
"""Those whose variance has a closed form: clipped channels of a mixture that depend on others have none."""
SMALL: dict[str, Any] = {"latent_dim": 2, "hidden": (8,)}


def vectors(scale: tuple[float, ...] = (1.0, 2.0, 4.0)) -> Data:
    x = np.random.default_rng(0).normal(size=(400, len(scale))) * scale
    return Data.from_arrays(x.astype(np.float32), name="vectors")


LISTED = [part for part in NOISY if part.spec in (GREY, LEVELS) and part not in MIXTURES]


@pytest.mark.parametrize("part", LISTED, ids=named)
def test_the_variance_of_levels_is_that_of_their_probabilities(part: Part) -> None:
    torch.manual_seed(0)
    px = part.build()(double(3, LATENT))
    levels = part.spec.levels
    assert levels is not None
    x = (torch.arange(levels).double() / (levels - 1)).reshape(-1, *[1] * (1 + len(part.spec.shape)))
    p = px.base_dist.log_prob(x).exp()
    mean = (p * x).sum(0)
    torch.testing.assert_close(px.variance, (p * (x - mean).square()).sum(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(px.mean, mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("part", EXACT, ids=named)
def test_the_variance_is_that_of_draws(part: Part) -> None:
    torch.manual_seed(0)
    px = part.build()(double(1, LATENT))
    squares = (px.sample((4000,)) - px.mean).square().flatten(1)
    assert within_error(squares.sum(1), px.variance.sum())


def test_a_fixed_sigma_is_told_with_the_spread_and_the_error() -> None:
    data = vectors()
    model = VAE(**SMALL, likelihood="gaussian", variance=0.25).build(data.spec)
    found = decoder_noise(model, data.test)
    assert found is not None
    x = data.test.batch(torch.arange(len(data.test))).x
    assert found.std == pytest.approx(0.5, rel=1e-6)
    assert found.fixed
    assert found.data_std == pytest.approx(x.var(0, correction=0).mean().sqrt().item(), rel=1e-5)
    squared = evaluate(model, data.test, k=2).squared_error
    assert squared is not None
    assert found.error == pytest.approx(math.sqrt(squared.value / 3), rel=1e-5)
    assert found.share == pytest.approx(0.25 / found.data_std**2)
    assert "error" in found.remark


def test_the_learned_sigma_of_a_linear_model_is_what_pca_leaves(tmp_path: Path) -> None:
    """Of probabilistic PCA at its optimum: the mean of the eigenvalues that are left out."""
    torch.manual_seed(0)
    x = (double(2000, 4) @ torch.diag(torch.tensor([3.0, 2.0, 0.5, 0.5]).double())).float()
    data = Data.from_arrays(x.numpy(), name="pca")
    train = data.train.batch(torch.arange(len(data.train))).x.double()
    left = torch.linalg.eigvalsh(torch.cov(train.T, correction=0))[:2].mean().sqrt().item()
    model = LinearVAE(latent_dim=2).build(data.spec)
    tb.train(model, data, out=tmp_path, steps=400, lr=3e-2, pictures=False)
    found = decoder_noise(model, data.train)
    assert found is not None
    assert not found.fixed
    assert found.std == pytest.approx(left, rel=0.03)
    assert learned_sigma(model.likelihood) == {"scale": "shared", "sigma": pytest.approx(found.std, rel=1e-5)}
    assert 0 < found.share < 0.2


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"likelihood": "gaussian"}, ["scale", "sigma"]),
        ({"likelihood": "gaussian", "scale": "per-dimension"}, ["scale", "smallest", "median", "largest"]),
        ({"likelihood": "gaussian", "scale": "network"}, ["scale"]),
        ({"likelihood": "full-gaussian"}, ["scale", "smallest", "median", "largest"]),
        ({"likelihood": "full-gaussian", "scale": "network"}, ["scale"]),
    ],
)
def test_what_a_likelihood_itself_holds(options: dict[str, Any], names: list[str]) -> None:
    found = learned_sigma(VAE(**SMALL, **options, variance=0.09).build(vectors().spec).likelihood)
    assert found is not None
    assert list(found) == names
    assert all(value == pytest.approx(0.3) for name, value in found.items() if name != "scale")


def test_likelihoods_without_a_scale_have_no_sigma() -> None:
    data = tb.load_data("digits", binarize="dynamic")
    model = VAE(**SMALL).build(data.spec)
    assert learned_sigma(model.likelihood) is None
    assert decoder_noise(model, data.test) is None
    assert evaluate(model, data.test.subset(20), k=2).decoder_noise is None


def test_data_that_is_constant_has_no_share() -> None:
    assert DecoderNoise(0.5, 0.1, 0.0, True).share == math.inf


def test_the_commands_tell_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["--latent-dim", "2", "--hidden", "8", "--likelihood", "gaussian", "--scale", "shared", "--no-pictures"]
    assert main(["train", "vae", "--data", "digits", *words, "--steps", "3", "--out", str(run)]) == 0
    assert main(["info", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert told["decoder_sigma"]["scale"] == "shared"
    assert main(["evaluate", str(run), "-k", "2"]) == 0
    printed = capsys.readouterr().out
    assert "decoder σ" in printed
    assert "the decoder's sigma is larger than the spread" in " ".join(printed.split())
    kept = json.loads((run / "evaluation.json").read_text(encoding="utf8"))
    assert kept["decoder_noise"]["std"] == pytest.approx(told["decoder_sigma"]["sigma"], rel=1e-5)
    assert main(["report", str(run)]) == 0
    assert "decoder σ" in (run / "report.html").read_text(encoding="utf8")
    assert json.loads((run / "evaluation.json").read_text(encoding="utf8")) == kept  # it was read, not made again


def test_the_noise_is_in_the_units_of_the_data() -> None:
    """A model of standardised columns tells the same of columns in other units, times their size."""
    plain = torch.randn(400, 3) @ torch.tensor([[1.0, 0.8, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 1.0]])
    size = 1000.0
    found = []
    for values in (plain, size * plain):
        data = Data.from_arrays(values, standardize="per-entry")
        torch.manual_seed(0)
        model = VAE(latent_dim=2, likelihood="gaussian").build(data.spec)
        noise = decoder_noise(model, data.test)
        assert noise is not None
        sigma = learned_sigma(model.likelihood, data.spec)
        assert sigma is not None
        found.append([noise.std, noise.error, noise.data_std, sigma["largest"]])
    assert found[1] == pytest.approx([size * value for value in found[0]], rel=1e-3)
    assert found[1][2] == pytest.approx(size * plain.std(0).square().mean().sqrt().item(), rel=0.3)
