"""Two processes do what one does: the same noise, the same bounds, the same selected weights."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tightbound import checkpoint
from tightbound.data import Data
from tightbound.models import Terms
from tightbound.objectives import elbo
from tightbound.options.adversarial import Adversarial
from tightbound.options.priors import MixturePrior
from tightbound.options.training import TrainingOptions
from tightbound.quantizers import VectorQuantizer
from tightbound.recipes import HVAE, VAE, VDM, VQVAE, Ladder, Recipe
from tightbound.runs import RunFolder
from tightbound.training import features, train
from tightbound.training.loop import train_on
from tightbound.training.second_stage import fit_prior
from tightbound.training.start import build_seeded
from tightbound.training.steps.choice import two_players

OPTIONS = TrainingOptions(
    steps=8, batch_size=32, evaluate_every=2, log_every=2, beta_warmup=0, pictures=False, device="cpu"
)
HERE = [str(folder) for folder in Path(__file__).parents[:2]]
SCRIPT = f"import pathlib, sys; sys.path[:0] = {HERE!r}; import test_processes as t; t.work(pathlib.Path(sys.argv[1]))"


def data(train: int, valid: int, side: int = 8, **options: Any) -> Data:
    """Soft discs somewhere in a picture."""
    random, count = np.random.default_rng(0), train + valid + 4
    y, x = np.mgrid[:side, :side]
    centres = random.uniform(2, side - 2, (count, 2, 1, 1))
    discs = (255 * np.clip(3 - np.hypot(y - centres[:, 0], x - centres[:, 1]), 0, 1)).astype(np.uint8)
    return Data.from_arrays(discs[:train], discs[-4:], discs[train : train + valid], **options)


def poisoned() -> Data:
    """Numbers, of which one example overflows every loss: a step of every epoch is not finite, in one process."""
    values = np.random.default_rng(0).random((72, 1, 8, 8), dtype=np.float32)
    found = Data.from_arrays(values[:64], values[64:68], values[68:])
    found.train.values[0] = 1e30  # behind the checks: values of this size are standardised or refused
    return found


CASES: dict[str, tuple[Recipe, Data]] = {
    "one validation example": (VAE(latent_dim=2, hidden=(8,)), data(33, 1, binarize="dynamic")),
    "many": (VAE(latent_dim=2, hidden=(8,)), data(40, 230, binarize="dynamic")),
    "fewer than processes": (VAE(latent_dim=2, hidden=(8,)), data(1, 1)),
    "parts of pictures": (VAE(latent_dim=2, hidden=(8,)), data(40, 5, crop=(6, 5), flip=True)),
    "averaged codes": (VQVAE(codes=8, code_dim=4, channels=(8,), blocks=1, revive=0.5), data(33, 3)),
    "learned codes": (VQVAE(codes=8, code_dim=4, channels=(8,), blocks=1, quantizer="gradient"), data(33, 3)),
    "learned noise levels": (VDM(channels=(8, 8), blocks=1), data(33, 3)),
    "adaptive times": (VDM(schedule="linear", adaptive_times=True, channels=(8, 8), blocks=1), data(40, 3)),
    "chain": (HVAE(layers=(4, 2), hidden=(8,)), poisoned()),
    "groups": (Ladder(grids=(1, 4), groups=(1,), channels=4, latent_channels=2), poisoned()),
    "skipped codes": (VQVAE(codes=8, code_dim=4, channels=(8,), blocks=1), poisoned()),
    "lost in one process": (VAE(latent_dim=2, hidden=(8,)), data(64, 3)),
}
SKIPPED: dict[str, dict[str, Any]] = {
    "chain": {"skip_norm": 16.5},
    "groups": {"skip_norm": 290.0, "ema": 0.9},
    "skipped codes": {"skip_norm": 1160.0},
    "lost in one process": {},
}
"""Changes of the options of cases in which steps are skipped, some for either reason."""


def losing(terms: Terms, beta: Tensor) -> Tensor:
    """The ELBO, and minus infinity for an example with a rare likelihood, whose gradient stays finite."""
    likelihood = terms.log_likelihood.detach().mean(0)
    return elbo(terms, beta) + torch.where(likelihood < RARE, -torch.inf, 0.0)


RARE = -349.0
OBJECTIVES = {"lost in one process": losing}


def work(out: Path, options: TrainingOptions = OPTIONS) -> None:
    """Every case, and a second stage of the first."""
    for name, (recipe, loaded) in CASES.items():
        more: dict[str, Any] = {"skip_nonfinite": True, "data_start": False, "lr": 1e-5, "batch_size": 16}
        own = dataclasses.replace(options, **(more | SKIPPED[name])) if name in SKIPPED else options
        model, objective = build_seeded(recipe, loaded.spec, 0), OBJECTIVES.get(name)
        train(model, loaded, out=out / name, options=own, objective=objective)
    players(out / "two players", options)
    first = "one validation example"
    fit_prior(out / first, data=CASES[first][1], out=out / "prior", prior=MixturePrior(), options=options)


def players(out: Path, options: TrainingOptions) -> None:
    """A model and a discriminator, whose adaptive weight is of all parts of a batch; the last batch is smaller."""
    recipe = VAE(latent_dim=2, network="convolutional", channels=(8,), likelihood="gaussian", scale="shared")
    loaded = data(45, 3, side=16)
    game = Adversarial(perceptual="features", width=8, start=0.25, ramp=0.25, lecam=0.1)
    features.STEPS = 4
    step = two_players(build_seeded(recipe, loaded.spec, 0), game, loaded.spec, 45)
    train_on(step, loaded, loaded, out=out, options=dataclasses.replace(options, lr=1e-4))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All cases by one process that takes two parts, and by two processes."""
    folder = tmp_path_factory.mktemp("processes")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    (folder / "work.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*torchrun, str(folder / "work.py"), str(folder / "two")]
    two = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    work(folder / "one", dataclasses.replace(OPTIONS, accumulate=2))
    _, errors = two.communicate(timeout=300)
    assert two.returncode == 0, errors.partition("torch/distributed/elastic")[0]  # the rest is of torchrun itself
    return folder / "one", folder / "two"


def readings(run: RunFolder) -> list[dict[str, float]]:
    """Every number of every reading but its speed; a mean over skipped steps is none."""
    return [dict(flattened(record)) for record in run.records()]


def flattened(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if name not in ("split", "examples_per_second") and value is not None:
            yield from enumerated(name, value) if isinstance(value, list) else [(name, value)]


def enumerated(name: str, values: list[float]) -> list[tuple[str, float]]:
    return [(f"{name} {i}", value) for i, value in enumerate(values)]


@pytest.mark.parametrize("name", [*CASES, "prior", "two players"])
def test_two_processes_do_as_one(runs: tuple[Path, Path], name: str) -> None:
    one, two = (RunFolder(folder / name) for folder in runs)
    mine, others = (readings(run) for run in (one, two))
    assert len(mine) == len(others) == 8
    for a, b in zip(mine, others, strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6)
    for path in ("checkpoints/best.safetensors", "checkpoints/last.safetensors"):
        a, b = (checkpoint.read(run.path / path) for run in (one, two))
        assert a["progress"]["step"] == b["progress"]["step"]
        assert a["progress"]["stale"] == b["progress"]["stale"]
        for part in ("model", "step"):
            for key, weights in a[part].items():
                torch.testing.assert_close(weights, b[part][key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SKIPPED)
def test_two_processes_skip_the_steps_that_one_does(runs: tuple[Path, Path], name: str) -> None:
    """Above the threshold, or not finite in one of them only; the weights are then the same to the last bit."""
    states = [checkpoint.read(folder / name / "checkpoints/last.safetensors") for folder in runs]
    mine, others = (state["progress"] for state in states)
    assert 2 < mine["skipped"] < 7  # two are not finite, of eight
    for key in ("skipped", "in_a_row", "step"):
        assert mine[key] == others[key]
    logged = [[r["skipped"] for r in RunFolder(f / name).records() if r["split"] == "train"] for f in runs]
    assert logged[0] == logged[1]
    for key, weights in states[0]["model"].items():
        assert torch.equal(weights, states[1]["model"][key])
    one, two = (folder / name / "model.safetensors" for folder in runs)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_the_bound_of_the_same_weights_depends_on_neither_batch_size_nor_parts(tmp_path: Path, binarize: str) -> None:
    """With a learning rate of nearly nothing all runs have the same weights."""
    loaded, found = data(40, 130, binarize=binarize), list[float]()
    for i, changes in enumerate(({}, {"batch_size": 7}, {"accumulate": 3}, {"batch_size": 1, "steps": 1})):
        options = dataclasses.replace(OPTIONS, **{"lr": 1e-30, "steps": 2, "evaluate_every": 1} | changes)
        train(
            build_seeded(VAE(latent_dim=2, hidden=(8,)), loaded.spec, 0), loaded, out=tmp_path / str(i), options=options
        )
        found += [record["bound"] for record in RunFolder(tmp_path / str(i)).records() if record["split"] == "valid"]
    assert len(found) == 7
    assert set(found) == {found[0]}


@pytest.mark.parametrize("ema", [0.9, None])
def test_codes_learn_from_the_parts_of_a_batch_as_from_the_whole(ema: float | None) -> None:
    z = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    whole, parted = (VectorQuantizer(8, 4, ema=ema, revive=0) for _ in range(2))
    for quantizer in (whole, parted):
        torch.manual_seed(0)
        quantizer.start_from(z)
    for _ in range(5):
        whole(z)
        for i, part in enumerate((z[:25], z[25:], z[:1])):
            with parted.part_of_batch(number=i, of=3, more=i < 2, empty=i == 2):
                parted(part)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parted.state_dict()[name], value)
