"""What a training says while it goes, how often it evaluates, and when it stops by itself."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import tightbound as tb
from tightbound.cli.main import main
from tightbound.data import Data, load_data
from tightbound.errors import UsageError
from tightbound.recipes import VAE, Ladder, Recipe
from tightbound.runs import RunFolder
from tightbound.spec import from_json, to_json
from tightbound.training import TrainingOptions, train
from tightbound.training import log as log_module
from tightbound.training.log import Pace, ProgressBar
from tightbound.training.steps.bound import BoundStep
from tightbound.training.units import Unit

SHORT = ("--steps", "20", "--evaluate-every", "10", "--no-pictures", "--device", "cpu")


def trained(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, list[str]]:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr()
    return said.out, said.err.splitlines()


def test_three_lines_come_first_and_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """New and resumed alike: what is learned from, what learns, and what is planned."""
    words = ("--latent-dim", "3", "--hidden", "8", *SHORT, "--out", tmp_path)
    _, begun = trained(capsys, "train", "vae", "--data", "digits", *words)
    _, resumed = trained(capsys, "train", "--resume", "--out", tmp_path)
    for said in (begun, resumed):
        assert [line.split(":")[0] for line in said[:3]] == ["data", "model", "plan"]
        assert sum(line.startswith(("data:", "model:", "plan:")) for line in said) == 3
    assert "likelihood discretized-logistic, scale per-dimension" in begun[1]
    size = sum(p.numel() for p in tb.load(tmp_path).parameters())
    assert f"{size:,} parameters" in begun[1]
    assert "20 steps of 128 examples" in begun[2]
    assert "evaluated every 10 steps, no early stopping" in begun[2]


def test_readings_are_in_bits_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--data", "digits", "--hidden", "8", *SHORT, "--out", tmp_path)
    out, said = trained(capsys, "train", "vae", *words)
    valid = [r for r in RunFolder(tmp_path).records() if r["split"] == "valid"]
    assert [r["step"] for r in valid] == [10, 20]
    for record in valid:
        assert record["bits_per_dim"] == pytest.approx(-record["bound"] / (64 * math.log(2)))
    best = max(valid, key=lambda record: record["bound"])
    assert f"best validation {best['bits_per_dim']:.3f} bits/dim (bound {best['bound']:.2f} nats)" in out
    assert f"at step {best['step']}" in out
    last = said[-1]
    assert f"validation {valid[-1]['bits_per_dim']:.3f} bits/dim" in last
    assert f"squared error {valid[-1]['squared_error'] / 64:.3g} per entry" in last
    assert "examples/s" in last


def test_the_squared_error_is_that_of_an_evaluation(tmp_path: Path) -> None:
    """Of a validation split that is small enough to be taken whole; continuous data in its own units."""
    generator = torch.Generator().manual_seed(0)
    values = 50 + 10 * torch.randn(80, 6, generator=generator)
    data = Data.from_arrays(values, validation=0.25)
    model = tb.recipes.VAE(latent_dim=2, hidden=(8,)).build(data.spec)
    tb.train(model, data, steps=4, evaluate_every=4, out=tmp_path, device="cpu", precision="32-true")
    found = next(r for r in RunFolder(tmp_path).records() if r["split"] == "valid")
    assert "bits_per_dim" not in found
    measured = tb.evaluate(model, data.valid, k=1).squared_error
    assert measured is not None
    assert found["squared_error"] == pytest.approx(measured.value, rel=1e-4)


def test_a_prior_is_told_in_bits_per_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--codes", "16", "--code-dim", "4", "--channels", "8", "--blocks", "1")
    trained(capsys, "train", "vq-vae", "--data", "digits", *words, *SHORT, "--out", tmp_path / "vq")
    small = ("--channels", "8", "--layers", "1")
    out, said = trained(capsys, "fit-prior", tmp_path / "vq", *small, *SHORT, "--out", tmp_path / "prior")
    assert [line.split(":")[0] for line in said[:3]] == ["data", "model", "plan"]
    assert "codes out of 16" in said[0]
    assert "vq-vae with a new prior, pixelcnn" in said[1]
    assert "bits/code (log p(z) " in said[-1]
    assert re.search(r"best validation \d+\.\d{3} bits/code \(log p\(z\) -\d", out)


def test_json_stays_alone_on_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = trained(capsys, "train", "vae", "--data", "digits", "--hidden", "8", *SHORT, "--json", "--out", tmp_path)
    found = json.loads(out)
    assert found["best_bits_per_dim"] == pytest.approx(-found["best_bound"] / (64 * math.log(2)))
    assert found["best_step"] in (10, 20)


# -- how often a line is said -----------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def said_in(
    seconds: float, steps: int, every: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[float]:
    """The times at which a line is said in a run off a terminal of so many steps of so many seconds."""
    clock = Clock()
    monkeypatch.setattr(log_module, "time", clock)
    bar, times = ProgressBar(steps, 0, per_epoch=10, examples=100.0, show=True), list[float]()
    capsys.readouterr()
    for step in range(1, steps + 1):
        clock.now += seconds
        bar.advance(step)
        if bar.due:
            bar.reading("train", "a", last=step == steps)
        if step % every == 0 or step == steps:
            bar.reading("valid", "b", last=step == steps)
        times += [clock.now] * len(capsys.readouterr().err.splitlines())
    bar.close()
    return times


def test_a_slow_run_is_never_silent_for_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = said_in(1.0, 300, 100, monkeypatch, capsys)
    assert times[0] <= 3
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert max(gap for gap, at in zip(gaps, times, strict=False) if at < 50) <= 11
    assert max(gaps) <= 31
    assert times[-1] == 300


def test_a_quick_run_does_not_flood(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    times = said_in(0.01, 1000, 10, monkeypatch, capsys)
    assert len(times) <= 8
    assert times[-1] == pytest.approx(10.0)


def test_time_left_leaves_out_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(log_module, "time", clock)
    pace = Pace(100, 40)
    for step, now in ((41, 50.0), (42, 51.0), (43, 52.0)):
        clock.now = now
        pace.advance(step)
    assert pace.seconds == 1.0
    assert pace.left == "57 s"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_what_stands_beside_the_bar_has_room(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    bar = ProgressBar(2508, 0, per_epoch=11, examples=117.5, show=True)
    assert bar._beside("took 0 s") == "took 0 s"
    bar.advance(1000)
    unit = Unit("bound", dimensions=64)
    bar.reading("valid", f"{unit.told(-91.74)}, squared error 0.0212 per entry", unit.told(-91.74, brief=True))
    beside = bar._beside("12 min left")
    assert len(beside) + log_module.BAR + len(" 2,508/2,508 ") <= width
    assert beside.endswith("12 min left")
    assert ("bits/dim" in beside) == (width >= 60)
    bar.close()


# -- how often it is evaluated, and when it stops ---------------------------------------------------------------------


def test_a_floor_between_evaluations_of_small_data() -> None:
    assert TrainingOptions(steps=220).evaluation_steps(1293, 144, 64) == 50
    assert TrainingOptions(steps=40).evaluation_steps(243, 27, 12288) == 6
    assert TrainingOptions().evaluation_steps(1293, 144, 64) == 126
    assert TrainingOptions(steps=300).evaluation_steps(54000, 6000, 784) == 235  # of which a pass is a large part
    assert TrainingOptions(steps=220, evaluate_every=7).evaluation_steps(1293, 144, 64) == 7


def test_patience_is_for_few_examples_seen_often() -> None:
    assert TrainingOptions().evaluations_to_wait(1293, 144, 64) == 5
    assert TrainingOptions(evaluate_every=10).evaluations_to_wait(1293, 144, 64) == 63
    assert TrainingOptions(steps=1000).evaluations_to_wait(1293, 144, 64) is None
    assert TrainingOptions().evaluations_to_wait(1293, 0, 64) is None
    assert TrainingOptions(patience="none").evaluations_to_wait(1293, 144, 64) is None
    assert TrainingOptions(patience=2).evaluations_to_wait(60000, 144, 64) == 2
    with pytest.raises(UsageError, match="patience"):
        TrainingOptions(patience="never")  # pyright: ignore[reportArgumentType]


def test_an_old_run_without_patience_has_none() -> None:
    old = {**to_json(TrainingOptions(steps=3)), "version": 1, "patience": None}
    assert from_json(old, TrainingOptions).patience == "none"
    assert from_json({**old, "patience": 4}, TrainingOptions).patience == 4
    assert from_json({**old, "version": 2, "patience": "auto"}, TrainingOptions).patience == "auto"


def test_an_old_run_without_a_limit_of_gradients_has_none() -> None:
    old = {**to_json(TrainingOptions(steps=3)), "version": 2, "clip_norm": None}
    assert from_json(old, TrainingOptions).clip_norm == "none"
    assert from_json({**old, "clip_norm": 4.0}, TrainingOptions).clip_norm == 4.0
    with pytest.raises(UsageError, match="norm"):
        TrainingOptions(clip_norm="high")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("recipe", "options", "limit"),
    [
        (Ladder(grids=(1, 4), groups=(1,), channels=4), {}, 16.0),
        (Ladder(grids=(1, 4), groups=(1,), channels=4), {"clip_norm": 3}, 3.0),
        (Ladder(grids=(1, 4), groups=(1,), channels=4), {"clip_norm": "none"}, None),
        (VAE(latent_dim=2), {}, None),
    ],
)
def test_gradients_of_a_hierarchy_are_clipped_by_default(
    recipe: Recipe, options: dict[str, Any], limit: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, training = load_data("digits"), TrainingOptions(steps=1, pictures=False, **options)
    model = recipe.build(data.spec)
    assert [group.clip_norm for group in BoundStep(model).groups(training)] == [limit]
    train(model, data, out=tmp_path, options=training)
    assert ("clipped to a norm of 16" in capsys.readouterr().err) == (limit == 16.0)


def test_few_examples_stop_by_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that learns twenty vectors by heart ends before its last step, with the weights that were best."""
    generator = torch.Generator().manual_seed(0)
    data = Data.from_arrays(torch.randn(40, 5, generator=generator), validation=0.5)
    model = tb.recipes.VAE(latent_dim=4, hidden=(64,)).build(data.spec)
    result = tb.train(model, data, steps=1000, lr=1e-2, out=tmp_path, device="cpu", precision="32-true")
    valid = [r for r in RunFolder(tmp_path).records() if r["split"] == "valid"]
    assert (result.stopped, result.step) == ("early", valid[-1]["step"])
    assert result.step < 1000
    assert result.best_step == max(valid, key=lambda record: record["bound"])["step"]
    assert "stops after 5 evaluations" in capsys.readouterr().err
