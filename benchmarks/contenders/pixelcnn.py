"""Seconds of drawing a grid of codes from a PixelCNN: cached, and by a pass over the whole grid for every code."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tightbound.networks.pixelcnn import PixelCNN
from tightbound.networks.sampling import Sampling


def seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def passes(network: PixelCNN, codes: Tensor, entries: int) -> Callable[[], None]:
    """What the uncached way does for so many codes, the later ones like these: the same pass whatever the place."""

    @torch.no_grad()
    def run() -> None:
        for place in range(entries):
            logits = network(codes).flatten(1, -2)[:, place]
            codes.flatten(1)[:, place] = Sampling().choose(logits)

    return run


def step(network: PixelCNN, codes: Tensor) -> Callable[[], None]:
    """A training step: forward, backward, Adam."""
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(codes).movedim(-1, 1), codes, reduction="none").flatten(1).sum(1).mean().backward()
        optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--levels", type=int, default=512)
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--attention-every", type=int, default=0)
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--passes", type=int, default=8, help="uncached codes that are drawn; their time is scaled up")
    parser.add_argument("--step-side", type=int, default=16, help="side of the grids of a training step")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    build = lambda side: PixelCNN(given.levels, (side, side), attention_every=given.attention_every)
    drawing, training = build(given.side).eval(), build(given.step_side)
    codes = torch.randint(given.levels, (given.n, given.side, given.side))
    runs = {
        "cached": lambda: drawing.generate(given.n),
        "uncached": passes(drawing, codes, given.passes),
        "step": step(training, codes[:, : given.step_side, : given.step_side].contiguous()),
    }
    for run in runs.values():
        run()
    rounds = [{name: seconds(run) for name, run in runs.items()} for _ in range(given.repeats)]
    medians = {f"{name}_seconds": statistics.median(times[name] for times in rounds) for name in runs}
    medians["uncached_seconds"] *= given.side**2 / given.passes
    ratio = medians["uncached_seconds"] / medians["cached_seconds"]
    print(json.dumps({**medians, "ratio": ratio, "uncached_passes_measured": given.passes}))


if __name__ == "__main__":
    main()
