"""A training step of two players beside bare loops with the same networks and losses, in turn in one process.

    python benchmarks/two_players.py [--rounds 15] [--factors 4 8] [--perceptual features] [--crop 64]

Two loops are compared with. The bare one knows its adaptive weight and has two backward passes, one for each player.
The published one takes the adaptive weight from two further gradients at the decoder's last layer, at every step.
Times are those of the processor; a ratio is the median over the rounds of theirs over ours.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tightbound.data import Data
from tightbound.networks.perceptual import PerceptualNetwork
from tightbound.options.training import TrainingOptions
from tightbound.recipes import KLAutoencoder
from tightbound.runtime.memory import keep_freed_memory
from tightbound.training.engine import Engine
from tightbound.training.start import build_seeded
from tightbound.training.steps.adversarial import AdversarialStep
from tightbound.training.steps.choice import step_for

BATCH, WIDTH = 8, 32
CHANNELS = {4: (16, 32, 64), 8: (16, 32, 64, 64)}
WEIGHT, BETA, LAMBDA = 0.5, 1e-6, 100.0


class Loop:
    """The same step in a few lines of torch.

    Args:
        step: Its networks.
        adaptive: Whether the adaptive weight is computed.
        judged: Whether the discriminator judges yet.
    """

    def __init__(self, step: AdversarialStep, adaptive: bool, judged: bool = True) -> None:
        self.adaptive, self.judged = adaptive, judged
        model: Any = step.model
        self.encoder, self.decoder = model.posterior.network, model.likelihood.network
        self.log_scale: Tensor = model.likelihood.log_scale
        self.judge: nn.Module = step.get_submodule("discriminator")
        self.perceptual: PerceptualNetwork | None = step.perceptual
        self.of_model = torch.optim.AdamW(step.model.parameters(), 1e-3, fused=True)
        self.of_judge = torch.optim.AdamW(self.judge.parameters(), 1e-3, fused=True)

    def __call__(self, x: Tensor) -> None:
        error, divergence, image = self.errors(x)
        loss = error + BETA * divergence
        if self.judged:
            fooling = -self.judge(image).mean()
            loss = loss + WEIGHT * (self.weight(error, fooling) if self.adaptive else LAMBDA) * fooling
        self.of_model.zero_grad()
        (loss * self.log_scale.detach().neg().exp()).backward()
        self.of_model.step()
        self.of_judge.zero_grad()
        real, fake = self.judge(2 * x - 1), self.judge(image.detach())
        (torch.relu(1 - real).mean() / 2 + torch.relu(1 + fake).mean() / 2).backward()
        self.of_judge.step()

    def errors(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The absolute error and the perceptual distance, the divergence, and the image."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        image, data = 2 * self.decoder(z) - 1, 2 * x - 1
        scale = self.log_scale
        error = ((image - data).abs() * (-scale).exp() + scale) * scale.detach().exp()
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean() / 2
        total = error.flatten(1).sum(1).mean()
        if self.perceptual is not None:
            total = total + x[0].numel() * self.perceptual(data, image).mean()
        return total, divergence, image

    def weight(self, error: Tensor, fooling: Tensor) -> Tensor:
        """The adaptive weight."""
        last = self.decoder.conv_out.weight
        one, other = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (error, fooling))
        return (one.norm() / (other.norm() + 1e-4)).clamp(0, 1e4).detach()


def measured(factor: int, perceptual: str, side: int, rounds: int, share: float) -> dict[str, float]:
    """Milliseconds of an image of every contender, and the ratios to ours.

    Args:
        factor: Of the autoencoder.
        perceptual: The perceptual network.
        side: Of the images.
        rounds: Rounds, of one step each.
        share: Where in the run the steps are: 0 before the discriminator judges.
    """
    images = torch.randint(256, (BATCH * 4, side, side, 3), dtype=torch.uint8).numpy()
    data = Data.from_arrays(images, images[:4], images[:4])
    recipe = KLAutoencoder(
        factor=cast(Any, factor),
        channels=CHANNELS[factor],
        perceptual=perceptual,
        adversarial="hinge",
        discriminator_width=WIDTH,
        adversarial_start=0.2,
    )

    def step() -> AdversarialStep:
        found = step_for(build_seeded(recipe, data.spec, 0), None, len(data.train), 0)
        assert isinstance(found, AdversarialStep)
        return found

    options = TrainingOptions(steps=1000, batch_size=BATCH, log_every=1000, device="cpu", precision="32-true")
    engine, x = Engine(step(), data.train, options), data.train.batch(torch.arange(BATCH)).x
    clock, judged = engine.clock.at(round(1000 * share) + 1), share >= 0.2
    runs: dict[str, Callable[[], object]] = {"ours": lambda: engine.advance(clock)}
    for name, adaptive in (("bare", False), ("published", True)):
        runs[name] = functools.partial(Loop(step(), adaptive, judged), x)
    return _summary(_in_turn(runs, rounds))


def _in_turn(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of every run in every round but the first two; which is first rotates."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for i in range(-2, rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            begin = time.process_time()
            runs[name]()
            if i >= 0:
                times[name].append(time.process_time() - begin)
    return times


def _summary(times: dict[str, list[float]]) -> dict[str, float]:
    found = {f"{name} ms": 1000 * statistics.median(each) / BATCH for name, each in times.items()}
    for name in ("bare", "published"):
        ratios = [theirs / ours for ours, theirs in zip(times["ours"], times[name], strict=True)]
        found[f"{name} / ours"] = statistics.median(ratios)
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--factors", type=int, nargs="+", default=[4, 8], choices=list(CHANNELS))
    parser.add_argument("--perceptual", default="features")
    parser.add_argument("--crop", type=int, default=64)
    o = parser.parse_args(words)
    keep_freed_memory()
    for factor in o.factors:
        for share, when in ((0.0, "before the start"), (0.6, "judged")):
            found = measured(factor, o.perceptual, o.crop, o.rounds, share)
            told = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
            print(f"f = {factor}, {o.crop} x {o.crop}, {o.perceptual}, {when}: {told}", flush=True)


if __name__ == "__main__":
    main()
