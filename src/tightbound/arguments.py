"""What options of several commands share: their names, their help, and what they open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

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
    "Picture",
    "Run",
    "Seed",
    "Source",
    "SplitName",
    "Words",
    "WordsFile",
    "affordable",
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


def affordable(name: str, count: int, model: LatentVariableModel) -> None:
    """Refuses more examples than memory holds: their means, a draw of each, and what is made of these.

    Args:
        name: The option to lower.
        count: How many.
        model: What draws them.
    """
    from .data.store import memory_limit

    size = 16 * (1 if model.data_spec is None else model.data_spec.dimensions)
    if count * size > memory_limit():
        raise UsageError(
            "So many examples do not fit in memory.",
            got=f"{count:,} of {size:,} bytes",
            expected=f"at most {memory_limit() // size:,}",
            remedy=f"Lower {name}, or raise TIGHTBOUND_MEMORY_LIMIT.",
        )


def model_of(run: Path, device: str) -> tuple[RunFolder, LatentVariableModel]:
    """A run and its model, on a device."""
    from .runs import RunFolder, load
    from .training.device import find_device

    return RunFolder(run), load(run).to(find_device(device))
