"""A net under a refactoring: trains every system for a few steps, and records every number that comes of it.

    python tests/net.py record OUT.json [--only PATTERN] [--keep RUNS | --runs RUNS] [--verbose]
    python tests/net.py compare BEFORE.json AFTER.json [--words]

Everything is asked for through the command line, in this process, so that the net catches any version of the code that
``PYTHONPATH`` names. Two recordings of one tree on one machine are equal bit for bit; between machines they are not.

In a command, ``@`` is the run folder of its own combination, ``@NAME`` that of another, and ``%`` a file of its own.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Figures = dict[str, Any]

SPELLINGS: list[tuple[str, str]] = []
"""Options that were renamed, (pattern, replacement), in the order in which they were: a command that is refused is
tried again with the first of them, then with the first two, and so on."""

TRAINING = (
    "--steps 40 --batch-size 32 --lr 1e-2 --evaluate-every 20 --log-every 10 --save-every 1000 "
    "--device cpu --precision 32-true --no-pictures --json --out @"
)
SMALL, VECTORS = "--data digits.npz", "--data vectors.npz"
VAE = f"train vae {SMALL} --latent-dim 3 --hidden 16 --components 5 {TRAINING}"
IMAGES = f"train vae {SMALL} --latent-dim 3 --network convolutional --channels 4 6 {TRAINING}"
VECTOR = f"train vae {VECTORS} --latent-dim 2 --hidden 8 {TRAINING}"
CVAE = f"train cvae --latent-dim 3 --hidden 16 --components 5 --condition-dim 6 {TRAINING}"
GUMBEL = f"train gumbel-vae {SMALL} --positions 4 --classes 5 --hidden 16 {TRAINING}"
DVAE = f"train dvae {SMALL} --codes 8 --channels 8 --blocks 1 {TRAINING}"
VQ = f"train vq-vae {SMALL} --codes 8 --code-dim 4 --channels 8 --blocks 1 {TRAINING} --lr 3e-3"
VQ2 = f"train vq-vae-2 {SMALL} --codes 8 --code-dim 4 --channels 8 --blocks 0 {TRAINING} --lr 3e-3"
TEXT = "--vocabulary 300 --caption-length 16"
PIXELCNN = f"train pixelcnn {SMALL} --layers 2 --channels 8 {TRAINING}"
TRANSFORMER = f"train transformer {SMALL} --layers 2 --width 8 --heads 2 {TRAINING}"
COMPLETION = f"train completion {SMALL} --latent-dim 3 --hidden 16 --baseline-hidden 16 {TRAINING}"
BY_PIXELCNN = f"--prior pixelcnn --layers 2 --channels 8 {TRAINING}"
BY_TRANSFORMER = f"--prior transformer --layers 2 --width 8 --heads 2 {TRAINING}"

EVALUATE = "evaluate @ -k 20 --device cpu --json"
CLIMB = "evaluate @ --budget 1e6 --temperatures 4 --limit 12 --device cpu --json"
"""The proposals of each example climbed as far as they go: slow, so asked of few."""
DIAGNOSE = "diagnose @ --gap-examples 4 -k 10 --device cpu --json"
SAMPLE = "sample @ -n 3 --device cpu --out %.npz"
RECONSTRUCT = "reconstruct @ -n 3 --device cpu --out %.npz"
AVERAGED = "reconstruct @ -n 2 --samples 3 --seed 1 --device cpu --out %.npz"
ENCODE = "encode @ --split test --device cpu --out %.npz"
READ = ["evaluate @ -k 5 --limit 12 --device cpu --json", SAMPLE, "info @"]
"""What is asked of a run folder that is there already."""
SHORT = [EVALUATE, SAMPLE]
"""What is asked of a model without a latent, or of one of many that differ little."""
ALL = [EVALUATE, CLIMB, DIAGNOSE, SAMPLE, RECONSTRUCT, ENCODE]
GUIDED = "sample @ -n 2 --guidance 2 --temperature 0.8 --device cpu --out %.npz"
INTERPOLATE = "interpolate @ -n 2 --steps 3 --device cpu --out %.npz"
TRAVERSE = "traverse @ -n 2 --steps 3 --device cpu --out %.npz"
REPORT = "report @ --quick 0 --device cpu"
VIEWS = [INTERPOLATE, TRAVERSE, AVERAGED, SAMPLE.replace("npz", "png"), RECONSTRUCT.replace("npz", "png"), REPORT]


def _each(command: str, options: Mapping[str, str], then: list[str]) -> dict[str, list[str]]:
    """A combination for each of some options of one command."""
    return {name: [f"{command} {option}", *then] for name, option in options.items()}


NET: dict[str, list[str]] = {
    "vae": [VAE, *ALL, *VIEWS, "info @ --json", "evaluate @ --split train --limit 20 -k 5 --device cpu --json"],
    **_each(
        VAE,
        {f"vae-prior-{name}": f"--prior {name}" for name in ("diagonal", "mixture", "vamp", "coupling", "spline")}
        | {f"vae-posterior-{name}": f"--posterior {name}" for name in ("cholesky", "iaf", "spline")}
        | {
            "vae-dirac": "--posterior dirac --objective mmd --beta 0",
            "vae-vamp-iaf-iwae": "--prior vamp --posterior iaf --objective iwae --samples 3",
        },
        [*ALL, INTERPOLATE],
    ),
    **_each(
        VAE,
        {
            "vae-iwae": "--objective iwae --samples 4",
            "vae-dreg": "--objective iwae --samples 4 --gradient dreg",
            "vae-stl": "--gradient stl",
            "vae-score": "--gradient score --samples 4",
            "vae-naive-monte-carlo": "--objective naive-monte-carlo --samples 4",
            "vae-naive-monte-carlo-spline": "--objective naive-monte-carlo --samples 4 --prior spline",
            "vae-tc": "--objective tc --beta 4",
            "vae-mmd": "--objective mmd --beta 0.5 --mmd 10",
            "vae-monte-carlo": "--divergence monte-carlo --samples 2",
            "vae-analytic": "--divergence analytic",
            "vae-free-bits": "--free-bits 0.2",
            "vae-free-bits-grouped": "--free-bits 0.5 --free-bits-group 0 --prior vamp",
            "vae-capacity": "--capacity 2 --beta 10",
            "vae-hybrid": "--hybrid 0.5",
            "vae-hybrid-0": "--hybrid 0",
            "vae-beta": "--beta 4 --beta-schedule cosine --beta-warmup 0.5",
            "vae-beta-0": "--beta 0",
            "vae-cyclical": "--beta-schedule cyclical --beta-cycles 2 --beta-warmup 0.8",
            "vae-sigmoid": "--beta-schedule sigmoid --beta-warmup-epochs 3",
        },
        [EVALUATE, DIAGNOSE],
    ),
    **_each(
        VAE,
        {
            "vae-ema": "--ema 0.9",
            "vae-accumulate": "--accumulate 3",
            "vae-adamax": "--optimizer adamax --weight-decay 0.1 --clip-norm 1",
            "vae-rmsprop": "--optimizer rmsprop --optimizer-eps 1e-4",
            "vae-sgd": "--optimizer sgd --lr 1e-3 --lr-schedule step --lr-milestones 2 4",
            "vae-xavier": "--initial-weights xavier --no-data-start --lr-warmup 5 --lr-schedule constant --seed 3",
            "vae-64-true": "--precision 64-true",
            "vae-bf16": "--precision bf16-mixed",
            "vae-vamp-ema-accumulate": "--prior vamp --ema 0.9 --accumulate 2",
            "vae-patience": "--lr 0.1 --steps 200 --evaluate-every 2 --patience 2 --lr-schedule constant",
        },
        [EVALUATE],
    ),
    **_each(
        VAE,
        {
            "vae-bernoulli": "--binarize dynamic",
            "vae-threshold": "--binarize threshold --activation tanh",
            "vae-dequantize": "--dequantize --scale shared",
            "vae-flip-crop": "--flip --crop 6",
            "vae-gaussian": "--likelihood gaussian",
            "vae-gaussian-network": "--likelihood gaussian --scale network --activation gelu",
            "vae-gaussian-per-dimension": "--likelihood gaussian --scale per-dimension --activation silu",
            "vae-logistic-network": "--likelihood discretized-logistic --scale network --activation softplus",
            "vae-categorical": "--likelihood categorical",
            "vae-logit-laplace": "--likelihood logit-laplace",
            "vae-autoregressive": "--likelihood autoregressive --pixel-layers 2 --pixel-channels 6",
        },
        ALL,
    ),
    **_each(
        VECTOR,
        {
            "vae-vector": "",
            "vae-full-gaussian": "--likelihood full-gaussian --standardize per-entry",
            "vae-full-gaussian-network": "--likelihood full-gaussian --scale network",
            "vae-table": "--data table.csv --label kind",
        },
        [*ALL, REPORT],
    ),
    **_each(
        IMAGES,
        {
            "vae-resize": "",
            "vae-transposed": "--upsampling transposed",
            "vae-photos": "--data photos --likelihood discretized-logistic",
        },
        [*ALL, *VIEWS],
    ),
    "autoencoder": [f"train autoencoder {SMALL} --latent-dim 3 --hidden 16 {TRAINING}", *ALL, *VIEWS],
    "autoencoder-convolutional": [
        f"train autoencoder {SMALL} --latent-dim 3 --network convolutional --channels 4 6 "
        f"--likelihood bernoulli {TRAINING}",
        *ALL,
    ],
    **_each(
        f"train linear-vae {VECTORS} --latent-dim 2 {TRAINING}",
        {
            "linear-vae": "",
            "linear-vae-gaussian": "--posterior gaussian",
            "linear-vae-per-dimension": "--scale per-dimension",
        },
        [*ALL, TRAVERSE],
    ),
    **_each(
        f"{CVAE} {SMALL}",
        {
            f"cvae-prior-{name}": f"--prior {name}"
            for name in ("normal", "conditional", "diagonal", "mixture", "coupling", "spline")
        },
        [*ALL, INTERPOLATE, "sample @ -n 2 --condition three --device cpu --out %.npz"],
    ),
    **_each(
        f"{CVAE} {SMALL}",
        {
            "cvae-hybrid-0": "--hybrid 0",
            "cvae-hybrid": "--hybrid 0.5 --drop-condition 0.2",
            "cvae-naive-monte-carlo": "--objective naive-monte-carlo --samples 3",
            "cvae-iwae": "--objective iwae --samples 3 --posterior iaf",
            "cvae-autoregressive": "--likelihood autoregressive --pixel-layers 2 --pixel-channels 6",
            "cvae-convolutional": "--network convolutional --channels 4 6",
        },
        [*ALL, TRAVERSE],
    ),
    "cvae-vector": [
        f"{CVAE} --data given.npz --condition vector --drop-condition 0.2",
        *ALL,
        'sample @ -n 2 --condition "0.5 -1 2" --device cpu --out %.npz',
    ],
    "cvae-image": [f"{CVAE} --data halves.npz --condition image", *ALL, REPORT],
    "cvae-text": [
        f"{CVAE} --data photos --condition text {TEXT} --drop-condition 0.1 --latent-dim 2",
        *ALL,
        'sample @ -n 2 --condition "a red seven" --device cpu --out %.npz',
        "sample @ --condition-file captions.txt --device cpu --out %.png",
        REPORT,
    ],
    **_each(
        GUMBEL,
        {
            "gumbel": "",
            "gumbel-straight-through": "--straight-through --prior learned --samples 2",
            "gumbel-binary": "--latents binary --temperature-schedule exponential --temperature-hold 3",
            "gumbel-binary-learned": "--latents binary --prior learned --temperature-schedule constant",
            "gumbel-convolutional": "--network convolutional --channels 4 6 --temperature-steps 20 --beta 2",
        },
        [*ALL, INTERPOLATE, TRAVERSE],
    ),
    **_each(
        DVAE,
        {"dvae": "", "dvae-learned": "--prior learned --straight-through --no-norm --upsampling transposed"},
        [*ALL, *VIEWS],
    ),
    **_each(
        VQ,
        {
            "vq": "",
            "vq-gradient": "--quantizer gradient --codebook 0.5",
            "vq-cosine": "--cosine --project 3 --revive 0.1",
            "vq-fsq": "--quantizer fsq --fsq-levels 3 3",
            "vq-logistic": "--likelihood discretized-logistic --commitment 1 --hidden 6 --upsampling transposed",
            "vq-accumulate": "--accumulate 2 --ema 0.9",
        },
        [*ALL, *VIEWS],
    ),
    **_each(
        VQ2,
        {"vq2": "", "vq2-three": "--coarser 1 1 --channels 4 --lr 1e-2", "vq2-gradient": "--quantizer gradient"},
        [*ALL, *VIEWS],
    ),
    "vq-photos": [f"{VQ} --data photos", *SHORT],
    "vq2-photos": [f"{VQ2} --data photos --lr 1e-2", *SHORT],
    "gumbel-photos": [f"{GUMBEL} --data photos", *SHORT],
    **_each(
        PIXELCNN,
        {
            "pixelcnn": "",
            "pixelcnn-class": "--condition class --attention-every 1 --dropout 0.1",
            "pixelcnn-text": f"--data photos --condition text {TEXT}",
        },
        [*SHORT, DIAGNOSE, ENCODE, REPORT, "sample @ -n 2 --top-k 3 --temperature 0.7 --device cpu --out %.npz"],
    ),
    **_each(
        TRANSFORMER,
        {
            "transformer": "--dropout 0.1",
            "transformer-class": "--condition class",
            "transformer-text": f"--data photos --condition text --text-positions rotary {TEXT}",
        },
        [*SHORT, REPORT, "sample @ -n 2 --top-p 0.8 --device cpu --out %.npz", GUIDED],
    ),
    "completion-baseline": [
        f"train completion-baseline {SMALL} --quadrants 2 --hidden 16 {TRAINING}",
        *ALL,
        "complete @ -n 2 --samples 2 --device cpu --out %.npz",
    ],
    **_each(
        COMPLETION,
        {
            "completion-1": "--quadrants 1 --posterior iaf",
            "completion-2": "--quadrants 2 --baseline @completion-baseline",
            "completion-3": "--quadrants 3 --prior normal --binarize threshold",
            "completion-hybrid": "--quadrants 1 --hybrid 0.5",
        },
        [*ALL, "complete @ -n 2 --samples 2 --device cpu --out %.npz", REPORT],
    ),
    **_each(
        f"fit-prior @vae {TRAINING}",
        {
            "prior-auto": "--prior auto --transforms 1",
            "prior-mixture": "--prior mixture --components 4",
            "prior-flow": "--prior flow --transforms 2",
        },
        [*ALL, INTERPOLATE, TRAVERSE, "sample @ -n 3 --temperature 0.5 --device cpu --out %.npz"],
    ),
    "prior-of-iaf": [f"fit-prior @vae-posterior-iaf --prior mixture --components 4 {TRAINING}", *ALL],
    "prior-of-autoencoder": [f"fit-prior @autoencoder --prior flow --transforms 1 {TRAINING}", *ALL],
    **_each(
        f"fit-prior @gumbel {TRAINING}",
        {
            "prior-gumbel": "--layers 2 --channels 8",
            "prior-gumbel-transformer": "--prior transformer --layers 2 --width 8 --heads 2",
        },
        [*ALL, INTERPOLATE],
    ),
    "prior-gumbel-class": [f"fit-prior @gumbel {BY_TRANSFORMER} --condition class", *ALL],
    "prior-gumbel-text": [f"fit-prior @gumbel-photos {BY_PIXELCNN} --condition text {TEXT}", *SHORT],
    "prior-binary": [f"fit-prior @gumbel-binary {BY_PIXELCNN}", *ALL],
    "prior-dvae": [f"fit-prior @dvae {BY_TRANSFORMER} --ema 0.9 --accumulate 2", *ALL],
    "prior-vq": [f"fit-prior @vq {BY_PIXELCNN} --attention-every 1", *ALL, *VIEWS],
    "prior-vq-transformer": [f"fit-prior @vq {BY_TRANSFORMER} --dropout 0", *ALL],
    "prior-vq-fsq": [f"fit-prior @vq-fsq {BY_PIXELCNN}", *SHORT],
    "prior-vq-class": [
        f"fit-prior @vq {BY_PIXELCNN} --condition class",
        *ALL,
        "sample @ -n 2 --condition three --guidance 2 --top-k 4 --device cpu --out %.npz",
        "sample @ -n 2 --condition none --device cpu --out %.npz",
    ],
    "prior-vq-text": [
        f"fit-prior @vq-photos {BY_TRANSFORMER} --condition text --text-positions rotary {TEXT}",
        *ALL,
        'sample @ -n 2 --condition "a red seven" --guidance 3 --top-p 0.9 --device cpu --out %.npz',
        'sample @ -n 2 --among 4 --condition "a red seven" --rank judge.safetensors --device cpu --out %.npz',
        REPORT,
    ],
    "prior-vq2": [f"fit-prior @vq2 {BY_PIXELCNN}", *ALL, *VIEWS],
    "prior-vq2-three": [f"fit-prior @vq2-three {BY_PIXELCNN}", *SHORT],
    "prior-vq2-transformer": [f"fit-prior @vq2 {BY_TRANSFORMER} --condition class", *ALL],
    "prior-vq2-text": [f"fit-prior @vq2-photos {BY_PIXELCNN} --condition text {TEXT}", *SHORT, REPORT],
    "pictures": [f"{VAE} --pictures"],
    "pictures-vq": [f"{VQ} --pictures"],
    "pictures-cvae": [f"{CVAE} --data photos --condition text {TEXT} --pictures"],
    "pictures-prior": [f"fit-prior @vq {BY_PIXELCNN.replace('--no-pictures ', '')} --condition class"],
    "resumed": [
        f"{VAE} --prior vamp --lr 0.3 --lr-schedule constant --evaluate-every 5 --ema 0.5",
        "train --resume --resume-from best --json --out @",
        EVALUATE,
    ],
    "resumed-vq": [
        f"{VQ} --lr 0.03 --lr-schedule constant --evaluate-every 2",
        "train --resume --resume-from best --json --out @",
        EVALUATE,
    ],
    "resumed-prior": [
        f"fit-prior @vq {BY_PIXELCNN} --lr 0.3 --lr-schedule constant --evaluate-every 5",
        f"fit-prior @vq {BY_PIXELCNN} --lr 0.3 --lr-schedule constant --evaluate-every 5 --resume --resume-from best",
        EVALUATE,
    ],
    "two-processes": [f"torchrun {VAE} --binarize dynamic --prior vamp", EVALUATE],
    "two-processes-vq": [f"torchrun {VQ} --revive 0.5", EVALUATE],
    "two-processes-prior": [f"torchrun fit-prior @vq {BY_PIXELCNN}", EVALUATE],
    **{
        f"evaluate-{run}-{method}": [
            f"evaluate @{run} --method {method} -k 6 --temperatures 5 --device cpu --json",
            f"evaluate @{run} --method {method} -k 6 --temperatures 5 --split valid --seed 1 --device cpu --json",
        ]
        for run in ("vae", "vae-vamp-iaf-iwae", "cvae-prior-conditional", "gumbel", "prior-flow", "vq")
        for method in ("importance", "prior", "annealed")
    },
    "evaluate-bf16": ["evaluate @vae -k 20 --method importance --precision bf16 --device cpu --json"],
    "evaluate-other-data": [
        "evaluate @vae --data digits.npz --split all --limit 30 -k 5 --device cpu --json",
        "diagnose @vae --data digits.npz --split valid --gap-examples 4 -k 10 --device cpu --json",
        "encode @vae --data digits.npz --device cpu --out %.npz",
    ],
    "sample-quality": [
        "evaluate @vae --sample-quality -k 5 --device cpu --json",
        "evaluate @vq --sample-quality -k 5 --device cpu --json",
        "evaluate @pixelcnn --sample-quality -k 5 --device cpu --json",
    ],
    "compare": [
        "compare @vae @vae-prior-vamp -k 20 --device cpu --json",
        "compare @vae @autoencoder @vq @prior-vq @pixelcnn -k 5 --device cpu --json",
        "compare @cvae-prior-conditional @cvae-hybrid-0 -k 5 --device cpu --json --out %.png",
        "compare @completion-baseline @completion-2 -k 5 --device cpu --json",
    ],
    "contrastive": [
        f"train-contrastive --data photos --epochs 2 --batch-size 16 --dim 8 --channels 4 6 {TEXT} "
        "--device cpu --json --out %.safetensors"
    ],
    "data": [
        *(f"data {name} --json" for name in ("digits", "sprites", "digits.npz", "vectors.npz", "photos")),
        "data table.csv --label kind --json",
        "data --json",
    ],
}
"""What is caught: names to the commands that are run one after the other."""

JUDGE = (
    f"train-contrastive --data photos --epochs 1 --batch-size 16 --dim 8 --channels 4 6 {TEXT} "
    "--device cpu --out judge.safetensors"
)


def write_data(folder: Path) -> None:
    """The data that the combinations learn from: handwritten digits in several clothes, and vectors."""
    from sklearn.datasets import load_digits

    random = np.random.default_rng(0)
    values, labels = load_digits(return_X_y=True)
    digits, labels = values.reshape(-1, 8, 8).astype(np.uint8)[:204], labels[:204]
    cuts = {"train": slice(0, 160), "valid": slice(160, 180), "test": slice(180, 204)}
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])

    def split(**arrays: Any) -> dict[str, Any]:
        return {f"{name}_{part}": array[cut] for name, array in arrays.items() for part, cut in cuts.items()}

    np.savez(folder / "digits.npz", **split(x=digits, y=labels), levels=17, classes=names)
    vectors = (random.normal(size=(204, 2)) @ random.normal(size=(2, 5)) + random.normal(size=(204, 5)) * 0.3).astype(
        "f4"
    )
    np.savez(folder / "vectors.npz", **split(x=vectors))
    conditions = np.concatenate([vectors[:, :2], digits.mean((1, 2))[:, None] / 16], 1).astype("f4")
    conditions[::7, 1] = math.nan
    np.savez(folder / "given.npz", **split(x=digits, c=conditions), levels=17)
    halves = (digits[:, None, :, :] / 16).astype("f4")
    halves[:, :, :, 4:] = math.nan
    np.savez(folder / "halves.npz", **split(x=digits, c=halves), levels=17)
    _write_photos(folder / "photos", digits[:90], names[labels[:90]])
    rows = [",".join([*(f"{v:.4f}" for v in row), "ab"[int(row[0] > 0)]]) for row in vectors]
    (folder / "table.csv").write_text("\n".join(["a,b,c,d,e,kind", *rows]) + "\n")
    (folder / "captions.txt").write_text("a red seven\na blue one\na green zero\n")


def _write_photos(folder: Path, digits: Any, words: Any) -> None:
    """Coloured digits and what they are, in words."""
    folder.mkdir()
    lines = []
    for i, (digit, word) in enumerate(zip(digits, words, strict=True)):
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels[..., i % 3] = digit * 15
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
        lines.append(json.dumps({"file_name": f"{i:03}.png", "text": f"a {('red', 'green', 'blue')[i % 3]} {word}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def needed(wanted: Iterable[str], net: Mapping[str, list[str]]) -> list[str]:
    """Those combinations and the others whose runs they use, each after what it uses."""
    found: list[str] = []
    for name in wanted:
        others = [other for command in net[name] for other in re.findall(r"@([\w-]+)", command)]
        found += [each for each in [*needed(others, net), name] if each not in found]
    return found


def record(
    net: Mapping[str, list[str]] = NET,
    only: str = "*",
    *,
    keep: Path | None = None,
    runs: Path | None = None,
    verbose: bool = False,
) -> dict[str, Figures]:
    """Every figure of the combinations whose names match a pattern.

    Args:
        net: Names to commands.
        only: Which names, as a pattern of file names.
        keep: Where the run folders are left.
        runs: A folder of run folders that are measured, copies of them, in place of the combinations.
        verbose: Whether to tell what the commands say.
    """
    net = net if runs is None else {path.parent.name: list(READ) for path in sorted(runs.glob("*/config.json"))}
    wanted = [name for name in net if fnmatch(name, only)]
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        write_data(Path())
        if runs is not None:
            shutil.copytree(runs, "runs")
        if any("judge.safetensors" in command for name in wanted for command in net[name]):
            run(JUDGE, "judge", "judge", verbose)
        for name in needed(wanted, net):
            start = time.monotonic()
            figures = caught(name, net[name], verbose)
            print(f"{name}: {len(figures)} figures in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
            found |= {name: figures} if name in wanted else {}
        if keep is not None:
            shutil.copytree("runs", keep, dirs_exist_ok=True)
    return found


def caught(name: str, commands: list[str], verbose: bool = False) -> Figures:
    """Every figure of one combination: of its run folder, and of what each command prints and writes."""
    figures: Figures = {}
    for command in commands:
        label = _unused(command.removeprefix("torchrun ").split()[0], figures)
        code, told, out = run(command, name, label, verbose)
        figures[f"{label}.exit"] = code
        if "--json" in command and code == 0:
            figures |= flat(json.loads(told.replace(f"{Path.cwd()}/", "")), label)
        figures |= flat(read_output(out), f"{label}.out") if out is not None and out.is_file() else {}
    if (folder := Path("runs", name)).is_dir():
        figures |= flat(read_run(folder), "run")
    return {path: value for path, value in figures.items() if not LEFT_OUT.search(path)}


LEFT_OUT = re.compile(r"examples_per_second|seconds|\.version$|^info\.evaluation\.weights$")
"""Speeds and times, which are never the same twice; versions; and the digest of a file, whose tensors' names count."""


