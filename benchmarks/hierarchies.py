"""Three ways to model small colour images, in the same time: `make reproduce` runs this behind reproduce.py.

A VAE, a VQ-VAE with a PixelCNN of its codes, and a very deep VAE, all with the same likelihood. How many steps fit in
the minutes is measured first, so that the minutes are the same on every machine. Results go to
``benchmarks/results/eurosat-NAME.json``, and all of them, with samples, to ``docs/colour.md``.

    python benchmarks/hierarchies.py --eurosat EuroSAT_RGB.tar --minutes 12
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduce import RESULTS, ROOT, provenance, tightbound
from timed import seconds_of, trained

PAGE = ROOT / "docs" / "colour.md"
COMMON = "--image-size 32 --likelihood discretized-logistic-mixture"


@dataclass(frozen=True)
class Study:
    """A model, trained in one stage or two, each with an equal part of the time."""

    name: str
    what: str
    first: str
    second: str = ""
    samples: int = 100
    """For the likelihood; 1 for a bound."""


STUDIES = [
    Study("vae", "convolutional VAE, 32 latents", f"vae --network convolutional --latent-dim 32 {COMMON}"),
    Study(
        "vq-vae",
        "VQ-VAE, 8 × 8 of 512 codes, and a PixelCNN of the codes",
        f"vq-vae {COMMON}",
        "--prior pixelcnn",
        samples=1,
    ),
    Study(
        "vdvae",
        "very deep VAE, a group at 4 × 4 and four at 8 × 8",
        f"vdvae {COMMON} --grids 4 8 --groups 1 4 --blocks 1 --latent-channels 16 --lr 3e-3 --lr-warmup 50 --ema 0.99",
    ),
]


def run(study: Study, data: str, minutes: float, again: bool) -> dict[str, Any]:
    """Trains what is not there yet, or everything anew if ``again``, and measures it."""
    folder = ROOT / "runs" / f"eurosat-{study.name}"
    share = minutes / (2 if study.second else 1)
    steps = [trained(folder, f"train {study.first} --data {data}", share, again)]
    words, last = [f"train {study.first} --steps {steps[0]} --data eurosat"], folder
    if study.second:
        last = folder.with_name(f"{folder.name}-prior")
        steps.append(trained(last, f"fit-prior {folder} {study.second}", share, again))
        words.append(f"fit-prior RUN {study.second} --steps {steps[1]}")
    found = json.loads(tightbound(f"evaluate {last} -k {study.samples} --json"))
    tightbound(f"sample {last} -n 36 --overwrite --out {_picture(study)}")
    result = {
        "name": study.name,
        "what": study.what,
        "commands": [f"tightbound {each} --out {to}" for each, to in zip(words, ("RUN", "RUN2"), strict=False)],
        "minutes": minutes,
        "measured_minutes": round(sum(seconds_of(part) for part in {folder, last}) / 60, 1),
        "samples": study.samples,
        "evaluation": {name: found[name] for name in ("bits_per_dim", "elbo", "nll", "n", "split")},
        **provenance(),
    }
    (RESULTS / f"eurosat-{study.name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
    return result


def _picture(study: Study) -> Path:
    return PAGE.with_name(f"colour-{study.name}.png")


def write_page() -> None:
    """Writes docs/colour.md from all results there are."""
    found = {path.stem: json.loads(path.read_text(encoding="utf8")) for path in RESULTS.glob("eurosat-*.json")}
    results = [(study, found[f"eurosat-{study.name}"]) for study in STUDIES if f"eurosat-{study.name}" in found]
    if not results:
        return
    lines = [HEAD, *(_row(result) for _, result in results)]
    for study, result in results:
        made = f"{result['hardware']}, commit {result['commit']}, {result['date']}"
        lines += ["", f"**{result['name']}** ({made})", "", *(f"    {command}" for command in result["commands"])]
        lines += ["", f"![Samples of {study.name}]({_picture(study).name})"]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf8")


HEAD = """# Small colour images in the same time

Written by `make reproduce`: 6,750 satellite images of EuroSAT at 32 × 32, a quarter of the published set. All models \
have the same likelihood, a mixture of discretised logistics; each has the same minutes, in two stages half of \
them each. Bits per dimension of the whole test split, an upper bound, with its standard error over images. A model \
whose means are all alike ignores its latent: the likelihood of single pixels is then all that it has learned.

| model | minutes | bits per dimension | samples of the bound |
|---|---|---|---|"""


def _row(result: dict[str, Any]) -> str:
    bits = result["evaluation"]["bits_per_dim"]
    figure = f"{bits['value']:.3f} ± {bits['standard_error']:.3f}"
    return f"| {result['what']} | {result['measured_minutes']:.1f} | {figure} | {result['samples']} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[study.name for study in STUDIES], help="some of the studies")
    parser.add_argument("--eurosat", help="a tar, zip or folder of EuroSAT; without it only the page is written")
    parser.add_argument("--minutes", type=float, default=12.0, help="training time of each")
    parser.add_argument("--again", action="store_true", help="train anew what is there")
    given = parser.parse_args()
    for study in STUDIES:
        if given.eurosat and (given.only is None or study.name in given.only):
            print(json.dumps(run(study, given.eurosat, given.minutes, given.again), indent=2))
    write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
