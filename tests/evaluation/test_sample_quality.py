"""Fréchet distances: closed forms, what they are invariant under, and what of a model is compared with what."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn

import tightbound as tb
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.distributions import Dirac
from tightbound.errors import DataError, ShapeError, UsageError
from tightbound.evaluation import Estimate, frechet_distance, sample_quality
from tightbound.evaluation.kept import write_evaluation
from tightbound.evaluation.samples.features import features_of
from tightbound.options.priors import PixelCNNPrior
from tightbound.recipes import Stage, TwoStage
from tightbound.recipes.vq_vae import VQVAE
from tightbound.runs import RunFolder
from tightbound.spec import to_json
from tightbound.training import train_classifier


def with_moments(n: int, mean: Tensor, covariance: Tensor) -> Tensor:
    """Features whose empirical moments are exactly these."""
    x = torch.randn(n, len(mean), dtype=torch.float64)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return mean + white @ torch.linalg.cholesky(covariance).T


def some_covariance(d: int) -> Tensor:
    a = torch.randn(d, d, dtype=torch.float64)
    return a @ a.T + 0.1 * torch.eye(d, dtype=torch.float64)


def test_of_gaussians_it_is_the_closed_form() -> None:
    mean, other = torch.randn(2, 4, dtype=torch.float64)
    a, b = some_covariance(4), some_covariance(4)
    root = torch.from_numpy(np.real(sqrtm((a @ b).numpy())))
    expected = (mean - other).square().sum() + (a + b - 2 * root).trace()
    found = frechet_distance(with_moments(50, mean, a), with_moments(70, other, b)).value
    assert found == pytest.approx(expected.item(), abs=1e-9)


def test_of_commuting_covariances_it_is_the_distance_of_their_roots() -> None:
    a, b = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 9.0, 0.25]).double()
    zero = torch.zeros(3, dtype=torch.float64)
    found = frechet_distance(with_moments(40, zero, a.diag()), with_moments(40, zero, b.diag())).value
    assert found == pytest.approx((a.sqrt() - b.sqrt()).square().sum().item(), abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(100, 1), (100, 8), (5, 8)])
def test_of_the_same_features_it_is_zero_and_of_exchanged_ones_the_same(n: int, d: int) -> None:
    a, b = torch.randn(n, d), 2 * torch.randn(n + 3, d) + 1
    assert frechet_distance(a, a).value == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b).value == pytest.approx(frechet_distance(b, a).value, rel=1e-6)


def test_it_does_not_depend_on_the_axes_or_the_origin() -> None:
    a, b = torch.randn(60, 5).double(), torch.randn(50, 5).double() * 3
    axes, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    moved = frechet_distance(a @ axes + 7, b @ axes + 7).value
    assert moved == pytest.approx(frechet_distance(a, b).value, abs=1e-9)


def test_its_error_is_that_of_its_values_over_many_sets() -> None:
    shift = torch.tensor([2.0, 0.0, 0.0])
    found = [frechet_distance(torch.randn(400, 3), torch.randn(400, 3) + shift, seed=i) for i in range(60)]
    spread = torch.tensor([each.value for each in found]).std().item()
    claimed = sum(each.standard_error or 0.0 for each in found) / 60
    assert claimed == pytest.approx(spread, rel=0.35)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(5, 2), torch.zeros(5, 3)),
        (torch.zeros(5), torch.zeros(5)),
        (torch.zeros(1, 2), torch.zeros(5, 2)),
    ],
)
def test_what_are_no_features_of_two_sets_is_refused(a: Tensor, b: Tensor) -> None:
    with pytest.raises(ShapeError, match="not features of two sets"):
        frechet_distance(a, b)


def test_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match="not finite"):
        frechet_distance(torch.full((5, 2), torch.nan), torch.zeros(5, 2))


def flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def test_the_classifier_tells_the_digits_and_is_the_same_again() -> None:
    data = tb.load_data("digits")
    network, again = train_classifier(data), train_classifier(data)
    batch = data.test.batch(torch.arange(len(data.test)))
    assert batch.labels is not None
    with torch.no_grad():
        logits = network(batch.x)
        assert torch.equal(network.features(batch.x), again.features(batch.x))
    assert (logits.argmax(1) == batch.labels).float().mean() > 0.9


def test_features_without_labels_are_refused_with_the_remedy() -> None:
    data = Data.from_arrays(torch.randint(256, (40, 8, 8)))
    with pytest.raises(DataError, match="needs labels"):
        sample_quality(tb.recipes.VAE(latent_dim=2).build(data.spec), data, features="classifier")


def test_images_without_labels_are_compared_in_a_network_of_other_images() -> None:
    data = Data.from_arrays(torch.randint(256, (40, 8, 8)))
    assert features_of("auto", data).network == "EfficientNet-Lite0 of ImageNet"
    with pytest.raises(UsageError, match="sees images only"):
        features_of("efficientnet-lite0", Data.from_arrays(torch.rand(40, 3)))


def test_a_model_without_a_prior_has_only_reconstructions() -> None:
    data = tb.load_data("digits")
    found = sample_quality(tb.recipes.Autoencoder(latent_dim=2).build(data.spec), data, features=flat)
    assert (found.samples, found.kernel_samples, found.precision) == (None, None, None)
    assert found.reconstructions is not None
    assert any("no prior" in note for note in found.notes)


def test_nothing_but_codes_with_a_fitted_prior_is_held_against_uniform_codes() -> None:
    data = tb.load_data("digits")
    first = VQVAE(codes=8, code_dim=4, channels=(4,))
    options = PixelCNNPrior(layers=1, channels=4, kernel=3)
    with_prior, without = TwoStage(Stage(first), options).build(data.spec), first.build(data.spec)
    part = data.test.subset(20)
    assert sample_quality(without, data, part, features=flat).uniform is None
    found = sample_quality(with_prior, data, part, features=flat)
    assert found.uniform is not None
    assert (found.n, found.accuracy) == (20, None)
    assert to_json(found)["uniform"] == dataclasses.asdict(found.uniform)


def test_samples_are_given_the_conditions_of_the_examples() -> None:
    """A decoder that shows its class as a grey level: the distance is small only if the classes are the examples'."""
    data = tb.load_data("digits")
    recipe = tb.recipes.CVAE(latent_dim=1, hidden=(4,), condition="class")
    model = recipe.build(data.spec)
    of_class: list[Given] = []
    model.likelihood.register_forward_pre_hook(lambda module, given: of_class.append(given[1]))
    part = data.test.subset(20)
    sample_quality(model, data, part, features=flat)
    labels = part.batch(torch.arange(20)).labels
    assert labels is not None
    assert torch.equal(of_class[0]["class"].flatten(), labels)


