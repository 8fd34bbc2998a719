"""Baselines against their closed forms, and the latents' walks against what they must pass through."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

import tightbound as tb
from tightbound.data import Data
from tightbound.errors import ObjectiveError, UsageError
from tightbound.evaluation import reconstruction_errors
from tightbound.evaluation.baselines import components, discriminant
from tightbound.evaluation.baselines import rows as rows_module
from tightbound.evaluation.baselines.baselines import baselines, independent_pixels
from tightbound.evaluation.baselines.components import (
    PrincipalComponents,
    fit_pca,
    pca_error,
    ppca_bound,
    ppca_log_density,
)
from tightbound.evaluation.baselines.discriminant import fit_lda, lda_classes, lda_codes
from tightbound.views.latents import encode, posterior_means
from tightbound.views.walks import interpolation, quantiles, traversal


def _levels(n: int, features: int, levels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, 2)) @ rng.normal(size=(2, features)) + 0.5 * rng.normal(size=(n, features))
    return np.clip(np.round(mixed + levels / 2), 0, levels - 1).astype(np.uint8)


@pytest.fixture(scope="module")
def small() -> Data:
    return Data.from_arrays(_levels(200, 5, 6), _levels(50, 5, 6, seed=1), levels=6, validation=0)


@pytest.fixture(scope="module")
def digits() -> Data:
    return tb.load_data("digits", validation=0)


@pytest.fixture(scope="module")
def first_digits() -> Data:
    """The split of the reference table: the first 1437 digits and the last 360."""
    from sklearn.datasets import load_digits

    images = load_digits().images.astype(np.uint8)  # pyright: ignore[reportAttributeAccessIssue]
    return Data.from_arrays(images[:1437], images[1437:], levels=17, validation=0)


def _covariance(pca: PrincipalComponents) -> torch.Tensor:
    v = pca.components
    return v @ torch.diag(pca.variances - pca.noise) @ v.T + pca.noise * torch.eye(len(v), dtype=v.dtype)


# -- independent pixels ---------------------------------------------------------------------------------------------


def test_independent_pixels_by_hand() -> None:
    train = np.array([[0, 2], [0, 1], [1, 1]], dtype=np.uint8)
    test = np.array([[0, 1], [2, 0]], dtype=np.uint8)
    data = Data.from_arrays(train, test, levels=3, validation=0)
    expected = [-math.log(3 / 6) - math.log(3 / 6), -math.log(1 / 6) - math.log(1 / 6)]
    assert independent_pixels(data.train, data.test).tolist() == pytest.approx(expected)


def test_independent_pixels_take_binarization_in_expectation() -> None:
    grey = np.array([[[0, 51]], [[255, 102]]], dtype=np.uint8)
    data = Data.from_arrays(grey, grey, validation=0, binarize="dynamic")
    p = [2 / 4, (0.2 + 0.4 + 1) / 4]
    first = -math.log(1 - p[0]) - 0.2 * math.log(p[1]) - 0.8 * math.log(1 - p[1])
    assert independent_pixels(data.train, data.test)[0].item() == pytest.approx(first, rel=1e-6)


def test_independent_pixels_of_digits(digits: Data) -> None:
    assert independent_pixels(digits.train, digits.test).mean().item() == pytest.approx(108.0, abs=0.1)


def test_independent_pixels_refuse_continuous_data() -> None:
    data = Data.from_arrays(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32))
    with pytest.raises(UsageError, match="Continuous data"):
        independent_pixels(data.train, data.test)


# -- principal components -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "error", "train", "test", "noise"),
    [
        (2, 3.3374, -0.077, 0.137, 0.0542799),
        (5, 2.2063, 9.006, 8.017, 0.0360582),
        (10, 1.2887, 17.544, 16.185, 0.0226719),
    ],
)
def test_reference_digits(first_digits: Data, k: int, error: float, train: float, test: float, noise: float) -> None:
    pca = fit_pca(first_digits.train, k)
    assert pca_error(pca, first_digits.test).mean().item() == pytest.approx(error, abs=5e-5)
    assert ppca_log_density(pca, first_digits.train).mean().item() == pytest.approx(train, abs=5e-4)
    assert ppca_log_density(pca, first_digits.test).mean().item() == pytest.approx(test, abs=5e-4)
    assert pca.noise == pytest.approx(noise, abs=5e-8)


def test_log_density_is_that_of_the_gaussian(small: Data) -> None:
    pca = fit_pca(small.train, 2)
    x = small.test.batch(torch.arange(len(small.test))).x.double()
    expected = MultivariateNormal(pca.mean, _covariance(pca)).log_prob(x)
    torch.testing.assert_close(ppca_log_density(pca, small.test), expected, rtol=1e-10, atol=1e-10)


def test_all_components_are_the_full_gaussian(small: Data) -> None:
    pca = fit_pca(small.train, 99)
    x = small.train.batch(torch.arange(len(small.train))).x.double()
    full = MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0))
    torch.testing.assert_close(ppca_log_density(pca, small.train), full.log_prob(x), rtol=1e-10, atol=1e-10)
    assert pca_error(pca, small.test).max() < 1e-20


def test_the_dequantised_bound_is_exact_in_expectation(small: Data) -> None:
    levels, pca = 6, fit_pca(small.train, 2)
    eye = torch.eye(5, dtype=torch.float64)
    mean = (pca.mean * (levels - 1) + 0.5) / levels
    gaussian = MultivariateNormal(mean, _covariance(pca) * (1 - 1 / levels) ** 2 + eye / (12 * levels**2))
    x = small.test.batch(torch.arange(4)).x.double() * (levels - 1)
    torch.manual_seed(0)
    noise = torch.rand(200_000, 4, 5, dtype=torch.float64)
    drawn = gaussian.log_prob((x + noise) / levels) - 5 * math.log(levels)
    error = drawn.std(0) / len(noise) ** 0.5
    assert ((ppca_bound(pca, small.test)[:4] - drawn.mean(0)).abs() < 5 * error).all()


def test_dequantised_digits(digits: Data) -> None:
    def nll(k: int) -> float:
        return -ppca_bound(fit_pca(digits.train, k), digits.test).mean().item()

    assert nll(16) == pytest.approx(155.9, abs=0.5)
    assert nll(64) == pytest.approx(132.0, abs=0.5)


def test_the_error_of_dequantised_data_is_exact_in_expectation() -> None:
    plain = Data.from_arrays(_levels(200, 5, 6), _levels(50, 5, 6, seed=1), levels=6, validation=0)
    noisy = Data.from_arrays(_levels(200, 5, 6), _levels(50, 5, 6, seed=1), levels=6, validation=0, dequantize=True)
    pca = fit_pca(noisy.train, 2)
    torch.testing.assert_close(pca.mean, fit_pca(plain.train, 2).mean)
    torch.manual_seed(0)
    mean = (pca.mean * 5 + 0.5) / 6
    across = torch.eye(5, dtype=torch.float64) - pca.components @ pca.components.T
    draws = [((noisy.test.batch(torch.arange(50)).x.double() - mean) @ across).square().sum(1) for _ in range(300)]
    assert pca_error(pca, noisy.test).mean().item() == pytest.approx(torch.stack(draws).mean().item(), rel=5e-3)


def test_the_leading_part_alone_is_the_same(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = fit_pca(digits.train, 10)
    monkeypatch.setattr(components, "DENSE", 8)
    leading = fit_pca(digits.train, 10)
    assert leading.noise == pytest.approx(dense.noise, rel=1e-4)
    torch.testing.assert_close(leading.variances, dense.variances, rtol=1e-3, atol=0)


def test_a_singular_covariance_has_no_density() -> None:
    data = Data.from_arrays(np.full((20, 4), 7, dtype=np.uint8), levels=8)
    pca = fit_pca(data.train, 2)
    with pytest.raises(ObjectiveError, match="singular"):
        ppca_log_density(pca, data.test)
    assert ppca_bound(pca, data.test).isfinite().all()
    assert "probabilistic PCA, density" not in [row.name for row in baselines(data, 2)]


def test_many_examples_are_thinned(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MOST_ENTRIES", 64 * 100)
    rows = baselines(digits, 2)
    assert all("fitted on 100 of 1,437 examples" in row.note for row in rows)


# -- linear discriminant --------------------------------------------------------------------------------------------


def _labelled(n: int = 600, seed: int = 0) -> Data:
    """Three Gaussians of one covariance."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    means = np.array([[0.0, 0, 0, 0], [2.0, 1, 0, 0], [-1.0, 2, 1, 0]])
    x = means[labels] + rng.normal(size=(n, 4)) @ rng.normal(size=(4, 4)) * 0.7
    return Data.from_arrays(x.astype(np.float32), labels=labels, validation=0)


