"""What options of several commands share: their names, their help, and what they open."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from ..data import DATASETS
from ..errors import UsageError
from .output import check_output

if TYPE_CHECKING:
    from torch import Tensor

    from ..conditions import Given
    from ..data import Data, Split
    from ..models import Model
    from ..runs import RunFolder

__all__ = [
    "NAMED",
    "Device",
    "Json",
    "Overwrite",
    "Picture",
    "Resume",
    "ResumeFrom",
    "Run",
    "Seed",
    "Source",
    "SplitName",
    "Words",
    "WordsFile",
    "affordable",
    "counted",
    "data_of",
    "evenly_spaced",
    "named",
    "open_run",
    "part_of",
    "representative",
    "require_positive",
    "require_writable",
    "seen",
    "shown",
]

NAMED = 4
"""Examples that a line names."""

Run = Annotated[Positional[Path], arg(metavar="RUN", help="The run folder.")]
Json = Annotated[bool, arg(help="Print JSON.")]
Resume = Annotated[FlagCreatePairsOff[bool], arg(help="Go on exactly where the run in --out stopped.")]
ResumeFrom = Annotated[Literal["last", "best"], arg(help="The checkpoint to go on from.")]
Seed = Annotated[int, arg(help="Seed of all noise.")]
Device = Annotated[str, arg(help="auto, cpu, cuda or mps.")]
SplitName = Annotated[
    Literal["train", "valid", "test", "all"] | None,
    arg(help="Which part of the data; default: test; with --data, all."),
]
Source = Annotated[
    str | None,
    arg(metavar="DATA", help="Other data than the run's own: a name, a folder, an archive, a picture or an array."),
]
Words = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(
        metavar="WORDS",
        help="What the model is given: a class, numbers, a text, or none; of several NAME=WORDS for each, such as "
        "class=7; default: some of each.",
    ),
]
WordsFile = Annotated[
    Path | None,
    arg(metavar="FILE", help="Conditions from a file: a text with one on each line, an .npy array, or a picture."),
]
Picture = Annotated[Path | None, arg(metavar="FILE", help="A .png or an .npz; default: in RUN/samples.")]

Overwrite = Annotated[FlagCreatePairsOff[bool], arg(help="Replace what --out names, if it is there already.")]


def open_run(run: Path, source: str | None, device: str) -> tuple[RunFolder, Model, Data]:
    """A run, its model, and its data or another that fits the model."""
    from ..runs import RunFolder

    return RunFolder(run), model_of(run, device), data_of(run, source)


def data_of(run: Path, source: str | None) -> Data:
    """A run's data, or another that fits its model; what was done to that is said."""
    from ..runs import load_run_data

    loaded = load_run_data(run, source)
    if source is not None:
        _say(loaded)
    return loaded


def _say(loaded: Data) -> None:
    notes = loaded.said if loaded.new else ("this is the data that the run was trained on, divided as it was",)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def part_of(loaded: Data, name: str | None) -> Split:
    """The split of a name, or what is measured by default."""
    return loaded.split(name or loaded.default)


def named(some: Split, split: Split) -> str:
    """What some examples of a split are called, in a line.

    Example:
        >>> from tightbound.data import load_data
        >>> test = load_data("digits").test
        >>> named(representative(test, 6), test)
        '6 of 360 test examples of digits: 229, 47, 54, 89, ...'
    """
    names = ", ".join([*some.names[:NAMED], *(["..."] if len(some) > NAMED else [])])
    return f"{len(some)} of {counted([split])}: {names}"


def counted(parts: Sequence[Split]) -> str:
    """How many examples there are in each of some splits of one data set, in words.

    Example:
        >>> from tightbound.data import load_data
        >>> counted([load_data("digits").test])
        '360 test examples of digits'
    """
    counts = [f"{len(part)}" if part.name == "all" else f"{len(part)} {part.name}" for part in parts]
    plural = "s" * (sum(map(len, parts)) != 1)
    return f"{', '.join(counts[:-1])}{' and ' * (len(parts) > 1)}{counts[-1]} example{plural} of {parts[0].spec.name}"


