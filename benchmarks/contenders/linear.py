"""A linear layer, forward and backward, at several shapes: by oneDNN, by torch, and as ``Linear`` chooses."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from common import in_turn, report
from torch import Tensor, nn

from tightbound.networks import Linear
from tightbound.networks.linear import by_onednn

SHAPES = ((128, 784, 512), (128, 16, 512), (512, 512, 512), (4096, 50, 200), (2675, 512, 784), (10000, 784, 200))
"""Rows, inputs, outputs: a training step's, an evaluation's, and thin ones, where layouts cost most."""


def speeds(rows: int, inputs: int, outputs: int, backward: bool, turns: int) -> dict[str, float]:
    """How many times as fast as torch's layer each way is, the two in turn."""
    layer, own = Linear(inputs, outputs), nn.Linear(inputs, outputs)
    x = torch.randn(rows, inputs, requires_grad=backward)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": layer,
        "onednn": lambda x: by_onednn(x, layer.weight, layer.bias),
    }

    def run(way: Callable[[Tensor], Tensor]) -> None:
        with torch.set_grad_enabled(backward):
            y = way(x)
            if backward:
                y.backward(torch.ones_like(y))

    found: dict[str, float] = {}
    for name, way in ways.items():
        times = in_turn({"torch": lambda: run(own), name: lambda way=way: run(way)}, turns, warm_up=3)
        found[name] = statistics.median(times["torch"]) / statistics.median(times[name])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("speed",))
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    for shape in SHAPES:
        for backward in (False, True):
            what = f"{shape[0]:,} × {shape[1]} → {shape[2]}, forward{' and backward' if backward else ''}"
            found[what] = speeds(*shape, backward, given.turns)
    report({"speeds": found})


if __name__ == "__main__":
    main()
