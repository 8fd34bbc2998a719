"""One training step of a vdvae of 20 groups: ours, by hand, and the network alone; and the memory of its activations.

``bare`` walks the same modules with the bound written out on tensors; ``network`` maximises the likelihood alone, with
no KL. All three have the same optimiser.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import in_turn, report, synthetic
from torch import Tensor
from torch.nn import functional as F

from tightbound.data import DataSpec
from tightbound.models import LatentVariableModel
from tightbound.options.objectives import Elbo
from tightbound.posteriors import TopDownPosterior
from tightbound.recipes import VDVAE
from tightbound.training.steps.bound import BoundStep

SHAPE = (1, 28, 28)


def build(groups: int, channels: int, *, recompute: bool = False) -> LatentVariableModel:
    """A quarter of the groups on 1 x 1, the others on 7 x 7."""
    top = max(1, groups // 4)
    recipe = VDVAE(
        grids=(1, 7), groups=(top, groups - top), channels=channels, likelihood="bernoulli", recompute=recompute
    )
    torch.manual_seed(0)
    return recipe.build(DataSpec("pictures", SHAPE, levels=2))


def by_hand(model: LatentVariableModel, x: Tensor, kl: float = 1.0) -> Tensor:
    """Negative ELBO, nats, averaged over the batch."""
    q = model.posterior
    assert isinstance(q, TopDownPosterior)
    features, path, total = q.bottom_up(x), q.decoder, torch.zeros(len(x))
    h = path.begin(x, len(x))
    for group, arm, level in zip(path.path, q.arms, q.levels, strict=True):
        mean, log_std, h = group.prior(h)
        m, s = arm(h, features[level], mean, log_std)
        h = group.absorb(h, mean + log_std.exp() * (m + s * torch.randn_like(m)))
        if kl:
            total = total + 0.5 * (m.square() + s.square() - 1 - 2 * s.log()).flatten(1).sum(1)
    logits = path.output(h)
    missed = F.binary_cross_entropy_with_logits(logits.flatten(1).float(), x.flatten(1), reduction="none").sum(1)
    return (missed + kl * total).mean()


def steps(given: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Each contender's whole training step, on a model of its own."""
    x, one = synthetic(given.batch).float(), torch.ones(())
    runs: dict[str, Callable[[], object]] = {}
    for name in ("ours", "bare", "network"):
        model = build(given.groups, given.channels)
        ours = BoundStep(model, Elbo(), examples=given.batch)
        loss: Callable[[], Tensor] = {
            "ours": lambda ours=ours: -ours(x, one)[0].mean(),
            "bare": lambda model=model: by_hand(model, x),
            "network": lambda model=model: by_hand(model, x, kl=0.0),
        }[name]
        if given.compile:
            loss()  # as a training does: torch looks a KL up at its first call, which cannot be compiled
            loss = torch.compile(loss)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        runs[name] = lambda loss=loss, optimizer=optimizer: step(loss, optimizer, bf16=given.bf16)
    return runs


def step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, *, bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        value = loss()
    value.backward()
    optimizer.step()
    optimizer.zero_grad()


def kept(groups: int, channels: int, batch: int, *, recompute: bool) -> float:
    """MiB of tensors that the backward pass keeps, each storage once."""
    model, x = build(groups, channels, recompute=recompute), synthetic(batch).float()
    own, seen = {p.untyped_storage().data_ptr() for p in model.parameters()}, dict[int, int]()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = BoundStep(model, Elbo(), examples=batch)(x, torch.ones(()))
    assert held.requires_grad
    return sum(seen.values()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("step", "memory"))
    parser.add_argument("--groups", type=int, default=20)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.task == "step":
        times = in_turn(steps(given), given.turns, warm_up=2)
        report({"steps_per_second": {name: [1 / seconds for seconds in taken] for name, taken in times.items()}})
    else:
        depths = (5, 10, 20, 40)
        found = {n: [kept(n, given.channels, given.batch, recompute=again) for again in (False, True)] for n in depths}
        report({"mebibytes": found})


if __name__ == "__main__":
    main()
