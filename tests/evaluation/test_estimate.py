"""A number and its standard error."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from tightbound.evaluation import Estimate


def test_mean_and_standard_error() -> None:
    values = torch.randn(50, dtype=torch.float64)
    estimate = Estimate.of(values)
    assert estimate.value == pytest.approx(values.mean().item())
    assert estimate.standard_error == pytest.approx(values.std(correction=1).item() / 50**0.5)


def test_scale_and_offset() -> None:
    values = torch.randn(50, dtype=torch.float64)
    estimate = Estimate.of(values, -2.0, 3.0)
    assert estimate.value == pytest.approx(3 - 2 * values.mean().item())
    assert estimate.standard_error == pytest.approx(2 * (Estimate.of(values).standard_error or 0))


def test_sums_are_taken_in_double_precision() -> None:
    values = torch.full((100_000,), 1e4) + torch.arange(100_000) % 2
    assert Estimate.of(values).value == pytest.approx(1e4 + 0.5, abs=1e-9)


def test_one_example_has_no_standard_error() -> None:
    assert Estimate.of(torch.ones(1)) == Estimate(1.0, None)
    assert str(Estimate(1.0, None)) == "1.00"


def test_the_error_covers_the_truth() -> None:
    estimates = [Estimate.of(row) for row in torch.randn(2_000, 30, dtype=torch.float64)]
    covered = sum(abs(e.value) < 2 * (e.standard_error or 0) for e in estimates) / len(estimates)
    assert 0.92 < covered < 0.97  # 0.945 for Student's t with 29 degrees of freedom


def test_json_and_text() -> None:
    estimate = Estimate(83.812, 0.334)
    assert json.loads(json.dumps(dataclasses.asdict(estimate))) == {"value": 83.812, "standard_error": 0.334}
    assert str(estimate) == "83.81 ± 0.33"
