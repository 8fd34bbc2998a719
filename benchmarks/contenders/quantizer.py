"""One training step of a quantiser in turn with its distance product alone, and what its peak memory is.

Prints JSON. ``plain`` is an index version such as one writes by hand; ``--peer vqp`` adds vector-quantize-pytorch and
``--peer pythae`` pythae 0.1.2, in an environment that has them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import PeakMemory
from torch import Tensor, nn
from torch.nn import functional as F

DIM = 64


def ours(codes: int, entries: int | None = None) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    from tightbound.quantizers import VectorQuantizer, clusters

    quantizer, entries = VectorQuantizer(codes, DIM, start="data"), entries or clusters.ENTRIES

    def step(z: Tensor) -> tuple[Tensor, Tensor]:
        clusters.ENTRIES = entries
        out = quantizer(z)
        return out.vectors, out.commitment_loss

    return step


def plain(codes: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """By hand: all distances at once, argmin, an index, and averages by index_add."""
    codebook, sizes, sums = torch.randn(codes, DIM), torch.ones(codes), torch.zeros(codes, DIM)

    def step(z: Tensor) -> tuple[Tensor, Tensor]:
        rows = z.movedim(1, -1).reshape(-1, DIM)
        with torch.no_grad():
            distances = codebook.square().sum(1) - 2 * rows @ codebook.T
            indices = distances.argmin(1)
        chosen = F.embedding(indices, codebook)
        with torch.no_grad():
            sizes.mul_(0.99).add_(torch.bincount(indices, minlength=codes), alpha=0.01)
            sums.mul_(0.99).add_(torch.zeros_like(sums).index_add_(0, indices, rows), alpha=0.01)
            codebook.copy_(sums / (sizes + 1e-5).unsqueeze(1))
        return rows + (chosen - rows).detach(), (rows - chosen).square().sum()

    return step


def vqp(codes: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    from vector_quantize_pytorch import VectorQuantize  # pyright: ignore[reportMissingImports]

    settings = {"decay": 0.99, "rotation_trick": False, "threshold_ema_dead_code": 2}
    quantizer = VectorQuantize(dim=DIM, codebook_size=codes, accept_image_fmap=True, **settings)

    def step(z: Tensor) -> tuple[Tensor, Tensor]:
        vectors, _, loss = quantizer(z)
        return vectors, loss

    return step


def pythae(codes: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    from pythae.models import VQVAEConfig  # pyright: ignore[reportMissingImports]
    from pythae.models.vq_vae.vq_vae_utils import QuantizerEMA  # pyright: ignore[reportMissingImports]

    config = VQVAEConfig(input_dim=(1, 8, 8), latent_dim=DIM, num_embeddings=codes, use_ema=True, decay=0.99)
    config.embedding_dim = DIM
    quantizer: nn.Module = QuantizerEMA(config)

    def step(z: Tensor) -> tuple[Tensor, Tensor]:
        out = quantizer(z.permute(0, 2, 3, 1))
        return out.quantized_vector, out.loss

    return step


CONTENDERS: dict[str, Callable[..., Callable[[Tensor], tuple[Tensor, Tensor]]]] = {
    "ours": ours,
    "unchunked": lambda codes: ours(codes, 1 << 40),
    "plain": plain,
    "vqp": vqp,
    "pythae": pythae,
}


def whole(step: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> None:
    """Forward, the averages, and backward."""
    z = z.detach().requires_grad_()
    vectors, loss = step(z)
    (vectors.sum() + loss.sum()).backward()


def times(names: list[str], vectors: int, codes: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of every contender, in turn, and the median over rounds of their ratio to the product alone."""
    z = torch.randn(vectors // 1024, DIM, 32, 32)
    rows, codebook = torch.randn(vectors, DIM), torch.randn(codes, DIM)
    steps = {name: CONTENDERS[name](codes) for name in names}
    runs: dict[str, Callable[[], object]] = {"product": lambda: torch.mm(rows, codebook.T)}
    runs |= {name: lambda step=step: whole(step, z) for name, step in steps.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-3, rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if number >= 0:
                taken[name].append(1e3 * (time.perf_counter() - begin))
    ratios = {n: [a / b for a, b in zip(t, taken["product"], strict=True)] for n, t in taken.items()}
    return {
        "milliseconds": {name: statistics.median(t) for name, t in taken.items()},
        "least_milliseconds": {name: min(t) for name, t in taken.items()},
        "ratio": {name: statistics.median(r) for name, r in ratios.items()},
    }


def memory(name: str, vectors: int, codes: int) -> float:
    """MiB that the first two steps add to the process, at their peak."""
    z, step = torch.randn(vectors // 1024, DIM, 32, 32), CONTENDERS[name](codes)
    whole(CONTENDERS[name](32), z[:1])
    peak = PeakMemory()
    for _ in range(2):
        whole(step, z)
    return peak.mebibytes()


def alone(name: str, vectors: int, codes: int) -> float:
    """The same in a process of its own, since a peak is never forgotten."""
    sizes = ["--vectors", str(vectors), "--codes", str(codes)]
    command = [sys.executable, __file__, "memory", "--contender", name, *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("step", "memory"), default="step", nargs="?")
    parser.add_argument("--peer", choices=("vqp", "pythae"), action="append", default=[])
    parser.add_argument("--contender", choices=tuple(CONTENDERS))
    parser.add_argument("--vectors", type=int)
    parser.add_argument("--codes", type=int)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    names = ["ours", "unchunked", "plain", *given.peer]
    if given.contender:
        result: Any = memory(given.contender, given.vectors or 16384, given.codes or 8192)
    elif given.task == "memory":
        vectors, codes = given.vectors or 16384, given.codes or 8192
        distances = vectors * codes * 4 / 2**20
        result = {"distances_mebibytes": distances, **{n: alone(n, vectors, codes) for n in names}}
    else:
        result = times(names, given.vectors or 8192, given.codes or 1024, given.rounds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
