"""Steps that are skipped: by the norm of their gradient, or because they are not finite; nothing moves in one."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor

import tightbound as tb
from tightbound import checkpoint
from tightbound.cli.main import main
from tightbound.data import Data
from tightbound.errors import CheckpointError, TrainingError, UsageError
from tightbound.recipes import HVAE, VAE, VQVAE, Ladder, Recipe
from tightbound.runs import RunFolder
from tightbound.training import TrainingOptions
from tightbound.training.engine import Engine
from tightbound.training.loop import train
from tightbound.training.skipping import IN_A_ROW, Outcome
from tightbound.training.start import build_seeded
from tightbound.training.steps.bound import BoundStep

QUICK = TrainingOptions(
    steps=24,
    batch_size=8,
    lr=1e-5,  # so small that the norm depends on the batch more than on the step
    evaluate_every=10,
    log_every=4,
    data_start=False,
    pictures=False,
    device="cpu",
    precision="32-true",
)
CHAIN, LADDER = HVAE(layers=(4, 2), hidden=(8,)), Ladder(grids=(1, 4), groups=(1,), channels=4, latent_channels=2)
SMALL = VAE(latent_dim=2, hidden=(8,))
CODES = VQVAE(codes=8, code_dim=4, channels=(8,), blocks=1)


@pytest.fixture(scope="module")
def data() -> Data:
    return tb.load_data("digits")


def poisoned(bad: int = 1, examples: int = 56) -> Data:
    """Data of which some examples overflow every loss: with one, one step of an epoch is not finite."""
    values = np.random.default_rng(0).random((examples + 16, 1, 8, 8), dtype=np.float32)
    data = Data.from_arrays(values[:examples], values[-16:-8], values[-8:])
    data.train.values[:bad] = 1e30  # behind the checks: values of this size are standardised or refused
    return data


def engine(recipe: Recipe, data: Data, **changes: Any) -> Engine:
    options = dataclasses.replace(QUICK, **changes)
    return Engine(BoundStep(build_seeded(recipe, data.spec, 0), None, len(data.train)), data.train, options)


def tensors(of: Engine) -> Iterator[tuple[str, Tensor]]:
    """Everything that a step moves: weights, buffers, the optimiser's state, the moving average."""
    yield from of.step.state_dict().items()
    yield from ((f"average {name}", t) for name, t in of.average.tensors.items())
    for i, state in of.optimizer.state_dict()["state"].items():
        yield from ((f"optimiser {i} {name}", t) for name, t in state.items())


def copies(of: Engine) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors(of)}


def norms(recipe: Recipe, data: Data, steps: int, **changes: Any) -> list[float]:
    """The norms of the gradients of a run in which none is skipped."""
    found = engine(recipe, data, skip_norm=1e9, **changes)
    return [found.advance(found.clock.at(step))[1].norm for step in range(steps)]


# -- a step -----------------------------------------------------------------------------------------------------------

