"""A likelihood with full covariance is that Gaussian, and its models reach the likelihoods that algebra gives."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

import tightbound as tb
from instances import LATENT, double, within_error
from tightbound.cli.main import main
from tightbound.data import DataSpec
from tightbound.errors import UsageError
from tightbound.likelihoods.correlated import LARGEST, FullGaussianLikelihood, Noise
from tightbound.models import LatentVariableModel
from tightbound.networks import MLP
from tightbound.objectives import elbo, iwae
from tightbound.priors import StandardNormal
from tightbound.recipes import VAE

D = 5
SPEC = DataSpec("vectors", (D,), levels=None)


def linear(noise: Noise = "shared") -> FullGaussianLikelihood:
    """A linear mean, and a factor that is not special."""
    outputs = D if noise == "shared" else D * (1 + D)
    likelihood = FullGaussianLikelihood(MLP(LATENT, outputs, ()), (LATENT,), (D,), noise, variance=0.3).double()
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return likelihood


def noise_of(likelihood: FullGaussianLikelihood) -> Tensor:
    raw = likelihood.factor
    factor = raw.tril(-1) + raw.diagonal().exp().diag()
    return factor @ factor.T


class Exact(nn.Module):
    """The posterior of a linear Gaussian model with correlated noise, a function of the likelihood's parameters."""

    def __init__(self, likelihood: FullGaussianLikelihood) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        layer: Any = next(m for m in self.likelihood.modules() if isinstance(m, nn.Linear))
        weighed = torch.linalg.solve(noise_of(self.likelihood), layer.weight)
        covariance = torch.linalg.inv(torch.eye(LATENT).double() + layer.weight.T @ weighed)
        return MultivariateNormal((x - layer.bias) @ weighed @ covariance, covariance, validate_args=False)


def marginal(likelihood: FullGaussianLikelihood) -> MultivariateNormal:
    layer: Any = next(m for m in likelihood.modules() if isinstance(m, nn.Linear))
    return MultivariateNormal(layer.bias, layer.weight @ layer.weight.T + noise_of(likelihood), validate_args=False)


def test_every_weight_under_the_exact_posterior_is_the_likelihood() -> None:
    likelihood = linear()
    model = LatentVariableModel(StandardNormal(LATENT).double(), likelihood, Exact(likelihood))
    x = double(7, D)
    terms, exact = model().terms(x, k=4), marginal(likelihood).log_prob(x)
    torch.testing.assert_close(terms.log_weights, exact.expand(4, 7), rtol=0, atol=1e-10)
    torch.testing.assert_close(iwae(terms), exact, rtol=0, atol=1e-10)
    torch.testing.assert_close(elbo(terms, analytic=False), exact, rtol=0, atol=1e-10)


def test_samples_have_the_covariance_of_the_factor() -> None:
    likelihood = linear()
    centred = (
        likelihood(double(1, LATENT)).sample((200_000,)).squeeze(1) - likelihood.features(double(1, LATENT))[..., 0, :]
    )
    x = centred - centred.mean(0)
    products = x.unsqueeze(-1) * x.unsqueeze(-2)
    assert within_error(products, noise_of(likelihood))
    off_diagonal = noise_of(likelihood).tril(-1).abs().max()
    assert off_diagonal > 0.1, "nothing is correlated: nothing is tested"


@pytest.mark.parametrize("noise", ["shared", "network"])
def test_the_density_is_that_of_the_covariance(noise: Noise) -> None:
    likelihood, z, x = linear(noise), double(4, LATENT), double(4, D)
    px: Any = likelihood(z)
    for one, value, found in zip(z, x, px.log_prob(x), strict=True):
        features = likelihood.features(one)
        raw = likelihood.factor + (features[1:].T if noise == "network" else 0)
        factor = raw.tril(-1) + raw.diagonal().exp().diag()
        expected = MultivariateNormal(features[0], factor @ factor.T).log_prob(value)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)
    assert bool((px.covariance_matrix[0] == px.covariance_matrix[1]).all()) == (noise == "shared")


def test_training_reaches_the_best_gaussian() -> None:
    """Data with correlated noise: the bound rises to the likelihood of the sample's own mean and covariance."""
    torch.manual_seed(0)
    mixing = double(D, D)
    x = double(400, D) @ mixing.T + double(D)
    centred = x - x.mean(0)
    covariance = centred.T @ centred / len(x)
    best = MultivariateNormal(x.mean(0), covariance).log_prob(x).mean().item()
    likelihood = linear()
    model = LatentVariableModel(StandardNormal(LATENT).double(), likelihood, Exact(likelihood))
    optimizer = torch.optim.LBFGS(likelihood.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -elbo(model().terms(x), analytic=False).mean()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    assert -loss().item() == pytest.approx(best, abs=1e-6)
    independent = MultivariateNormal(x.mean(0), covariance.diagonal().diag()).log_prob(x).mean().item()
    assert independent < best - 0.5, "the entries are independent: nothing is tested"


@pytest.mark.parametrize("shape", [(LARGEST + 1,), (1, 4, 4)])
def test_other_than_small_vectors_are_refused(shape: tuple[int, ...]) -> None:
    spec = DataSpec("large", shape, levels=None)
    with pytest.raises(UsageError, match=r"small vectors(?s:.*)--scale per-dimension"):
        VAE(likelihood="full-gaussian").build(spec)
    with pytest.raises(UsageError, match="small vectors"):
        FullGaussianLikelihood(nn.Identity(), (2,), shape)


def test_scales_that_mean_nothing_are_refused() -> None:
    for scale in ("fixed", "shared", "per-dimension"):
        with pytest.raises(UsageError, match=r"full covariance(?s:.*)--likelihood gaussian"):
            VAE(likelihood="full-gaussian", scale=scale).build(SPEC)
    with pytest.raises(UsageError, match="Unknown noise"):
        FullGaussianLikelihood(nn.Identity(), (2,), (3,), "diagonal")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="positive"):
        FullGaussianLikelihood(nn.Identity(), (2,), (3,), variance=0.0)


def test_the_command_trains_it_and_beats_independent_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    factor = np.tril(np.full((4, 4), 0.9)) + 0.3 * np.eye(4)
    np.savez("x.npz", x=(rng.normal(size=(600, 4)) @ factor.T).astype(np.float32))
    found = {}
    for name in ("gaussian", "full-gaussian"):
        words = ["--likelihood", name, "--latent-dim", "1", "--hidden", "16", "--steps", "120", "--lr", "2e-2"]
        assert main(["train", "vae", "--data", "x.npz", "--out", name, *words, "--no-pictures", "--device", "cpu"]) == 0
        capsys.readouterr()
        assert main(["evaluate", name, "-k", "50", "--json", "--device", "cpu"]) == 0
        found[name] = json.loads(capsys.readouterr().out)
    assert found["full-gaussian"]["measure"] == "density"
    assert found["full-gaussian"]["nll"]["value"] < found["gaussian"]["nll"]["value"] - 0.2
    x = tb.load_data("x.npz").test.batch(torch.arange(10)).x
    assert math.isfinite(tb.load("full-gaussian")().lower_bound(x).mean().item())
