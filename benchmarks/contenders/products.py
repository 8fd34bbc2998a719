"""What share of the time goes into matrix products: tightbound in turn with the bare products that it needs."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from common import in_turn, synthetic
from ours import build
from torch import Tensor, nn

import tightbound as tb
from tightbound.evaluation.log_likelihood.compiled import with_compiled_density
from tightbound.evaluation.log_likelihood.importance import ENTRIES
from tightbound.networks import Linear
from tightbound.recipes import VAE
from tightbound.runtime.memory import keep_freed_memory
from tightbound.training.start import start_model
from tightbound.training.steps.bound import BoundStep


def nll(given: argparse.Namespace) -> dict[str, list[float]]:
    """An importance-weighted NLL, plain and compiled, and the decoder's layers alone on as many samples."""
    given.network, given.torch_layers = "mlp", False
    model = build(given).eval()
    compiled, x = with_compiled_density(model), synthetic(given.images).float()
    layers = [layer for layer in model.likelihood.modules() if isinstance(layer, nn.Linear)]
    rows = ENTRIES // 784
    inputs = [torch.rand(rows, layer.in_features) for layer in layers]

    @torch.no_grad()
    def products() -> None:
        for _ in range(given.images):
            for done in range(0, given.k, rows):
                for layer, values in zip(layers, inputs, strict=True):
                    layer(values[: min(rows, given.k - done)])

    evaluate = lambda m: lambda: tb.evaluation.per_example(m, x, given.k)
    return in_turn({"plain": evaluate(model), "compiled": evaluate(compiled), "products": products}, given.repeats)


def vamp(given: argparse.Namespace) -> dict[str, list[float]]:
    """A training step with a VampPrior, readings included, and its matrix products alone."""
    torch.manual_seed(0)
    data = tb.data.Data.from_arrays(synthetic(1000), levels=2, validation=0)
    model = VAE(latent_dim=40, hidden=(300, 300), prior="vamp", components=500).build(data.spec)
    start_model(model, data.train)
    x = data.train.batch(torch.arange(100)).x

    one, whole = torch.ones(()), BoundStep(model, examples=1000)

    def step() -> None:
        (-whole(x, one)[0]).mean().backward()

    return in_turn({"step": step, "products": vamp_products(x)}, given.repeats)


def vamp_products(x: Tensor) -> Callable[[], None]:
    """Every product of that step: the layers on data, pseudo-inputs and samples, and the mixture's two."""
    encoder = nn.Sequential(Linear(784, 300), Linear(300, 300), Linear(300, 80))
    decoder = nn.Sequential(Linear(40, 300), Linear(300, 300), Linear(300, 784))
    pseudo, z = torch.rand(500, 784, requires_grad=True), torch.rand(100, 40, requires_grad=True)

    def products() -> None:
        of_data, of_pseudo = encoder(x.flatten(1)), encoder(pseudo)
        mean, log_std = of_pseudo.chunk(2, dim=1)
        densities = torch.addmm(z @ mean.T, z, log_std.T)
        outputs = [of_data, densities, decoder(z)]
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])

    return products


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["nll", "vamp"])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("-k", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as a training and an evaluation do
    times = {"nll": nll, "vamp": vamp}[given.task](given)
    products = times["products"]
    shares = {name: [p / t for p, t in zip(products, values, strict=True)] for name, values in times.items()}
    print(json.dumps({name: statistics.median(values) for name, values in shares.items()}))


if __name__ == "__main__":
    main()