def test_the_discriminant_is_that_of_scikit_learn() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    data = _labelled()
    x, test = (s.batch(torch.arange(len(s))).x.double().numpy() for s in (data.train, data.test))
    assert data.train.labels is not None
    reference = LinearDiscriminantAnalysis(solver="eigen").fit(x, data.train.labels.numpy())
    lda = fit_lda(data.train, shrinkage=0)
    assert np.array_equal(lda_classes(lda, data.test).numpy(), reference.predict(test))
    share = lda.separation / lda.separation.sum()
    assert share.numpy() == pytest.approx(reference.explained_variance_ratio_, rel=1e-8)


def test_classes_have_unit_covariance_along_the_discriminant() -> None:
    data = _labelled()
    lda, labels = fit_lda(data.train, shrinkage=0), data.train.labels
    codes = lda_codes(lda, data.train)
    assert labels is not None
    centred = codes - lda.centres[labels]
    torch.testing.assert_close(centred.T @ centred / len(codes), torch.eye(2).double(), rtol=1e-9, atol=1e-9)
    between = torch.cov(lda.centres[labels].T, correction=0)
    torch.testing.assert_close(between, torch.diag(lda.separation), rtol=1e-9, atol=1e-9)


def test_a_discriminant_of_classes_without_difference_only_guesses() -> None:
    data, rng = _labelled(), np.random.default_rng(1)
    x = data.train.batch(torch.arange(len(data.train))).x.numpy()
    shuffled = Data.from_arrays(x, labels=rng.integers(0, 3, len(x)), validation=0)
    right = (lda_classes(fit_lda(shuffled.train), shuffled.test) == shuffled.test.labels).double()
    assert right.mean().item() < 1 / 3 + 4 * (2 / 9 / len(right)) ** 0.5
    assert fit_lda(data.train).separation[0] > 20 * fit_lda(shuffled.train).separation[0]


