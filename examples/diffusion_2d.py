r"""Diffusion of two numbers: where the scores of noised data point, and how samples follow them to the data.

Three sets are made whose density is known: two moons, eight Gaussians and a checkerboard. A small network learns each
in seconds. As the noise falls, the score first points to the middle of the data, then to the nearest part of them; from
there on samples follow the flow without noise.

For each set three numbers are printed, in nats: the entropy of the data, which no model can beat in the mean; the bound
of the chain that removes noise step by step; and the likelihood of the flow, the probability-flow ODE, with the same
network. They are numbers of two models, equal only where the network is exact: where the exact denoiser is known it is
measured too, and both numbers are the entropy.

    python examples/diffusion_2d.py --out diffusion-2d

writes a picture for each set, the numbers as numbers.json, and the runs, which can be looked at further:
tightbound report diffusion-2d/two-moons. It takes a minute and a half on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tightbound as tb
from tightbound.data import Data, Split
from tightbound.diffusion import Diffusion, Linear, MixtureOracle
from tightbound.recipes.diffusion import DiffusionRecipe
from tightbound.reporting.figures import png
from tightbound.reporting.level_figures import field_figure
from tightbound.views.diffusion import fields

EXAMPLES, TESTED = 20_000, 2_000
SQUARES = 4
"""Squares along a side of the checkerboard, each of side 1."""


def moons() -> MixtureOracle:
    """Two half circles with Gaussian noise around them, as many points in a row."""
    angle = torch.linspace(0, math.pi, 200)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
    return MixtureOracle(1.5 * (torch.cat([upper, lower]) - torch.tensor([0.5, 0.25])), std=0.12)


def ring(count: int = 8) -> MixtureOracle:
    """Gaussians on a circle."""
    angle = 2 * math.pi / count * torch.arange(count)
    return MixtureOracle(1.5 * torch.stack([angle.cos(), angle.sin()], dim=1), std=0.15)


def checkerboard(n: int) -> Tensor:
    """Points of every other square, all as likely: their entropy is the logarithm of the area."""
    row = torch.randint(SQUARES, (n,))
    column = 2 * torch.randint(SQUARES // 2, (n,)) + row % 2
    return torch.stack([column, row], dim=1) + torch.rand(n, 2) - SQUARES / 2


def entropy(name: str, x: Tensor) -> float:
    """The mean of -log p over these points, nats."""
    if name == "checkerboard":
        return math.log(SQUARES**2 / 2)
    return -ORACLES[name]().log_prob(x, torch.tensor(0.0)).mean().item()


ORACLES: dict[str, Callable[[], MixtureOracle]] = {"two-moons": moons, "eight-gaussians": ring}
DRAWS: dict[str, Callable[[int], Tensor]] = {
    "two-moons": lambda n: moons().sample(n),
    "eight-gaussians": lambda n: ring().sample(n),
    "checkerboard": checkerboard,
}
RECIPES: dict[str, type[DiffusionRecipe]] = {
    "vdm": tb.recipes.VDM,
    "score-sde": tb.recipes.ScoreSDE,
    "edm": tb.recipes.EDM,
    "rectified-flow": tb.recipes.RectifiedFlow,
}


def load(name: str, examples: int, tested: int, out: Path) -> Data:
    """A set of that name, written to a file, so that commands find it too."""
    torch.manual_seed(0)
    train, test, valid = (DRAWS[name](n).numpy() for n in (examples, tested, tested // 2))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.npz"
    np.savez(path, train=train, test=test, valid=valid)
    return tb.load_data(path, standardize="none")


def train(recipe: DiffusionRecipe, data: Data, steps: int, out: Path) -> Diffusion:
    """A model of the data; large batches, since two numbers cost little."""
    torch.manual_seed(0)
    model = recipe.build(data.spec)
    tb.train(model, data, out=out, steps=steps, batch_size=512, lr=3e-3, ema=0.99, pictures=False)
    assert isinstance(model, Diffusion)
    return model


def measured(model: Diffusion, test: Split) -> dict[str, float]:
    """The bound and the likelihood of the flow, nats, lower is better, with their standard errors."""
    found = tb.evaluate(model, test, method="ode")
    assert found.elbo is not None
    assert found.nll is not None
    nll = {"bound": -found.elbo.value, "flow": found.nll.value}
    errors = {"bound error": found.elbo.standard_error or 0.0, "flow error": found.nll.standard_error or 0.0}
    return nll | errors


def draw(model: Diffusion, test: Split, path: Path) -> None:
    """Score fields with the ways of samples, and samples beside data."""
    x = test.batch(torch.arange(len(test))).x
    samples = model().sample((len(x),), seed=0)
    figure = field_figure(x.double().numpy(), fields(model, x), samples.double().numpy())
    figure.patch.set(facecolor="white", alpha=1)
    path.write_bytes(png(figure))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The numbers as a table in Markdown."""
    lines = ["| data: denoiser | entropy | bound | likelihood of the flow |", "|---|---|---|---|"]
    for row in rows:
        values = (f"{row[name]:.3f} ± {row[name + ' error']:.3f}" for name in ("bound", "flow"))
        lines.append(f"| {row['data']}: {row['denoiser']} | {row['entropy']:.3f} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("diffusion-2d"), help="folder for pictures, numbers and runs")
    parser.add_argument("--recipe", choices=RECIPES, default="vdm", help="recipe of the models")
    parser.add_argument("--only", nargs="+", choices=DRAWS, default=list(DRAWS), help="data sets")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of each")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="training examples of each")
    parser.add_argument("--tested", type=int, default=TESTED, help="test examples of each")
    chosen = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for name in chosen.only:
        data = load(name, chosen.examples, chosen.tested, chosen.out)
        x = data.test.batch(torch.arange(len(data.test))).x
        model = train(RECIPES[chosen.recipe](channels=(128,)), data, chosen.steps, chosen.out / name)
        models = {chosen.recipe: model}
        if name in ORACLES:
            models["exact"] = Diffusion(ORACLES[name](), Linear(-12.0, 10.0), (2,), moments=model.moments)
        known = {"data": name, "entropy": entropy(name, x)}
        rows += [known | {"denoiser": kind} | measured(each, data.test) for kind, each in models.items()]
        draw(model, data.test, chosen.out / f"{name}.png")
    (chosen.out / "numbers.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
