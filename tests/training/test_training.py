"""What training promises: the same result however it is interrupted or spread, and nothing lost when it fails."""

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tightbound as tb
from tightbound import checkpoint
from tightbound.data import Data
from tightbound.errors import CheckpointError, TrainingError, UsageError
from tightbound.objectives import Elbo
from tightbound.runs import RunFolder
from tightbound.training import TrainingOptions
from tightbound.training.ema import MovingAverage
from tightbound.training.interrupt import Stop, stop_on_signals
from tightbound.training.loop import train
from tightbound.training.start import build_seeded, draw_by_xavier, start_model
from tightbound.training.steps.bound import BoundStep

QUICK = TrainingOptions(steps=12, batch_size=32, evaluate_every=5, log_every=4, pictures=False, device="cpu")


@pytest.fixture(scope="module")
def data() -> Data:
    return tb.load_data("digits")


def vae(data: Data, **options: Any) -> tb.LatentVariableModel:
    return build_seeded(tb.recipes.VAE(latent_dim=4, hidden=(16,), **options), data.spec, seed=0)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(run / "model.safetensors")


def last(run: Path) -> dict:
    return checkpoint.read(RunFolder(run).checkpoint("last"))


def has_begun(run: Path) -> bool:
    """Whether some steps are saved. A file that is replaced while it is read looks damaged: the next one is not."""
    try:
        return RunFolder(run).checkpoint("last").exists() and last(run)["progress"]["step"] > 5
    except CheckpointError:
        return False


def assert_same_run(a: Path, b: Path) -> None:
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    assert RunFolder(a).checkpoint("last").read_bytes() == RunFolder(b).checkpoint("last").read_bytes()
    assert RunFolder(a).checkpoint("best").read_bytes() == RunFolder(b).checkpoint("best").read_bytes()
    timeless = [
        [{k: v for k, v in record.items() if k != "examples_per_second"} for record in RunFolder(run).records()]
        for run in (a, b)
    ]
    assert timeless[0] == timeless[1]


