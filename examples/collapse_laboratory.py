"""A laboratory of posterior collapse: two ways to make the latents of a VAE die, and what brings them back.

The first patient has an autoregressive decoder that explains pixels by pixels, the second a KL weight of 30. Each
remedy changes one thing. All start from the same weights, and the weights of the last step are measured.

    python examples/collapse_laboratory.py --out collapse

prints a table of NLL, active units and mutual information, and writes it as collapse/collapse.md, .json and .png. It
takes about half an hour on one core; ``--quick`` does it on 8 x 8 digits in a minute, ``--only`` runs some cells.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import tightbound as tb
from tightbound.data import Data, DataSpec
from tightbound.evaluation import decompose
from tightbound.likelihoods import Gaussian
from tightbound.networks import MLP
from tightbound.posteriors import DiagonalGaussian
from tightbound.priors import StandardNormal
from tightbound.recipes import VAE


@dataclass(frozen=True)
class Plan:
    """Sizes of the laboratory."""

    data: str
    side: int | None
    train: int
    epochs: int
    latents: int
    channels: int
    layers: int
    hidden: tuple[int, ...]
    test: int
    k: int
    lr: float = 3e-3


FULL = Plan("mnist", None, 10_000, 5, 64, 16, 5, (256,), 300, 100)
QUICK = Plan("digits", None, 1_000, 4, 8, 8, 2, (32,), 100, 20)


@dataclass(frozen=True)
class Cell:
    """One training: what differs from the patient it belongs to."""

    name: str
    patient: str
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    hierarchical: bool = False


STRONG = {"likelihood": "autoregressive"}
CELLS = [
    Cell("autoregressive decoder", "decoder", STRONG),
    Cell("+ annealing over three quarters", "decoder", STRONG, {"beta_warmup": 0.75}),
    Cell("+ beta = 0.25", "decoder", {**STRONG, "beta": 0.25}),
    Cell("+ free bits, 0.25 nats per dimension", "decoder", {**STRONG, "free_bits": 0.25}),
    Cell("+ weaker decoder, pixels apart", "decoder", {"likelihood": "bernoulli"}),
    Cell("+ structured prior (Vamp, 500 pseudo-inputs)", "decoder", {**STRONG, "prior": "vamp", "components": 500}),
    Cell("+ hierarchical prior", "decoder", STRONG, hierarchical=True),
    Cell("KL weight of 30", "weight", {"beta": 30.0}),
    Cell("+ beta = 1", "weight"),
    Cell("+ free bits, 0.25 nats per dimension", "weight", {"beta": 30.0, "free_bits": 0.25}),
]


def load(plan: Plan) -> Data:
    """The images, binarised anew at every visit, as many as the plan says."""
    data = tb.load_data(plan.data, binarize="dynamic", **({"image_size": plan.side} if plan.side else {}))
    train = data.train.subset(min(plan.train, len(data.train)))
    return dataclasses.replace(data, train=train, valid=data.valid.subset(0))  # nothing selects among the steps


def build(cell: Cell, plan: Plan, data: Data) -> tb.LatentVariableModel:
    """The model of a cell, from the same seed."""
    torch.manual_seed(0)
    decoder = {"pixel_channels": plan.channels, "pixel_layers": plan.layers}
    recipe = VAE(latent_dim=plan.latents, hidden=plan.hidden, **{**decoder, **cell.options})
    model = recipe.build(data.spec)
    if cell.hierarchical:
        model.prior = hierarchical_prior(plan)
    return model


def hierarchical_prior(plan: Plan) -> tb.LatentVariableModel:
    """p(z) that is itself a VAE: a latent-variable model stands where any prior does."""
    d, deeper = plan.latents, max(2, plan.latents // 4)
    upper = DataSpec("z", (d,), levels=None)
    likelihood = Gaussian(MLP(deeper, 2 * d, plan.hidden), (deeper,), upper.shape, scale="network", variance=1.0)
    posterior = DiagonalGaussian(MLP(upper.shape, 2 * deeper, plan.hidden), upper.shape)
    return tb.LatentVariableModel(StandardNormal(deeper), likelihood, posterior)


def run(cell: Cell, plan: Plan, data: Data, out: Path) -> dict[str, Any]:
    """Trains one cell and measures what its latents do."""
    shutil.rmtree(out, ignore_errors=True)
    model = build(cell, plan, data)
    options: dict[str, Any] = {"epochs": plan.epochs, "batch_size": 100, "lr": plan.lr, "beta_warmup": 0.0}
    result = tb.train(model, data, out=out, pictures=False, clip_norm=50.0, **{**options, **cell.training})
    if result.stopped not in ("done", "early"):
        raise SystemExit(f"stopped on {result.stopped}")
    test = data.test.subset(torch.linspace(0, len(data.test) - 1, plan.test).long())
    parts = decompose(model, data.test, limit=2000)
    found = tb.evaluate(model, test, k=plan.k)
    nll = found.nll or found.elbo
    assert nll is not None
    return {
        "cell": cell.name,
        "patient": cell.patient,
        "nll": abs(nll.value),
        "nll_error": nll.standard_error,
        "bound": found.nll is None,
        "active_units": found.active_units,
        "mutual_information": parts.mutual_information.value,
        "kl": None if found.kl is None else found.kl.value,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| | NLL [nats] | active units | I(x; z) [nats] | KL [nats] |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        name = r["cell"] if r["cell"].startswith("+") else f"**{r['cell']}**"
        nll = f"{'≤ ' if r['bound'] else ''}{r['nll']:.2f} ± {r['nll_error']:.2f}"
        lines.append(f"| {name} | {nll} | {r['active_units']} | {r['mutual_information']:.2f} | {r['kl']:.2f} |")
    return "\n".join(lines) + "\n"


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Mutual information of every cell as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.4 * len(rows) + 1), layout="constrained")
    axes = figure.add_subplot()
    ill = [not r["cell"].startswith("+") for r in rows]
    axes.barh(
        range(len(rows)), [r["mutual_information"] for r in rows], color=["#d55e00" if i else "#0072b2" for i in ill]
    )
    axes.axvline(2.0, color="#808080", lw=1, ls=":")
    axes.set_yticks(range(len(rows)), [r["cell"] for r in rows])
    axes.invert_yaxis()
    axes.set_xlabel("mutual information I(x; z) [nats]; ill in orange, treated in blue")
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("collapse"), help="folder for runs, table and picture")
    parser.add_argument("--quick", action="store_true", help="small digits, in a minute")
    parser.add_argument("--only", nargs="*", type=int, help="cells by their number, from 0")
    chosen = parser.parse_args(arguments)
    plan = QUICK if chosen.quick else FULL
    data, rows = load(plan), []
    for i, cell in enumerate(CELLS):
        if chosen.only is None or i in chosen.only:
            rows.append(run(cell, plan, data, chosen.out / f"cell-{i}"))
            print(json.dumps(rows[-1]), flush=True)
    (chosen.out / "collapse.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf8")
    (chosen.out / "collapse.md").write_text(table(rows), encoding="utf8")
    picture(rows, chosen.out / "collapse.png")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
