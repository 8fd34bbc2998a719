"""An autoencoder against a VAE: the same networks, the same two-dimensional code, the same digits.

Both reconstruct about equally well. What the autoencoder lacks is a distribution of its codes: they lie wherever
training left them, four of ten outside the circle in which N(0, I) has 95 % of its mass, so that decodings of
z ~ N(0, I) miss kinds of digits. The codes of the VAE follow its prior. How digit-like a single decoding is differs
less than one may think, and from seed to seed: in two dimensions there is little empty space.

With 16 latents, three maps by t-SNE: the autoencoder and the VAE both keep the kinds of digits apart, and a VAE whose
reconstruction is a mean over pixels, beside a KL that is a sum, does not. Divided by the number of pixels D, its loss
is that of a KL weight of D: --beta 64 for 8 x 8 digits, with which every code is the prior's.

    python examples/ae_against_vae.py --out ae-against-vae

prints tables of numbers, and writes them as table.md and numbers.json beside the pictures ae_against_vae.png and
maps.png and the runs, which can be looked at further: tightbound compare ae-against-vae/vae ae-against-vae/ae, or
tightbound compare ae-against-vae/maps/* --out maps.html. It takes a minute and a half.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import tightbound as tb
from tightbound.data import Data, Split
from tightbound.evaluation import reconstruction_errors
from tightbound.evaluation.baselines.components import fit_pca, pca_error
from tightbound.objectives import Elbo
from tightbound.reporting.colors import CLASS_COLORS
from tightbound.reporting.maps import tsne
from tightbound.views.latents import posterior_means
from tightbound.views.walks import interpolation

HIDDEN = (256, 128)
LIKELIHOOD = "discretized-logistic"
PRIOR_RADIUS = 2.4477
"""Within this distance of 0 lie 95 % of N(0, I) in two dimensions."""
MAPPED = 16
"""Latents of the models that are mapped by t-SNE."""
TITLES = {"ae": "autoencoder", "mean": "VAE, mean over pixels (KL dominates)", "vae": "VAE"}


def train(data: Data, epochs: int, out: Path, seed: int) -> dict[str, tb.LatentVariableModel]:
    """Both models from the same networks."""
    same: dict[str, Any] = {"latent_dim": 2, "hidden": HIDDEN, "likelihood": LIKELIHOOD}
    recipes = {"ae": tb.recipes.Autoencoder(**same), "vae": tb.recipes.VAE(**same)}
    models = {}
    for name, recipe in recipes.items():
        torch.manual_seed(seed)
        models[name] = recipe.build(data.spec)
        tb.train(models[name], data, out=out / name, epochs=epochs, seed=seed, pictures=False)
    return models


@torch.no_grad()
def decode_noise(model: tb.LatentVariableModel, n: int, seed: int) -> Tensor:
    """Means of p(x|z) at z ~ N(0, I): the prior of the VAE, and a guess for the autoencoder, which has none."""
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return model.likelihood(z).mean


@torch.no_grad()
def rebuild(model: tb.LatentVariableModel, x: Tensor) -> Tensor:
    return model.likelihood(model.posterior(x).mean).mean


def nearest(images: Tensor, to: Tensor) -> Tensor:
    """Squared distance of each image to the nearest of others."""
    return torch.cdist(images.flatten(1).double(), to.flatten(1).double()).min(1).values.square()


def images_of(split: Split) -> Tensor:
    return split.batch(torch.arange(len(split))).x


def measure(model: tb.LatentVariableModel, data: Data, n: int, seed: int) -> dict[str, float]:
    """What the code keeps, where codes lie, and what random codes decode to."""
    codes, labels = posterior_means(model, data.train)
    test_codes, test_labels = posterior_means(model, data.test)
    neighbours = KNeighborsClassifier(min(10, len(codes))).fit(codes.numpy(), labels)
    real, test = images_of(data.train), images_of(data.test)
    noise, rebuilt = decode_noise(model, n, seed), rebuild(model, test)
    typical = nearest(rebuilt, real).quantile(0.9)  # of the decoder's pictures where it was trained: alike smooth
    distance = nearest(noise, real)
    return {
        "squared error of reconstructions": reconstruction_errors(model, data.test)[0].mean().item(),
        "classes found by 10 neighbours of the code": float(neighbours.score(test_codes.numpy(), test_labels)),
        "largest standard deviation of the codes": codes.std(0).max().item(),
        "codes where N(0, I) has 95 %": (test_codes.norm(dim=1) < PRIOR_RADIUS).double().mean().item(),
        "decoded noise: squared distance to the nearest digit": distance.mean().item(),
        "decoded noise: as near as nine of ten reconstructions": (distance < typical).double().mean().item(),
        "digits: squared distance to the nearest decoded noise": nearest(test, noise).mean().item(),
    }


def train_maps(data: Data, epochs: int, out: Path, seed: int) -> dict[str, tb.LatentVariableModel]:
    """The three systems of the maps: the same networks, and for the second a KL weight of one for each pixel."""
    same: dict[str, Any] = {"latent_dim": MAPPED, "hidden": HIDDEN, "likelihood": LIKELIHOOD}
    recipes = {
        "ae": tb.recipes.Autoencoder(**same),
        "mean": tb.recipes.VAE(**same, objective=Elbo(beta=float(data.spec.dimensions))),
        "vae": tb.recipes.VAE(**same),
    }
    models = {}
    for name, recipe in recipes.items():
        torch.manual_seed(seed)
        models[name] = recipe.build(data.spec)
        tb.train(models[name], data, out=out / name, epochs=epochs, seed=seed, pictures=False)
    return models


def measure_map(model: tb.LatentVariableModel, data: Data) -> dict[str, float | None]:
    """What the code of a mapped model carries."""
    (codes, labels), (test, test_labels) = posterior_means(model, data.train), posterior_means(model, data.test)
    neighbours = KNeighborsClassifier(min(10, len(codes))).fit(codes.numpy(), labels)
    found = tb.evaluate(model, data.test, k=10)
    return {
        "squared error of reconstructions": reconstruction_errors(model, data.test)[0].mean().item(),
        "KL [nats]": found.kl and found.kl.value,
        "classes found by 10 neighbours of the code": float(neighbours.score(test.numpy(), test_labels)),
    }


def draw_maps(models: dict[str, tb.LatentVariableModel], test: Split, path: Path) -> None:
    """t-SNE of the test digits' codes, one panel for each."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    for axes, (name, model) in zip(figure.subplots(1, len(models)), models.items(), strict=True):
        codes, labels = posterior_means(model, test)
        assert labels is not None
        points = tsne(codes.double().numpy())
        for label in labels.unique().tolist():
            own = points[(labels == label).numpy()]
            axes.scatter(own[:, 0], own[:, 1], s=12, lw=0, color=CLASS_COLORS[label % len(CLASS_COLORS)], label=label)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(TITLES[name])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=90)