def test_training_raises_the_bound_and_keeps_the_best(data: Data, tmp_path: Path) -> None:
    model = vae(data)
    before = tb.evaluate(model, data.valid, k=1).elbo
    result = train(model, data, out=tmp_path / "run", options=dataclasses.replace(QUICK, steps=60))
    after = tb.evaluate(model, data.valid, k=1).elbo
    assert before is not None
    assert after is not None
    assert after.value > before.value + 20
    bounds = [r["bound"] for r in RunFolder(tmp_path / "run").records() if r["split"] == "valid"]
    assert result.best_bound == max(bounds)
    assert result.stopped == "done"
    loaded = tb.load(tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_selection_ignores_beta(data: Data, tmp_path: Path) -> None:
    """The number that selects is the bound at beta = 1 whatever was optimised."""
    train(vae(data, objective=Elbo(beta=100.0)), data, out=tmp_path, options=dataclasses.replace(QUICK, beta_warmup=0))
    for record in RunFolder(tmp_path).records():
        assert record["bound"] == pytest.approx(record["reconstruction"] - record["kl"], rel=1e-4)
        if record["split"] == "train":
            assert record["objective"] == pytest.approx(record["reconstruction"] - 100 * record["kl"], rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema": 0.9}, {"accumulate": 2, "clip_norm": 1.0, "lr_warmup": 5}, {"precision": "bf16-mixed"}],
    ids=["plain", "ema", "accumulated", "bf16"],
)
def test_interrupted_and_resumed_equals_uninterrupted(data: Data, tmp_path: Path, changes: dict) -> None:
    options = dataclasses.replace(QUICK, **changes)
    train(vae(data), data, out=tmp_path / "whole", options=options)
    for stop_at in (3, 7, 10):
        model, run = vae(data), tmp_path / f"stopped{stop_at}"
        interrupt_at(stop_at, lambda m=model, r=run: train(m, data, out=r, options=options))
        assert last(run)["progress"]["step"] == stop_at
        train(vae(data), data, out=run, options=options, resume=True)
        assert_same_run(tmp_path / "whole", run)


def interrupt_at(step: int, training, rule: type[torch.optim.Optimizer] = torch.optim.AdamW) -> None:
    """Sends the process SIGINT behind that step, as Ctrl-C would."""
    original = rule.step
    count = 0

    def stepped(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    rule.step = stepped
    try:
        result = training()
    finally:
        rule.step = original
    assert (result.stopped, result.step) == ("SIGINT", step)


def test_resuming_keeps_the_layout_of_weights(data: Data, tmp_path: Path) -> None:
    """With channels last, an optimiser's state must come back in that layout too: a fused step reads raw memory."""

    def model() -> tb.LatentVariableModel:
        recipe = tb.recipes.VAE(latent_dim=2, network="convolutional", channels=(4, 8))
        return build_seeded(recipe, data.spec, seed=0).to(memory_format=torch.channels_last)  # pyright: ignore

    train(model(), data, out=tmp_path / "whole", options=QUICK)
    interrupt_at(7, lambda: train(model(), data, out=tmp_path / "stopped", options=QUICK))
    train(model(), data, out=tmp_path / "stopped", options=QUICK, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_resuming_from_the_best_repeats_what_followed(data: Data, tmp_path: Path) -> None:
    train(vae(data), data, out=tmp_path / "a", options=QUICK)
    before = (tmp_path / "a" / "model.safetensors").read_bytes()
    train(vae(data), data, out=tmp_path / "a", options=QUICK, resume=True, resume_from="best")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == before


def test_evaluating_and_logging_do_not_change_the_result(data: Data, tmp_path: Path) -> None:
    for name, changes in {"often": {"evaluate_every": 2, "log_every": 1}, "seldom": {"evaluate_every": 12}}.items():
        train(vae(data), data, out=tmp_path / name, options=dataclasses.replace(QUICK, **changes))
    a, b = last(tmp_path / "often")["model"], last(tmp_path / "seldom")["model"]
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_two_parts_equal_one(data: Data, tmp_path: Path) -> None:
    """Without noise, accumulating two halves gives the gradient of the whole batch."""
    ends = []
    for accumulate in (1, 2, 5):
        model = build_seeded(tb.recipes.Autoencoder(latent_dim=4, hidden=(16,)), data.spec, seed=0).double()
        options = dataclasses.replace(QUICK, accumulate=accumulate, precision="64-true", steps=3)
        train(model, data, out=tmp_path / str(accumulate), options=options)
        ends.append(torch.cat([p.flatten() for p in model.parameters()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-9)
    torch.testing.assert_close(ends[0], ends[2], rtol=0, atol=1e-9)


def test_a_step_reads_every_example_alone(data: Data) -> None:
    """A deterministic model's rows are the same whatever else is in the batch."""
    model = build_seeded(tb.recipes.Autoencoder(latent_dim=4, hidden=(16,)), data.spec, seed=0).double()
    x, step = data.train.batch(torch.arange(8)).x.double(), BoundStep(model)
    alone = torch.cat([step(x[i : i + 1], torch.ones(())) for i in range(8)], dim=1)
    torch.testing.assert_close(step(x, torch.ones(())), alone)


def test_the_best_weights_are_kept_during_warm_up_too(data: Data, tmp_path: Path) -> None:
    """An objective that turns bad half way: what is kept is what was best."""
    count = 0

    def turning(terms: Any, beta: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        return terms.log_likelihood.mean(0) * (1.0 if count <= 20 else -1.0)

    options = dataclasses.replace(QUICK, steps=40, evaluate_every=10, beta_warmup=1.0, lr=1e-2)
    model = vae(data)
    result = train(model, data, out=tmp_path, options=options, objective=turning)
    bounds = [r["bound"] for r in RunFolder(tmp_path).records() if r["split"] == "valid"]
    assert bounds.index(max(bounds)) < len(bounds) - 1, "the objective did not turn bad"
    assert result.best_bound == max(bounds)
    assert checkpoint.read(RunFolder(tmp_path).checkpoint("best"))["progress"]["best"] == max(bounds)
    best = checkpoint.read(RunFolder(tmp_path).checkpoint("best"))["model"]
    assert all(torch.equal(best[name], t) for name, t in weights(tmp_path).items())
    assert all(torch.equal(best[name], t) for name, t in model.state_dict().items())


def test_readings_weigh_examples(data: Data, tmp_path: Path) -> None:
    """An epoch of one large and one small batch reads as the mean over its examples."""
    recipe = tb.recipes.Autoencoder(latent_dim=4, hidden=(16,))
    options = dataclasses.replace(QUICK, steps=2, batch_size=1200, log_every=2, lr=1e-12, evaluate_every=2)
    model = build_seeded(recipe, data.spec, seed=0)
    train(model, data, out=tmp_path, options=options)
    with torch.no_grad():
        whole = BoundStep(model)(data.train.batch(torch.arange(len(data.train))).x, torch.ones(())).mean(1)
    assert RunFolder(tmp_path).records()[0]["objective"] == pytest.approx(whole[0].item(), rel=1e-5)


@pytest.mark.parametrize("when", ["gradient", "validation"])
def test_weights_that_are_no_numbers_are_never_kept(data: Data, tmp_path: Path, when: str) -> None:
    """The loss of the last step is still finite when its gradient, or the validation bound behind it, is not."""
    model = vae(data)
    parameter, steps = next(model.parameters()), 0

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return gradient * float("nan") if steps == 12 else gradient

    parameter.register_hook(poison)
    options = dataclasses.replace(QUICK, evaluate_every=100 if when == "gradient" else 12)
    if when == "gradient":
        data = dataclasses.replace(data, valid=data.valid.subset(0))
    with pytest.raises(TrainingError, match=r"no longer finite|not a number"):
        train(model, data, out=tmp_path, options=options)
    assert all(t.isfinite().all() for t in last(tmp_path)["model"].values())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_checkpoint_of_another_kind_is_refused(data: Data, tmp_path: Path) -> None:
    train(vae(data), data, out=tmp_path, options=QUICK)
    (tmp_path / "model.safetensors").replace(RunFolder(tmp_path).checkpoint("last"))
    with pytest.raises(CheckpointError, match="not a resumable state"):
        train(vae(data), data, out=tmp_path, options=QUICK, resume=True)


def test_resuming_with_other_parts_is_refused(data: Data, tmp_path: Path) -> None:
    train(vae(data), data, out=tmp_path, options=QUICK)
    with pytest.raises(CheckpointError, match="another number of parts"):
        train(vae(data), data, out=tmp_path, options=dataclasses.replace(QUICK, accumulate=2), resume=True)


def test_an_unknown_option_names_the_nearest(data: Data, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        train(vae(data), data, out=tmp_path, epoch=2)


def test_a_run_is_not_overwritten(data: Data, tmp_path: Path) -> None:
    train(vae(data), data, out=tmp_path, options=QUICK)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="already holds a run"):
        train(vae(data), data, out=tmp_path, options=QUICK)
    with pytest.raises(UsageError, match=r"lr 0.5 \(was 0.001\)"):
        train(vae(data), data, out=tmp_path, options=dataclasses.replace(QUICK, lr=0.5), resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_resuming_nothing_or_a_damaged_checkpoint_says_so(data: Data, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no run in"):
        train(vae(data), data, out=tmp_path / "none", options=QUICK, resume=True)
    train(vae(data), data, out=tmp_path / "run", options=QUICK)
    path = RunFolder(tmp_path / "run").checkpoint("last")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        train(vae(data), data, out=tmp_path / "run", options=QUICK, resume=True)
    train(vae(data), data, out=tmp_path / "run", options=QUICK, resume=True, resume_from="best")


def poisoned(data: Data) -> Data:
    """The data with one value in one training example that overflows a float32 loss."""
    values = torch.rand(64, 1, 4, 4).numpy()
    data = Data.from_arrays(values, test=values[:8], validation=0.0)
    data.train.values[40] = 1e30  # behind the checks: values of this size are standardised or refused
    return data


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    data = poisoned(tb.load_data("digits"))
    model = build_seeded(tb.recipes.VAE(latent_dim=2, hidden=(8,)), data.spec, seed=0)
    options = TrainingOptions(steps=50, batch_size=8, log_every=50, save_every=0.0, device="cpu", pictures=False)
    with pytest.raises(TrainingError, match="no longer a number at step") as caught:
        train(model, data, out=tmp_path, options=options)
    step = int(re.search(r"step (\d+)", str(caught.value)).group(1))  # pyright: ignore[reportOptionalMemberAccess]
    assert "examples" in str(caught.value)
    state = last(tmp_path)
    assert state["progress"]["step"] == step
    assert all(t.isfinite().all() for t in state["model"].values())


def test_a_full_disk_keeps_the_last_good_checkpoint(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = checkpoint.save_file, 0

    def full(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls > 4:
            Path(args[1]).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        train(vae(data), data, out=tmp_path, options=QUICK)
    monkeypatch.undo()
    assert not list(tmp_path.rglob(".*"))
    train(vae(data), data, out=tmp_path, options=QUICK, resume=True)
    train(vae(data), data, out=tmp_path.with_name("whole"), options=QUICK)
    assert_same_run(tmp_path, tmp_path.with_name("whole"))


def test_a_run_folder_that_is_moved_ends_its_training(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real = tmp_path / "run", torch.optim.AdamW.step
    steps = iter(range(100))

    def moving(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(steps) == 6:
            run.rename(tmp_path / "moved")
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", moving)
        with pytest.raises(TrainingError, match="was moved or deleted"):
            train(vae(data), data, out=run, options=QUICK)
    assert not run.exists()
    train(vae(data), data, out=tmp_path / "moved", options=QUICK, resume=True)
    train(vae(data), data, out=tmp_path / "whole", options=QUICK)
    assert_same_run(tmp_path / "moved", tmp_path / "whole")


def test_a_disk_that_is_full_at_a_reading_says_how_to_go_on(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "a":
            raise OSError(28, "No space left on device")
        return real(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl could not be written") as caught:
            train(vae(data), data, out=tmp_path, options=QUICK)
    assert "continue with --resume: the last checkpoint is intact" in str(caught.value)
    assert train(vae(data), data, out=tmp_path, options=QUICK, resume=True).stopped == "done"


def test_a_damaged_checkpoint_names_one_that_is_there(data: Data, tmp_path: Path) -> None:
    train(vae(data), data, out=tmp_path, options=QUICK)
    folder = RunFolder(tmp_path)
    for damaged, other in (("last", "best"), ("best", "last")):
        path = folder.checkpoint(damaged)
        kept = path.read_bytes()
        for content in (kept[:-1] + bytes([kept[-1] ^ 1]), None):
            path.write_bytes(content) if content else path.unlink()
            with pytest.raises(CheckpointError, match=f"--resume-from {other}"):
                train(vae(data), data, out=tmp_path, options=QUICK, resume=True, resume_from=damaged)
        path.write_bytes(kept)
    folder.checkpoint("best").unlink()
    folder.checkpoint("last").unlink()
    with pytest.raises(CheckpointError, match="train again with another --out"):
        train(vae(data), data, out=tmp_path, options=QUICK, resume=True)


def test_the_same_signal_passed_on_is_one_and_a_later_one_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.2, 5.0])
    monkeypatch.setattr("tightbound.training.interrupt.time.monotonic", lambda: next(times))
    stop = Stop()
    stop.ask(signal.SIGINT, None)
    stop.ask(signal.SIGTERM, None)
    assert stop.signal is signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        stop.ask(signal.SIGINT, None)


def test_a_hangup_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal is None
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal is signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


def test_early_stopping_waits_for_warm_up(data: Data, tmp_path: Path) -> None:
    options = TrainingOptions(
        steps=60, batch_size=32, lr=1e-12, beta_warmup=0.5, evaluate_every=2, patience=3, pictures=False, device="cpu"
    )
    result = train(vae(data), data, out=tmp_path, options=options)
    assert result.stopped == "early"
    assert 30 <= result.step <= 40


def test_a_model_put_together_by_hand(data: Data, tmp_path: Path) -> None:
    def model() -> tb.LatentVariableModel:
        from tightbound.likelihoods import Gaussian
        from tightbound.posteriors import DiagonalGaussian
        from tightbound.priors import StandardNormal

        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
        return tb.LatentVariableModel(
            StandardNormal(3),
            Gaussian(nn.Linear(3, 64), (3,), (1, 8, 8)),
            DiagonalGaussian(encoder, (1, 8, 8)),
        )

    trained = model()
    train(trained, data, out=tmp_path, options=QUICK)
    with pytest.raises(CheckpointError, match="built by hand"):
        tb.load(tmp_path)
    loaded = tb.load(tmp_path, model())
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), loaded.parameters(), strict=True))


def test_the_callers_generator_is_left_alone(data: Data, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train(vae(data), data, out=tmp_path, options=QUICK)
    assert torch.equal(torch.rand(1), expected)


def test_tensorboard_events_are_written(data: Data, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(vae(data), data, out=tmp_path, options=dataclasses.replace(QUICK, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"steps": 0},
        {"epochs": 1, "steps": 1},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"beta_warmup": 1.5},
        {"ema": 1.0},
        {"clip_norm": 0.0},
        {"accumulate": 0},
        {"patience": 0},
        {"seed": -1},
    ],
    ids=str,
)
def test_bad_options_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        TrainingOptions(**wrong)


def test_unknown_devices_are_refused(data: Data, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device 'tpu' is not available"):
        train(vae(data), data, out=tmp_path, options=dataclasses.replace(QUICK, device="tpu"))


# -- in processes of their own ----------------------------------------------------------------------------------------

COMMAND = ["train", "vae", "--latent-dim", "4", "--hidden", "16", "--batch-size", "32", "--no-pictures"]


def start(arguments: list[str], *launcher: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*(launcher or (sys.executable,)), "-m", "tightbound", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_killed_at_a_random_step_and_resumed_ends_byte_for_byte_the_same(tmp_path: Path) -> None:
    options = [*COMMAND, "--steps", "400", "--evaluate-every", "100", "--save-every", "0"]
    whole = start([*options, "--out", str(tmp_path / "whole")])
    killed = start([*options, "--out", str(tmp_path / "killed")])
    path, deadline = RunFolder(tmp_path / "killed").checkpoint("last"), time.monotonic() + 60
    while time.monotonic() < deadline and not (path.exists() and last(tmp_path / "killed")["progress"]["step"] > 20):
        time.sleep(0.05)
    time.sleep(int.from_bytes(os.urandom(1)) / 1000)
    killed.kill()
    killed.communicate()
    step = last(tmp_path / "killed")["progress"]["step"]
    assert 20 < step < 400, "the training was not killed in the middle"
    resumed = start(["train", "--resume", "--out", str(tmp_path / "killed")])
    for process in (whole, resumed):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_save_and_leave_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    process = start([*COMMAND, "--steps", "100000", "--save-every", "0", "--out", str(tmp_path / "run")])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not has_begun(tmp_path / "run"):
        time.sleep(0.05)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"saved on {number.name}" in out
    assert "--resume" in out
    assert "Traceback" not in errors
    assert last(tmp_path / "run")["progress"]["step"] > 5


def test_several_processes_stop_together(tmp_path: Path) -> None:
    """The launcher passes the signal on to each, and ends as a failure: what was to follow does not."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    words = [*COMMAND, "--steps", "100000", "--save-every", "0", "--device", "cpu", "--out", str(tmp_path / "run")]
    process = start(words, sys.executable, *torchrun)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not has_begun(tmp_path / "run"):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    assert out.count("saved on SIGTERM") == 1, errors
    assert "resume: tightbound train --resume" in out
    assert not (tmp_path / "run" / "lock").exists()


@pytest.mark.parametrize("recipe", ["vae", "autoencoder"])
def test_two_processes_give_the_gradients_of_one(tmp_path: Path, recipe: str) -> None:
    """Two processes see the parts, and draw the noise, that one process with two parts does."""
    common = ["train", recipe, "--latent-dim", "4", "--hidden", "16", "--no-pictures", "--steps", "1"]
    common += ["--batch-size", "33", "--beta-warmup", "0", "--device", "cpu"]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = start([*common, "--out", str(tmp_path / "two")], sys.executable, *torchrun)
    one = start([*common, "--accumulate", "2", "--out", str(tmp_path / "one")])
    for process in (two, one):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    moments = [last(tmp_path / name)["optimizer"]["state"] for name in ("one", "two")]
    for parameter in moments[0]:
        gradient, other = (m[parameter]["exp_avg"] / 0.1 for m in moments)  # after one step: 0.1 times the gradient
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(gradient, other, rtol=1e-6, atol=1e-6)
    metrics = [json.loads((tmp_path / n / "metrics.jsonl").read_text().splitlines()[0]) for n in ("one", "two")]
    assert metrics[0]["objective"] == pytest.approx(metrics[1]["objective"], rel=1e-6)


def test_resuming_on_changed_data_is_refused(tmp_path: Path) -> None:
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    loaded = tb.load_data(str(tmp_path / "images.npy"))
    train(vae(loaded), loaded, out=tmp_path / "run", options=QUICK)
    np.save(tmp_path / "images.npy", np.concatenate([images, images[:1]]))
    changed = tb.load_data(str(tmp_path / "images.npy"))
    with pytest.raises(UsageError, match="the data differ"):
        train(vae(changed), changed, out=tmp_path / "run", options=QUICK, resume=True)


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "rmsprop", "sgd"])
def test_every_optimizer_raises_the_bound_and_resumes(data: Data, tmp_path: Path, optimizer: Any) -> None:
    options = dataclasses.replace(QUICK, optimizer=optimizer, lr=1e-5 if optimizer == "sgd" else 1e-3, steps=24)
    options = dataclasses.replace(options, lr_schedule="step", lr_milestones=(1,))
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(vae(data), data, out=whole, options=options)
    rules = {"adam": "AdamW", "adamax": "Adamax", "rmsprop": "RMSprop", "sgd": "SGD"}
    rule = getattr(torch.optim, rules[optimizer])
    interrupt_at(12, lambda: train(vae(data), data, out=parted, options=options), rule)
    train(vae(data), data, out=parted, options=options, resume=True)
    assert_same_run(whole, parted)
    bounds = [r["bound"] for r in RunFolder(whole).records() if r["split"] == "valid"]
    assert bounds[-1] > bounds[0]


def test_a_warmup_that_outlasts_the_run_is_told(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(vae(data), data, out=tmp_path / "long", options=dataclasses.replace(QUICK, beta_warmup_epochs=4))
    said = capsys.readouterr()
    assert "warning: warm-up" in said.out + said.err
    assert RunFolder(tmp_path / "long").records()[-2]["beta"] < 1
    train(vae(data), data, out=tmp_path / "short", options=QUICK)
    said = capsys.readouterr()
    assert "warning" not in said.out + said.err


def test_a_new_model_starts_from_the_data_and_a_trained_one_is_left_alone(data: Data, tmp_path: Path) -> None:
    model = build_seeded(tb.recipes.VAE(hidden=(16,), likelihood="gaussian"), data.spec, seed=0)
    start_model(model, data.train)
    network: Any = model.likelihood.network
    bias = network.last_layer.bias.detach()
    mean = data.train.batch(torch.arange(len(data.train))).x.mean(0).flatten()
    assert (bias - mean).abs().max() < 1e-5
    assert not model.new
    with torch.no_grad():
        network.last_layer.bias.zero_()
    start_model(model, data.train)
    assert not network.last_layer.bias.any()
    train(model, data, out=tmp_path, options=QUICK)
    assert not tb.load(tmp_path).new


def test_weights_taken_over_by_hand_are_not_replaced_by_a_start_model(data: Data) -> None:
    recipe = tb.recipes.VAE(latent_dim=2, hidden=(8,), prior="vamp", components=5)
    trained, model = recipe.build(data.spec), recipe.build(data.spec)
    model.load_state_dict(trained.state_dict())
    start_model(model, data.train)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name]), name


def test_a_model_is_started_once_however_it_was(data: Data, tmp_path: Path) -> None:
    """Trained further with other options, it would else lose what it has learned."""
    model = vae(data)
    train(model, data, out=tmp_path, options=dataclasses.replace(QUICK, data_start=False))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start_model(model, data.train, TrainingOptions(initial_weights="xavier"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_weights_can_be_drawn_by_xaviers_rule(data: Data) -> None:
    model = tb.recipes.VAE(latent_dim=2, hidden=(50,)).build(data.spec)
    model.likelihood.requires_grad_(False)
    frozen = {name: p.clone() for name, p in model.likelihood.named_parameters()}
    draw_by_xavier(model, seed=3)
    assert all(torch.equal(p, frozen[name]) for name, p in model.likelihood.named_parameters())
    for layer in (part for part in model.posterior.modules() if isinstance(part, nn.Linear)):
        largest = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.95 * largest < layer.weight.abs().max() <= largest
        assert not layer.bias.any()
    drawn = {name: p.clone() for name, p in model.posterior.named_parameters()}
    draw_by_xavier(model, seed=3)
    assert all(torch.equal(p, drawn[name]) for name, p in model.posterior.named_parameters())


def test_weights_that_were_loaded_are_not_drawn_again(data: Data, tmp_path: Path) -> None:
    model = tb.recipes.VAE(latent_dim=2, hidden=(50,)).build(data.spec)
    model.load_state_dict(model.state_dict())
    before = {name: p.clone() for name, p in model.named_parameters()}
    start_model(model, data.train, TrainingOptions(initial_weights="xavier"))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_option_draws_them_before_the_first_step(data: Data, tmp_path: Path) -> None:
    runs = []
    for rule in ("torch", "xavier"):
        model = tb.recipes.VAE(latent_dim=2, hidden=(8,)).build(data.spec)
        tb.train(
            model, data, out=tmp_path / rule, steps=1, lr=1e-12, pictures=False, data_start=False, initial_weights=rule
        )
        runs.append([layer for layer in model.modules() if isinstance(layer, nn.Linear)])
    assert runs[0][0].bias.abs().max() > 1e-3
    assert runs[1][0].bias.abs().max() < 1e-9


def test_an_average_has_what_a_schedule_sets_as_it_is(data: Data, tmp_path: Path) -> None:
    recipe = tb.recipes.GumbelVAE(positions=4, classes=3, hidden=(8,), temperature=1.0, temperature_floor=0.1)
    model = build_seeded(recipe, data.spec, seed=0)
    train(model, data, out=tmp_path, options=dataclasses.replace(QUICK, steps=30, ema=0.9))
    assert weights(tmp_path)["posterior.temperature"].item() == pytest.approx(recipe.temperature_at(29, 30))
    averages, raw = last(tmp_path)["average"], last(tmp_path)["model"]
    assert torch.equal(averages["posterior.temperature"], raw["posterior.temperature"])
    learned = [name for name, _ in model.named_parameters()]
    assert all(not torch.equal(averages[name], raw[name]) for name in learned)


def test_a_temperature_that_is_learned_is_averaged() -> None:
    module = nn.Module()
    module.temperature = nn.Parameter(torch.tensor(1.0))
    module.register_buffer("statistic", torch.tensor(1.0))
    average = MovingAverage(module, 0.5)
    for tensor in module.state_dict().values():
        tensor.fill_(0.0)
    average.update(step=100)
    assert [t.item() for t in average.tensors.values()] == [0.5, 0.5]
