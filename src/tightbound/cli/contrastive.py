"""Contrastive encoders at the command line: training, and ranking of samples."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, arg

from ..data import DataOptions
from ..errors import CheckpointError, UsageError
from .arguments import Device, Json, Overwrite, Seed, evenly_spaced, require_writable
from .output import print_json, write_arrays

if TYPE_CHECKING:
    from torch import Tensor

    from ..conditions import Given
    from ..data import Data, DataSpec
    from ..distributions import Sampling
    from ..encoders.contrastive import Contrastive, TextImageEncoder
    from ..models import Model

__all__ = ["captions_to_rank", "find_judge", "rank_samples", "train_contrastive", "write_ranked"]


MEASURED = 2000
"""Maximum number of evenly spaced held-out images for the retrieval test."""


def train_contrastive(
    out: Annotated[Path, arg(metavar="FILE", help="The .safetensors to write.")],
    data: Annotated[OmitArgPrefixes[DataOptions], arg(help="Data: images with captions.")],
    epochs: Annotated[int, arg(help="Maximum number of epochs.")] = 20,
    batch_size: Annotated[int, arg(help="Batch size: each image is matched with the captions of its batch.")] = 128,
    lr: Annotated[float, arg(help="Peak learning rate.")] = 1e-3,
    weight_decay: Annotated[float, arg(help="Weight decay, decoupled (AdamW).")] = 0.1,
    patience: Annotated[int, arg(help="Stop after this many epochs without a better validation loss.")] = 5,
    vocabulary: Annotated[int, arg(help="Maximum size of the vocabulary; 256 of the tokens are the bytes.")] = 2048,
    caption_length: Annotated[int, arg(help="Maximum number of tokens in a caption.")] = 32,
    dim: Annotated[int, arg(help="Size of the features.")] = 128,
    channels: Annotated[tuple[int, ...], arg(help="Channels of each level of the image encoder.")] = (32, 64, 128),
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: FlagCreatePairsOff[Json] = False,
) -> None:
    """Train an encoder that matches images with captions, to rank samples: `tightbound sample RUN --rank FILE`.

    Example: tightbound train-contrastive --data emoji.tar --image-size 32 --color rgb --out judge.safetensors
    """
    from ..data import load_data
    from ..encoders.contrastive import ContrastiveConfig
    from ..training.contrastive import train_contrastive as run_training
    from ..training.device import find_device
    from ..training.notes import said_of_data

    if out.suffix != ".safetensors" or out.is_dir():
        raise UsageError(
            "A judge must be written as safetensors.", got=out, expected="a file whose name ends in .safetensors"
        )
    require_writable(out, overwrite, data.data)
    loaded = load_data(data)
    for line in said_of_data(loaded):
        print(line, file=sys.stderr)
    config = ContrastiveConfig(loaded.spec.shape, vocabulary, caption_length, dim, channels)
    options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    judge = run_training(loaded, config, **options, patience=patience, seed=seed, device=find_device(device))
    judge.save(out)
    found = _retrieval(judge, loaded) | {"out": str(out)}
    print_json(found) if json else _print_retrieval(found)


def _retrieval(judge: Contrastive, data: Data) -> dict[str, Any]:
    """Retrieval accuracy: how often the judge finds the caption of a held-out image among 100, or all if fewer."""
    import torch

    from ..evaluation.samples.retrieval import retrieval_accuracy

    test, device = evenly_spaced(data.test, MEASURED), judge.log_scale.device
    batch = test.batch(torch.arange(len(test)))
    tokens = judge.tokens(batch.captions or ())
    among = min(100, len(tokens.unique(dim=0)))
    accuracy = retrieval_accuracy(judge, batch.x.to(device), tokens, among) if among > 1 else None
    return {"accuracy": accuracy and asdict(accuracy), "among": among, "captions": len(tokens), "split": "test"}


def _print_retrieval(found: dict[str, Any]) -> None:
    from ..evaluation import Estimate

    told, among = found["accuracy"], found["among"]
    if told is None:
        print(f"{found['out']}: the test split has fewer than two captions, so retrieval is not tested")
    else:
        share = Estimate(**{name: value and 100 * value for name, value in told.items()}).text(1)
        print(f"{found['out']}: finds the caption of a held-out image among {among} in {share} % of", end=" ")
        print(f"{found['captions']} cases; chance: {100 / among:.1f} %")
    print(f"next: tightbound sample RUN --condition WORDS -n 8 --rank {found['out']} --among 32")


def find_judge(path: Path, spec: DataSpec | None, device: str) -> TextImageEncoder:
    """Loads a judge from a file of `tightbound train-contrastive`, or a CLIP from a folder.

    Args:
        path: The file or folder.
        spec: The data spec of its images.
        device: The device to load it on.

    Raises:
        UsageError: If it is not a judge, or for images of another shape.
    """
    from ..encoders.contrastive import Contrastive, load_clip

    try:
        judge = load_clip(path) if path.is_dir() else Contrastive.load(path)
    except CheckpointError as error:
        raise UsageError(
            f"{path} is not a judge. {error.message}",
            got=error.got,
            expected="a file of `tightbound train-contrastive`, or a folder of a CLIP",
            remedy="Train one: tightbound train-contrastive --data DATA --out judge.safetensors",
        ) from None
    if isinstance(judge, Contrastive) and spec is not None and judge.config.shape != tuple(spec.shape):
        raise UsageError(
            "The judge was trained on images of another shape.",
            got=judge.config.shape,
            expected=f"{tuple(spec.shape)}, the shape of the run's images",
            remedy="Train one on the run's data with the same --image-size and --color.",
        )
    return judge.to(device)


def captions_to_rank(model: Model, words: Sequence[str], file: Path | None) -> Given:
    """The distinct captions given as text or in a file with one per line, ``(n,)``.

    Raises:
        UsageError: If the model has no text condition, or no caption is given.
        DataError: If the file cannot be read.
    """
    from .conditions import read_conditions

    given = () if model.condition is None else model.condition.parts
    if "text" not in given:
        raise UsageError(
            "A judge compares samples with a text, but this model has no text condition.",
            got=f"a model conditioned on: {', '.join(given) or 'nothing'}",
            expected="a model conditioned on a text",
            remedy="Leave --rank out, or train one: tightbound fit-prior RUN --prior transformer --condition text.",
        )
    if (c := read_conditions(model.condition, words, file, 1 if file is None else None)) is None:
        raise UsageError(
            "The judge needs a caption.",
            got="--rank without a caption",
            expected="--condition WORDS or --condition-file FILE",
            remedy='Describe the image: --condition "face with tears of joy".',
        )
    first = {tuple(tokens): i for i, tokens in reversed(list(enumerate(c["text"].tolist())))}
    chosen = [i for i in sorted(first.values()) if not c.is_missing("text")[i]]
    if not chosen:
        raise UsageError("The judge needs a caption.", got="conditions without a text", expected="a caption")
    return c[chosen]


def rank_samples(
    model: Model, judge: TextImageEncoder, c: Given, n: int, among: int, how: Sampling
) -> tuple[list[str], Tensor, Tensor]:
    """The captions, the n best samples of each ``(m, n, *shape)``, and their scores, ``(m, n)``.

    Args:
        model: The model to sample.
        judge: The encoder that ranks the samples.
        c: Conditions of shape ``(m,)``, including a text.
        n: Samples to keep for each caption.
        among: Samples to draw for each caption.
        how: Sampling options.

    Raises:
        UsageError: If ``among`` is below n, or a caption is too long for the judge.
    """
    from ..evaluation.samples.retrieval import fits
    from ..views.samples import candidates

    if among < n:
        raise UsageError(
            "--among must be at least -n.",
            got=f"--among {among}",
            expected=f"at least {n}",
            remedy=f"Try --among {4 * n}.",
        )
    captions = model.condition.captions(c)  # pyright: ignore[reportOptionalMemberAccess]
    device = next(judge.parameters()).device
    tokens = judge.tokens(captions)  # raises early if a caption is too long
    drawn = candidates(model, c.to(model.device), among, how)
    scores, chosen = fits(judge, drawn.to(device), tokens).cpu().topk(n, dim=0)
    columns = chosen.new_tensor(range(len(captions)))
    return captions, drawn[chosen, columns].movedim(0, 1), scores.T


def write_ranked(captions: list[str], images: Tensor, scores: Tensor, path: Path, among: int) -> None:
    """The best samples, in order, with caption and scores; or arrays."""
    from ..views import samples as pictures

    if path.suffix == ".npz":
        import numpy as np

        write_arrays({"mean": images.numpy(), "score": scores.numpy(), "caption": np.array(captions)}, path)
    else:
        told = zip(captions, images, scores.tolist(), strict=True)
        parts = [(caption, pictures.captioned(x, [f"{s:.3f}" for s in row], 8)) for caption, x, row in told]
        pictures.save_picture(pictures.panels(parts), path)
        print(path)
    for caption, row in zip(captions, scores.tolist(), strict=True):
        print(f"{caption}: {' '.join(f'{score:.3f}' for score in row)} (cosines, the best {len(row)} of {among})")
