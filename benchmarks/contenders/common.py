"""What every contender shares, whatever its environment holds beside torch: data, networks, weights, clocks.

Convention: a weights file holds the state of the two networks below, by the names ``encoder.*`` and ``decoder.*``; the
encoder gives means and log standard deviations (pythae's log variances, halved).
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

SHAPE, LATENT, BATCH, LEARNING_RATE = (1, 28, 28), 16, 128, 1e-3


def synthetic(examples: int) -> Tensor:
    """Binary pictures, uint8 ``[N, 1, 28, 28]``: Bernoulli draws from ten smooth random prototypes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(10, 1, 4, 4, generator=generator)
    prototypes = torch.sigmoid(4 * F.interpolate(coarse, SHAPE[1:], mode="bicubic"))
    chosen = prototypes[torch.randint(10, (examples,), generator=generator)]
    return torch.bernoulli(chosen, generator=generator).to(torch.uint8)


def networks(kind: str) -> nn.ModuleDict:
    """An encoder to 2 x 16 numbers and a decoder to 784 logits, of the shapes that pythae's have."""
    encoder, decoder = _mlp() if kind == "mlp" else _convolutional()
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder})


def _mlp() -> tuple[nn.Module, nn.Module]:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 2 * LATENT))
    return encoder, nn.Sequential(nn.Linear(LATENT, 512), nn.ReLU(), nn.Linear(512, 784))


def _convolutional() -> tuple[nn.Module, nn.Module]:
    down: list[nn.Module] = []
    for inputs, outputs in ((1, 128), (128, 256), (256, 512), (512, 1024)):
        down += [nn.Conv2d(inputs, outputs, 4, 2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    up: list[nn.Module] = [nn.Linear(LATENT, 1024 * 4 * 4), nn.Unflatten(1, (1024, 4, 4))]
    for inputs, outputs, padding in ((1024, 512, 0), (512, 256, 1)):
        up += [nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=padding)]
        up += [nn.BatchNorm2d(outputs), nn.ReLU()]
    up += [nn.ConvTranspose2d(256, 1, 3, 2, padding=1, output_padding=1)]
    return nn.Sequential(*down, nn.Flatten(), nn.Linear(1024, 2 * LATENT)), nn.Sequential(*up)


def load_weights(nets: nn.ModuleDict, path: Path | None) -> nn.ModuleDict:
    if path is not None:
        nets.load_state_dict(torch.load(path, weights_only=True))
    return nets


class StepClock:
    """Notes when each optimiser step of this process ends, whichever loop makes it."""

    def __init__(self) -> None:
        self.begin, self.times = time.perf_counter(), list[float]()
        register_optimizer_step_post_hook(lambda *_: self.times.append(time.perf_counter()))

    def result(self, examples: int) -> dict[str, Any]:
        """Examples per second of every epoch but the first, last step to last step: what is in between counts."""
        steps = -(-examples // BATCH)
        ends = self.times[steps - 1 :: steps]
        rates = [examples / (b - a) for a, b in itertools.pairwise(ends)]
        return {"examples_per_second": rates, "wall_seconds": time.perf_counter() - self.begin}


def in_turn(runs: Mapping[str, Callable[[], object]], turns: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of every run, one after the other, so often; those before the first turn do not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-warm_up, turns):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn >= 0:
                times[name].append(time.perf_counter() - begin)
    return times


class PeakMemory:
    """How far the resident memory of this process rises above what it is now."""

    def __init__(self) -> None:
        clear = Path("/proc/self/clear_refs")
        if clear.exists():
            clear.write_text("5")  # the high-water mark starts again from here
        self.before = _high_water()

    def mebibytes(self) -> float:
        return _high_water() - self.before


def _high_water() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def options() -> argparse.Namespace:
    """The options of a contender; each uses those that it can have."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task")
    parser.add_argument("--network", choices=("mlp", "convolutional"), default="mlp")
    parser.add_argument("--torch-layers", action="store_true", help="torch's own linear layers in our mlp")
    parser.add_argument("--examples", type=int, default=12_800)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--optimizer", choices=("fused", "default"), default="fused")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("-k", type=int, default=1000)
    parser.add_argument("--chunk", type=int, default=100)
    parser.add_argument("--no-grad", action="store_true")
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return given


def measure_nll(nll: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Times ``nll(x, k)``, nats per example, on the first images after a short warm-up."""
    x = synthetic(given.images).float()
    nll(x[:2], min(given.k, 1000))
    memory, values, rates = PeakMemory(), [], []
    for seed in range(given.repeats):
        torch.manual_seed(seed)
        begin = time.perf_counter()
        values.append(float(nll(x, given.k)))
        rates.append(len(x) * given.k / (time.perf_counter() - begin))
    return {"nll": values, "points_times_k_per_second": rates, "peak_mebibytes": memory.mebibytes()}


def report(result: dict[str, Any]) -> None:
    print(json.dumps(result))