def test_digits_are_told_apart(digits: Data) -> None:
    right = (lda_classes(fit_lda(digits.train), digits.test) == digits.test.labels).double().mean()
    assert right > 0.92
    plane = (lda_classes(fit_lda(digits.train, 2), digits.test) == digits.test.labels).double().mean()
    assert 0.4 < plane < right


def test_a_discriminant_of_many_dimensions_looks_through_components(
    digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discriminant, "DENSE", 8)
    monkeypatch.setattr(discriminant, "LEADING", 64)
    through = fit_lda(digits.train)
    assert through.directions.shape == (64, 9)
    monkeypatch.undo()
    torch.testing.assert_close(through.separation, fit_lda(digits.train).separation, rtol=1e-6, atol=0)
    assert (lda_classes(through, digits.test) == digits.test.labels).double().mean() > 0.92


def test_a_discriminant_needs_classes_that_vary() -> None:
    values = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    labels = np.arange(60) % 2
    with pytest.raises(UsageError, match="labelled classes"):
        fit_lda(Data.from_arrays(values).train)
    with pytest.raises(UsageError, match="number of directions"):
        fit_lda(Data.from_arrays(values, labels=labels).train, 2)
    constant = Data.from_arrays(np.ones((60, 3), dtype=np.float32) * labels[:, None], labels=labels)
    with pytest.raises(UsageError, match="singular"):
        fit_lda(constant.train)
    assert "LDA" not in [row.name for row in baselines(constant, 1)]


def test_the_row_of_the_discriminant_says_what_it_is_not(digits: Data) -> None:
    row = baselines(digits, 2)[-1]
    assert (row.name, row.nll, row.squared_error, row.measure) == ("LDA", None, None, "none")
    assert "classifies 9" in row.note
    assert "no reconstruction, no likelihood" in row.note


# -- rows -----------------------------------------------------------------------------------------------------------


def test_rows_of_data_with_levels(digits: Data) -> None:
    rows = {row.name: row for row in baselines(digits, 16)}
    assert [row.measure for row in rows.values()] == ["mass", "none", "bound", "density", "none"]
    pixels = rows["independent pixels"]
    assert pixels.nll is not None
    assert pixels.bits_per_dim is not None
    assert pixels.bits_per_dim.value == pytest.approx(pixels.nll.value / (64 * math.log(2)))
    assert rows["probabilistic PCA, density"].bits_per_dim is None


def test_rows_that_do_not_apply_are_left_out() -> None:
    values = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    assert [row.name for row in baselines(Data.from_arrays(values), 2)] == ["PCA", "probabilistic PCA, density"]
    noisy = tb.load_data("digits", dequantize=True)
    assert "probabilistic PCA, density" not in [row.name for row in baselines(noisy, 2)]


def test_no_components_are_refused(digits: Data) -> None:
    with pytest.raises(UsageError, match="At least one component"):
        baselines(digits, 0)


# -- latents --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vae(digits: Data) -> tb.LatentVariableModel:
    torch.manual_seed(0)
    return tb.recipes.VAE(latent_dim=3, hidden=(16,)).build(digits.spec)


