r"""Why nobody trains on samples of the prior: naive Monte Carlo beside importance sampling and the ELBO.

The likelihood is an average over the prior, log p(x) = log E_{p(z)} p(x|z), so one might draw z from the prior, average
p(x|z) and climb. Of the samples only those count that explain x, and these get rare exponentially fast: where z tells I
nats of x, about e^I samples are needed for one that does.

A code that a hundred samples shall hit can tell about ln 100 = 4.6 nats.

First it is measured where the truth is known: x = W z + noise, with log p(x) exact and 1.39 nats, two bits, for each
latent, so that d latents want 4^d samples. Then VAEs of 2 and of 16 latents are trained on digits by the ELBO with one
sample of the posterior, and by naive Monte Carlo with a hundred of the prior (--objective naive-monte-carlo), and are
measured by annealed importance sampling, which needs no encoder. With two latents, which tell 3.6 nats, the naive way
wins, because it has no gap; with sixteen it cannot use them.

    python examples/naive_monte_carlo.py --out naive

prints both tables and writes them as naive/naive.md, .json and .png. It takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, Normal

import tightbound as tb
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.distributions import independent
from tightbound.evaluation import Annealing, Estimate, from_prior, likelihood, per_example
from tightbound.likelihoods import Gaussian
from tightbound.objectives import Elbo, LatentObjective, NaiveMonteCarlo
from tightbound.priors import StandardNormal

ENTRIES, GAIN = 64, 15.0
"""Entries of x, and the squared length of each column of W over the variance of the noise, which is 1."""
WIDE = 1.2
"""The proposal of importance sampling is the exact posterior, so many times too wide."""


class WidePosterior(nn.Module):
    """The exact posterior of x = W z + noise with orthogonal columns, a diagonal Gaussian, and a little too wide."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor, c: Given | None = None) -> Distribution:
        mean = x @ self.weight / (1 + GAIN)
        return independent(Normal(mean, torch.full_like(mean, WIDE / math.sqrt(1 + GAIN))), 1)


def linear_model(latents: int) -> tuple[tb.LatentVariableModel, MultivariateNormal]:
    """A linear Gaussian model, and the exact law of x."""
    weight = math.sqrt(GAIN) * torch.linalg.qr(torch.randn(ENTRIES, latents, dtype=torch.float64)).Q
    decoder = nn.Linear(latents, ENTRIES, bias=False).double()
    decoder.weight.data = weight
    px = Gaussian(decoder, (latents,), (ENTRIES,), variance=1.0).double()
    model = tb.LatentVariableModel(StandardNormal(latents).double(), px, WidePosterior(weight))
    covariance = weight @ weight.T + torch.eye(ENTRIES, dtype=torch.float64)
    return model, MultivariateNormal(torch.zeros(ENTRIES, dtype=torch.float64), covariance)


def estimate(latents: int, k: int, n: int) -> dict[str, float]:
    """Exact log p(x), and what k samples of the prior, or of a proposal, make of it: means over n examples."""
    torch.manual_seed(latents)
    model, px = linear_model(latents)
    x = px.sample((n,))
    exact, naive, weighted = px.log_prob(x), from_prior(model, x, k), per_example(model, x, k)
    return {
        "latents": latents,
        "exact": exact.mean().item(),
        "naive": naive["log_marginal"].mean().item(),
        "naive error": (naive["log_marginal"] - exact).square().mean().sqrt().item(),
        "naive effective samples": naive["effective_samples"].mean().item(),
        "importance error": (weighted["log_marginal"] - exact).square().mean().sqrt().item(),
        "importance effective samples": weighted["effective_samples"].mean().item(),
    }


def train(latents: int, objective: LatentObjective, data: Data, steps: int, digits: int, out: Path) -> Tensor:
    """A VAE of digits, and its log-likelihood by annealed importance sampling, of the same digits for all."""
    torch.manual_seed(0)
    model = tb.recipes.VAE(latent_dim=latents, hidden=(64,), objective=objective).build(data.spec)
    tb.train(model, data, out=out, steps=steps, lr=5e-3, pictures=False)
    test = data.test.subset(torch.linspace(0, len(data.test) - 1, digits).long())
    return likelihood(model, test, k=4, method="annealed", annealing=Annealing(steps=100)).log_marginal.double()