CHANGES: list[dict[str, Any]] = [
    {"ema": 0.9},
    {"accumulate": 3, "clip_norm": 0.5, "ema": 0.9},
    {"optimizer": "sgd", "weight_decay": 0.1},
    {"optimizer": "rmsprop", "weight_decay": 0.1},
    {"optimizer": "adamax"},
    {"precision": "bf16-mixed", "clip_norm": 1.0},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("recipe", [CHAIN, LADDER], ids=["chain", "groups"])
def test_nothing_moves_in_a_skipped_step_and_everything_in_the_others(
    recipe: Recipe, changes: dict, data: Data
) -> None:
    learner, after = engine(recipe, data, skip_norm=1.0, **changes), dict[str, Tensor]()
    for step in range(6):
        limit = 1e-9 if step in (0, 2, 3) else 1e9
        learner.skipping.options = dataclasses.replace(learner.options, skip_norm=limit)
        before = copies(learner)
        sums, outcome = learner.advance(learner.clock.at(step))
        after = dict(tensors(learner))
        assert outcome.skipped == (outcome.norm > limit) == (limit < 1)
        assert sums.isfinite().all()
        assert sums[-1] == 8
        for kind in ("model", "average", "optimiser"):
            mine = [name for name in before if name.startswith(kind)]
            if mine:  # an optimiser has no state before its first step
                assert all(torch.equal(before[name], after[name]) for name in mine) == outcome.skipped
        assert before.keys() == after.keys() or not outcome.skipped
    assert any(name.startswith("optimiser") for name in after)


def test_the_norm_is_that_of_the_whole_gradient_before_clipping(data: Data) -> None:
    learner = engine(SMALL, data, skip_norm=1e9, clip_norm=1e-3, optimizer="sgd", beta_warmup=0)
    x = data.train.batch(learner.batch_of(learner.clock)).x
    model = build_seeded(SMALL, data.spec, 0)
    from tightbound.runtime.randomness import reseed

    reseed(torch.device("cpu"), 0, 0, 0)
    (-BoundStep(model)(x, torch.ones(()))[0].mean()).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    _, outcome = learner.advance(learner.clock)
    assert outcome.norm == pytest.approx(expected.item(), rel=1e-5)


def test_without_the_options_nothing_is_asked_or_kept(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = engine(SMALL, data)
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", None)
    monkeypatch.setattr(Tensor, "tolist", None)
    assert learner.advance(learner.clock)[1] == Outcome()


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_what_is_not_finite_is_skipped(part: str) -> None:
    data = poisoned() if part == "loss" else poisoned(0)
    learner, seen = engine(SMALL, data, skip_nonfinite=True, ema=0.9), list[bool]()
    if part == "gradient":
        steps = iter(range(16))
        next(learner.model.parameters()).register_hook(lambda g: g * float("nan") if next(steps) in (3, 11) else g)
    for step in range(16):
        before = copies(learner)
        sums, outcome = learner.advance(learner.clock.at(step))
        seen.append(outcome.skipped)
        assert outcome.lost == (outcome.skipped and part == "loss")
        assert sums[-1].item() == (0 if outcome.lost else len(learner.batch_of(learner.clock.at(step))))
        assert all(t.isfinite().all() for _, t in tensors(learner))
        if outcome.skipped:
            assert outcome.norm == 0
            assert all(torch.equal(before[name], t) for name, t in tensors(learner))
    bad = (0 in learner.batch_of(learner.clock.at(step)) for step in range(16))
    assert seen == (list(bad) if part == "loss" else [step in (3, 11) for step in range(16)])


def test_a_threshold_alone_lets_a_loss_that_is_not_finite_end_the_run(tmp_path: Path) -> None:
    """The two are independent: a NaN is not above a threshold."""
    data = poisoned()
    with pytest.raises(TrainingError, match=r"no longer a number(?s:.*)--skip-nonfinite"):
        train(build_seeded(SMALL, data.spec, 0), data, out=tmp_path, options=dataclasses.replace(QUICK, skip_norm=1e9))


def test_codes_that_learn_by_themselves_do_not_in_a_skipped_step(data: Data) -> None:
    """Not even the first, which would initialise them: the next step does."""
    for changes in ({"skip_norm": 1e-9}, {"skip_norm": 1e-9, "accumulate": 2}):
        learner = engine(CODES, data, **changes)
        before = copies(learner)
        assert learner.advance(learner.clock)[1].skipped
        assert all(torch.equal(before[name], t) for name, t in tensors(learner))
        learner.skipping.options = dataclasses.replace(learner.options, skip_norm=1e9)
        started = next(name for name in before if name.endswith("started"))
        assert not before[started]
        assert not learner.advance(learner.clock.at(1))[1].skipped
        after = dict(tensors(learner))
        assert after[started]
        codebook = started.replace("started", "codebook")
        assert not torch.equal(before[codebook], after[codebook])


class Scaled(MixedPrecision):
    """Losses scaled as for 16 bits, which Fabric does not do on a CPU."""

    def __init__(self, scale: float) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler(device="cpu", init_scale=scale))

    def forward_context(self) -> AbstractContextManager[None]:
        return nullcontext()

    def convert_input(self, data: Any) -> Any:
        return data


@pytest.mark.parametrize(("scale", "overflows"), [(2.0**10, False), (2.0**127, True)])
@pytest.mark.parametrize("limit", [1.01, 0.99])
def test_losses_scaled_for_16_bits(data: Data, scale: float, overflows: bool, limit: float) -> None:
    """The threshold is for unscaled gradients, and the scale falls where they overflow and only there."""
    usual = norms(SMALL, data, 1, beta_warmup=0)[0]
    learner = engine(SMALL, data, skip_norm=limit * usual, skip_nonfinite=True, beta_warmup=0, optimizer="adamax")
    learner.fabric.strategy.precision = precision = Scaled(scale)
    learner.fabric._precision = precision
    before = copies(learner)
    _, outcome = learner.advance(learner.clock)
    assert outcome.skipped == (overflows or limit < 1)
    assert not outcome.lost
    assert outcome.norm == (0 if overflows else pytest.approx(usual, rel=1e-3))
    assert precision.scaler is not None
    assert precision.scaler.get_scale() == (scale / 2 if overflows else scale)
    assert all(torch.equal(before[name], t) for name, t in tensors(learner) if name in before) == outcome.skipped
    assert {name for name, _ in tensors(learner)} - set(before) == set() or not outcome.skipped


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it imports its compiler
def test_a_compiled_step_is_skipped_alike() -> None:
    data = poisoned()
    plain, compiled = (engine(SMALL, data, skip_nonfinite=True, compile=c) for c in (False, True))
    for step in range(9):
        clock = plain.clock.at(step)
        assert plain.advance(clock)[1].skipped == compiled.advance(clock)[1].skipped
    for name, weights in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], weights)


