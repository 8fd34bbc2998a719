"""Statistics of latents, streamed, are those of all latents at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tightbound as tb
from tightbound.errors import UsageError
from tightbound.posteriors import LatentStatistics
from tightbound.recipes import KLAutoencoder


@pytest.mark.parametrize("size", [1, 3, 100])
def test_streamed_is_the_whole_set(size: int) -> None:
    mean = torch.randn(20, 3, 4, 5) * torch.tensor([1.0, 1e-3, 10.0]).view(3, 1, 1) + 1000
    variance = torch.rand(20, 3, 4, 5)
    found = LatentStatistics(3)
    for means, variances in zip(mean.split(size), variance.split(size), strict=True):
        found.update(means, variances)
    whole = mean.double()
    total = whole.var((0, 2, 3), correction=0) + variance.double().mean((0, 2, 3))
    torch.testing.assert_close(found.mean, whole.mean((0, 2, 3)), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.std, total.sqrt(), rtol=1e-10, atol=0)


def test_a_channel_with_nothing_but_noise_is_dead() -> None:
    found = LatentStatistics(2)
    mean = torch.randn(50, 2, 2, 2)
    mean[:, 1] = 0.3
    found.update(mean, torch.ones_like(mean))
    assert found.dead == [1]
    found.require_scale()
    found.assume(torch.zeros(2), torch.tensor([1.0, 0.0]))
    with pytest.raises(UsageError, match="cannot be scaled"):
        found.require_scale()


def test_a_run_keeps_those_of_its_selected_weights(tmp_path: Path) -> None:
    data = tb.load_data("digits")
    model = KLAutoencoder(factor=2, channels=(8, 8), latent_noise=0.1).build(data.spec)
    tb.train(model, data, out=tmp_path / "run", steps=4, batch_size=32, pictures=False, device="cpu")
    kept = tb.load(tmp_path / "run")
    found = kept.posterior.statistics
    with torch.no_grad():
        q = kept.posterior(data.train.batch(torch.arange(len(data.train)), "cpu").x)
    z = q.mean.double()
    std = (z.var((0, 2, 3), correction=0) + q.variance.double().mean((0, 2, 3))).sqrt()
    torch.testing.assert_close(found.mean, z.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.std, std, rtol=1e-6, atol=1e-6)
    assert found.count == len(data.train) * 16
