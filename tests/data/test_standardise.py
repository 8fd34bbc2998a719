"""Continuous data of any size: shown to a model standardised, measured in its own units."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.distributions import MultivariateNormal

import tightbound as tb
from data_helpers import refused
from tightbound.data import Data, DataSpec
from tightbound.data.transform import in_data_units
from tightbound.errors import CheckpointError, DataError, TrainingError, UsageError
from tightbound.evaluation import reconstruction_errors
from tightbound.evaluation.baselines.baselines import baselines
from tightbound.likelihoods import Gaussian, Measure
from tightbound.models import LatentVariableModel
from tightbound.posteriors import DiagonalGaussian
from tightbound.priors import StandardNormal
from tightbound.recipes import CVAE, VAE, LinearVAE
from tightbound.runs import RunFolder, load, load_run_data
from tightbound.views.samples import drawable

COLUMNS = np.array([1.0, 1e3, 1e6])


def columns(n: int = 400) -> Any:
    """Correlated columns of very different size, away from zero."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3)) @ rng.normal(size=(3, 3)) * COLUMNS + np.array([0.0, 5e3, -2e6])


def images(top: float, channels: int = 1) -> Any:
    return top * np.random.default_rng(0).random((40, channels, 4, 6)).astype(np.float32)


def raw(data: Data) -> Any:
    return data.train.values.double().numpy()  # pyright: ignore[reportAttributeAccessIssue]


# -- location and scale -----------------------------------------------------------------------------------------------


def test_vectors_are_standardised_column_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightbound.data.standardise.CHUNK_BYTES", 24 * 7)
    data = Data.from_arrays(columns())
    np.testing.assert_allclose(data.spec.location, raw(data).mean(0), rtol=1e-12)
    np.testing.assert_allclose(data.spec.scale, raw(data).std(0), rtol=1e-12)
    x = data.train.batch(torch.arange(len(data.train))).x
    torch.testing.assert_close(x.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(3))
    assert "each column" in data.said[0]


@pytest.mark.parametrize(
    ("channels", "how", "numbers"), [(1, "auto", 1), (3, "auto", 1), (5, "auto", 1), (3, "per-entry", 3)]
)
def test_images_are_standardised_as_a_whole_or_by_channel(channels: int, how: Any, numbers: int) -> None:
    data = Data.from_arrays(images(255, channels), standardize=how)
    axes = (0, 2, 3) if numbers > 1 else None
    np.testing.assert_allclose(data.spec.scale, np.atleast_1d(raw(data).std(axes)), rtol=1e-9)
    np.testing.assert_allclose(data.spec.location, np.atleast_1d(raw(data).mean(axes)), rtol=1e-9)
    assert len(data.spec.scale) == numbers


@pytest.mark.parametrize(
    "values",
    [images(1), images(2) - 1, np.random.default_rng(0).normal(size=(50, 3)), np.full((50, 3), 0.5)],
    ids=["0 to 1", "-1 to 1", "normal", "constant"],
)
def test_data_near_unit_scale_stays_as_it_is(values: Any) -> None:
    data = Data.from_arrays(values)
    assert data.spec.scale == ()
    assert torch.equal(data.train.batch(torch.arange(5)).x, torch.as_tensor(data.train.values[:5]).float())


@pytest.mark.parametrize("values", [images(255), images(1e-3), images(1) + 100, 1e-6 * columns()])
def test_all_other_continuous_data_is_standardised(values: Any) -> None:
    data = Data.from_arrays(values)
    x = data.train.batch(torch.arange(len(data.train))).x
    assert abs(x.mean().item()) < 1e-4
    assert abs(x.std().item() - 1) < 0.02


def test_none_leaves_it_as_it_is_and_per_entry_always_standardises() -> None:
    assert Data.from_arrays(columns(), standardize="none").spec.scale == ()
    assert len(Data.from_arrays(np.random.default_rng(0).normal(size=(50, 3)), standardize="per-entry").spec.scale) == 3


def test_a_constant_column_is_said_and_learned() -> None:
    values = np.concatenate([columns(100), np.full((100, 1), 5e4)], 1)
    data = Data.from_arrays(values)
    assert data.spec.location[3] == 5e4
    assert data.spec.scale[3] == 1
    assert "Column 3 (always 50000)" in data.said[0]
    assert torch.equal(data.test.batch(torch.arange(3)).x[:, 3], torch.zeros(3))


