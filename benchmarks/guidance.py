"""Guided diffusion of clothes: likelihood beside a VAE's of the same time, steps of the sampler, strength of guidance.

`make reproduce` runs this. Results go to ``benchmarks/results/guidance-DATA.json``, and to ``docs/guidance.md``.

    python benchmarks/guidance.py --data fashion-mnist --minutes 60
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from reproduce import RESULTS, ROOT, provenance, tightbound
from timed import seconds_of, trained
from torch import Tensor

import tightbound as tb
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.diffusion.classifier import GuidedDiffusion
from tightbound.distributions import Sampling
from tightbound.evaluation import frechet_distance
from tightbound.models import Model
from tightbound.runtime.randomness import fixed_noise
from tightbound.training.classifier import Classifier, train_classifier
from tightbound.views.samples import grid, panels, samples, save_picture

PAGE = ROOT / "docs" / "guidance.md"
BATCH = 64
DRAWS = {"vdm": "-k 4", "vae": ""}
STEPS = (5, 10, 20, 50)
STRENGTHS = (0.0, 1.0, 2.0, 4.0)
MODELS = {
    "vdm": f"train vdm --condition class --blocks 1 --dropout 0 --lr 2e-3 --precision bf16-mixed --batch-size {BATCH}",
    "vae": f"train vae --network convolutional --latent-dim 32 --batch-size {BATCH}",
    "classifier": f"train noisy-classifier --lr 2e-3 --precision bf16-mixed --batch-size {BATCH}",
}


def run(data: str, name: str, minutes: float, n: int, again: bool) -> dict[str, Any]:
    """Trains what is not there yet, and measures it."""
    shares = {"vdm": minutes, "vae": minutes, "classifier": minutes / 4}
    folders = {kind: ROOT / "runs" / f"guidance-{name}-{kind}" for kind in MODELS}
    for kind, words in MODELS.items():
        trained(folders[kind], f"{words} --validation 0.02 --data {data}", shares[kind], again, BATCH)
    bits = {}
    for kind in ("vdm", "vae"):
        found = json.loads(tightbound(f"evaluate {folders[kind]} {DRAWS[kind]} --json"))
        bits[kind] = {"bits_per_dim": found["bits_per_dim"], "minutes": round(seconds_of(folders[kind], BATCH) / 60, 1)}
    loaded, model = tb.load_data(data), tb.load(folders["vdm"])
    judge = _Judge(loaded, n)
    guided = GuidedDiffusion(model, tb.load(folders["classifier"]))
    return {
        "name": name,
        "minutes": minutes,
        "samples": n,
        "likelihood": bits,
        "judge_accuracy": judge.own_accuracy,
        "steps": [{"steps": k, **judge.of(model, Sampling(steps=k))} for k in STEPS],
        "classifier_free": [{"strength": g, **judge.of(model, Sampling(guidance=g))} for g in STRENGTHS],
        "classifier": [{"strength": g, **judge.of(guided, Sampling(guidance=g))} for g in STRENGTHS],
        **provenance(),
    }


class _Judge:
    """Measures conditional samples by a classifier of the data, and by its features."""

    def __init__(self, data: Data, n: int) -> None:
        self.classes, self.n = torch.arange(n) % len(data.spec.classes), n
        self.classifier: Classifier = train_classifier(data)
        test = data.test.representative(n)
        batch = data.test.batch(test, "cpu")
        self.features = self._of(batch.x)
        assert batch.labels is not None
        right = self.classifier(batch.x).argmax(-1) == batch.labels
        self.own_accuracy = right.float().mean().item()

    @torch.no_grad()
    def _of(self, x: Tensor) -> Tensor:
        return torch.cat([self.classifier.features(part) for part in x.split(256)])

    @torch.no_grad()
    def of(self, model: Model, how: Sampling) -> dict[str, Any]:
        """Accuracy, diversity (mean distance of features within a class) and Fréchet distance of samples."""
        with fixed_noise(0):
            (x,) = samples(model, self.n, Given({"class": self.classes.unsqueeze(-1)}), how).values()
        features = self._of(x)
        told = torch.cat([self.classifier(part).argmax(-1) for part in x.split(256)])
        distance = frechet_distance(features, self.features)
        spread = torch.stack(list(self._within(features))).mean()
        found = {"accuracy": (told == self.classes).float().mean().item(), "diversity": spread.item()}
        print(f"guidance {how.guidance:g}, steps {how.steps}: {found}, {distance}", file=sys.stderr)
        return found | {"frechet": distance.value, "frechet_error": distance.standard_error}

    def _within(self, features: Tensor) -> Iterator[Tensor]:
        for kind in self.classes.unique():
            yield torch.pdist(features[self.classes == kind]).mean()


def draw(result: dict[str, Any]) -> None:
    """Accuracy against diversity for both kinds of guidance, and samples at three strengths."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for kind, words, mark in (("classifier_free", "classifier-free", "o-"), ("classifier", "classifier", "s--")):
        rows = result[kind]
        axes.plot([row["diversity"] for row in rows], [100 * row["accuracy"] for row in rows], mark, label=words)
        for row in rows:
            axes.annotate(f"{row['strength']:g}", (row["diversity"], 100 * row["accuracy"]), fontsize=7)
    axes.set_xlabel("diversity (mean distance of features within a class)")
    axes.set_ylabel("samples of their class [%]")
    axes.legend(frameon=False)
    figure.savefig(PAGE.with_name(f"guidance-{result['name']}.png"), dpi=110)
    model = tb.load(ROOT / "runs" / f"guidance-{result['name']}-vdm")
    rows = Given({"class": (torch.arange(40) % 10).unsqueeze(-1)})
    parts = []
    for strength in (1.0, 2.0, 4.0):
        with fixed_noise(0):
            (x,) = samples(model, 40, rows, Sampling(guidance=strength)).values()
        parts.append((f"guidance {strength:g}", grid(x, 10, side=28)))
    save_picture(panels(parts), PAGE.with_name(f"guidance-{result['name']}-samples.png"))


