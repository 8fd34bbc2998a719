"""tightbound, as its user calls it."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import (
    BATCH,
    LATENT,
    LEARNING_RATE,
    SHAPE,
    StepClock,
    load_weights,
    measure_nll,
    networks,
    options,
    report,
    synthetic,
)
from torch import nn

import tightbound as tb
from tightbound.likelihoods import Bernoulli
from tightbound.networks import MLP
from tightbound.posteriors import DiagonalGaussian
from tightbound.priors import StandardNormal


def build(given: argparse.Namespace) -> tb.LatentVariableModel:
    nets = load_weights(networks(given.network), given.weights)
    if given.network == "mlp" and not given.torch_layers:
        nets = _own_layers(nets)
    likelihood = Bernoulli(nets["decoder"], (LATENT,), SHAPE)
    return tb.LatentVariableModel(StandardNormal(LATENT), likelihood, DiagonalGaussian(nets["encoder"], SHAPE))


def _own_layers(nets: nn.ModuleDict) -> nn.ModuleDict:
    """The same network and weights, put together from this package's parts."""
    own = nn.ModuleDict({"encoder": MLP(SHAPE, 2 * LATENT, (512,)), "decoder": MLP(LATENT, 784, (512,))})
    with torch.no_grad():
        for mine, theirs in zip(own.parameters(), nets.parameters(), strict=True):
            mine.copy_(theirs)
    return own


def train(model: tb.LatentVariableModel, given: argparse.Namespace) -> dict[str, Any]:
    x = synthetic(given.examples)
    data = tb.data.Data.from_arrays(x, test=x[:BATCH], levels=2, validation=0)
    steps = given.epochs * -(-given.examples // BATCH)
    changes = {"precision": given.precision, "compile": given.compile, "lr": LEARNING_RATE, "lr_schedule": "constant"}
    with tempfile.TemporaryDirectory() as folder:
        clock, out = StepClock(), Path(folder) / "run"
        tb.train(
            model, data, out=out, steps=steps, batch_size=BATCH, beta_warmup=0.0, evaluate_every=steps,
            pictures=False, device="cpu", **changes,
        )  # fmt: skip
        return clock.result(given.examples)


def parity(model: tb.LatentVariableModel) -> dict[str, Any]:
    """The loss of the first batch, with the noise of one seed."""
    torch.manual_seed(1)
    with torch.no_grad():
        terms = model().terms(synthetic(BATCH).float())
        return {"loss": -tb.objectives.elbo(terms).mean().item()}


def nll(model: tb.LatentVariableModel, x: torch.Tensor, k: int) -> float:
    return -tb.evaluation.per_example(model, x, k)["log_marginal"].mean().item()


def main() -> None:
    given = options()
    torch.manual_seed(0)
    model = build(given)
    if given.task == "train":
        report(train(model, given))
    elif given.task == "parity":
        report(parity(model))
    else:
        model.eval()
        report(measure_nll(lambda x, k: nll(model, x, k), given))


if __name__ == "__main__":
    main()