# -- a run ------------------------------------------------------------------------------------------------------------


def records(run: Path, split: str = "train") -> list[dict[str, Any]]:
    return [record for record in RunFolder(run).records() if record["split"] == split]


def test_a_vetoed_step_is_counted_said_and_not_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = poisoned()
    options = dataclasses.replace(QUICK, skip_nonfinite=True, steps=21)
    result = train(build_seeded(SMALL, data.spec, 0), data, out=tmp_path, options=options)
    assert result.skipped == 3  # one in every epoch: 56 examples in batches of 8
    found = records(tmp_path)
    assert all(np.isfinite(list({**record, "split": 0}.values())).all() for record in found)
    counts = [record["skipped"] for record in found]
    assert counts == sorted(counts)
    assert counts[-1] == result.skipped
    assert all(record["gradient_norm"] > 0 for record in found)
    assert f", {result.skipped} steps skipped" in capsys.readouterr().err.splitlines()[-1]
    assert "skipped" not in records(tmp_path, "valid")[0]


def test_a_record_of_skipped_steps_only_has_no_means(tmp_path: Path) -> None:
    data = poisoned(bad=57)
    options = dataclasses.replace(QUICK, skip_nonfinite=True, evaluate_every=24)
    train(build_seeded(SMALL, data.spec, 0), data, out=tmp_path, options=options)
    assert {record["bound"] for record in records(tmp_path)} == {None}


