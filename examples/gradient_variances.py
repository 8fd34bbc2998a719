"""Why everyone reparameterises: the variance of each estimator of the ELBO's gradient, as a VAE learns.

    python examples/gradient_variances.py --out variances.png

trains a small VAE on 8 x 8 digits, stops now and then, draws each estimator's gradient of the encoder many times for
the same images, and plots the summed variance of its entries. The score function knows the bound only by its values and
pays for it by orders of magnitude; the control variate helps; the pathwise gradient sees slopes. With the KL in closed
form one source of noise less is left; without the score part of the pathwise gradient (sticking the landing) noise
vanishes as the posterior becomes exact. All have the same mean.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import tightbound as tb
from tightbound.models import Terms
from tightbound.objectives import elbo, score_function, sticking_the_landing
from tightbound.recipes import VAE

Estimator = Callable[[Terms], Tensor]
ESTIMATORS: dict[str, tuple[Estimator, bool]] = {
    "score function": (partial(score_function, baseline=False), False),
    "score function, control variate": (score_function, False),
    "pathwise, all by samples (form A)": (partial(elbo, analytic=False), True),
    "pathwise, closed-form KL (form B)": (partial(elbo, analytic=True), True),
    "sticking the landing": (sticking_the_landing, True),
}
SAMPLES = 4


def variance(model: tb.LatentVariableModel, x: Tensor, estimator: Estimator, pathwise: bool, draws: int) -> float:
    """Summed variance of the entries of the encoder's gradient, for one mean over the images x."""
    parameters = list(model.posterior.parameters())
    gradients: list[Tensor] = []
    for _ in range(draws):
        bound = estimator(model().terms(x, SAMPLES, pathwise=pathwise)).mean()
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(bound, parameters)]))
    return torch.stack(gradients).var(0).sum().item()


def measure(steps: int, stops: int, draws: int) -> tuple[list[int], dict[str, list[float]]]:
    """Variances of all estimators at several steps of training by the pathwise one."""
    torch.manual_seed(0)
    data = tb.load_data("digits")
    model = VAE(latent_dim=8, hidden=(64,)).build(data.spec)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    watched = data.valid.batch(torch.arange(20)).x
    places = sorted({round(steps * (i / max(1, stops - 1)) ** 2) for i in range(stops)})
    found: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    for step in range(steps + 1):
        if step in places:
            for name, (estimator, pathwise) in ESTIMATORS.items():
                found[name].append(variance(model, watched, estimator, pathwise, draws))
        x = data.train.batch(torch.randint(len(data.train), (100,))).x
        loss = -elbo(model().terms(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return places, found


def draw(places: list[int], found: dict[str, list[float]], path: Path) -> None:
    """The variances as curves over training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), color in zip(
        found.items(), ["#d55e00", "#e69f00", "#0072b2", "#56b4e9", "#009e73"], strict=True
    ):
        axes.plot(places, values, "o-", color=color, ms=4, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("training step")
    axes.set_ylabel("variance of the encoder's gradient [nats²]")
    axes.grid(True, alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gradient_variances.png"), help="the picture")
    parser.add_argument("--steps", type=int, default=1500, help="training steps")
    parser.add_argument("--stops", type=int, default=6, help="how often variances are measured")
    parser.add_argument("--draws", type=int, default=200, help="gradients drawn for each")
    chosen = parser.parse_args(arguments)
    places, found = measure(chosen.steps, chosen.stops, chosen.draws)
    width = max(map(len, found))
    print(f"{'step':{width}}  " + "  ".join(f"{p:>9}" for p in places))
    for name, values in found.items():
        print(f"{name:{width}}  " + "  ".join(f"{v:9.3g}" for v in values))
    draw(places, found, chosen.out)
    print(chosen.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