def _unused(label: str, figures: Figures) -> str:
    for number in range(1, 100):
        each = label if number == 1 else f"{label}-{number}"
        if f"{each}.exit" not in figures:
            return each
    raise ValueError(label)


def run(command: str, name: str, label: str, verbose: bool = False) -> tuple[int | str, str, Path | None]:
    """A command, in whatever spelling this version knows: how it ended, what it printed, and the file it wrote."""
    ended: int | str = 2
    told, words = "", list[str]()
    for each in dict.fromkeys(_spellings(command)):
        words = [
            re.sub(r"^@([\w-]*)$", lambda m: f"runs/{m[1] or name}", word).replace("%", f"{name}-{label}")
            for word in shlex.split(each)
        ]
        ended, told = _run_apart(words[1:]) if words[0] == "torchrun" else _run_here(words, verbose)
        if ended != 2:
            break
    out = [words[i + 1] for i, word in enumerate(words) if word == "--out"]
    return ended, told, Path(out[-1]) if out else None


def _spellings(command: str) -> Iterator[str]:
    yield command
    for pattern, replacement in SPELLINGS:
        command = re.sub(pattern, replacement, command)
        yield command


def _run_here(words: list[str], verbose: bool) -> tuple[int | str, str]:
    from tightbound.cli import main

    torch.manual_seed(0)
    told, said, start = io.StringIO(), io.StringIO(), time.monotonic()
    with redirect_stdout(told), redirect_stderr(said):
        try:
            code: int | str = main(words)
        except Exception as error:  # a crash is a figure too
            code = f"crash: {type(error).__name__}"
            said.write(str(error))
    if verbose or isinstance(code, str):
        print(
            f"{shlex.join(words)} ({time.monotonic() - start:.2f} s)",
            code,
            told.getvalue()[:2000],
            said.getvalue()[-2000:],
            sep="\n",
            file=sys.stderr,
        )
    return code, told.getvalue()


