"""From a text to a picture in three trainings: codes of pictures, a transformer over text and codes, and a judge.

The first stage is a VQ-VAE; the second a transformer that is given the tokens of the caption and then draws the codes,
one after the other. The judge is an encoder of pictures and captions, trained on the same training captions: of several
samples it picks the one that fits best, and it measures whether a sample's own caption fits it better than others do.

    python examples/text_to_image.py --data emoji.tar --image-size 32 --out emoji

prints how often the judge finds the caption of a picture among 100, for captions seen in training and for captions held
out, for samples (one each, and the best of several) and for the true pictures, and writes it as numbers.json beside
samples.png. Runs that are there already are used as they are. Any folder of pictures with a metadata.jsonl will do;
without --data it draws coloured shapes, which takes a few minutes.

The same step by step, with pictures of any text at the end:

    tightbound train vq-vae --data emoji.tar --image-size 32 --color rgb --out codes
    tightbound fit-prior codes --prior transformer --condition text --out model
    tightbound train-contrastive --data emoji.tar --image-size 32 --color rgb --out judge.safetensors
    tightbound sample model --condition "face with tears of joy" --guidance 2 -n 8 --rank judge.safetensors --among 32
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

import tightbound as tb
from tightbound.data import Data, Split
from tightbound.distributions import Sampling
from tightbound.encoders.contrastive import Contrastive
from tightbound.evaluation.samples.retrieval import best_of, retrieval_accuracy
from tightbound.options.priors import TransformerPrior
from tightbound.recipes import VQVAE
from tightbound.runtime.randomness import fixed_noise
from tightbound.training.contrastive import train_contrastive
from tightbound.views import samples as pictures

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (230, 200, 40),
    "black": (20, 20, 20),
    "violet": (140, 60, 180),
}
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 5, "large": 11}
PLACES = {"left": 10, "right": 22}


def draw_shapes(folder: Path, copies: int) -> Path:
    """A captioned folder: every colour, shape, size and place, with a little noise in where it stands."""
    folder.mkdir(parents=True, exist_ok=True)
    generator, lines = torch.Generator().manual_seed(0), []
    for copy, colour, shape, size, place in itertools.product(range(copies), COLOURS, SHAPES, SIZES, PLACES):
        x, y = (torch.randint(-1, 2, (2,), generator=generator) + torch.tensor([PLACES[place], 16])).tolist()
        image, r = Image.new("RGB", (32, 32), "white"), SIZES[size]
        pen, box = ImageDraw.Draw(image), (x - r, y - r, x + r, y + r)
        if shape == "circle":
            pen.ellipse(box, COLOURS[colour])
        elif shape == "square":
            pen.rectangle(box, COLOURS[colour])
        else:
            pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], COLOURS[colour])
        name = f"{copy}-{size}-{colour}-{shape}-{place}.png"
        image.save(folder / name)
        lines.append(json.dumps({"file_name": name, "text": f"a {size} {colour} {shape} on the {place}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf8")
    return folder


def trained(data: Data, out: Path, plan: dict[str, Any]) -> tuple[tb.LatentVariableModel, Contrastive]:
    """The two stages and the judge, trained or taken as they are."""
    if not (out / "codes" / "model.safetensors").is_file():
        torch.manual_seed(0)
        model = VQVAE(codes=plan["codes"]).build(data.spec)
        tb.train(model, data, out=out / "codes", steps=plan["first"], batch_size=64, pictures=False)
    if not (out / "model" / "model.safetensors").is_file():
        prior = TransformerPrior(condition="text", layers=4, width=plan["width"], heads=6)
        options: dict[str, Any] = {"steps": plan["second"], "batch_size": 64, "lr": 1e-3, "pictures": False}
        tb.fit_prior(out / "codes", out=out / "model", prior=prior, data=data, **options)
    judge = out / "judge.safetensors"
    if not judge.is_file():
        train_contrastive(data, epochs=plan["judge"]).save(judge)
    return tb.load(out / "model"), Contrastive.load(judge)


@torch.no_grad()
def drawn(model: tb.LatentVariableModel, split: Split, samples: int, sampling: Sampling) -> Tensor:
    """Pictures for the captions of a split, ``(samples, n, *shape)``: the means of p(x | z)."""
    px = model(model.conditions(split.batch(torch.arange(len(split)))))
    with fixed_noise():
        codes = [px.sample_latent(how=sampling) for _ in range(samples)]
        return torch.stack([px.likelihood(z).mean.clamp(0, 1) for z in codes])


def judged(model: tb.LatentVariableModel, judge: Contrastive, split: Split, plan: dict[str, Any]) -> dict[str, Any]:
    """How often the judge finds the caption of a picture, and the pictures."""
    captions = split.captions or ()
    sampling = Sampling(temperature=plan["temperature"], guidance=plan["guidance"])
    several, tokens = drawn(model, split, plan["samples"], sampling), judge.tokens(list(captions))
    truth, among = split.batch(torch.arange(len(split))).x, min(100, len(set(captions)))
    found = {
        "one sample": several[0],
        "the best of several": best_of(judge, several, tokens),
        "the true picture": truth,
    }
    accuracy = {name: asdict(retrieval_accuracy(judge, x, tokens, among)) for name, x in found.items()}
    return {"among": among, "captions": len(captions), "accuracy": accuracy, "texts": captions, "pictures": found}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", help="pictures with captions; default: coloured shapes")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("text-to-image"), help="folder for runs, numbers and picture")
    parser.add_argument("--captions", type=int, default=200, help="captions of each split that are drawn")
    parser.add_argument("--samples", type=int, default=4, help="samples among which the judge picks")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    given = parser.parse_args(arguments)
    quick = {"codes": 32, "width": 48, "first": 20, "second": 20, "judge": 1}
    full = {"codes": 512, "width": 192, "first": 1760, "second": 1760, "judge": 20}
    plan = (quick if given.quick else full) | vars(given)
    source = given.data or draw_shapes(given.out / "shapes", 1 if given.quick else 10)
    data = tb.load_data(str(source), image_size=given.image_size)
    model, judge = trained(data, given.out, plan)
    results = {}
    for name, split in (("seen in training", data.train), ("held out", data.test)):
        found = judged(model, judge, split.evenly_spaced(given.captions), plan)
        shown = found.pop("pictures")
        texts = found.pop("texts")[:16]
        sheet = [(title, pictures.captioned(x[:16].float(), texts)) for title, x in shown.items()]
        pictures.save_picture(pictures.panels(sheet, across=True), given.out / f"{name.replace(' ', '-')}.png")
        results[name] = found
        for what, value in found["accuracy"].items():
            print(f"{name}, {what}: {value['value']:.3f} ± {value['standard_error']:.3f} among {found['among']}")
    (given.out / "numbers.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
