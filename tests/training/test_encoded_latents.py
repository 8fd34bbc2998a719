"""The latents that a second stage learns from: the views of an example, and the file that holds them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tightbound import checkpoint
from tightbound.data import Data
from tightbound.errors import CheckpointError, UsageError
from tightbound.evaluation.passes import over
from tightbound.models import LatentVariableModel
from tightbound.recipes import VAE, Autoencoder, GumbelVAE
from tightbound.recipes.vq_vae import VQVAE
from tightbound.training import encoded as latents
from tightbound.training.encoded import DRAWS, encoded_data, key_of


def images(n: int = 80, **options: Any) -> Data:
    values = np.random.default_rng(0).integers(0, 8, (n, 8, 8)).astype(np.uint8)
    return Data.from_arrays(values, levels=8, **options)


def built(recipe: Any, data: Data) -> Any:
    torch.manual_seed(0)
    return recipe.build(data.spec).eval()


def vq(data: Data) -> Any:
    return built(VQVAE(codes=6, code_dim=4, channels=(8,), blocks=1), data)


def encoded(model: LatentVariableModel, data: Data, tmp_path: Path) -> Any:
    return encoded_data(model, data, tmp_path / "latents.safetensors")


@pytest.fixture(scope="module")
def data() -> Data:
    return images()


# -- views ------------------------------------------------------------------------------------------------------------


def test_a_training_example_and_its_mirror_image_are_two_views_and_others_have_one(tmp_path: Path) -> None:
    data = images(flip=True)
    model = vq(data)
    found = encoded(model, data, tmp_path)
    assert [tuple(found.split(name).values.shape[1:]) for name in ("train", "valid", "test")] == [
        (2, 16),
        (1, 16),
        (1, 16),
    ]
    x = data.train.values[:10].float().div(7)  # pyright: ignore
    values = found.train.values[:10]
    assert torch.equal(values[:, 0].long(), model.posterior.codes(x)[0].flatten(1))
    assert torch.equal(values[:, 1].long(), model.posterior.codes(x.flip(-1))[0].flatten(1))


@pytest.mark.parametrize("options", [{"binarize": "dynamic"}, {"dequantize": True}])
@pytest.mark.parametrize("flip", [False, True])
def test_random_data_is_drawn_anew_for_every_view(options: dict[str, Any], flip: bool, tmp_path: Path) -> None:
    data = images(flip=flip, **options)
    model = built(VAE(latent_dim=3, hidden=(8,)), data)
    values = encoded(model, data, tmp_path).train.values
    assert values.shape[1:] == ((1 + flip) * DRAWS, 2, 3)
    for i in range(values.shape[1]):
        for j in range(i):
            assert not torch.equal(values[:, i], values[:, j])


def test_the_views_of_random_data_have_the_law_of_fresh_draws(tmp_path: Path) -> None:
    """A prior that is fitted to a single draw of every example overestimates it on fresh ones."""
    data = images(n=400, binarize="dynamic")
    model = built(VAE(latent_dim=2, hidden=(8,)), data)
    views = encoded(model, data, tmp_path).train.values[:, :, 0].double()  # means, (N, views, 2)
    torch.manual_seed(1)
    fresh = torch.stack([model.posterior(data.train.batch(torch.arange(len(data.train))).x).mean for _ in range(200)])
    expected = fresh.double().detach()
    error = (expected.var(0) / DRAWS).mean(0).div(len(views)).sqrt()
    assert ((views.mean((0, 1)) - expected.mean((0, 1))).abs() < 5 * error).all()
    within = views.var(1).mean(0) / expected.var(0).mean(0)
    torch.testing.assert_close(within, torch.ones(2).double(), rtol=0.1, atol=0)


def test_validation_and_test_examples_are_seen_as_evaluation_sees_them(tmp_path: Path) -> None:
    data = images(n=6000, binarize="dynamic")  # more than one chunk of each
    model = vq(data)
    found = encoded(model, data, tmp_path)
    for name in ("valid", "test"):
        seen = over(model, data.split(name), 1, lambda m, x, c: {"codes": m.posterior.codes(x)[0].flatten(1)})  # type: ignore
        assert torch.equal(found.split(name).values[:, 0].long(), seen["codes"])


def test_diagonal_posteriors_are_kept_as_moments(data: Data, tmp_path: Path) -> None:
    model = built(VAE(latent_dim=3, hidden=(8,)), data)
    found = encoded(model, data, tmp_path)
    assert found.spec.shape == (2, 3)
    q = model.posterior(data.test.batch(torch.arange(5)).x)
    torch.testing.assert_close(found.test.values[:5, 0], torch.stack([q.mean, q.stddev], 1).detach())


def test_other_posteriors_are_kept_as_draws_with_their_correlations(data: Data, tmp_path: Path) -> None:
    model = built(VAE(latent_dim=2, hidden=(8,), posterior="cholesky"), data)
    layer = model.posterior.network.last_layer
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, -1.0, 0.0, math.log(math.sqrt(1 - 0.9**2)), 0.9]))
    found = encoded(model, data, tmp_path)
    assert found.train.values.shape[1:] == (DRAWS, 2)
    assert found.test.values.shape[1:] == (1, 2)
    z = found.train.values.flatten(0, 1).double()
    n = len(z)
    assert abs(torch.corrcoef(z.T)[0, 1].item() - 0.9) < 5 * (1 - 0.9**2) / math.sqrt(n)
    torch.testing.assert_close(z.mean(0), torch.tensor([1.0, -1.0]).double(), rtol=0, atol=5 / math.sqrt(n))


@pytest.mark.parametrize(
    ("recipe", "views"), [(VAE(latent_dim=2, posterior="iaf"), DRAWS), (Autoencoder(latent_dim=2), 1)]
)
def test_flows_are_drawn_and_certain_latents_need_one_view(recipe: Any, views: int, data: Data, tmp_path: Path) -> None:
    assert encoded(built(recipe, data), data, tmp_path).train.values.shape[1:] == (views, 2)


def test_categorical_posteriors_are_kept_as_their_most_probable_codes(data: Data, tmp_path: Path) -> None:
    model = built(GumbelVAE(positions=4, classes=3, hidden=(8,)), data)
    found = encoded(model, data, tmp_path)
    logits = model.posterior(data.test.batch(torch.arange(len(data.test))).x).logits
    assert torch.equal(found.test.values[:, 0].long(), logits.argmax(-1))


def test_an_empty_split_has_no_latents(tmp_path: Path) -> None:
    data = images(validation=0.0)
    for model in (vq(data), built(VAE(latent_dim=3, posterior="cholesky"), data)):
        path = tmp_path / type(model.posterior).__name__
        first = encoded_data(model, data, path)
        assert len(first.valid) == 0
        assert torch.equal(encoded_data(model, data, path, own=False).train.values, first.train.values)  # type: ignore


# -- the file ---------------------------------------------------------------------------------------------------------


def test_latents_are_encoded_once_and_only_used_for_what_they_are_of(data: Data, tmp_path: Path) -> None:
    model, path = vq(data), tmp_path / "latents.safetensors"
    found = encoded_data(model, data, path)
    written = path.stat().st_mtime_ns
    again = encoded_data(model, data, path, own=False)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(again.train.values, found.train.values)  # pyright: ignore
    torch.manual_seed(1)
    other = VQVAE(codes=6, code_dim=4, channels=(8,), blocks=1).build(data.spec).eval()
    with pytest.raises(CheckpointError, match="another model"):
        encoded_data(other, data, path, own=False)
    with pytest.raises(CheckpointError, match="other data"):
        encoded_data(model, images(n=60), path, own=False)
    encoded_data(other, data, path)
    assert path.stat().st_mtime_ns != written


def test_the_key_tells_apart_all_that_is_random_about_the_data(data: Data) -> None:
    model = vq(data)
    options: list[dict[str, Any]] = [{}, {"flip": True}, {"dequantize": True}, {"binarize": "dynamic"}]
    options.append({"binarize": "threshold"})
    assert len({key_of(model, images(**o)) for o in options}) == len(options)


def shifted(found: dict[str, Any]) -> None:
    found["train"] = (found["train"] + 3) % 6


def cut(found: dict[str, Any]) -> None:
    found["train"] = found["train"][:10]


def lacking(found: dict[str, Any]) -> None:
    del found["valid"]


def outside(found: dict[str, Any]) -> None:
    found["test"][0, 0, 0] = 6
    found["digest"] = checkpoint.digest({name: found[name] for name in latents.SPLITS})


def misshapen(found: dict[str, Any]) -> None:
    found["test"] = found["test"][:, :, :8]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shifted, "checksum"),
        (cut, "10 examples"),
        (lacking, "no latents of split 'valid'"),
        (outside, "not codes"),
        (misshapen, "not codes"),
    ],
)
def test_a_damaged_file_is_refused_and_an_own_one_made_anew(damage: Any, says: str, data: Data, tmp_path: Path) -> None:
    model, path = vq(data), tmp_path / "latents.safetensors"
    whole = encoded_data(model, data, path)
    found = checkpoint.read(path)
    damage(found)
    checkpoint.write(path, found)
    with pytest.raises(CheckpointError, match=says) as error:
        encoded_data(model, data, path, own=False)
    assert error.value.remedy
    again = encoded_data(model, data, path)
    assert all(torch.equal(again.split(n).values, whole.split(n).values) for n in latents.SPLITS)  # type: ignore
    encoded_data(model, data, path, own=False)


def test_a_file_that_is_not_there_is_refused_not_made(data: Data, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        encoded_data(vq(data), data, tmp_path / "typo.safetensors", own=False)
    assert not list(tmp_path.iterdir())
