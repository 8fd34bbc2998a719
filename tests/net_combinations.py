"""What the net of `net.py` catches: a table of commands for every system with its main options.

In a command, ``@`` is the run folder of its own combination, ``@NAME`` that of another, and ``%`` a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

SPELLINGS: list[tuple[str, str]] = [
    (r"--gradient (stl|score)", r"--objective \1"),
    (r"(?<!objective )(--capacity)", r"--objective capacity \1"),
    (r"--hybrid 0(?![.\d])", "--objective gsnn"),
    (r"--hybrid (0\.\d+)", r"--objective hybrid --share \1"),
    (r" --prior auto", ""),
]
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


HVAE = f"train hvae {SMALL} --layers 4 3 2 --hidden 16 --components 5 {TRAINING}"
LADDER = f"train ladder {SMALL} --grids 1 4 --groups 1 2 --channels 4 --latent-channels 2 {TRAINING}"
BY_LAYER = "sample @ --by-layer -n 2 --device cpu --out %.npz"
TRAVERSE_LAYER = "traverse @ --layer z2 -n 2 --steps 3 --device cpu --out %.npz"

NET: dict[str, list[str]] = {
    "hvae": [HVAE, *ALL, *VIEWS, BY_LAYER, TRAVERSE_LAYER],
    "ladder": [LADDER, *ALL, *VIEWS, BY_LAYER, TRAVERSE_LAYER],
    **_each(
        HVAE,
        {
            "hvae-iwae": "--objective iwae --samples 3",
            "hvae-mixture": "--prior mixture",
            "hvae-convolutional": "--network convolutional --channels 4 6",
            "hvae-free-bits": "--free-bits 0.5 --free-bits-group 0",
            "hvae-skip": "--skip-norm 1000 --skip-nonfinite",
        },
        [EVALUATE, DIAGNOSE],
    ),
    **_each(
        LADDER,
        {
            "ladder-merge": "--posterior merge",
            "ladder-direct": "--posterior direct --no-zero-last --no-scale-last",
            "ladder-balance": "--balance --free-bits 0.1",
            "ladder-recompute": "--recompute --ema 0.9",
            "ladder-logistic-mixture": "--likelihood discretized-logistic-mixture --likelihood-components 2",
        },
        [EVALUATE, DIAGNOSE],
    ),
    "vdvae": [LADDER.replace("train ladder", "train vdvae"), EVALUATE],
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
