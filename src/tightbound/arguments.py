"""What options of several commands share: their names, their help, and what they open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from .data import DATASETS
from .errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from .data import Data, Split
    from .models import LatentVariableModel
    from .runs import RunFolder

__all__ = [
    "Count",
    "Device",
    "Json",
    "Overwrite",
    "Picture",
    "Run",
    "Seed",
    "Source",
    "SplitName",
    "Words",
    "WordsFile",
    "check_out",
    "first",
    "limited",
    "model_of",
    "opened",
    "positive",
    "with_latent",
]

Run = Annotated[Positional[Path], arg(metavar="RUN", help="The run folder.")]
Count = Annotated[int, arg(aliases=("-n",), help="How many.")]
Json = Annotated[bool, arg(help="Print JSON.")]
Seed = Annotated[int, arg(help="Seed of all noise.")]
Device = Annotated[str, arg(help="auto, cpu, cuda or mps.")]
SplitName = Annotated[Literal["train", "valid", "test"], arg(help="Which part of the data.")]
Source = Annotated[str | None, arg(metavar="DATA", help="Other data than the run's own.")]
Words = Annotated[
    str | None,
    arg(metavar="WORDS", help="What the model is given: a class, numbers, a text, or none; default: some of each."),
]
WordsFile = Annotated[
    Path | None,
    arg(metavar="FILE", help="Conditions from a file: a text with one on each line, an .npy array, or a picture."),
]
Picture = Annotated[Path | None, arg(metavar="FILE", help="A .png or an .npz; default: in RUN/samples.")]

Overwrite = Annotated[FlagCreatePairsOff[bool], arg(help="Replace what --out names, if it is there already.")]


def opened(run: Path, source: str | None, device: str) -> tuple[RunFolder, LatentVariableModel, Data]:
    """A run's model, and its data or another that fits the model."""
    from .runs import load_run_data

    folder, model = model_of(run, device)
    return folder, model, load_run_data(run, source)


def with_latent(model: LatentVariableModel) -> None:
    """Refuses a model without a latent."""
    from .posteriors import EmptyPosterior

    if isinstance(model.posterior, EmptyPosterior):
        raise UsageError(
            "This model has no latent: it can be sampled and evaluated.",
            got=type(model.recipe).__name__,
            remedy="Try tightbound sample, evaluate or report; or train a recipe with a latent, such as vae.",
        )


def limited(split: Split, limit: int | None) -> Split:
    """So many examples at even distances, because some files lie in the order of their class; or all."""
    from .evaluation.decomposition import spread

    if limit is None:
        return split
    positive("--limit", limit)
    return spread(split, limit)


def first(model: LatentVariableModel, split: Split, n: int) -> tuple[Tensor, Tensor | None]:
    """The first n examples of a split, as the model sees them, and their conditions."""
    import torch

    positive("-n", n)
    if n > len(split):
        raise UsageError(
            f"The {split.name} split has fewer examples.", got=n, expected=f"at most {len(split)}", remedy="Lower -n."
        )
    parameter = next(model.parameters())
    batch = split.batch(torch.arange(n), parameter.device)
    return batch.x.to(parameter.dtype), model.conditions(batch)


def positive(name: str, value: int) -> None:
    """Refuses a number below one."""
    if value < 1:
        raise UsageError(f"{name} must be at least 1.", got=value, remedy=f"Try {name} 16.")


def model_of(run: Path, device: str) -> tuple[RunFolder, LatentVariableModel]:
    """A run and its model, on a device."""
    from .runs import RunFolder, load
    from .training.device import find_device

    return RunFolder(run), load(run).to(find_device(device))


def check_out(out: Path | None, overwrite: bool, *sources: object) -> None:
    """Refuses to write over what is there, unless told to, and over a run or data in any case: asked before the work.

    Args:
        out: What shall be written; None for a place of the command's own.
        overwrite: Whether it may be there.
        *sources: Run folders and data, by their paths or names, which are to stay as they are.

    Raises:
        UsageError: If it may not be written.
        CheckpointError: If a run's config cannot be read.
    """
    from .runs import RunFolder

    if out is None:
        return
    whole = out.resolve()
    if any(RunFolder(folder).config_file.is_file() and RunFolder(folder).owns(whole) for folder in whole.parents[:2]):
        raise _not_there(out, "a file of a run")
    if out.is_dir():
        raise _not_there(out, "a folder")
    if not out.exists():
        return
    for source in sources:
        if not _data_of(source).isdisjoint((whole, *whole.parents)):
            raise _not_there(out, f"what {source} is, or is read from")
    if not overwrite:
        raise UsageError(
            f"{out} is there already.",
            got=f"--out {out}",
            expected="a name that is free",
            remedy="Choose another name, or replace it: --overwrite.",
        )


def _data_of(source: object) -> set[Path]:
    """The files and folders that a run, or what names data, is read from."""
    from .runs import RunFolder

    path = Path(str(source)).expanduser()
    if source is None or str(source) in DATASETS or not path.exists():
        return set()
    if not RunFolder(path).config_file.is_file():
        return {path.resolve()}
    options = RunFolder(path).config().data
    return set() if options is None or not options.data else _data_of(options.data)


def _not_there(out: Path, what: str) -> UsageError:
    return UsageError(
        f"{out} is not to be written over.", got=f"--out {out}", expected=f"not {what}", remedy="Choose another name."
    )
