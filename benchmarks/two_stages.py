"""Quantised autoencoders and the priors fitted to their codes: `make reproduce` runs this behind reproduce.py.

Every study is one `tightbound train`, in most cases one `tightbound fit-prior`, and one `tightbound evaluate
--sample-quality`; what they print is written to ``benchmarks/results/codes-NAME.json``, and all of them, with the
pictures, to ``docs/two-stages.md``.

    python benchmarks/two_stages.py --only fashion-mnist
    python benchmarks/two_stages.py --eurosat EuroSAT_RGB.tar     # 27,000 satellite images in folders of ten classes
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduce import RESULTS, ROOT, provenance, tightbound

PAGE = ROOT / "docs" / "two-stages.md"
DIMENSIONS = {"fashion-mnist": 784, "eurosat": 3072}


@dataclass(frozen=True)
class Study:
    """A first stage and its second."""

    name: str
    what: str
    data: str
    first: str
    second: str = ""
    bits: float = 0.0
    """Bits of all codes of an image."""
    pictures: tuple[str, ...] = ()
    """Which pictures the page shows: reconstructions, samples."""
    of: str = ""
    """The study whose first stage it takes; empty for its own."""


def _bits(positions: int, codes: int) -> float:
    return positions * math.log2(codes)


STUDIES = [
    Study(
        "fashion-mnist", "VQ-VAE, 7 × 7 of 512", "fashion-mnist",
        "vq-vae --steps 2500", "--prior pixelcnn --steps 1200", _bits(49, 512),
        ("samples",),
    ),
    Study(
        "fashion-mnist-likelihood", "the same with a likelihood of the grey levels, prior given the class",
        "fashion-mnist", "vq-vae --likelihood auto --steps 2500",
        "--prior pixelcnn --condition class --steps 800", _bits(49, 512),
    ),
    Study(
        "fashion-mnist-masked", "the same first stage, masked diffusion given the class", "fashion-mnist",
        "vq-vae --likelihood auto --steps 2500",
        "--prior masked --condition class --lr 2e-3 --steps 1600", _bits(49, 512),
        ("samples",), "fashion-mnist-likelihood",
    ),
    Study(
        "eurosat", "VQ-VAE, 8 × 8 of 512", "eurosat",
        "vq-vae --image-size 32 --steps 2500", "--prior pixelcnn --steps 1200", _bits(64, 512),
    ),
    Study(
        "eurosat-one-level", "the same with the variance of the two levels", "eurosat",
        "vq-vae --image-size 32 --variance 0.01 --steps 2500", "", _bits(64, 512),
    ),
    Study(
        "eurosat-two-levels", "VQ-VAE-2, 4 × 4 and 8 × 8 of 147", "eurosat",
        "vq-vae-2 --image-size 32 --codes 147 --steps 2500",
        "--prior pixelcnn --attention-every 4 --steps 1200", _bits(80, 147), ("reconstructions", "samples"),
    ),
]  # fmt: skip


def run(study: Study, data: str, again: bool) -> dict[str, Any]:
    """Trains both stages and measures the result; what is there already is measured only, unless ``again``."""
    folder = ROOT / "runs" / f"codes-{study.of or study.name}"
    last, words = folder, [f"train {study.first} --data {study.data}"]
    _once(folder, f"train {study.first} --data {data} --no-pictures", again)
    if study.second:
        last = folder.with_name(f"codes-{study.name}-prior")
        _once(last, f"fit-prior {folder} {study.second} --no-pictures", again)
        words.append(f"fit-prior RUN {study.second}")
    found = json.loads(tightbound(f"evaluate {last} -k 1 --sample-quality --json"))
    for command, name in [(f"reconstruct {folder} -n 12", "reconstructions"), (f"sample {last} -n 36", "samples")]:
        tightbound(f"{command} --overwrite --out {last / f'{name}.png'}")
        if name in study.pictures:
            shutil.copy(last / f"{name}.png", PAGE.with_name(_picture(study, name)))
    result = {
        "name": study.name,
        "what": study.what,
        "data": study.data,
        "commands": [f"tightbound {each} --out {to}" for each, to in zip(words, ("RUN", "RUN2"), strict=False)],
        "bits": round(study.bits, 1),
        "squared_error_per_entry": found["squared_error"]["value"] / DIMENSIONS[study.data],
        "evaluation": {name: found[name] for name in KEPT},
        **provenance(),
    }
    (RESULTS / f"codes-{study.name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
    return result


KEPT = ("codebook_usage", "perplexity", "bits_per_dim", "uniform_bits_per_dim", "sample_quality", "n", "split")


def _once(folder: Path, words: str, again: bool) -> None:
    if again or not (folder / "model.safetensors").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        tightbound(f"{words} --out {folder}")


def _picture(study: Study, name: str) -> str:
    return f"two-stages-{study.name}-{name}.png"


def write_page() -> None:
    """Writes docs/two-stages.md from all results there are."""
    found = {path.stem: json.loads(path.read_text(encoding="utf8")) for path in RESULTS.glob("codes-*.json")}
    results = [(study, found[f"codes-{study.name}"]) for study in STUDIES if f"codes-{study.name}" in found]
    lines = [HEAD, *(_row(result) for _, result in results), "", NOTES]
    for study, result in results:
        made = f"commit {result['commit']}, {result['date']}"
        lines += ["", f"**{result['name']}** ({made})", "", *(f"    {command}" for command in result["commands"])]
        for name in study.pictures:
            lines += ["", f"![{name} of {study.name}]({_picture(study, name)})"]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf8")


HEAD = """# Codes, and priors fitted to them

