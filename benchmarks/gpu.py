"""What a GPU must show: the same numbers as the CPU, and how fast it trains; for one card, in a few minutes.

    python benchmarks/gpu.py --out results

Writes ``gpu.json`` with the name of the card. Without one it runs on the CPU, to try the script itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tightbound as tb
from tightbound.data import Data, DataSpec
from tightbound.diffusion import Diffusion
from tightbound.distributions import Sampling
from tightbound.models import LatentVariableModel, Model
from tightbound.networks.dit import DiT
from tightbound.options.training import TrainingOptions
from tightbound.recipes import EDM, VAE, VDM, VDVAE, VQVAE, Ladder, Recipe
from tightbound.training.engine import Engine
from tightbound.training.start import build_seeded
from tightbound.training.steps.bound import BoundStep

GREY = DataSpec("grey", (1, 28, 28), 256, classes=tuple("0123456789"))
COLOUR = DataSpec("colour", (3, 32, 32), 256)
CASES: dict[str, tuple[Recipe, DataSpec]] = {
    "vae": (VAE(network="convolutional"), GREY),
    "vq-vae": (VQVAE(), COLOUR),
    "ladder": (Ladder(), GREY),
    "vdvae": (VDVAE(), COLOUR),
    "vdm": (VDM(condition="class"), GREY),
    "edm, dit": (EDM(network="dit", heads=4), COLOUR),
}


def images(spec: DataSpec, n: int, seed: int = 0) -> Data:
    """Smooth random images with labels."""
    coarse = torch.rand(n, spec.shape[0], 7, 7, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, spec.shape[1:], mode="bilinear")
    labels = (torch.arange(n) % 10).numpy() if spec.classes else None
    return Data.from_arrays((255 * fine).byte().numpy(), validation=0.1, labels=labels)


def parity(recipe: Recipe, spec: DataSpec, device: str) -> float:
    """The largest relative difference of what a model computes on the device and on the CPU, in float32."""
    found = []
    for place in ("cpu", device):
        model = build_seeded(recipe, spec, 0).eval().to(place)
        with torch.no_grad():
            found.append(_computed(model, spec, place).double().cpu())
    return ((found[0] - found[1]).abs().max() / found[0].abs().max()).item()


def _computed(model: Model, spec: DataSpec, device: str) -> Tensor:
    x = images(spec, 8).train.batch(torch.arange(4), device).x
    listed = None if model.condition is None else model.condition.to_show()
    c = None if listed is None else listed[:4].to(device)
    if isinstance(model, Diffusion):
        sigma = torch.tensor([0.01, 0.3, 2.0, 30.0], device=device)
        return model.denoiser(model.units(x), sigma, c)
    assert isinstance(model, LatentVariableModel)
    z = model().representative(x)
    return model().likelihood(z).log_prob(x)


def speed(recipe: Recipe, data: Data, device: str, seconds: float, **options: Any) -> float:
    """Examples per second of training steps, after a few to warm up."""
    chosen = TrainingOptions(steps=10**6, batch_size=128, device=device, pictures=False, **options)
    engine = Engine(BoundStep(build_seeded(recipe, data.spec, 0), None, len(data.train)), data.train, chosen)
    engine.prepare_compiling()
    engine.model.train()
    step = 0
    while step < 5:
        engine.advance(engine.clock.at(step))
        step += 1
    _wait(device)
    begun, first = time.perf_counter(), step
    while time.perf_counter() - begun < seconds:
        engine.advance(engine.clock.at(step))
        step += 1
        _wait(device)
    return 128 * (step - first) / (time.perf_counter() - begun)


def transformer_share(device: str, seconds: float, compiled: bool) -> dict[str, float]:
    """Operations per second of DiT-S/2 at 32 x 32 x 4, batch 256, in bf16, beside those of a matrix product."""
    a = torch.randn(8192 if device != "cpu" else 512, 8192 if device != "cpu" else 512, device=device).bfloat16()
    product = 2 * len(a) ** 3 / _seconds(lambda: a @ a, device, seconds)
    network = DiT((4, 32, 32), width=384, depth=12, heads=6).to(device)
    run = torch.compile(network) if compiled else network
    n = 256 if device != "cpu" else 2
    z, gamma = torch.randn(n, 4, 32, 32, device=device), torch.zeros(n, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            out = run(z, gamma)
        out.float().square().mean().backward()

    tokens, d, depth = 256, 384, 12
    operations = 3 * n * depth * (24 * tokens * d**2 + 4 * tokens**2 * d)
    rate = operations / _seconds(step, device, seconds)
    return {"matrix_tflops": product / 1e12, "dit_tflops": rate / 1e12, "share": rate / product}


def _seconds(do: Callable[[], object], device: str, seconds: float) -> float:
    for _ in range(3):
        do()
    _wait(device)
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        do()
        done += 1
        _wait(device)
    return (time.perf_counter() - begun) / done


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def attempted(name: str, results: dict[str, Any], do: Callable[[], Any]) -> None:
    """Keeps what a check finds, or its error, so that one failure does not cost the others."""
    begun = time.perf_counter()
    try:
        results[name] = do()
    except Exception as error:
        traceback.print_exc()
        results[name] = f"failed: {type(error).__name__}: {error}"[:500]
    print(f"{time.perf_counter() - begun:6.1f} s  {name}: {results[name]}", flush=True)


def sampled(device: str) -> float:
    """Samples per second of a diffusion model in 30 steps."""
    model = build_seeded(VDM(), GREY, 0).to(device).eval()
    n = 256 if device == "cuda" else 4
    begun = time.perf_counter()
    model().sample((n,), Sampling(steps=30))
    _wait(device)
    return n / (time.perf_counter() - begun)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(CASES))
    arguments = parser.parse_args()
    device, seconds = "cuda" if torch.cuda.is_available() else "cpu", arguments.seconds
    card = torch.cuda.get_device_name() if device == "cuda" else "none: cpu"
    results: dict[str, Any] = {"card": card, "torch": torch.__version__, "tightbound": tb.__version__}
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    modes: dict[str, dict[str, Any]] = {"float32": {"precision": "32-true"}, "bf16": {"precision": "bf16-mixed"}}
    if not arguments.no_compile:
        modes["bf16, compiled"] = {"precision": "bf16-mixed", "compile": True}
    for name in arguments.only:
        recipe, spec = CASES[name]
        attempted(f"{name}: difference from the CPU", results, lambda r=recipe, s=spec: parity(r, s, device))
        data = images(spec, 2048)
        for mode, options in modes.items():
            of = lambda r=recipe, d=data, o=options: speed(r, d, device, seconds, **o)
            attempted(f"{name}: training examples per second, {mode}", results, of)
        (arguments.out / "gpu.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf8")
    attempted("vdm: samples per second, 30 steps", results, lambda: sampled(device))
    for compiled in (False,) if arguments.no_compile else (False, True):
        name = f"DiT-S/2, bf16{', compiled' if compiled else ''}"
        attempted(name, results, lambda compiled=compiled: transformer_share(device, seconds, compiled))
    (arguments.out / "gpu.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
