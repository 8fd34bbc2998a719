"""What `evaluate` reports: bounds in order, the right sign and units, and None where there is no such number."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

import tightbound as tb
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.errors import UsageError
from tightbound.evaluation import Estimate, Evaluation, evaluate, per_example
from tightbound.models import LatentVariableModel
from tightbound.networks import MLP
from tightbound.posteriors import DiagonalGaussian
from tightbound.priors import StandardNormal
from tightbound.recipes import VAE, Autoencoder, LinearVAE
from tightbound.spec import to_json

SMALL: dict[str, Any] = {"latent_dim": 2, "hidden": (8,)}


def grey(n: int = 200, **options: Any) -> Data:
    rng = np.random.default_rng(0)
    images = rng.binomial(4, rng.random((n, 1, 1)) * np.ones((1, 3, 4))).astype(np.uint8)
    return Data.from_arrays(images, levels=5, name="toy", **options)


def floats(n: int = 200) -> Data:
    return Data.from_arrays(np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32), name="floats")


GREY, BINARY, DEQUANTIZED, FLOATS = grey(), grey(binarize="dynamic"), grey(dequantize=True), floats()


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def error(estimate: Estimate | None) -> float:
    assert estimate is not None
    assert estimate.standard_error is not None
    return estimate.standard_error


def exact(model: LatentVariableModel) -> MultivariateNormal:
    """The law of x of a linear VAE."""
    linear = next(m for m in model.likelihood.modules() if isinstance(m, nn.Linear))
    log_scale: Tensor = model.likelihood.log_scale  # pyright: ignore[reportAssignmentType]
    noise = (2 * log_scale).exp().expand(len(linear.bias))
    covariance = linear.weight @ linear.weight.T + torch.diag(noise)
    return MultivariateNormal(linear.bias.detach(), covariance.detach(), validate_args=False)


@pytest.mark.parametrize(
    ("recipe", "data"),
    [
        (VAE(**SMALL), GREY),
        (VAE(**SMALL), BINARY),
        (VAE(**SMALL, likelihood="categorical"), GREY),
        (VAE(**SMALL), DEQUANTIZED),
        (VAE(**SMALL), FLOATS),
        (LinearVAE(latent_dim=2), FLOATS),
    ],
    ids=["levels", "binary", "categorical", "dequantized", "continuous", "linear"],
)
def test_bounds_and_units(recipe: Any, data: Data) -> None:
    model = recipe.build(data.spec)
    found = evaluate(model, data.test, k=50)
    assert value(found.elbo) == pytest.approx(value(found.reconstruction) - value(found.kl), abs=1e-4)
    noise = 4 * math.hypot(error(found.elbo), error(found.nll))
    assert value(found.elbo) <= -value(found.nll) + min(noise, 0.5)
    assert value(found.kl) > -1e-6
    if data.spec.levels is not None:
        assert value(found.nll) > 0
        nats = data.spec.dimensions * math.log(2)
        assert value(found.bits_per_dim) == pytest.approx(value(found.nll) / nats)
        assert error(found.bits_per_dim) == pytest.approx(error(found.nll) / nats)
    else:
        assert found.bits_per_dim is None
    assert found.effective_sample_size is not None
    assert 1 <= found.effective_sample_size <= 50.001
    assert found.n == len(data.test)
    assert (found.k, found.split) == (50, "test")
    assert found.kl_per_dimension is not None
    assert sum(found.kl_per_dimension["z"]) == pytest.approx(value(found.kl), abs=1e-4)


def test_json_has_the_promised_keys() -> None:
    found = json.loads(json.dumps(to_json(evaluate(VAE(**SMALL).build(GREY.spec), GREY.test, k=5)), allow_nan=False))
    for name in ("elbo", "reconstruction", "kl", "nll", "bits_per_dim"):
        assert set(found[name]) == {"value", "standard_error"}
        assert found[name]["standard_error"] > 0
    assert {"k", "n", "split", "effective_sample_size", "active_units", "measure", "notes"} <= set(found)
    assert found["measure"] == "mass"
    assert found["kl_is_analytic"] is True


@pytest.mark.parametrize("data", [GREY, BINARY, DEQUANTIZED], ids=["levels", "binarized", "dequantized"])
def test_the_same_seed_gives_the_same_numbers(data: Data) -> None:
    model = VAE(**SMALL).build(data.spec)
    torch.manual_seed(5)
    found = evaluate(model, data.test, k=5)
    torch.manual_seed(6)
    assert evaluate(model, data.test, k=5) == found
    assert evaluate(model, data.test, k=5, seed=1) != found


def test_the_process_is_left_as_it_was() -> None:
    model = VAE(**SMALL).build(GREY.spec)
    model.posterior.eval()  # say, frozen
    before = torch.get_rng_state()
    evaluate(model, GREY.test, k=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert model.likelihood.training
    assert not model.posterior.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_model_is_evaluated_in_evaluation_mode_even_if_that_fails() -> None:
    class Dropped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise AssertionError("in training mode")
            raise RuntimeError("in evaluation mode")

    model = VAE(**SMALL).build(GREY.spec)
    model.posterior = DiagonalGaussian(Dropped(), GREY.spec.shape)
    with pytest.raises(RuntimeError, match="evaluation"):
        evaluate(model, GREY.test, k=3)
    assert model.training
    assert model.posterior.training


def test_standard_errors_shrink_with_the_examples() -> None:
    model = VAE(**SMALL).build(GREY.spec)
    few, many = (evaluate(model, GREY.train.subset(n), k=5) for n in (40, 160))
    assert error(many.nll) == pytest.approx(error(few.nll) / 2, rel=0.4)


def test_a_linear_model_is_measured_exactly() -> None:
    model = LinearVAE(latent_dim=2).build(FLOATS.spec).double()
    found = evaluate(model, FLOATS.test, k=7)
    x = FLOATS.test.batch(torch.arange(len(FLOATS.test))).x.double()
    log_p = exact(model).log_prob(x)
    assert value(found.nll) == pytest.approx(-log_p.mean().item(), abs=1e-9)
    assert value(found.elbo) == pytest.approx(log_p.mean().item(), abs=0.1)
    assert error(found.nll) == pytest.approx(log_p.std().item() / len(x) ** 0.5, abs=1e-9)
    assert found.effective_sample_size == pytest.approx(7)
    assert found.measure == "density"
    assert found.kl_is_analytic is True


def test_dequantisation_is_paid_for() -> None:
    data = grey(3_000, dequantize=True)
    model = LinearVAE(latent_dim=2).build(data.spec).double()
    found = evaluate(model, data.train, k=2)
    x = data.train.batch(torch.arange(len(data.train))).x.double()
    nll = 12 * math.log(5) - exact(model).log_prob(x.flatten(1))
    assert value(found.nll) == pytest.approx(nll.mean().item(), abs=4 * nll.std().item() / len(x) ** 0.5)
    assert value(found.elbo) == pytest.approx(-value(found.nll), abs=0.05)
    assert value(found.bits_per_dim) == pytest.approx(value(found.nll) / (12 * math.log(2)))
    assert found.measure == "bound"


def test_an_autoencoder_has_no_likelihood() -> None:
    found = evaluate(Autoencoder(**SMALL).build(GREY.spec), GREY.test, k=5)
    assert value(found.reconstruction) < 0
    for name in ("elbo", "kl", "nll", "bits_per_dim", "effective_sample_size", "kl_per_dimension", "kl_is_analytic"):
        assert getattr(found, name) is None
    assert any("no likelihood" in note for note in found.notes)


def test_a_bernoulli_of_grey_values_is_marked() -> None:
    found = evaluate(VAE(**SMALL, likelihood="bernoulli").build(GREY.spec), GREY.test, k=5)
    assert found.measure == "none"
    assert found.bits_per_dim is None
    assert any("not a likelihood" in note for note in found.notes)
    assert evaluate(VAE(**SMALL, likelihood="bernoulli").build(BINARY.spec), BINARY.test, k=5).measure == "mass"


def test_a_density_at_levels_is_marked() -> None:
    found = evaluate(VAE(**SMALL, likelihood="gaussian").build(GREY.spec), GREY.test, k=5)
    assert found.measure == "density"
    assert found.bits_per_dim is None
    assert any("likelihood auto" in note for note in found.notes)


def test_a_likelihood_of_the_users_own_is_read_as_a_density() -> None:
    class Decoder(nn.Linear):
        def forward(self, z: Tensor, c: Given | None = None) -> Distribution:  # pyright: ignore
            mean = super().forward(z)
            return Independent(Normal(mean, torch.ones_like(mean), validate_args=False), 1, validate_args=False)

    posterior = DiagonalGaussian(MLP((6,), 4), (6,))
    found = evaluate(LatentVariableModel(StandardNormal(2), Decoder(2, 6), posterior), FLOATS.test, k=5)
    assert found.measure == "density"
    assert found.bits_per_dim is None
    assert found.notes[0]


def test_active_units_are_those_whose_mean_moves() -> None:
    class Encoder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x[:, :1], 0 * x[:, 1:2], 0.05 * x[:, 2:3], torch.zeros(len(x), 3)], dim=1)

    model = VAE(latent_dim=3, hidden=(4,)).build(FLOATS.spec)
    model.posterior = DiagonalGaussian(Encoder(), (6,))
    assert evaluate(model, FLOATS.train, k=2).active_units == 1  # variances about 1, 0 and 0.0025


def test_too_few_effective_samples_are_told() -> None:
    model = VAE(**SMALL).build(FLOATS.spec)
    with torch.no_grad():
        list(model.posterior.parameters())[-1][2:] = 3.0  # a posterior far too wide
        model.likelihood.network.layers[-1].weight.mul_(30)  # pyright: ignore
    found = evaluate(model, FLOATS.test, k=200)
    assert found.effective_sample_size is not None
    assert found.effective_sample_size < 2
    assert any("upper bound" in note for note in found.notes)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        evaluate(VAE(**SMALL).build(GREY.spec), GREY.test.subset(0), k=5)


@pytest.mark.parametrize("k", [0, -1])
def test_at_least_one_sample(k: int) -> None:
    with pytest.raises(UsageError, match="k >= 1"):
        evaluate(VAE(**SMALL).build(GREY.spec), GREY.test, k=k)


def test_one_example_is_enough() -> None:
    found = evaluate(VAE(**SMALL).build(GREY.spec), GREY.test.subset(1), k=5)
    assert found.n == 1
    assert isinstance(found, Evaluation)
    assert found.nll is not None
    assert found.nll.standard_error is None


def test_the_data_is_drawn_alike_whatever_k(monkeypatch: pytest.MonkeyPatch) -> None:
    """Binarised anew, but with the same noise: two numbers of samples, or two models, see the same test set."""
    data = tb.load_data("digits", binarize="dynamic")
    model, seen = VAE(latent_dim=2, hidden=(4,)).build(data.spec), []

    def watched(model: Any, x: torch.Tensor, k: int, c: Given | None) -> dict[str, torch.Tensor]:
        seen.append(x)
        return per_example(model, x, k, c)

    monkeypatch.setattr("tightbound.evaluation.log_likelihood.methods.per_example", watched)
    drawn = []
    for k in (1, 700):
        seen.clear()
        evaluate(model, data.test, k=k)
        drawn.append(torch.cat(seen))
    assert torch.equal(drawn[0], drawn[1])