Written by `make reproduce`. Two-core CPU, minutes for each stage; measured on the whole test split.

| data: model | bits of the codes | squared error per entry | codes used | Fréchet: uniform codes | fitted prior | \
reconstructions | training images | bits per dimension: uniform codes | fitted prior |
|---|---|---|---|---|---|---|---|---|---|"""
NOTES = """The Fréchet distance of samples from the test images is taken in the 64 features of a small classifier \
trained on the labels (`tightbound evaluate RUN --sample-quality`); it compares rows of the same data only. \
Reconstructions are what a perfect prior would reach, training images what chance leaves.

At equal bits one level reconstructs EuroSAT better here than two: the bottom, which sees the whole image, carries \
nearly everything, and the top alone shows little more than a tint. Two levels pay where one grid is too large for one \
prior; at 8 × 8 it is not. EuroSAT is a quarter of the published set, 6,750 images at 32 × 32, so that its distances \
have large errors."""


def _row(result: dict[str, Any]) -> str:
    e, quality = result["evaluation"], result["evaluation"]["sample_quality"]
    fitted = quality["uniform"] is not None
    uniform = quality["uniform"] if fitted else quality["samples"]
    cells = [
        f"{result['data']} ({e['n']:,} test images): {result['what']}",
        f"{result['bits']:.0f}",
        f"{result['squared_error_per_entry']:.5f}",
        f"{e['codebook_usage']:.1%}",
        _cell(uniform),
        _cell(quality["samples"] if fitted else None),
        _cell(quality["reconstructions"]),
        _cell(quality["data"]),
        _cell(e["uniform_bits_per_dim"], 3),
        _cell(e["bits_per_dim"], 3),
    ]
    return f"| {' | '.join(cells)} |"


def _cell(estimate: dict[str, float] | None, digits: int = 1) -> str:
    return "–" if estimate is None else f"{estimate['value']:.{digits}f} ± {estimate['standard_error']:.{digits}f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[study.name for study in STUDIES], help="some of the studies")
    parser.add_argument("--eurosat", help="a tar, zip or folder of EuroSAT; without it its studies are left out")
    parser.add_argument("--again", action="store_true", help="train anew what is there")
    given = parser.parse_args()
    for study in STUDIES:
        data = given.eurosat if study.data == "eurosat" else study.data
        if data and (given.only is None or study.name in given.only):
            print(json.dumps(run(study, data, given.again), indent=2))
    write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