def map_table(found: dict[str, dict[str, float | None]]) -> str:
    """The numbers of the maps as Markdown."""
    lines = [f"| {MAPPED} latents | {' | '.join(TITLES[name] for name in found)} |", "|---" * (1 + len(found)) + "|"]
    for row in found["vae"]:
        cells = ("–" if (value := each[row]) is None else f"{value:.3f}" for each in found.values())
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def table(found: dict[str, dict[str, float]], pca: float) -> str:
    """The numbers as Markdown."""
    lines = ["| | autoencoder | VAE |", "|---|---|---|"]
    lines += [f"| {name} | {value:.3f} | {found['vae'][name]:.3f} |" for name, value in found["ae"].items()]
    return "\n".join(lines) + f"\n\nPCA with two components reconstructs with squared error {pca:.3f}.\n"


def picture(models: dict[str, tb.LatentVariableModel], data: Data, path: Path, seed: int) -> None:
    """Latent map, decoded noise and interpolations of both, side by side."""
    figure = Figure(figsize=(10, 12), layout="constrained")
    axes = figure.subplots(3, 2, height_ratios=(5, 5, 2.2))
    for column, (name, model) in enumerate(models.items()):
        title = {"ae": "autoencoder", "vae": "VAE"}[name]
        latent_map(axes[0, column], model, data.test, title)
        tiles(axes[1, column], decode_noise(model, 64, seed), 8, f"{title}: decodings of z ~ N(0, I)")
        walk = interpolation(model, *pairs(data.test), steps=9, path="linear").mean
        tiles(axes[2, column], walk.flatten(0, 1), 9, f"{title}: on straight lines between two codes")
    figure.savefig(path, dpi=110)