def test_encoding_keeps_order_mode_and_generator(vae: tb.LatentVariableModel, digits: Data) -> None:
    vae.train()
    before = torch.random.get_rng_state()
    found = encode(vae, digits.test)
    assert vae.training
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found["mean"].shape == found["standard_deviation"].shape == found["sample"].shape == (360, 3)
    assert found["labels"].equal(digits.test.labels)  # pyright: ignore[reportArgumentType]
    x = digits.test.batch(torch.tensor([359])).x
    torch.testing.assert_close(found["mean"][359:], vae.posterior(x).mean.detach())
    assert torch.equal(encode(vae, digits.test)["sample"], found["sample"])


def test_encoding_without_density_or_labels() -> None:
    data = Data.from_arrays(np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))
    model = tb.recipes.Autoencoder(latent_dim=2, hidden=(8,)).build(data.spec)
    assert sorted(encode(model, data.train)) == ["mean", "sample"]
    assert posterior_means(model, data.train)[1] is None
    with pytest.raises(UsageError, match="empty"):
        encode(model, data.train.subset(0))


@pytest.mark.parametrize("path", ["auto", "linear", "spherical"])
def test_an_interpolation_ends_at_the_codes(vae: tb.LatentVariableModel, digits: Data, path: str) -> None:
    x = digits.test.batch(torch.arange(4)).x
    walk = interpolation(vae, x[:2], x[2:], steps=5, path=path)  # pyright: ignore[reportArgumentType]
    codes = vae.posterior(x).mean
    torch.testing.assert_close(walk.z[:, 0], codes[:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(walk.z[:, -1], codes[2:], rtol=1e-4, atol=1e-5)
    assert walk.mean.shape == walk.draw.shape == (2, 5, 1, 8, 8)


def test_a_spherical_interpolation_keeps_length_and_rate() -> None:
    from tightbound.views.walks import _between

    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    z = _between(a, b, torch.linspace(0, 1, 5), "spherical")[0]
    torch.testing.assert_close(z.norm(dim=-1), torch.full((5,), 2.0))
    torch.testing.assert_close(torch.atan2(z[:, 1], z[:, 0]), torch.linspace(0, math.pi / 2, 5))
    torch.testing.assert_close(_between(a, 3 * a, torch.tensor([0.5]), "spherical")[0], 2 * a)


def test_a_traversal_moves_one_dimension(vae: tb.LatentVariableModel, digits: Data) -> None:
    x = digits.test.batch(torch.arange(1)).x[0]
    walk, code = traversal(vae, x, [2, 0]), vae.posterior(x.unsqueeze(0)).mean[0]
    torch.testing.assert_close(walk.z[0, :, :2], code[:2].expand(9, 2))
    torch.testing.assert_close(walk.z[1, :, 0], torch.special.ndtri(torch.linspace(0.02, 0.98, 9)))
    with pytest.raises(UsageError, match="latent dimension is out of range"):
        traversal(vae, x, [3])


def test_quantiles_need_a_prior(digits: Data) -> None:
    model = tb.recipes.Autoencoder(latent_dim=2, hidden=(8,)).build(digits.spec)
    with pytest.raises(UsageError, match="no prior"):
        quantiles(model, torch.tensor([0.5]))
    x = digits.test.batch(torch.arange(1)).x[0]
    assert traversal(model, x, [1], torch.tensor([-1.0, 1.0])).z[0, :, 1].tolist() == [-1, 1]


def test_a_linear_vae_at_the_optimum_reconstructs_like_pca(first_digits: Data) -> None:
    """Its mean shrinks the code, so its error is a little above that of the projection, and never below."""
    pca = fit_pca(first_digits.train, 5)
    model = tb.recipes.LinearVAE(latent_dim=5).build(first_digits.spec).double()
    linear = next(m for m in model.likelihood.modules() if isinstance(m, torch.nn.Linear))
    with torch.no_grad():
        linear.weight.copy_(pca.components * (pca.variances - pca.noise).sqrt())
        linear.bias.copy_(pca.mean)
        torch.nn.init.constant_(model.likelihood.log_scale, 0.5 * math.log(pca.noise))  # pyright: ignore
    own, projected = reconstruction_errors(model, first_digits.test)[0].mean(), pca_error(pca, first_digits.test).mean()
    assert projected < own < 1.2 * projected
    found = tb.evaluate(model, first_digits.test, k=3).nll
    assert found is not None
    assert found.value == pytest.approx(-ppca_log_density(pca, first_digits.test).mean().item(), abs=1e-6)
