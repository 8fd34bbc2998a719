"""A step that owns more than its model: groups that learn at their own rates, and tensors that are saved with a run."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tightbound as tb
from tightbound import checkpoint
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.errors import CheckpointError
from tightbound.objectives import elbo
from tightbound.runs import RunFolder
from tightbound.training import TrainingOptions
from tightbound.training.clock import Clock
from tightbound.training.loop import train_on
from tightbound.training.start import build_seeded
from tightbound.training.steps.base import Group, Step
from tightbound.training.steps.bound import BoundStep

QUICK = TrainingOptions(steps=14, batch_size=32, evaluate_every=5, log_every=4, pictures=False, device="cpu")
LONGEST, CRITICS, SHARE = 0.5, 0.125, 0.25


class Judged(Step):
    """A bound, and a critic of the data beside it that learns at its own rate and remembers what it said."""

    rows = ("objective", "bound")
    said: Tensor
    done: Tensor

    def __init__(self, model: tb.LatentVariableModel) -> None:
        super().__init__(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.critic = nn.Linear(64, 1)
        self.register_buffer("said", torch.zeros(()))
        self.register_buffer("done", torch.zeros(()))

    def before_step(self, clock: Clock) -> None:
        self.done.fill_(clock.step / clock.steps)

    def groups(self, options: TrainingOptions) -> list[Group]:
        critic = Group([*self.critic.parameters()], share=SHARE, clip_norm=CRITICS)
        return [Group([*self.model.parameters()], clip_norm=LONGEST), critic]

    def forward(self, x: Tensor, beta: Tensor, c: Given | None = None) -> Tensor:
        bound = elbo(self.model(c).terms(x), beta)
        judged = self.critic(x.flatten(1)).squeeze(1)
        if self.training:
            self.said.lerp_(judged.detach().mean(), 0.3)
        loss = 1e3 * (judged - 1 - self.done - self.said).square()
        return torch.stack([bound - loss, bound])


@pytest.fixture(scope="module")
def data() -> Data:
    return tb.load_data("digits")


def judged(data: Data) -> Judged:
    return Judged(build_seeded(tb.recipes.VAE(latent_dim=2, hidden=(8,)), data.spec, seed=0))


def moved(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """The norm of what parameters moved by."""
    return torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)]).norm().item()


def test_each_group_has_its_share_of_the_learning_rate_and_its_own_longest_gradient(data: Data, tmp_path: Path) -> None:
    step, lr = judged(data), 0.01
    groups = step.groups(QUICK)
    before = [[p.detach().clone() for p in group.parameters] for group in groups]
    options = TrainingOptions(steps=1, lr=lr, optimizer="sgd", data_start=False, pictures=False, device="cpu")
    after = list[list[Tensor]]()
    rule = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *arguments: object) -> object:
        found = rule(self, *arguments)  # pyright: ignore[reportArgumentType, reportCallIssue]
        after.extend([p.detach().clone() for p in group.parameters] for group in groups)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", watched)
        train_on(step, data, data, out=tmp_path, options=options)
    model, critic = (moved(*pair) for pair in zip(before, after, strict=True))
    assert model == pytest.approx(lr * LONGEST, rel=1e-3)
    assert critic == pytest.approx(lr * SHARE * CRITICS, rel=1e-3)


def state(run: Path) -> bytes:
    return RunFolder(run).checkpoint("last").read_bytes()


def test_tensors_of_a_step_come_back_where_a_killed_run_is_resumed(data: Data, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_on(judged(data), data, data, out=whole, options=QUICK)
    rule, left = torch.optim.AdamW.step, iter(range(8))

    def killing(self: torch.optim.AdamW, *arguments: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return rule(self, *arguments)  # pyright: ignore[reportArgumentType, reportCallIssue]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", killing)
        with pytest.raises(KeyboardInterrupt):
            train_on(judged(data), data, data, out=killed, options=QUICK)
    assert checkpoint.read(RunFolder(killed).checkpoint("last"))["progress"]["step"] == 5
    step = judged(data)
    train_on(step, data, data, out=killed, options=QUICK, resume=True)
    assert state(killed) == state(whole)
    kept = checkpoint.read(RunFolder(whole).checkpoint("last"))["step"]
    assert set(kept) == {"critic.weight", "critic.bias", "said", "done"}
    assert torch.equal(kept["said"], step.said)
    assert kept["said"] != 0
    assert not any("critic" in name for name in checkpoint.read(whole / "model.safetensors"))


def test_a_state_without_the_tensors_of_a_step_is_refused(data: Data, tmp_path: Path) -> None:
    model = judged(data).model
    train_on(BoundStep(model), data, data, out=tmp_path, options=QUICK)
    with pytest.raises(CheckpointError, match=r"training step in .* damaged(?s:.*)missing"):
        train_on(judged(data), data, data, out=tmp_path, options=QUICK, resume=True)


def test_a_part_that_a_step_shares_with_its_model_is_the_models(data: Data) -> None:
    step = judged(data)
    step.last = [*step.model.modules()][-1]
    assert set(step.own_tensors) == {"critic.weight", "critic.bias", "said", "done"}