def _run_apart(words: list[str]) -> tuple[int | str, str]:
    """Two processes, started as a user starts them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(
        [*launcher, "-m", "tightbound", *words], capture_output=True, text=True, env=environment, check=False
    )
    return ended.returncode, ended.stdout


def read_run(folder: Path) -> Figures:
    """The weights of a run and every reading of its training."""
    found: Figures = {"files": " ".join(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()))}
    if (path := folder / "model.safetensors").is_file():
        found["weights"] = weights(path)
    if (path := folder / "checkpoints" / "last.safetensors").is_file():
        found["last"] = weights(path, "model/")["floats"]
    if (path := folder / "evaluation.safetensors").is_file():
        found["nll_per_example"] = weights(path)["floats"]
    if drawn := sorted(folder.glob("samples/*.png")):
        found["pictures"] = {path.stem: pixels(path) for path in drawn}
    if (path := folder / "metrics.jsonl").is_file():
        found["metrics"] = readings([json.loads(line) for line in path.read_text().splitlines()])
    if (path := folder / "report.html").is_file():
        images = re.findall(r"data:image/png;base64,([\w+/=]+)", path.read_text())
        found["report"] = {"pictures": sorted(pixels(io.BytesIO(base64.b64decode(image))) for image in images)}
    return found


def readings(records: list[Figures]) -> Figures:
    """Readings of training by split and step, the last where a step was read twice."""
    return {f"{r['split']}.{r['step']}": {k: v for k, v in r.items() if k not in ("split", "step")} for r in records}


def weights(path: Path, under: str = "") -> Figures:
    """Digests of tensors: of each by its name, and of all together without their names.

    Args:
        path: A file of tensors.
        under: Only those whose names begin so.
    """
    from safetensors.torch import load_file

    tensors = {name: tensor for name, tensor in load_file(path).items() if name.startswith(under)}
    each = {name: _digest(tensor) for name, tensor in sorted(tensors.items())}
    floats = sorted(each[name] for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel())
    return {
        "by_name": {name.replace(".", "/"): digest for name, digest in each.items()},
        "values": _sha("".join(sorted(each.values())).encode()),
        "floats": _sha("".join(floats).encode()),
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
    }


def read_output(path: Path) -> Figures:
    """Digests of the arrays, tensors or pixels in a file, and the means of its arrays."""
    if path.suffix == ".png":
        return {"pixels": pixels(path)}
    if path.suffix == ".safetensors":
        return weights(path)
    if path.suffix != ".npz":
        return {}
    with np.load(path) as arrays:
        return {name: _described(arrays[name]) for name in arrays.files}


def pixels(file: Any) -> str:
    """A digest of a picture, however it is packed."""
    image = Image.open(file)
    return _sha(str(image.size).encode() + image.convert("RGBA").tobytes())


def _described(array: Any) -> Figures:
    found: Figures = {"shape": "x".join(map(str, array.shape)), "digest": _sha(array.tobytes())}
    return found | ({"mean": float(array.mean(dtype=float))} if array.dtype.kind in "fiub" and array.size else {})


def _digest(tensor: torch.Tensor) -> str:
    content = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return _sha(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + content)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def flat(tree: Any, path: str) -> Figures:
    """Every leaf of a tree of JSON under its dotted path.

    Example:
        >>> flat({"kl": {"z": [1.0, 2.0]}}, "evaluate")
        {'evaluate.kl.z.0': 1.0, 'evaluate.kl.z.1': 2.0}
    """
    if isinstance(tree, dict | list) and tree:
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {p: value for key, branch in items for p, value in flat(branch, f"{path}.{key}").items()}
    return {path: repr(tree) if isinstance(tree, dict | list) or tree != tree else tree}


def differences(before: Figures, after: Figures) -> Iterator[tuple[str, str]]:
    """Kinds and descriptions of what differs: figures that moved to another name, are missing, new, or changed."""
    gone, new = ({k: a[k] for k in a if k not in b} for a, b in ((before, after), (after, before)))
    for path, value in gone.items():
        same = [other for other in new if new[other] == value and type(new[other]) is type(value)]
        if place := max(same, key=lambda other: _alike(path, other), default=None):
            yield "moved", f"{path} -> {place}"
            del new[place]
        else:
            yield "missing", f"{path} (was {value!r})"
    yield from (("new", f"{path} = {value!r}") for path, value in new.items())
    for path in before.keys() & after.keys():
        if before[path] != after[path]:
            yield "changed", f"{path}: {before[path]!r} -> {after[path]!r}"


def _alike(a: str, b: str) -> int:
    """How many words two paths share."""
    return len({*a.split(".")} & {*b.split(".")})


def without_words(figures: Figures) -> Figures:
    """The figures, but for sentences."""
    return {path: value for path, value in figures.items() if not (isinstance(value, str) and " " in value)}


def compare(before: dict[str, Figures], after: dict[str, Figures], words: bool = False) -> list[str]:
    """Every difference of two recordings, a line each, the combinations with none left out."""
    lines = [f"{name}: missing" for name in before if name not in after]
    lines += [f"{name}: new" for name in after if name not in before]
    for name in (name for name in before if name in after):
        a, b = (each[name] if words else without_words(each[name]) for each in (before, after))
        lines += [f"{name}: {kind} {what}" for kind, what in sorted(differences(a, b))]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run the combinations and write their figures")
    recording.add_argument("out", type=Path)
    recording.add_argument("--only", default="*", help="pattern of names")
    recording.add_argument("--keep", type=Path, help="leave the run folders here")
    recording.add_argument("--runs", type=Path, help="measure the run folders in here, in place of the combinations")
    recording.add_argument("--verbose", action="store_true", help="tell what the commands say")
    comparing = commands.add_parser("compare", help="what differs between two recordings")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--words", action="store_true", help="compare sentences too")
    given = parser.parse_args()
    if given.command == "record":
        torch.set_num_threads(1)
        keep, runs = (None if path is None else path.resolve() for path in (given.keep, given.runs))
        found = record(only=given.only, keep=keep, runs=runs, verbose=given.verbose)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    before, after = (json.loads(path.read_text()) for path in (given.before, given.after))
    lines = compare(before, after, given.words)
    print(*lines, f"{len(lines)} differences in {len(before)} combinations", sep="\n")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