def test_values_that_float32_cannot_tell_apart_are_standardised_in_float64() -> None:
    values = np.random.default_rng(0).normal(size=(200, 2)) + np.array([1.7e9, 0.0])
    data = Data.from_arrays(values)
    x = data.train.batch(torch.arange(len(data.train))).x
    assert x.dtype == torch.float32
    expected = (raw(data) - raw(data).mean(0)) / raw(data).std(0)
    np.testing.assert_allclose(x, expected, atol=1e-5)
    assert Data.from_arrays(columns()).train.values.dtype == torch.float32


def test_what_cannot_be_standardised_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(UsageError, "with 256 levels"):
        Data.from_arrays(np.zeros((20, 4), np.uint8), standardize="per-entry")
    monkeypatch.setattr("tightbound.data.standardise.MOST_NUMBERS", 2)
    with refused(UsageError, "3 features", "at most 2"):
        Data.from_arrays(columns(), standardize="per-entry")
    assert len(Data.from_arrays(columns()).spec.scale) == 1


# -- the data's own units ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "nats"), [((), 0.0), ((2.0,), 12 * math.log(2)), ((2.0, 0.5, 8.0), 4 * math.log(8))], ids=str
)
def test_the_density_changes_by_the_volume(scale: tuple[float, ...], nats: float) -> None:
    spec = DataSpec("x", (3, 2, 2), None, location=(1.0,) * len(scale), scale=scale)
    assert spec.log_volume == pytest.approx(nats)
    gaussian = Gaussian(nn.Linear(2, 12), (2,), spec.shape)
    assert gaussian.measure(spec).offset == pytest.approx(nats)
    assert LatentVariableModel(None, nn.Identity(), nn.Identity()).measure(spec).offset == pytest.approx(nats)


def test_data_units_and_back() -> None:
    data = Data.from_arrays(columns())
    index = torch.arange(7)
    x = in_data_units(data.test.batch(index).x.double(), data.spec)
    torch.testing.assert_close(x, data.test.values[index].double(), rtol=1e-5, atol=1e-3)  # pyright: ignore
    walk = in_data_units(torch.zeros(2, 5, 3), data.spec)
    torch.testing.assert_close(walk[1, 4].double(), torch.tensor(data.spec.location, dtype=torch.float64))


def test_the_likelihood_is_the_closed_form_in_the_datas_own_units() -> None:
    data = Data.from_arrays(columns())
    model = LinearVAE(latent_dim=1, posterior="exact").build(data.spec).double()
    likelihood: Any = model.likelihood
    layer, variance = likelihood.network.last_layer, (2 * likelihood.log_scale.detach()).exp()
    w, b = layer.weight.detach(), layer.bias.detach()
    s, m = (torch.tensor(numbers, dtype=torch.float64) for numbers in (data.spec.scale, data.spec.location))
    covariance = s[:, None] * (w @ w.T + variance * torch.eye(3)) * s
    expected = -MultivariateNormal(s * b + m, covariance).log_prob(torch.as_tensor(data.test.values).double()).mean()
    found = tb.evaluate(model, data.test, k=2)
    assert found.nll is not None
    assert found.nll.value == pytest.approx(expected.item(), abs=1e-4)


def test_a_linear_vae_of_unscaled_columns_reaches_probabilistic_pca(tmp_path: Path) -> None:
    data = Data.from_arrays(columns(1000))
    model = LinearVAE(latent_dim=2).build(data.spec)
    options: dict[str, Any] = {"steps": 300, "lr": 0.03, "lr_schedule": "cosine", "batch_size": 200}
    result = tb.train(model, data, out=tmp_path / "run", **options)
    nll = tb.evaluate(model, data.test, k=100).nll
    x, mean = data.test.values.double().numpy(), raw(data).mean(0)  # pyright: ignore[reportAttributeAccessIssue]
    root = np.linalg.cholesky(np.cov(raw(data).T, bias=True))  # two of three components: any Gaussian
    white = np.linalg.solve(root, (x - mean).T)
    in_raw_units = (np.square(white).sum(0).mean() + 3 * math.log(2 * math.pi)) / 2 + np.log(np.diag(root)).sum()
    row = next(row for row in baselines(data, 2) if row.name == "probabilistic PCA, density")
    assert nll is not None
    assert row.nll is not None
    assert row.nll.value == pytest.approx(in_raw_units, abs=1e-6)
    assert nll.value == pytest.approx(in_raw_units, abs=0.05)
    elbo = tb.evaluate(model, data.valid, k=100).elbo
    assert elbo is not None
    assert result.best_bound == pytest.approx(elbo.value, abs=0.05)
    read = [record for record in RunFolder(tmp_path / "run").records() if record["split"] == "valid"]
    assert max(record["bound"] for record in read) == result.best_bound