def pairs(test: Split) -> tuple[Tensor, Tensor]:
    """First examples of a few classes, two by two."""
    labels = test.labels
    assert labels is not None
    first = [int((labels == label).nonzero()[0, 0]) for label in labels.unique()[:6]]
    x = test.batch(torch.tensor(first)).x
    return x[0::2], x[1::2]


def latent_map(axes: Axes, model: tb.LatentVariableModel, test: Split, title: str) -> None:
    codes, labels = posterior_means(model, test)
    assert labels is not None
    for label in labels.unique().tolist():
        own = codes[labels == label]
        color, middle = CLASS_COLORS[label % len(CLASS_COLORS)], own.median(0).values
        axes.scatter(own[:, 0].numpy(), own[:, 1].numpy(), s=14, color=color, lw=0)
        axes.text(float(middle[0]), float(middle[1]), str(label), ha="center", va="center", weight="bold")
    turn = torch.linspace(0, 2 * torch.pi, 200)
    circle = (PRIOR_RADIUS * torch.stack([turn.cos(), turn.sin()])).numpy()
    axes.plot(*circle, ":", color="black", label="95 % of N(0, I)")
    axes.set_aspect("equal", "datalim")
    axes.legend(loc="upper right")
    axes.set_title(f"{title}: codes of the test digits")


def tiles(axes: Axes, images: Tensor, columns: int, title: str) -> None:
    n, _, height, width = images.shape
    framed = torch.nn.functional.pad(images[:, 0], (0, 1, 0, 1), value=1.0)
    sheet = framed.reshape(n // columns, columns, height + 1, width + 1).permute(0, 2, 1, 3)
    axes.imshow(sheet.reshape(n // columns * (height + 1), -1).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    axes.set_title(title)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="An autoencoder against a VAE, side by side.")
    parser.add_argument("--out", type=Path, default=Path("ae-against-vae"), help="folder for runs, table and picture")
    parser.add_argument("--data", default="digits", help="grey images with labels")
    parser.add_argument("--epochs", type=int, default=200, help="epochs of each training")
    parser.add_argument("-n", type=int, default=1000, help="random codes to decode")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    data = tb.load_data(chosen.data)
    models = train(data, chosen.epochs, chosen.out, chosen.seed)
    found = {name: measure(model, data, chosen.n, chosen.seed) for name, model in models.items()}
    pca = pca_error(fit_pca(data.train, 2), data.test).mean().item()
    picture(models, data, chosen.out / "ae_against_vae.png", chosen.seed)
    mapped = train_maps(data, chosen.epochs, chosen.out / "maps", chosen.seed)
    maps = {name: measure_map(model, data) for name, model in mapped.items()}
    draw_maps(mapped, data.test, chosen.out / "maps.png")
    (chosen.out / "numbers.json").write_text(
        json.dumps({**found, "pca": pca, "maps": maps}, indent=2) + "\n", encoding="utf8"
    )
    (chosen.out / "table.md").write_text(f"{table(found, pca)}\n{map_table(maps)}", encoding="utf8")
    print(table(found, pca), map_table(maps), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