def test_the_command_says_how_many_were_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "vae", "--data", "digits", "--latent-dim", "2", "--hidden", "8", "--steps", "20", "--no-pictures"]
    words += ["--skip-norm", "1e-3", "--skip-nonfinite", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert "20 of 20 steps skipped" in capsys.readouterr().out
    assert main([*words, "--json", "--out", str(tmp_path / "b")]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == 20


@pytest.mark.parametrize(
    ("changes", "bad", "got", "remedy"),
    [
        ({"skip_norm": 1e-3}, 0, r"a gradient of norm [\d.]+", r"--skip-norm well above [\d.]+"),
        ({"skip_nonfinite": True}, 57, "not finite", "Rescale"),
        ({"skip_norm": 1e9, "skip_nonfinite": True}, 57, "not finite", "Rescale"),
    ],
)
def test_too_many_in_a_row_end_the_run(tmp_path: Path, changes: dict, bad: int, got: str, remedy: str) -> None:
    data = poisoned(bad)
    options = dataclasses.replace(QUICK, steps=300, evaluate_every=300, save_every=0.0, **changes)
    with pytest.raises(TrainingError, match=f"{IN_A_ROW} steps in a row were skipped, up to step 99") as caught:
        train(build_seeded(SMALL, data.spec, 0), data, out=tmp_path, options=options)
    assert re.search(got, str(caught.value.got))
    assert re.search(remedy, str(caught.value.remedy))
    state = checkpoint.read(RunFolder(tmp_path).checkpoint("last"))
    assert state["progress"]["in_a_row"] == IN_A_ROW - 1
    assert all(t.isfinite().all() for t in state["model"].values())


def test_a_step_that_is_made_starts_the_count_again(tmp_path: Path) -> None:
    data = poisoned(bad=20)
    options = dataclasses.replace(QUICK, steps=400, evaluate_every=400, batch_size=2, skip_nonfinite=True)
    assert train(build_seeded(SMALL, data.spec, 0), data, out=tmp_path, options=options).skipped > IN_A_ROW


@pytest.mark.parametrize("wrong", [-1.0, 0.0])
def test_a_threshold_out_of_range_is_refused(wrong: float) -> None:
    with pytest.raises(UsageError, match="must be positive") as caught:
        TrainingOptions(skip_norm=wrong)
    assert (caught.value.got, "--skip-norm" in str(caught.value.remedy)) == (f"skip_norm = {wrong:g}", True)


# -- resuming ---------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The end of a process, at a step."""


SYSTEMS: dict[str, tuple[Recipe, dict[str, Any]]] = {
    "chain": (CHAIN, {}),
    "groups": (LADDER, {"beta_warmup": 0.5, "ema": 0.9}),
    "accumulated": (LADDER, {"accumulate": 2, "clip_norm": 5.0}),
    "codes": (CODES, {}),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_killed_and_resumed_ends_byte_for_byte_the_same(tmp_path: Path, name: str) -> None:
    """With steps that are skipped for both reasons, before the kill and after it."""
    (recipe, changes), data = SYSTEMS[name], poisoned()
    usual = [norm for norm in norms(recipe, data, 14, skip_nonfinite=True, **changes) if norm]
    options = dataclasses.replace(QUICK, skip_norm=sorted(usual)[9], skip_nonfinite=True, save_every=0.0, **changes)
    make = lambda: build_seeded(recipe, data.spec, 0)
    whole = train(make(), data, out=tmp_path / "whole", options=options)
    assert 24 // 7 < whole.skipped < 24
    for stop in (5, 15):
        run, advance = tmp_path / f"killed{stop}", Engine.advance

        def killing(self: Engine, clock: Any, stop: int = stop, advance: Any = advance) -> Any:
            if clock.step == stop:
                raise Killed
            return advance(self, clock)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Engine, "advance", killing)
            with pytest.raises(Killed):
                train(make(), data, out=run, options=options)
        assert checkpoint.read(RunFolder(run).checkpoint("last"))["progress"]["step"] == stop
        assert train(make(), data, out=run, options=options, resume=True).skipped == whole.skipped
        for path in ("model.safetensors", "checkpoints/last.safetensors", "checkpoints/best.safetensors"):
            assert (run / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
        timeless = [
            [{k: v for k, v in record.items() if k != "examples_per_second"} for record in RunFolder(folder).records()]
            for folder in (run, tmp_path / "whole")
        ]
        assert timeless[0] == timeless[1]


def test_a_state_of_an_older_version_is_resumed(data: Data, tmp_path: Path) -> None:
    stopped = dataclasses.replace(QUICK, steps=12, evaluate_every=6)
    train(build_seeded(SMALL, data.spec, 0), data, out=tmp_path, options=stopped)
    path = RunFolder(tmp_path).checkpoint("last")
    state = checkpoint.read(path)
    for name in ("skipped", "in_a_row", "norm"):
        state["progress"].pop(name)
    checkpoint.write(path, state)
    result = train(build_seeded(SMALL, data.spec, 0), data, out=tmp_path, options=stopped, resume=True)
    assert (result.step, result.skipped) == (12, 0)
    state["progress"]["skipped"] = -1
    checkpoint.write(path, state)
    with pytest.raises(CheckpointError, match="progress"):
        train(build_seeded(SMALL, data.spec, 0), data, out=tmp_path, options=stopped, resume=True)


def test_the_average_and_a_warm_up_of_layers_go_with_a_hierarchy(data: Data, tmp_path: Path) -> None:
    """The weights that are kept are the averaged ones, and their bound is the one reported, at full weight."""
    recipe = dataclasses.replace(LADDER, objective=tb.objectives.Elbo(balance=True, free_bits=0.5, free_bits_group=0))
    options = dataclasses.replace(QUICK, ema=0.9, beta_warmup=0.5, batch_size=32, evaluate_every=24)
    train(build_seeded(recipe, data.spec, 0), data, out=tmp_path, options=options)
    kept, state = (
        checkpoint.read(tmp_path / "model.safetensors"),
        checkpoint.read(RunFolder(tmp_path).checkpoint("best")),
    )
    assert all(torch.equal(kept[name], state["average"][name]) for name in kept)
    assert any(not torch.equal(kept[name], state["model"][name]) for name in kept)
    last = records(tmp_path, "valid")[-1]
    assert last["bound"] == pytest.approx(last["reconstruction"] - last["kl"], rel=1e-5)
    assert all(np.isfinite([r["bound"], r["objective"]]).all() for r in records(tmp_path))
