"""A laboratory of posterior collapse: three ways to make latents die, and what brings them back.

The first patient has an autoregressive decoder that explains pixels by pixels, the second a KL weight of 30, the third
is a chain of two latents, of which the upper one dies. Each remedy changes one thing, and the weights of the last step
are measured.

Why the latents die at the start: as long as the codes' means are small, a nat of mutual information costs a nat of KL
to a standard normal prior, and the decoder, which has pixels to learn from, earns less than a nat with it. Annealing,
a small weight and free bits lower the price; a decoder of independent pixels earns more. A prior whose shape no single
posterior can take lowers it too: the factors of q are as narrow as its narrowest directions, and along the wide ones
means move almost for free. A prior that merely learns, like the VampPrior, shrinks around the dead codes instead.

In a chain the upper latent sees only a sample of the lower one, which at the start is noise. Top-down, every layer sees
the data itself.

    python examples/collapse_laboratory.py --out collapse

prints a table of NLL, active units and mutual information, and writes it as collapse/collapse.md, .json and .png. It
takes about half an hour on one core; ``--quick`` does it on 8 x 8 digits in a minute, too short to show more
than that it runs; ``--only`` runs some cells, ``--join`` puts the tables of several folders together.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.distributions import MultivariateNormal

import tightbound as tb
from tightbound.conditions import Given
from tightbound.data import Data, DataSpec
from tightbound.evaluation import decompose, diagnose
from tightbound.likelihoods import Gaussian
from tightbound.networks import MLP
from tightbound.options.choices import changed
from tightbound.posteriors import DiagonalGaussian
from tightbound.priors import StandardNormal
from tightbound.recipes import HVAE, VAE, Ladder
from tightbound.recipes.base import Recipe


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
    grids: tuple[int, ...]
    lr: float = 4e-3


FULL = Plan("mnist", 14, 20_000, 3, 16, 32, 5, (256,), 500, 100, (1, 7))
QUICK = Plan("digits", None, 1_000, 4, 8, 8, 2, (32,), 100, 20, (1, 4))


@dataclass(frozen=True)
class Cell:
    """One training: what differs from the patient it belongs to."""

    name: str
    patient: str
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    prior: str = ""
    recipe: Literal["vae", "hvae", "ladder"] = "vae"


SLOW = {"lr": 1e-3}
"""At four times this rate both latents of the chain die."""
STRONG = {"likelihood": "autoregressive"}
CELLS = [
    Cell("autoregressive decoder", "decoder", STRONG),
    Cell("+ annealing over three quarters", "decoder", STRONG, {"beta_warmup": 0.75}),
    Cell("+ beta = 0.25", "decoder", {**STRONG, "beta": 0.25}),
    Cell("+ free bits, 0.25 nats per dimension", "decoder", {**STRONG, "free_bits": 0.25}),
    Cell("+ weaker decoder: independent pixels", "decoder", {"likelihood": "bernoulli"}),
    Cell("+ structured prior: a chain, neighbours 0.95 correlated", "decoder", STRONG, prior="chain"),
    Cell("+ hierarchical prior: narrow about a function of 4 latents", "decoder", STRONG, prior="hierarchical"),
    Cell("+ shorter reach: one masked layer", "decoder", {**STRONG, "pixel_layers": 1}),
    Cell("+ learned prior: Vamp, 500 pseudo-inputs", "decoder", {**STRONG, "prior": "vamp", "components": 500}),
    Cell("KL weight of 30", "weight", {"beta": 30.0}),
    Cell("+ beta = 1", "weight"),
    Cell("+ annealing from 0 to 1 in place of 30", "weight", {}, {"beta_warmup": 0.75}),
    Cell("+ free bits, 0.5 nats per dimension", "weight", {"beta": 30.0, "free_bits": 0.5}),
    Cell("chain of 16 and 8 latents", "hierarchy", {}, SLOW, recipe="hvae"),
    Cell("+ annealing over three quarters of the run", "hierarchy", {}, {**SLOW, "beta_warmup": 0.75}, recipe="hvae"),
    Cell("+ free bits, 1 nat per layer", "hierarchy", {"free_bits": 1.0, "free_bits_group": 0}, SLOW, recipe="hvae"),
    Cell("+ top-down: a ladder of two groups", "hierarchy", {}, SLOW, recipe="ladder"),
    Cell("+ one layer: 16 latents", "hierarchy", {"layers": (16,)}, SLOW, recipe="hvae"),
]


def load(plan: Plan) -> Data:
    """The images, binarised anew at every visit, as many as the plan says."""
    data = tb.load_data(plan.data, binarize="dynamic", **({"image_size": plan.side} if plan.side else {}))
    train = data.train.subset(min(plan.train, len(data.train)))
    return dataclasses.replace(data, train=train, valid=data.valid.subset(0))  # nothing selects among the steps


def build(cell: Cell, plan: Plan, data: Data) -> tb.LatentVariableModel:
    """The model of a cell, from the same seed."""
    torch.manual_seed(0)
    model = changed(recipe_of(cell, plan), cell.options).build(data.spec)
    if cell.prior == "chain":
        model.prior = Chain(plan.latents)
    if cell.prior == "hierarchical":
        model.prior = hierarchical_prior(plan.latents)
    return model


def recipe_of(cell: Cell, plan: Plan) -> Recipe:
    """The recipe of a cell, before its own options."""
    if cell.recipe == "hvae":
        return HVAE(layers=(plan.latents, plan.latents // 2), hidden=plan.hidden)
    if cell.recipe == "ladder":
        return Ladder(grids=plan.grids, groups=(1,), channels=plan.channels // 2)
    decoder = {"pixel_channels": plan.channels, "pixel_layers": plan.layers}
    return changed(VAE(latent_dim=plan.latents, hidden=plan.hidden), decoder)


class Chain(nn.Module):
    """A Gaussian chain, each latent correlated with its neighbours: any module that gives a distribution is a prior.

    Preventing Posterior Collapse with delta-VAEs (Razavi, van den Oord, Poole and Vinyals, 2019).
    """

    def __init__(self, latents: int, correlation: float = 0.95) -> None:
        super().__init__()
        distance = (torch.arange(latents) - torch.arange(latents).unsqueeze(1)).abs()
        self.register_buffer("factor", torch.linalg.cholesky(correlation ** distance.float()))

    def forward(self, c: Given | None = None) -> MultivariateNormal:
        return MultivariateNormal(self.factor.new_zeros(len(self.factor)), scale_tril=self.factor, validate_args=False)


def hierarchical_prior(latents: int, deeper: int = 4, std: float = 0.3) -> tb.LatentVariableModel:
    """p(z) that is itself a VAE, its decoder fixed: a latent-variable model stands where any prior does."""
    upper = DataSpec("z", (latents,), levels=None)
    network = MLP(deeper, latents, (64,), "tanh")
    for name, p in network.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(p, std=2 / p.shape[1] ** 0.5)
    likelihood = Gaussian(network, (deeper,), upper.shape, scale="fixed", variance=std**2).requires_grad_(False)
    posterior = DiagonalGaussian(MLP(upper.shape, 2 * deeper, (256,)), upper.shape)
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
        **(layers_of(model, data, plan) if cell.patient == "hierarchy" else {}),
    }


def layers_of(model: tb.LatentVariableModel, data: Data, plan: Plan) -> dict[str, Any]:
    """What a diagnosis says of each layer."""
    found = diagnose(model, data.test.evenly_spaced(1000), gap_examples=20, k=plan.k)
    layers = [(each.name, each.kl, each.alone.value, each.decoder_use.value) for each in found.layers or ()]
    return {
        "verdict": found.verdict,
        "first_dead": found.first_dead,
        "layers": {name: {"kl": kl, "alone": alone, "used": used} for name, kl, alone, used in layers},
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


def layer_table(rows: list[dict[str, Any]]) -> str:
    """What the diagnosis says of the layers of hierarchies, as Markdown; empty if there are none."""
    lines = list[str]()
    for r in rows:
        if layers := r.get("layers"):
            told = [", ".join(f"{name} {each[what]:.2f}" for name, each in layers.items()) for what in MEASURED]
            name = r["cell"] if r["cell"].startswith("+") else f"**{r['cell']}**"
            lines.append(f"| {name} | {' | '.join(told)} | {r['verdict']} | {r['first_dead'] or '–'} |")
    head = "| | KL [nats] | alone [nats] | used [nats] | diagnosis | first dead layer |\n|---|---|---|---|---|---|\n"
    return "\n" + head + "\n".join(lines) + "\n" if lines else ""


MEASURED = ("kl", "alone", "used")


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
    axes.set_xlabel("I(x; z) [nats]; patients orange, treated blue")
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("collapse"), help="folder for runs, table and picture")
    parser.add_argument("--quick", action="store_true", help="small digits, in a minute")
    parser.add_argument("--only", nargs="*", type=int, help="cells by their number, from 0")
    parser.add_argument("--join", nargs="*", type=Path, default=[], help="folders whose rows are taken over")
    chosen = parser.parse_args(arguments)
    plan = QUICK if chosen.quick else FULL
    rows = [row for folder in chosen.join for row in json.loads((folder / "collapse.json").read_text(encoding="utf8"))]
    data = None if chosen.join else load(plan)
    for i, cell in enumerate(CELLS):
        if data is not None and (chosen.only is None or i in chosen.only):
            rows.append({"number": i, **run(cell, plan, data, chosen.out / f"cell-{i}")})
            print(json.dumps(rows[-1]), flush=True)
    rows.sort(key=lambda row: row["number"])
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "collapse.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf8")
    written = table(rows) + layer_table(rows)
    (chosen.out / "collapse.md").write_text(written, encoding="utf8")
    picture(rows, chosen.out / "collapse.png")
    print(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
