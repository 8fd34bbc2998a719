"""A fine-tune goes on with the discriminator of what it starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from test_adversarial_step import GRID, QUICK, pictures
from torch import Tensor, nn

from tightbound import checkpoint
from tightbound.data import Data
from tightbound.errors import UsageError
from tightbound.networks.discriminator import PatchDiscriminator
from tightbound.options.adversarial import Adversarial
from tightbound.runs import RunFolder
from tightbound.training.discriminators import discriminator_of, published_discriminator
from tightbound.training.loop import train
from tightbound.training.start import build_seeded
from tightbound.training.steps.choice import step_for

GAME = Adversarial(perceptual="none", width=4, layers=1)
PLAYING = dataclasses.replace(GRID, adversarial="hinge", discriminator_width=4)


@pytest.fixture(scope="module")
def data() -> Data:
    found = pictures(40)
    return Data.from_arrays(found[:32], found[36:], found[32:36])


@pytest.fixture(scope="module")
def run(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    model = build_seeded(PLAYING, data.spec, 0)
    train(model, data, out=out, options=dataclasses.replace(QUICK, steps=6))
    return out


def weights(judge: nn.Module | None) -> dict[str, Tensor]:
    assert judge is not None
    return judge.state_dict()


def test_a_decoder_is_fine_tuned_against_the_discriminator_of_its_run(run: Path, data: Data, tmp_path: Path) -> None:
    kept = checkpoint.read(RunFolder(run).checkpoint("last"))["step"]
    recipe = dataclasses.replace(PLAYING, init=str(run), freeze="encoder")
    step = step_for(build_seeded(recipe, data.spec, 1), None, 32, seed=1)
    for name, tensor in weights(step.get_submodule("discriminator")).items():
        assert torch.equal(tensor, kept[f"discriminator.{name}"])
    train(build_seeded(recipe, data.spec, 1), data, out=tmp_path, options=dataclasses.replace(QUICK, steps=4))
    before, after = (checkpoint.read(folder / "model.safetensors") for folder in (run, tmp_path))
    same = {name: torch.equal(before[name], after[name]) for name in before}
    assert all(is_same for name, is_same in same.items() if name.startswith("posterior.network."))
    assert not all(is_same for name, is_same in same.items() if name.startswith("likelihood."))


def test_one_of_other_sizes_is_refused_with_the_options(run: Path) -> None:
    with pytest.raises(UsageError, match=r"other sizes(?s:.*)--discriminator-width"):
        discriminator_of(dataclasses.replace(GAME, width=8), (3, 16, 16), 0, str(run))


def test_a_run_without_one_starts_a_new_one(data: Data, tmp_path: Path) -> None:
    found = discriminator_of(GAME, (3, 16, 16), 0, str(tmp_path))
    new = discriminator_of(GAME, (3, 16, 16), 0)
    assert all(torch.equal(a, b) for a, b in zip(weights(found).values(), weights(new).values(), strict=True))


def test_that_of_a_compvis_checkpoint_is_taken_with_its_statistics(tmp_path: Path) -> None:
    judge = PatchDiscriminator(3, width=4, layers=2, norm="stored")
    for name, tensor in judge.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + ("var" in name))
    state = {f"loss.discriminator.{name}": tensor for name, tensor in judge.state_dict().items()}
    torch.save({"state_dict": {"loss.logvar": torch.zeros(()), **state}}, tmp_path / "kl.ckpt")
    found, x = discriminator_of(GAME, (3, 64, 64), 0, str(tmp_path / "kl.ckpt")), torch.rand(2, 3, 40, 40)
    assert found is not None
    assert torch.equal(found(x), judge(x))
    assert published_discriminator({"encoder.conv_in.weight": torch.zeros(1)}) is None