def evenly_spaced(split: Split, limit: int | None) -> Split:
    """So many examples at even distances, because some files lie in the order of their class; or all."""
    if limit is None:
        return split
    require_positive("--limit", limit)
    return split.evenly_spaced(limit)


def representative(split: Split, n: int) -> Split:
    """So many examples of a split, of all its classes in turn."""
    require_positive("-n", n)
    if n > len(split):
        raise UsageError(
            "The data has fewer examples.",
            got=f"-n {n}, of {counted([split])}",
            expected=f"at most {len(split)}",
            remedy="Lower -n.",
        )
    return split.subset(split.representative(n))


def seen(model: Model, some: Split) -> tuple[Tensor, Given | None]:
    """A few examples as the model sees them, and their conditions."""
    import torch

    return model.see(some.batch(torch.arange(len(some)), model.device))


def require_positive(name: str, value: int) -> None:
    """Refuses a number below one."""
    if value < 1:
        raise UsageError(f"{name} must be at least 1.", got=value, remedy=f"Try {name} 16.")


def affordable(name: str, count: int, model: Model) -> None:
    """Refuses more examples than memory holds: their means, a draw of each, and what is made of these.

    Args:
        name: The option to lower.
        count: How many.
        model: What draws them.
    """
    from ..data.store import memory_limit

    size = 16 * (1 if model.data_spec is None else model.data_spec.dimensions)
    if count * size > memory_limit():
        raise UsageError(
            "So many examples do not fit in memory.",
            got=f"{count:,} of {size:,} bytes",
            expected=f"at most {memory_limit() // size:,}",
            remedy=f"Lower {name}, or raise TIGHTBOUND_MEMORY_LIMIT.",
        )


def model_of(run: Path, device: str) -> Model:
    """The model of a run, on a device."""
    from ..runs import load
    from ..training.device import find_device

    return load(run).to(find_device(device))


def shown(
    run: Path, name: str, out: Path | None, overwrite: bool, device: str, *sources: object, n: int | None = None
) -> tuple[Model, Path]:
    """A run's model, and where what it shows is to be written: what cannot be is refused before the work.

    Args:
        run: The run folder.
        name: What is written in its samples unless told otherwise.
        out: What shall be written instead.
        overwrite: Whether that may be there.
        device: Where the model computes.
        *sources: What the command reads beside the run.
        n: How many are to be shown, if that is known.

    Raises:
        UsageError: If it cannot be written, or memory does not hold so many.
        CheckpointError: If there is no complete run.
    """
    from ..runs import RunFolder

    require_positive("-n", 1 if n is None else n)
    require_writable(out, overwrite, run, *sources)
    model = model_of(run, device)
    path = check_output(out or RunFolder(run).samples / name, model.data_spec)
    affordable("-n", n or 1, model)
    return model, path


def require_writable(out: Path | None, overwrite: bool, *sources: object) -> None:
    """Refuses to write over what is there, unless told to, and over a run or data in any case: asked before the work.

    Args:
        out: What shall be written; None for a place of the command's own.
        overwrite: Whether it may be there.
        *sources: Run folders and data, by their paths or names, which are to stay as they are.

    Raises:
        UsageError: If it may not be written.
        CheckpointError: If a run's config cannot be read.
    """
    from ..runs import RunFolder

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
    from ..runs import RunFolder

    path = Path(str(source)).expanduser()
    if source is None or str(source) in DATASETS or not path.exists():
        return set()
    if not (path / "config.json").is_file():
        return {path.resolve()}
    options = RunFolder(path).config().data
    return set() if options is None or not options.data else _data_of(options.data)


def _not_there(out: Path, what: str) -> UsageError:
    return UsageError(
        f"{out} is not to be written over.", got=f"--out {out}", expected=f"not {what}", remedy="Choose another name."
    )