def write_page() -> None:
    """Writes docs/guidance.md from all results there are."""
    found = [json.loads(path.read_text(encoding="utf8")) for path in sorted(RESULTS.glob("guidance-*.json"))]
    if not found:
        return
    lines = [HEAD]
    for result in found:
        lines += ["", f"## {result['name']}", "", *_tables(result)]
        made = f"{result['hardware']}, commit {result['commit']}, {result['date']}"
        lines += ["", f"![Accuracy against diversity](guidance-{result['name']}.png)"]
        lines += ["", f"![Samples](guidance-{result['name']}-samples.png)", "", f"({made})"]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf8")


HEAD = """# Guided diffusion

Written by `make reproduce` (`benchmarks/guidance.py`): a variational diffusion model of small images given their \
class, beside a convolutional VAE trained for the same time. A classifier that was trained on the data judges samples: \
how many are of the class that was asked for, how far apart samples of a class are in its features, and the Fréchet \
distance of all of them from as many test images."""


def _tables(result: dict[str, Any]) -> Iterator[str]:
    bits = result["likelihood"]
    yield "| model | minutes | bits per dimension |"
    yield "|---|---|---|"
    for kind, words in (("vdm", "diffusion, an upper bound"), ("vae", "VAE, importance-weighted")):
        value = bits[kind]["bits_per_dim"]
        yield f"| {words} | {bits[kind]['minutes']} | {value['value']:.3f} ± {value['standard_error'] or 0:.3f} |"
    yield ""
    yield f"The judge is right on {100 * result['judge_accuracy']:.1f} % of the test images."
    for title, key, first in (
        ("steps of the sampler 2m, guidance 1", "steps", "steps"),
        ("classifier-free guidance, 30 steps", "classifier_free", "strength"),
        ("guidance by a classifier of noised images, 30 steps", "classifier", "strength"),
    ):
        yield ""
        yield f"| {title} | of their class | diversity | Fréchet distance |"
        yield "|---|---|---|---|"
        for row in result[key]:
            told = f"{100 * row['accuracy']:.1f} % | {row['diversity']:.2f} | {row['frechet']:.2f}"
            yield f"| {row[first]:g} | {told} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--name", default="")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--again", action="store_true", help="train anew what is there")
    arguments = parser.parse_args()
    name = arguments.name or Path(arguments.data).stem
    result = run(arguments.data, name, arguments.minutes, arguments.samples, arguments.again)
    (RESULTS / f"guidance-{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
    draw(result)
    write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