def test_the_bound_of_dequantised_data_is_logged_in_its_own_nats(tmp_path: Path) -> None:
    data = tb.load_data("digits", dequantize=True)
    model = LinearVAE(latent_dim=2).build(data.spec)
    result = tb.train(model, data, out=tmp_path / "run", steps=20)
    elbo = tb.evaluate(model, data.valid, k=20).elbo
    assert elbo is not None
    assert result.best_bound == pytest.approx(elbo.value, abs=1.0)
    assert model.measure(data.spec).offset > 100


def test_squared_errors_are_in_the_datas_own_units() -> None:
    data = Data.from_arrays(columns())
    model = VAE(latent_dim=1, hidden=(4,)).build(data.spec).eval()
    x = data.test.batch(torch.arange(len(data.test))).x
    with torch.no_grad():
        rebuilt = model().likelihood(model().representative(x)).mean
    difference = in_data_units(x, data.spec).double() - in_data_units(rebuilt, data.spec).double()
    torch.testing.assert_close(
        reconstruction_errors(model, data.test)[0], difference.square().sum(1), rtol=1e-4, atol=0
    )
    pca = PCA(1, svd_solver="full").fit((raw(data) - data.spec.location) / data.spec.scale)
    test = (data.test.values.double().numpy() - data.spec.location) / data.spec.scale  # pyright: ignore
    rest = (test - pca.inverse_transform(pca.transform(test))) * data.spec.scale
    row = next(row for row in baselines(data, 1) if row.name == "PCA")
    assert row.squared_error is not None
    assert row.squared_error.value == pytest.approx(np.square(rest).sum(1).mean(), rel=1e-4)


def test_pictures_go_from_the_smallest_value_to_the_largest() -> None:
    for values in (images(255), images(2) - 1):
        data = Data.from_arrays(values)
        shown = drawable(data.train.batch(torch.arange(len(data.train))).x, data.spec)
        assert shown.min().item() == pytest.approx(0, abs=1e-6)
        assert shown.max().item() == pytest.approx(1, abs=1e-6)
    unit = torch.rand(2, 1, 4, 6)
    assert drawable(unit, Data.from_arrays(images(0.5)).spec) is unit


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scaled")
    np.save(folder / "scan.npy", images(255))
    tb.train(model_of(folder), tb.load_data(folder / "scan.npy"), out=folder / "run", steps=5)
    return folder / "run"


def model_of(folder: Path) -> LatentVariableModel:
    return VAE(latent_dim=2, hidden=(8,)).build(tb.load_data(folder / "scan.npy").spec)


@pytest.mark.parametrize("how", ["own", "path", "loaded"])
def test_a_run_sees_all_data_by_its_own_numbers(run: Path, tmp_path: Path, how: str) -> None:
    path = tmp_path / "new.npy"
    np.save(path, 7 * images(1) - 1000)
    source = {"own": None, "path": path, "loaded": tb.load_data(path)}[how]
    data, own = load_run_data(run, source), RunFolder(run).config().data_spec
    part = data.split(data.default)
    assert data.spec.scale == own.scale == part.spec.scale
    assert part.transform.location == own.location
    assert tb.evaluate(load(run), part, k=2).nll is not None


def test_a_split_of_other_numbers_is_not_evaluated(run: Path) -> None:
    other = Data.from_arrays(images(7))
    with refused(UsageError, "scaled_as"):
        tb.evaluate(load(run), other.test)
    data_spec = load(run).data_spec
    assert data_spec is not None
    assert tb.evaluate(load(run), other.scaled_as(data_spec).test, k=2).n == 4


