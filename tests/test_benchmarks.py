"""The Bernoulli that the fast paths use, and the driver's arithmetic; nothing here is timed."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tightbound.distributions import Bernoulli

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def load(name: str) -> ModuleType:
    sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "contenders")]
    try:
        return importlib.import_module(name)
    finally:
        del sys.path[:2]


@pytest.mark.parametrize("x", ["binary", "grey"])
def test_bernoulli_is_torchs(x: str) -> None:
    logits = (8 * torch.randn(7, 5, 3, dtype=torch.float64)).requires_grad_()
    value = torch.rand(5, 3, dtype=torch.float64)
    value = value.round() if x == "binary" else value
    ours = Bernoulli(logits).log_prob(value).sum((-1, -2))
    theirs = torch.distributions.Bernoulli(logits=logits, validate_args=False).log_prob(value).sum((-1, -2))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(total.sum(), logits)[0] for total in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


def test_bernoulli_at_extreme_logits_and_broadcast() -> None:
    logits = torch.tensor([-800.0, -41.0, -39.0, 0.0, 39.0, 41.0, 800.0], dtype=torch.float64)
    for bit in (0.0, 1.0):
        ours = Bernoulli(logits).log_prob(torch.full((3, 7), bit, dtype=torch.float64))
        theirs = torch.distributions.Bernoulli(logits=logits).log_prob(torch.full((3, 7), bit, dtype=torch.float64))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_float32_bernoulli_stays_near_float64_at_confident_logits() -> None:
    value = torch.rand(50, 784).round()
    logits = (2 * value - 1) * 12 + torch.randn(50, 784)
    single, double = (
        Bernoulli(logits).log_prob(value).sum(1),
        Bernoulli(logits.double()).log_prob(value.double()).sum(1),
    )
    assert (single - double).abs().max() < 1e-3


def test_ratios_are_taken_round_by_round() -> None:
    process = load("process")
    ours, theirs = [{"v": [2.0, 4.0, 6.0]}, {"v": 1.0}, {"v": 9.0}], [{"v": 1.0}, {"v": 1.0}, {"v": 3.0}]
    assert process.median_ratio(ours, theirs, "v") == 3.0
    assert process.median_of(ours, "v") == 4.0


def test_contenders_take_turns() -> None:
    called: list[str] = []
    runs = {name: lambda name=name: called.append(name) or {} for name in ("a", "b")}
    load("process").alternate(runs, rounds=2)
    assert called == ["a", "b", "a", "b"]


def test_the_page_says_what_was_met_and_missed(tmp_path: Path) -> None:
    environment = {"processor": "P", "cores": 2, "threads": 2, "capability": "AVX512", "amx": False, "python": "3.11"}
    environment |= {"torch": "2.13.0", "date": "2026-11-20", "commit": "abc", "load_average": 0.1}
    row = {"what": "pythae", "value": 12345.6, "unit": "examples/s", "ratio": 1.25, "target": "≥ 1.5", "met": False}
    result = {"case": "train-mlp", "about": "About.", "rounds": 3, "rows": [row], "environment": environment}
    (tmp_path / "train-mlp.json").write_text(json.dumps(result), encoding="utf8")
    load("table").write_page(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf8")
    assert "| pythae | 12,346 examples/s | 1.25 | ≥ 1.5 | **missed** |" in page


def test_a_step_clock_counts_whole_epochs_behind_the_first() -> None:
    common = load("common")
    clock = common.StepClock()
    clock.times = [1.0, 2.0, 3.0, 5.0, 6.0, 10.0]
    assert clock.result(examples=256)["examples_per_second"] == [256 / 3, 256 / 5]
