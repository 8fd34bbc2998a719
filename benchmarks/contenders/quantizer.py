"""One training step of every quantiser in turn with the distance product alone, or the peak memory of one of them.

Needs vector-quantize-pytorch and pythae beside torch and tightbound. ``plain`` is an index version such as one writes
by hand. All are at their defaults but for the decay: ours and vector-quantize-pytorch's revive dead codes, the others
do not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from common import PeakMemory, in_turn, report
from torch import Tensor, nn
from torch.nn import functional as F

DIM = 64


def ours(codes: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    from tightbound.quantizers import VectorQuantizer

    quantizer = VectorQuantizer(codes, DIM, start="data")

    def step(z: Tensor) -> tuple[Tensor, Tensor]:
        out = quantizer(z)
        return out.vectors, out.commitment_loss

    return step


def unchunked(codes: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Ours, with all distances at once."""
    from tightbound.quantizers import clusters

    in_pieces = ours(codes)

    def step(z: Tensor) -> tuple[Tensor, Tensor]:
        with mock.patch.object(clusters, "ENTRIES", 1 << 40):
            return in_pieces(z)

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


CONTENDERS: dict[str, Callable[[int], Callable[[Tensor], tuple[Tensor, Tensor]]]] = {
    "ours": ours,
    "unchunked": unchunked,
    "plain": plain,
    "vqp": vqp,
    "pythae": pythae,
}


def whole(step: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> None:
    """Forward, the averages, and backward."""
    z = z.detach().requires_grad_()
    vectors, loss = step(z)
    (vectors.sum() + loss.sum()).backward()


def rates(vectors: int, codes: int, turns: int) -> dict[str, Any]:
    """Vectors per second of every contender in turn, and of the product alone."""
    z = torch.randn(vectors // 1024, DIM, 32, 32)
    rows, codebook = torch.randn(vectors, DIM), torch.randn(codes, DIM)
    steps = {name: build(codes) for name, build in CONTENDERS.items()}
    runs: dict[str, Callable[[], object]] = {"product": lambda: torch.mm(rows, codebook.T)}
    runs |= {name: lambda step=step: whole(step, z) for name, step in steps.items()}
    times = in_turn(runs, turns, warm_up=3)
    return {"vectors_per_second": {name: [vectors / seconds for seconds in taken] for name, taken in times.items()}}


def memory(name: str, vectors: int, codes: int) -> dict[str, Any]:
    """MiB that the first two steps add to the process, at their peak; and what all distances at once would be."""
    z, step = torch.randn(vectors // 1024, DIM, 32, 32), CONTENDERS[name](codes)
    whole(CONTENDERS[name](32), z[:1])
    peak = PeakMemory()
    for _ in range(2):
        whole(step, z)
    return {"peak_mebibytes": peak.mebibytes(), "distances_mebibytes": vectors * codes * 4 / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("step", "memory"))
    parser.add_argument("--contender", choices=tuple(CONTENDERS), default="ours", help="whose memory")
    parser.add_argument("--vectors", type=int, default=8192, help="a multiple of 1024")
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    if given.task == "step":
        report(rates(given.vectors, given.codes, given.turns))
    else:
        report(memory(given.contender, given.vectors, given.codes))


if __name__ == "__main__":
    main()