def test_a_better_model_is_nearer_and_the_command_says_so(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    from tightbound.cli.main import main

    found = []
    for steps in (1, 200):
        run = str(tmp_path / f"{steps}")
        words = ["train", "vae", "--data", "digits", "--steps", str(steps), "--out", run, "--no-pictures"]
        assert main(words) == 0
        capsys.readouterr()
        assert main(["evaluate", run, "-k", "1", "--limit", "200", "--sample-quality", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["sample_quality"])
    untrained, trained = (each["samples"]["value"] for each in found)
    assert trained < untrained / 2
    assert found[1]["data"]["value"] < found[1]["reconstructions"]["value"] < trained
    assert main(["evaluate", str(tmp_path / "200"), "-k", "1", "--sample-quality"]) == 0
    assert "Fréchet distance of samples" in capsys.readouterr().out


def test_a_report_shows_the_quality_that_was_measured(tmp_path) -> None:
    from tightbound.reporting import write_report

    data = tb.load_data("digits")
    model = tb.recipes.VAE(latent_dim=2, hidden=(8,)).build(data.spec)
    tb.train(model, data, steps=3, out=tmp_path)
    quality = sample_quality(model, data, features=flat)
    found = dataclasses.replace(tb.evaluate(model, data.test, k=2), sample_quality=quality)
    write_evaluation(RunFolder(tmp_path), found, tb.load(tmp_path).loaded_weights)
    text = write_report(tmp_path).read_text(encoding="utf8")
    assert quality.samples is not None
    assert f"{quality.samples.value:.2f}" in text
    assert "64 features of a function given in Python" in text
    assert "Fréchet distance of samples" in text


def test_the_floor_is_that_of_training_examples_and_each_number_is_named(tmp_path) -> None:
    """Reconstructions that are the data: every distance is zero, and every share as large as it can be."""
    data = tb.load_data("digits")
    model = tb.recipes.Autoencoder(latent_dim=2).build(data.spec)
    model.posterior, model.likelihood = Copy(), Copy()
    part = data.test.subset(100)
    found = sample_quality(model, data, part, features="efficientnet-lite0")
    assert found.reconstructions is not None
    assert found.reconstructions.value == pytest.approx(0, abs=1e-6)
    assert found.kernel_reconstructions is not None
    assert found.kernel_reconstructions.value < 0  # unbiased: an example is not paired with itself within a set
    assert (found.psnr, found.perceptual) == (Estimate(100.0, 0.0), Estimate(0.0, 0.0))
    assert found.ssim is not None
    assert found.ssim.value == pytest.approx(1.0)
    assert found.kernel_data is not None
    assert found.kernel_data.value > found.kernel_reconstructions.value
    told = "1,280 features of EfficientNet-Lite0 of ImageNet (weights 579344248a; images 8 × 8, resized to 64 × 64)"
    assert str(found.features) == told
    assert any("window of 7 × 7" in note for note in found.notes)


class Copy(nn.Module):
    """A posterior and a likelihood that are the point itself."""

    def forward(self, x: Tensor, c: Given | None = None) -> Dirac:
        return Dirac(x, 3)


def test_a_comparison_shows_the_quality_of_every_run(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    from tightbound.cli.main import main

    runs = [str(tmp_path / name) for name in "ab"]
    for run, seed in zip(runs, "01", strict=True):
        words = ["--data", "digits", "--steps", "2", "--seed", seed, "--hidden", "8", "--no-pictures"]
        assert main(["train", "vae", *words, "--out", run]) == 0
    capsys.readouterr()
    words = ["-k", "1", "--limit", "60", "--sample-quality", "--features", "efficientnet-lite0", "--json"]
    assert main(["compare", *runs, *words]) == 0
    found = json.loads(capsys.readouterr().out)["runs"]
    assert {each["sample_quality"]["n"] for each in found} == {60}
    assert found[0]["sample_quality"]["features"]["weights"] == "579344248a"
    assert found[0]["sample_quality"]["data"] == found[1]["sample_quality"]["data"]


def test_a_floor_of_the_examples_themselves_is_told() -> None:
    data = tb.load_data("digits")
    model = tb.recipes.VAE(latent_dim=2).build(data.spec)
    few = {name: getattr(data, name).subset(30) for name in ("train", "test")}
    of = lambda split: sample_quality(model, data, split, features=lambda x: x.flatten(1)).notes
    assert any("with themselves" in note for note in of(few["train"]))
    assert not any("with themselves" in note for note in of(few["test"]))
