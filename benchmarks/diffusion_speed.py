"""Samplers beside those of diffusers, and training steps of a UNet beside a bare loop, in turn in one process.

    python benchmarks/diffusion_speed.py [--rounds 15] [--cases diffusion-samplers diffusion-network diffusion-training]

diffusers is wanted for the first two cases; ``pip install diffusers==0.42.0`` brings it. Results are written to
``benchmarks/results`` like those of `make bench`, whose page shows them.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import inspect
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from process import HERE, environment, folder_of
from rows import UNITS, Row
from torch import Tensor, nn
from torch.nn import functional as F

import tightbound.diffusion.objective  # noqa: F401 (it registers what a step computes)
from tightbound.data import Data, Split
from tightbound.diffusion import Denoiser, Diffusion, ExampleNoise, Linear, Preconditioned, Sampler, grid
from tightbound.diffusion.weights import weight
from tightbound.networks.denoising import UNet
from tightbound.options.direct import DiffusionBound
from tightbound.options.training import TrainingOptions
from tightbound.runtime.memory import keep_freed_memory
from tightbound.training.engine import Engine
from tightbound.training.steps.bound import BoundStep

SAMPLERS = ("ddim", "ancestral", "2m", "2m-sde")
STEPS = "steps_per_second"
GAMMAS = (-13.5, 10.0)
"""First and last noise level of training."""
Times = dict[str, list[float]]
Run = Callable[[], object]


def in_turn(runs: Mapping[str, Run], rounds: int) -> Times:
    """Processor seconds of every run in every round but the first; which is first alternates."""
    times: Times = {name: [] for name in runs}
    for i in range(-1, rounds):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            begin = time.process_time()
            runs[name]()
            if i >= 0:
                times[name].append(time.process_time() - begin)
    return times


def compared(times: Times, ours: str, other: str, steps: int, least: float | None, called: str = "") -> list[Row]:
    """The speeds of both, and the median over the rounds of how many times as fast ours is."""
    speed = lambda name: steps / statistics.median(times[name])
    ratio = statistics.median(b / a for a, b in zip(times[ours], times[other], strict=True))
    target, met = ("", None) if least is None else (f"≥ {least:.3g}", ratio >= least)
    words = f", {called}" if called else ""
    row = Row(other + words, speed(other), UNITS[STEPS], ratio, target, met)
    return [Row(ours + words, speed(ours), UNITS[STEPS]), row]


# -- samplers ---------------------------------------------------------------------------------------------------------


def theirs(name: str, steps: int, predicts: str) -> Any:
    """The scheduler of diffusers that is the same sampler."""
    import diffusers  # pyright: ignore[reportMissingImports]

    if name in ("ddim", "ancestral"):
        scheduler = diffusers.DDIMScheduler(clip_sample=False, prediction_type=predicts)
    else:
        kind = "sde-dpmsolver++" if name == "2m-sde" else "dpmsolver++"
        scheduler = diffusers.DPMSolverMultistepScheduler(algorithm_type=kind, prediction_type=predicts)
    scheduler.set_timesteps(steps)
    return scheduler


@torch.no_grad()
def their_loop(
    name: str, steps: int, shape: Sequence[int], predicts: str, network: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    scheduler, generator = theirs(name, steps, predicts), torch.Generator().manual_seed(0)
    more = {"eta": 1.0} if name == "ancestral" else {}
    x = torch.randn(*shape, generator=generator)
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), scheduler.alphas_cumprod[t])
        x = scheduler.step(output, t, x, generator=generator, **more).prev_sample
    return x


def our_loop(name: str, steps: int, shape: Sequence[int], denoise: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    noise = ExampleNoise(0, range(shape[0]), shape[1:])
    return Sampler(name, grid(Linear(-9.2, 10.0), steps))(denoise, noise)


@torch.no_grad()
def apart(name: str, steps: int = 50) -> Row:
    """How far the samples of both are apart at the same ratios, from the same noise, with D(x) = tanh(x)."""
    scheduler, noise = theirs(name, steps, "sample"), torch.randn(100, 10, generator=torch.Generator().manual_seed(0))
    kept = scheduler.alphas_cumprod[scheduler.timesteps]
    sigmas = torch.cat([((1 - kept) / kept).sqrt(), torch.zeros(1)]) if name == "ddim" else scheduler.sigmas
    ours = Sampler(name, sigmas, (1 + sigmas[0] ** 2).sqrt().item())(lambda x, sigma: x.tanh(), lambda: noise)
    z = noise
    for t, sigma in zip(scheduler.timesteps, sigmas, strict=False):
        z = scheduler.step((z * (1 + sigma**2).sqrt()).tanh(), t, z).prev_sample
    largest = (ours - z).abs().max().item()
    return Row(f"parity: largest difference of samples, {name}", largest, "", target="≤ 1e-4", met=largest <= 1e-4)


def samplers(rounds: int) -> list[Row]:
    """The arithmetic of 50 steps on 64 × 3 × 64 × 64 float32 numbers, whose expectation costs nothing: D(x) = x.

    One thread, in processor time. Ours draws the noise of each example by a generator of its own, and looks for numbers
    that are not finite; diffusers has one generator, and does not look. Its schedulers are told that the network
    predicts the data.
    """
    rows = [apart(name) for name in ("ddim", "2m")]
    for name in SAMPLERS:
        setting = (name, 50, (64, 3, 64, 64))
        runs: dict[str, Run] = {
            "tightbound": lambda s=setting: our_loop(*s, lambda x, sigma: x),
            "diffusers": lambda s=setting: their_loop(*s, "sample", lambda x, alpha: x),
        }
        rows += compared(in_turn(runs, rounds), "tightbound", "diffusers", 50, 1.0, name)
    return rows


def small_unet(shape: Sequence[int], channels: Sequence[int], patch: int = 1) -> UNet:
    torch.manual_seed(0)
    network = UNet(shape, channels, blocks=1, patch=patch)
    for p in network.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.02)
    return network.eval()


def with_network(rounds: int) -> list[Row]:
    """All of sampling, 10 steps of 16 × 3 × 32 × 32 with the same small UNet, which predicts v."""
    shape, steps = (16, 3, 32, 32), 10
    network = small_unet(shape[1:], (32, 64), patch=2)
    denoiser: Denoiser = Preconditioned(network, predicts="v")
    gamma = lambda alpha: (torch.log1p(-alpha) - alpha.log()).expand(shape[0])
    rows: list[Row] = []
    for name in ("ddim", "2m"):
        runs: dict[str, Run] = {
            "tightbound": lambda name=name: our_loop(name, steps, shape, denoiser),
            "diffusers": lambda name=name: their_loop(
                name, steps, shape, "v_prediction", lambda x, alpha: network(x, gamma(alpha))
            ),
        }
        rows += compared(in_turn(runs, rounds), "tightbound", "diffusers", steps, 0.98, name)
    return rows


# -- training ---------------------------------------------------------------------------------------------------------


def pictures(n: int = 1024) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Data.from_arrays(x, test=x[:64], levels=256, validation=0)


def bare_step(network: nn.Module, values: Tensor, batch: int) -> Callable[[], None]:
    """What one writes by hand for the same schedule, path and weight."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0, fused=True)

    def step() -> None:
        x = values[torch.randint(len(values), (batch,))].float() / 127.5 - 1
        gamma, noise = torch.empty(batch).uniform_(*GAMMAS), torch.randn_like(x)
        alpha, sigma = (torch.sigmoid(g).sqrt()[:, None, None, None] for g in (-gamma, gamma))
        loss = F.mse_loss(network(alpha * x + sigma * noise, gamma), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def engine_step(model: Diffusion, train: Split, batch: int, **options: Any) -> Callable[[], None]:
    """The engine's, step after step."""
    step = BoundStep(model, DiffusionBound(weight="simple"), len(train))
    engine = Engine(step, train, TrainingOptions(batch_size=batch, device="cpu", **options))
    engine.prepare_compiling()
    model.train()
    numbers = iter(range(10**6))
    return lambda: engine.advance(engine.clock.at(next(numbers) % engine.clock.steps)) and None


def training(rounds: int) -> list[Row]:
    """One training step of a patch-2 UNet (64, 128) on 64 images of 28 × 28, which predicts the noise: engine and bare.

    The engine's step has stratified times, weights and the bound with its three terms; the bare loop has the mean
    squared error only. Both have the same network and optimiser.
    """
    data, batch = pictures(), 64
    denoiser = Preconditioned(small_unet((1, 28, 28), (64, 128), patch=2), predicts="noise")
    model = Diffusion(denoiser, Linear(*GAMMAS), (1, 28, 28), levels=256, shift=0.5, scale=0.5)
    bare: Any = copy.deepcopy(denoiser.network)
    runs: dict[str, Run] = {
        "tightbound": engine_step(model, data.train, batch, ema=0.0),
        "bare loop": bare_step(bare, torch.as_tensor(data.train.values), batch),
    }
    times = in_turn(runs, rounds)
    share = levels_and_weights(model, batch) / statistics.median(times["tightbound"])
    rows = compared(times, "tightbound", "bare loop", 1, 0.95)
    what = "stratified times, levels and weights: share of a step"
    return [*rows, Row(what, share, "", None, "≤ 0.01", share <= 0.01)]


def levels_and_weights(model: Diffusion, batch: int, repeats: int = 200) -> float:
    """Seconds for the times of a batch, their levels and their weights."""
    begin = time.process_time()
    for _ in range(repeats):
        t, _ = model.times.draw(batch)
        gamma, rate = model.trained_bound.levels(t)
        weight("min-snr", gamma, rate, model.moments.spread)
    return (time.process_time() - begin) / repeats


CASES: dict[str, Callable[[int], list[Row]]] = {
    "diffusion-samplers": samplers,
    "diffusion-network": with_network,
    "diffusion-training": training,
}
BESIDE_DIFFUSERS = ("diffusion-samplers", "diffusion-network")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    there = importlib.util.find_spec("diffusers") is not None
    for name in given.cases:
        if there or name not in BESIDE_DIFFUSERS:
            measure(name, given.rounds, given.results, there)
        else:
            print(f"{name}: left out, diffusers is not installed. Try pip install diffusers==0.42.0", flush=True)


def measure(name: str, rounds: int, folder: Path, there: bool) -> None:
    print(name, flush=True)
    facts = {**environment(1), "peers": [f"diffusers=={version('diffusers')}"] if there else []}
    rows = CASES[name](rounds)
    about = inspect.getdoc(CASES[name])
    result = {"case": name, "about": about, "rounds": rounds, "rows": [r.json() for r in rows], "environment": facts}
    folder = folder / folder_of(facts)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf8")
    for row in rows:
        ratio = "" if row.ratio is None else f"  tightbound / it {row.ratio:.3f}"
        print(f"    {row.what}: {row.value:.4g} {row.unit}{ratio}  {row.target}", flush=True)


if __name__ == "__main__":
    main()
