"""Verdicts: over a table of numbers, and on small models made ill on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tightbound as tb
from tightbound.errors import ObjectiveError, UsageError
from tightbound.evaluation import Diagnosis, diagnose
from tightbound.evaluation.diagnosis import Symptoms, judge
from tightbound.recipes import VAE, Autoencoder

WELL: dict[str, Any] = {
    "kl": 14.0,
    "mutual_information": 6.0,
    "decoder_use": 100.0,
    "active": 10,
    "dimensions": 16,
    "mismatch": 0.3,
    "gap": 4.0,
    "amortisation": 2.5,
    "best_kl": 14.3,
}


@pytest.mark.parametrize(
    ("changes", "verdict", "option"),
    [
        ({}, "healthy", "nothing"),
        ({"amortisation": 0.5}, "healthy", "cholesky"),
        ({"gap": None, "amortisation": None, "best_kl": None, "mismatch": None}, "healthy", "nothing"),
        ({"kl": 0.01, "mutual_information": 0.01, "decoder_use": 0.0, "active": 0}, "collapsed", "--beta-warmup"),
        ({"mutual_information": 0.01, "decoder_use": 0.0, "active": 0}, "collapsed", "--prior diagonal"),
        ({"decoder_use": 0.01}, "collapsed", "--prior diagonal"),
        ({"kl": 0.01, "mutual_information": 0.0, "decoder_use": 0.0, "beta": 50.0}, "collapsed", "--beta 1"),
        ({"beta": 4.0, "best_kl": 20.0}, "over-regularised", "--beta"),
        ({"beta": 4.0, "best_kl": None}, "over-regularised", "--beta"),
        ({"beta": 4.0}, "healthy", ""),
        ({"best_kl": 20.0, "best_kl_error": 5.0}, "healthy", ""),
        ({"best_kl": 20.0}, "over-regularised", "--hidden"),
        ({"beta": 0.1, "best_kl": None}, "under-regularised", "--beta 1"),
        ({"free_bits": 0.5, "best_kl": None}, "under-regularised", "--free-bits 0"),
        ({"free_bits": 0.5}, "healthy", ""),
        ({"best_kl": 9.0}, "under-regularised", "--beta 1"),
        ({"mismatch": 5.0}, "under-regularised", "--prior vamp"),
        ({"active": 3}, "partial collapse", "--latent-dim"),
    ],
)
def test_verdicts(changes: dict[str, Any], verdict: str, option: str) -> None:
    found = judge(Symptoms(**{**WELL, **changes}))
    assert found[0] == verdict
    assert option in found[2]
    assert found[1]


@pytest.fixture(scope="module")
def digits() -> tb.data.Data:
    return tb.load_data("digits")


def trained(data: tb.data.Data, path: Path, steps: int = 700, **options: Any) -> Diagnosis:
    torch.manual_seed(0)
    model = VAE(latent_dim=8, hidden=(64,), **options).build(data.spec)
    tb.train(model, data, out=path, steps=steps, lr=3e-3, pictures=False)
    return diagnose(model, data.test, gap_examples=20, k=100)


@pytest.mark.parametrize(
    ("options", "verdict", "option"),
    [
        ({}, {"healthy"}, ""),
        ({"beta": 100.0}, {"collapsed"}, "--beta 1"),
        ({"beta": 3.0}, {"over-regularised"}, "--beta"),
        ({"beta": 0.02}, {"under-regularised"}, "--beta 1"),
    ],
    ids=["well", "far too strong", "too strong", "too weak"],
)
def test_models_made_ill(
    digits: tb.data.Data, tmp_path: Path, options: dict[str, Any], verdict: set[str], option: str
) -> None:
    found = trained(digits, tmp_path / "run", **options)
    assert found.verdict in verdict
    assert option in found.remedy
    assert len(found.kl_per_dimension) == found.dimensions == 8


def test_the_weight_of_the_kl_shows_without_being_told(digits: tb.data.Data, tmp_path: Path) -> None:
    """A stranger's model: its recipe is not known, but the best posteriors tell."""
    for beta, verdict in ((3.0, "over-regularised"), (0.02, "under-regularised")):
        torch.manual_seed(0)
        model = VAE(latent_dim=8, hidden=(64,), beta=beta).build(digits.spec)
        tb.train(model, digits, out=tmp_path / str(beta), steps=700, lr=3e-3, pictures=False)
        model.recipe = None
        assert diagnose(model, digits.test, gap_examples=20, k=100).verdict == verdict


def test_a_decoder_that_ignores_its_latent_is_found_out(digits: tb.data.Data) -> None:
    model = VAE(latent_dim=4, hidden=(16,)).build(digits.spec)
    with torch.no_grad():
        model.posterior.network.layers[-1].weight.mul_(30)  # pyright: ignore
        model.likelihood.network.layers[0].weight.zero_()  # pyright: ignore
    found = diagnose(model, digits.test, gap_examples=5, k=20)
    assert found.verdict == "collapsed"
    assert found.mutual_information.value > 1
    assert abs(found.decoder_use.value) < 1e-4


def test_the_order_of_the_data_does_not_matter(digits: tb.data.Data, tmp_path: Path) -> None:
    """Neighbours in a folder are of one class: exchanging their latents would cost little."""
    model = VAE(latent_dim=8, hidden=(64,)).build(digits.spec)
    tb.train(model, digits, out=tmp_path / "run", steps=500, lr=3e-3, pictures=False)
    labels = digits.test.labels
    assert labels is not None
    given, by_class = (
        diagnose(model, part, gap_examples=2, k=2).decoder_use
        for part in (digits.test, digits.test.subset(labels.argsort()))
    )
    assert abs(given.value - by_class.value) < 4 * (given.standard_error or 0)


def test_one_example_says_nothing(digits: tb.data.Data) -> None:
    model = VAE(latent_dim=4, hidden=(16,)).build(digits.spec)
    with pytest.raises(UsageError, match="several examples"):
        diagnose(model, digits.test.subset(1))
    with pytest.raises(UsageError, match="several examples"):
        diagnose(model, digits.test, limit=0)


def test_json_has_the_promised_keys(digits: tb.data.Data) -> None:
    model = VAE(latent_dim=4, hidden=(16,)).build(digits.spec)
    found = json.loads(json.dumps(diagnose(model, digits.test, gap_examples=3, k=5).json(), allow_nan=False))
    promised = {"verdict", "cause", "remedy", "mutual_information", "aggregate_kl", "gap", "active_units"}
    assert promised | {"kl_per_dimension", "decoder_use", "fit"} <= set(found)
    assert found["gap"]["value"] > 0


def test_an_autoencoder_is_refused(digits: tb.data.Data) -> None:
    with pytest.raises(ObjectiveError, match="Only a model with an ELBO"):
        diagnose(Autoencoder(latent_dim=2, hidden=(4,)).build(digits.spec), digits.test)


def test_without_an_exact_prior_there_is_no_gap(digits: tb.data.Data) -> None:
    from tightbound.data import DataSpec
    from tightbound.models import LatentVariableModel

    model = VAE(latent_dim=4, hidden=(16,)).build(digits.spec)
    prior = VAE(latent_dim=2, hidden=(8,)).build(DataSpec("z", (4,), levels=None))
    found = diagnose(LatentVariableModel(prior, model.likelihood, model.posterior), digits.test, k=5)
    assert found.gap is None
    assert found.fit is None
    assert any("no exact density" in note for note in found.notes)
