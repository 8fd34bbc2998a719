"""Every test starts from the same seed, and leaves the state of the process as it found it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.distributions import Distribution


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(
        1
    )  # the tensors are small, and threads that wait for a busy processor cost more than they bring
    config.addinivalue_line("markers", "compiles: runs torch.compile, which flips torch's global validation default")


def global_state() -> dict[str, Any]:
    """What this package must never change in the process that uses it."""
    return {
        "Distribution's default validation": Distribution._validate_args,
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "deterministic algorithms only warn": torch.is_deterministic_algorithms_warn_only_enabled(),
        "deterministic cudnn": torch.backends.cudnn.deterministic,
        "benchmarking cudnn": torch.backends.cudnn.benchmark,
        "anomaly detection": torch.is_anomaly_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "TIGHTBOUND_DATA": os.environ.get("TIGHTBOUND_DATA"),
    }


def restore(state: dict[str, Any]) -> None:
    """Undoes what one test did, so that it fails alone."""
    Distribution._validate_args = state["Distribution's default validation"]
    torch.set_default_dtype(state["default dtype"])
    torch.set_default_device(state["default device"])
    torch.set_grad_enabled(state["grad mode"])
    torch.use_deterministic_algorithms(
        state["deterministic algorithms"], warn_only=state["deterministic algorithms only warn"]
    )
    torch.backends.cudnn.deterministic = state["deterministic cudnn"]
    torch.backends.cudnn.benchmark = state["benchmarking cudnn"]
    torch.autograd.set_detect_anomaly(state["anomaly detection"])
    torch.set_float32_matmul_precision(state["float32 matmul precision"])
    torch.set_num_threads(state["threads"])
    if state["TIGHTBOUND_DATA"] is None:
        os.environ.pop("TIGHTBOUND_DATA", None)
    else:
        os.environ["TIGHTBOUND_DATA"] = state["TIGHTBOUND_DATA"]


@pytest.fixture(autouse=True)
def unchanged_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seeds the test, and fails it if it changes torch's global state."""
    before = global_state()
    torch.manual_seed(0)
    yield
    if request.node.get_closest_marker("compiles"):  # torch's doing, in 2.13 at the first torch.compile
        Distribution._validate_args = before["Distribution's default validation"]
    after = global_state()
    if changed := [f"{name}: {before[name]!r} -> {after[name]!r}" for name in before if before[name] != after[name]]:
        restore(before)
        pytest.fail("The test changed the state of the process: " + "; ".join(changed))
