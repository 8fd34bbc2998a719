"""A model of a user's own with a bound alone: trained, evaluated, reported on, and told what it cannot have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.types import _size

import tightbound as tb
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.distributions import Bounded
from tightbound.errors import ObjectiveError, UsageError
from tightbound.evaluation import diagnose
from tightbound.models import Model
from tightbound.reporting import compare, draw_comparison, write_report


class Noisy(Bounded):
    """Independent pixels, of whose density only an unbiased estimate of a bound is known."""

    def __init__(self, location: Tensor, scale: Tensor) -> None:
        super().__init__(torch.Size(), location.shape, validate_args=False)
        self.law = Normal(location, scale.exp(), validate_args=False)

    def lower_bound(self, x: Tensor) -> Tensor:
        return self.law.log_prob(x).flatten(1).sum(1) - torch.rand(len(x))

    def sample(self, sample_shape: _size = ()) -> Tensor:
        return self.law.sample(sample_shape)


class Blob(Model):
    def __init__(self) -> None:
        super().__init__()
        self.location, self.scale = nn.Parameter(torch.full((1, 8, 8), 0.3)), nn.Parameter(torch.zeros(()))

    def forward(self, c: Given | None = None) -> Noisy:
        return Noisy(self.location, self.scale)


@pytest.fixture(scope="module")
def data() -> Data:
    return tb.load_data("digits")


def test_it_is_trained_evaluated_and_reported_on(data: Data, tmp_path: Path) -> None:
    model = Blob()
    before = tb.evaluate(model, data.test)
    result = tb.train(model, data, steps=150, lr=2e-2, out=tmp_path, device="cpu")
    assert result.best_in_words.startswith("bound ")
    found = tb.evaluate(tb.load(tmp_path, Blob()), data.test)
    assert before.nll is not None
    assert found.nll is not None
    assert found.nll.value < before.nll.value - 20
    exact = -Normal(model.location, model.scale.exp()).log_prob(data.test.batch(torch.arange(360)).x).flatten(1).sum(1)
    assert found.nll.value == pytest.approx(exact.mean().item() + 0.5, abs=0.1)
    assert (found.method, found.bounded, found.elbo, found.kl, found.trusted) == ("bound", True, None, None, None)
    assert "≤" in found.headline
    page = write_report(tmp_path, model=Blob()).read_text(encoding="utf8")
    assert "no latent" in page
    assert "samples" in page
    assert "Diagnosis" not in page


def test_it_is_told_what_it_cannot_have(data: Data) -> None:
    model = Blob()
    with pytest.raises(UsageError, match="no latent"):
        diagnose(model, data.test)
    with pytest.raises(UsageError, match="needs no sampling"):
        tb.evaluate(model, data.test, method="annealed")
    with pytest.raises(UsageError, match="no terms"):
        tb.train(model, data, steps=1, out="nowhere", objective=lambda terms, beta: terms.log_likelihood.mean(0))
    with pytest.raises(ObjectiveError, match="lower_bound"):
        model().log_prob(torch.zeros(1, 1, 8, 8))


def test_it_stands_beside_others(data: Data, tmp_path: Path) -> None:
    quick: dict[str, Any] = {"steps": 5, "pictures": False, "device": "cpu"}
    tb.train(tb.recipes.PixelCNNRecipe(channels=8, layers=1).build(data.spec), data, out=tmp_path / "pixels", **quick)
    tb.train(tb.recipes.VAE(latent_dim=2, hidden=(8,)).build(data.spec), data, out=tmp_path / "vae", **quick)
    found = compare([tmp_path / "pixels", tmp_path / "vae"], data=data, k=5, device="cpu")
    assert [run.found.method for run in found.runs] == ["exact", "importance"]
    for name in ("c.png", "c.html"):
        assert draw_comparison(found, tmp_path / name).stat().st_size > 10_000


def test_a_model_without_parameters_is_evaluated() -> None:
    class Fixed(Model):
        def forward(self, c: Given | None = None) -> Distribution:
            return Independent(Normal(torch.zeros(2), 1.0), 1)

    data = tb.data.Data.from_arrays(torch.randn(20, 2), test=torch.randn(10, 2))
    x = data.test.batch(torch.arange(10)).x
    found = tb.evaluate(Fixed(), data.test)
    assert found.nll is not None
    assert math.isclose(found.nll.value, -Fixed()().log_prob(x).mean().item(), rel_tol=1e-5)