def test_arrays_that_are_written_are_in_the_datas_own_units(run: Path, tmp_path: Path) -> None:
    from tightbound.cli.main import main

    assert main(["reconstruct", str(run), "-n", "3", "--out", str(tmp_path / "out.npz")]) == 0
    found = np.load(tmp_path / "out.npz")
    own = tb.load_data(run.parent / "scan.npy").test.values[:3]
    np.testing.assert_allclose(found["data"], own, atol=1e-3)
    assert main(["sample", str(run), "-n", "3", "--out", str(tmp_path / "samples.npz")]) == 0
    assert 60 < np.load(tmp_path / "samples.npz")["mean"].mean() < 200


def as_before(folder: Path) -> Path:
    """A run as versions wrote it that did not standardise."""
    config = json.loads((folder / "config.json").read_text())
    for name in ("location", "scale", "low", "high"):
        del config["data_spec"][name]
    for name in ("standardize", "label"):
        del config["data"][name]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_run_of_before_keeps_its_data_as_it_is(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "old")
    data = load_run_data(as_before(tmp_path / "old"))
    assert torch.equal(data.test.batch(torch.arange(3)).x, torch.as_tensor(data.test.values[:3]))


def test_a_run_of_before_goes_on_with_its_data_as_it_is(tmp_path: Path) -> None:
    values = 20 * np.random.default_rng(0).normal(size=(40, 3))
    as_it_is, scaled = Data.from_arrays(values, standardize="none"), Data.from_arrays(values)
    out, model = tmp_path / "run", VAE(latent_dim=1, hidden=(4,)).build(as_it_is.spec)
    first = tb.train(model, as_it_is, out=out, steps=4)
    again = VAE(latent_dim=1, hidden=(4,)).build(scaled.spec)
    as_before(out)
    assert tb.train(again, scaled, out=out, steps=4, resume=True).best_bound == first.best_bound
    assert again.data_spec is not None
    assert again.data_spec.scale == ()


@pytest.mark.parametrize(
    "damage",
    [{"scale": [0.0]}, {"scale": [-1.0]}, {"scale": [1.0, 1.0]}, {"location": []}, {"low": 1.0, "high": 1.0}],
    ids=str,
)
def test_a_damaged_location_or_scale_is_no_run(run: Path, tmp_path: Path, damage: dict[str, Any]) -> None:
    config = json.loads((run / "config.json").read_text())
    config["data_spec"] |= damage
    (tmp_path / "config.json").write_text(json.dumps(config))
    with refused(CheckpointError, "location"):
        load_run_data(tmp_path)


def test_values_too_large_to_be_learned_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = Data.from_arrays(columns(), standardize="none")
    with refused(UsageError, "--standardize none", "--standardize auto"):
        tb.train(VAE(latent_dim=1).build(data.spec), data, out=tmp_path / "run", steps=5)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_at_once_is_of_the_values(tmp_path: Path) -> None:
    data = Data.from_arrays(np.full((20, 2), 1e30) * np.arange(20)[:, None], standardize="none")
    network = lambda n, m: nn.Linear(n, m)
    model = LatentVariableModel(
        StandardNormal(1), Gaussian(network(1, 2), (1,), (2,)), DiagonalGaussian(network(2, 2), (2,))
    )
    with refused(TrainingError, "at step 0", "values from", "--standardize auto"):
        tb.train(model, data, out=tmp_path / "run", steps=5)


def test_a_loss_that_is_no_number_at_once_may_be_of_the_conditions(tmp_path: Path) -> None:
    data = Data.from_arrays(np.eye(20, 3), conditions=np.full((20, 1), 1e38))
    with refused(TrainingError, "at step 0", "conditions, which are not standardised, from 1e+38"):
        tb.train(CVAE(latent_dim=1).build(data.spec), data, out=tmp_path / "run", steps=5)


def test_a_measure_of_no_likelihood_has_no_offset() -> None:
    assert Measure("none", "").offset == 0
    with pytest.raises(DataError):
        Data.from_arrays(np.full((20, 2), 1e300))
