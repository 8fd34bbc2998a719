"""Drawing grids of codes from a PixelCNN, cached and by a pass over the whole grid for every code; or training it.

Before any clock runs, the cached logits must be the uncached.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from common import in_turn, report
from torch import Tensor
from torch.nn import functional as F

from tightbound.autoregressive.pixelcnn import PixelCache, PixelCNN
from tightbound.autoregressive.sampling import Sampling

APART = 1e-5
"""The most that cached and uncached logits may differ."""


@torch.no_grad()
def parity(network: PixelCNN, codes: Tensor) -> float:
    """The largest difference of cached from uncached logits, over all places of these grids ``(n, H, W)``."""
    cache, (rows, columns) = PixelCache(network, len(codes), None, None), network.size
    cached = [cache.logits(codes.unsqueeze(1), i, j, 0) for i in range(rows) for j in range(columns)]
    return (torch.stack(cached, dim=1) - network(codes).flatten(1, 2)).abs().max().item()


def passes(network: PixelCNN, codes: Tensor, entries: int) -> Callable[[], None]:
    """What the uncached way does for so many codes, the later ones like these: the same pass whatever the place."""

    @torch.no_grad()
    def run() -> None:
        for place in range(entries):
            logits = network(codes).flatten(1, -2)[:, place]
            codes.flatten(1)[:, place] = Sampling().choose(logits)

    return run


def draw(given: argparse.Namespace) -> dict[str, Any]:
    """Codes per second."""
    network = PixelCNN(given.levels, (given.side, given.side), attention_every=given.attention_every).eval()
    codes = torch.randint(given.levels, (given.n, given.side, given.side))
    apart = parity(network, codes)
    if not apart <= APART:
        raise SystemExit(f"Cached and uncached sampling do not see the same logits: they are {apart} apart.")
    times = in_turn(
        {"cached": lambda: network.generate(given.n), "uncached": passes(network, codes, given.passes)}, given.turns
    )
    drawn = {"cached": given.n * given.side**2, "uncached": given.n * given.passes}
    rates = {name: [drawn[name] / seconds for seconds in taken] for name, taken in times.items()}
    return {"codes_per_second": rates, "largest_difference": apart}


def step(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a training step: forward, backward, Adam."""
    network = PixelCNN(given.levels, (given.side, given.side), attention_every=given.attention_every)
    codes = torch.randint(given.levels, (given.n, given.side, given.side))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(codes).movedim(-1, 1), codes, reduction="none").flatten(1).sum(1).mean().backward()
        optimizer.step()

    return {"step_seconds": statistics.median(in_turn({"step": run}, given.turns)["step"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("draw", "step"))
    parser.add_argument("--levels", type=int, default=512)
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--attention-every", type=int, default=0)
    parser.add_argument("-n", type=int, default=16, help="grids at once")
    parser.add_argument("--passes", type=int, default=8, help="uncached codes that are drawn, and stand for all")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    report({"draw": draw, "step": step}[given.task](given))


if __name__ == "__main__":
    main()
