"""The floor: what one writes by hand, on tensors in memory, with nothing around it."""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from common import BATCH, LEARNING_RATE, StepClock, load_weights, measure_nll, networks, options, report, synthetic
from torch import Tensor, nn
from torch.nn import functional as F


def loss(nets: nn.ModuleDict, x: Tensor) -> Tensor:
    """Negative ELBO, nats, averaged over the batch."""
    mean, log_std = nets["encoder"](x).chunk(2, dim=-1)
    std = log_std.exp()
    logits = nets["decoder"](mean + std * torch.randn_like(mean))
    missed = F.binary_cross_entropy_with_logits(logits.flatten(1), x.flatten(1), reduction="none").sum(1)
    kl = 0.5 * (mean.square() + std.square() - 1 - 2 * log_std).sum(1)
    return (missed + kl).mean()


def train(nets: nn.ModuleDict, given: argparse.Namespace) -> dict[str, Any]:
    x, clock = synthetic(given.examples).float(), StepClock()
    fused = given.optimizer == "fused"
    optimizer = torch.optim.Adam(nets.parameters(), lr=LEARNING_RATE, fused=fused)
    bf16 = given.precision == "bf16-mixed"
    step_loss: Any = torch.compile(loss) if given.compile else loss
    for _ in range(given.epochs):
        for batch in torch.randperm(len(x)).split(BATCH):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                value = step_loss(nets, x[batch])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    if given.save is not None:
        torch.save(nets.state_dict(), given.save)
    return clock.result(given.examples)


@torch.no_grad()
def nll(nets: nn.ModuleDict, x: Tensor, k: int) -> float:
    """Importance-weighted, all samples of an image at once."""
    total, (means, log_stds) = 0.0, nets["encoder"](x).chunk(2, dim=-1)
    for image, mean, log_std in zip(x, means, log_stds, strict=True):
        noise = torch.randn(k, len(mean))
        z = mean + log_std.exp() * noise
        logits = nets["decoder"](z).flatten(1)
        reached = logits @ image.flatten() - F.softplus(logits).sum(1)
        weights = reached + 0.5 * (noise.square() - z.square()).sum(1) + log_std.sum()
        total -= weights.logsumexp(0).item() - math.log(k)
    return total / len(x)


def main() -> None:
    given = options()
    torch.manual_seed(0)
    nets = load_weights(networks(given.network), given.weights)
    if given.task == "train":
        report(train(nets, given))
    else:
        nets.eval()
        report(measure_nll(lambda x, k: nll(nets, x, k), given))


if __name__ == "__main__":
    main()
