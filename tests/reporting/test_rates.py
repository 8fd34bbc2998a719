"""Rate and distortion: the closed form of a model that adds noise, what counts of a WebP file, and the command."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

import tightbound as tb
from tightbound.cli.main import main
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.distributions import independent
from tightbound.errors import ObjectiveError, UsageError
from tightbound.evaluation.samples.features import features_of
from tightbound.evaluation.samples.rates import payload, rate_and_distortion, webp
from tightbound.models import LatentVariableModel
from tightbound.options.priors import PixelCNNPrior
from tightbound.recipes import Stage, TwoStage
from tightbound.recipes.vq_vae import VQVAE

SIGMA = 0.1


class Noisy(nn.Module):
    """q(z | x) = N(x, sigma^2) over the pixels."""

    def forward(self, x: Tensor, c: Given | None = None) -> Distribution:
        return independent(Normal(x, SIGMA), 3)


class Wide(nn.Module):
    """A prior over the pixels."""

    def forward(self, c: Given | None = None) -> Distribution:
        return independent(Normal(torch.zeros(1, 8, 8), 1.0), 3)


class Same(nn.Module):
    """A decoder that changes nothing."""

    def forward(self, z: Tensor, c: Given | None = None) -> Distribution:
        return independent(Normal(z, 1.0), 3)


def test_the_rate_is_the_kl_per_pixel_and_the_distortion_that_of_a_draw() -> None:
    """Grey images, far from black and white: no value is clipped."""
    images = np.full((200, 8, 8), 128, dtype=np.uint8)
    data = Data.from_arrays(images)
    found = rate_and_distortion(
        LatentVariableModel(Wide(), Same(), Noisy()), data.train, features_of(lambda x: x, data)
    )
    kl = 0.5 * (SIGMA**2 + (128 / 255) ** 2 - 1) - math.log(SIGMA)
    assert found.rate.value == pytest.approx(kl / math.log(2), rel=1e-5)
    expected = -20 * math.log10(SIGMA)
    assert found.psnr.value == pytest.approx(expected + 10 / math.log(10) / 64, abs=0.2)  # the mean of a logarithm
    assert found.perceptual is None


def test_what_has_no_rate_is_refused() -> None:
    data = tb.load_data("digits")
    model = tb.recipes.Autoencoder(latent_dim=2).build(data.spec)
    with pytest.raises(ObjectiveError, match="no rate"):
        rate_and_distortion(model, data.test, features_of(lambda x: x, data))
    rows = Data.from_arrays(torch.rand(40, 3))
    with pytest.raises(UsageError, match="of images"):
        rate_and_distortion(tb.recipes.VAE(latent_dim=2).build(rows.spec), rows.test, features_of(lambda x: x, rows))


@pytest.mark.parametrize(("options", "headers"), [({"quality": 30}, 30), ({"lossless": True}, 20)])
def test_of_a_webp_file_what_is_compressed_counts(options: dict[str, int], headers: int) -> None:
    """The header of the file has 12 bytes, that of a chunk 8, that of a lossy frame 10; a chunk has an even length."""
    levels = torch.randint(256, (16, 24, 3), dtype=torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "WEBP", **options)
    file = buffer.getvalue()
    assert 0 <= len(file) - headers - payload(file) <= 1
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "WEBP", exif=b"Exif\0\0" + bytes(500), **options)
    assert len(buffer.getvalue()) > len(file) + 500
    assert payload(buffer.getvalue()) == payload(file)


def test_webp_takes_more_bits_for_a_better_image() -> None:
    data = tb.load_data("digits")
    model = tb.recipes.VAE(latent_dim=2).build(data.spec)
    found = webp(model, data.test.subset(30), features_of(lambda x: x, data), (5, 50, 95))
    rates, values = [each.rate.value for each in found.values()], [each.psnr.value for each in found.values()]
    assert rates == sorted(rates)
    assert values == sorted(values)


def test_the_command_draws_a_point_for_each_weight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(tmp_path / name) for name in ("low", "high")]
    for run, beta in zip(runs, ("0.1", "20"), strict=True):
        words = ["--data", "digits", "--steps", "150", "--hidden", "32", "--beta", beta, "--no-pictures"]
        assert main(["train", "vae", *words, "--out", run]) == 0
    capsys.readouterr()
    out = tmp_path / "rates.png"
    words = ["rate-distortion", *runs, "--limit", "60", "--out", str(out), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    low, high = found["runs"]["low (beta 0.1)"], found["runs"]["high (beta 20)"]
    assert low["rate"]["value"] > 2 * high["rate"]["value"]
    assert low["psnr"]["value"] > high["psnr"]["value"]
    assert low["perceptual"]["value"] < high["perceptual"]["value"]
    with Image.open(out) as drawn:
        assert drawn.size[0] > 1000
    assert main(["rate-distortion", runs[0], "--limit", "20", "--out", str(tmp_path / "a.svg")]) == 2
    assert main([*words[:-1]]) == 2, "overwrites nothing"


SYSTEMS = {
    "chain": tb.recipes.HVAE(layers=(4, 2), hidden=(8,)),
    "top down": tb.recipes.Ladder(grids=(1, 4), groups=(1, 1), channels=8),
    "codes": VQVAE(codes=8, code_dim=4, channels=(4,)),
    "codes with a prior": TwoStage(
        Stage(VQVAE(codes=8, code_dim=4, channels=(4,))), PixelCNNPrior(layers=1, channels=4)
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_rate_of_any_latents_is_the_kl_of_the_evaluation(name: str) -> None:
    data = tb.load_data("digits")
    model, part = SYSTEMS[name].build(data.spec), data.test.subset(20)
    found = rate_and_distortion(model, part, features_of(lambda x: x, data))
    kl = tb.evaluate(model, part, k=200, method="importance").kl
    assert kl is not None
    error = 5 * (kl.standard_error or 0.0)
    assert found.rate.value * 64 * math.log(2) == pytest.approx(kl.value, rel=1e-4, abs=error)