def compare(data: Data, samples: int, steps: int, digits: int, out: Path) -> list[dict[str, Any]]:
    """Both ways to train, at two sizes of the latent; differences are paired, example by example."""
    rows = []
    for latents in (2, 16):
        elbo = train(latents, Elbo(), data, steps, digits, out / f"elbo-{latents}")
        naive = train(latents, NaiveMonteCarlo(samples), data, steps, digits, out / f"naive-{latents}")
        values = {"elbo": -elbo, "naive": -naive, "difference": elbo - naive}
        rows.append({"latents": latents} | {name: asdict(Estimate.of(value)) for name, value in values.items()})
    return rows


def table(rows: Sequence[dict[str, float]], trained: Sequence[dict[str, Any]], k: int, samples: int) -> str:
    """Both measurements as Markdown."""
    heads = ("latents d", "4^d", "exact log p(x)", f"naive, k = {k:,}", "error", "effective samples")
    lines = [f"| {' | '.join(heads)} | importance sampling: error | effective samples |", "|---" * 8 + "|"]
    lines += [
        f"| {r['latents']} | {4.0 ** r['latents']:.3g} | {r['exact']:.2f} | {r['naive']:.2f} "
        f"| {r['naive error']:.2f} | {r['naive effective samples']:.1f} "
        f"| {r['importance error']:.2f} | {r['importance effective samples']:.0f} |"
        for r in rows
    ]
    names = (f"naive Monte Carlo, {samples} samples", "difference, paired")
    lines += ["", f"| latents | NLL trained by the ELBO, 1 sample | {' | '.join(names)} |", "|---" * 4 + "|"]
    for r in trained:
        cells = (
            f"{r[name]['value']:.2f} ± {r[name]['standard_error']:.2f}" for name in ("elbo", "naive", "difference")
        )
        lines.append(f"| {r['latents']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[dict[str, float]], trained: Sequence[dict[str, Any]], k: int, path: Path) -> None:
    """Error and effective samples against the number of latents, and the trained models as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    error, size, bars = figure.subplots(1, 3)
    latents = [r["latents"] for r in rows]
    for name, color in (("naive", "#d55e00"), ("importance", "#0072b2")):
        label = {"naive": "samples of the prior", "importance": f"of the posterior, {WIDE} times too wide"}[name]
        error.plot(latents, [r[f"{name} error"] for r in rows], "o-", color=color, label=label)
        size.plot(latents, [r[f"{name} effective samples"] for r in rows], "o-", color=color)
    error.set_ylabel("error of log p(x) [nats]")
    size.set_ylabel(f"effective samples of {k:,}")
    size.set_yscale("log")
    error.legend(frameon=False, fontsize=8)
    for axes in (error, size):
        axes.set_xscale("log", base=2)
        axes.set_xticks(latents, [str(d) for d in latents])
        axes.set_xlabel("latents")
        axes.grid(True, alpha=0.3)
    for place, (name, color) in enumerate((("elbo", "#0072b2"), ("naive", "#d55e00"))):
        heights = [r[name]["value"] for r in trained]
        bars.bar([i + 0.4 * place for i in range(len(trained))], heights, width=0.38, color=color, label=name)
    bars.set_xticks([i + 0.2 for i in range(len(trained))], [f"{r['latents']} latents" for r in trained])
    bars.set_ylim(min(r["elbo"]["value"] for r in trained) - 3)
    bars.legend(["trained by the ELBO", "by samples of the prior"], frameon=False, fontsize=8)
    bars.set_ylabel("NLL of test digits [nats]")
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("naive"), help="folder for runs, table and picture")
    parser.add_argument("-k", type=int, default=1000, help="samples of each estimate")
    parser.add_argument("-n", type=int, default=200, help="examples whose log p(x) is estimated")
    parser.add_argument("--steps", type=int, default=700, help="steps of each training")
    parser.add_argument("--samples", type=int, default=100, help="samples of the prior in a training step")
    parser.add_argument("--digits", type=int, default=100, help="test digits whose likelihood is measured")
    chosen = parser.parse_args(arguments)
    rows = [estimate(latents, chosen.k, chosen.n) for latents in (1, 2, 4, 8, 16, 32)]
    data = tb.load_data("digits")
    trained = compare(data, chosen.samples, chosen.steps, chosen.digits, chosen.out)
    found = table(rows, trained, chosen.k, chosen.samples)
    numbers = {"k": chosen.k, "samples": chosen.samples, "steps": chosen.steps, "estimates": rows, "trained": trained}
    (chosen.out / "naive.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf8")
    (chosen.out / "naive.md").write_text(found, encoding="utf8")
    picture(rows, trained, chosen.k, chosen.out / "naive.png")
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
