"""Options shared by several commands: names, help and loading."""

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
"""Maximum number of examples named in a line."""

Run = Annotated[Positional[Path], arg(metavar="RUN", help="The run folder.")]
Json = Annotated[bool, arg(help="Print JSON.")]
Resume = Annotated[FlagCreatePairsOff[bool], arg(help="Resume the run in --out exactly where it stopped.")]
ResumeFrom = Annotated[Literal["last", "best"], arg(help="The checkpoint to resume from.")]
Seed = Annotated[int, arg(help="Seed of all noise.")]
Device = Annotated[str, arg(help="Device to compute on: auto, cpu, cuda or mps.")]
SplitName = Annotated[
    Literal["train", "valid", "test", "all"] | None,
    arg(help="Split of the data; default: test; with --data, all."),
]
Source = Annotated[
    str | None,
    arg(
        metavar="DATA", help="Data to use instead of the run's own: a name, a folder, an archive, an image or an array."
    ),
]
Words = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(
        metavar="WORDS",
        help="Condition of the model: a class, numbers, a text, or none; with several conditions NAME=WORDS for each, "
        "such as class=7; default: a selection of conditions.",
    ),
]
WordsFile = Annotated[
    Path | None,
    arg(metavar="FILE", help="File with conditions: a text file with one per line, an .npy array, or an image."),
]
Picture = Annotated[Path | None, arg(metavar="FILE", help="File to write, .png or .npz; default: in RUN/samples.")]

Overwrite = Annotated[FlagCreatePairsOff[bool], arg(help="Overwrite the file given by --out if it exists.")]


def open_run(run: Path, source: str | None, device: str) -> tuple[RunFolder, Model, Data]:
    """A run and its model, with its own data or other data that fits."""
    from ..runs import RunFolder

    return RunFolder(run), model_of(run, device), data_of(run, source)


def data_of(run: Path, source: str | None) -> Data:
    """A run's own data, or other data that fits its model; prints notes on conversions."""
    from ..runs import load_run_data

    loaded = load_run_data(run, source)
    if source is not None:
        _say(loaded)
    return loaded


def _say(loaded: Data) -> None:
    notes = loaded.said if loaded.new else ("this is the data that the run was trained on, with the same splits",)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def part_of(loaded: Data, name: str | None) -> Split:
    """The named split, or the default one."""
    return loaded.split(name or loaded.default)


def named(some: Split, split: Split) -> str:
    """The names of some examples of a split, in a line.

    Example:
        >>> from tightbound.data import load_data
        >>> test = load_data("digits").test
        >>> named(representative(test, 6), test)
        '6 of 360 test examples of digits: 229, 47, 54, 89, ...'
    """
    names = ", ".join([*some.names[:NAMED], *(["..."] if len(some) > NAMED else [])])
    return f"{len(some)} of {counted([split])}: {names}"


def counted(parts: Sequence[Split]) -> str:
    """The number of examples in some splits of one data set, as text.

    Example:
        >>> from tightbound.data import load_data
        >>> counted([load_data("digits").test])
        '360 test examples of digits'
    """
    counts = [f"{len(part)}" if part.name == "all" else f"{len(part)} {part.name}" for part in parts]
    plural = "s" * (sum(map(len, parts)) != 1)
    return f"{', '.join(counts[:-1])}{' and ' * (len(parts) > 1)}{counts[-1]} example{plural} of {parts[0].spec.name}"


def evenly_spaced(split: Split, limit: int | None) -> Split:
    """A number of evenly spaced examples, since some files are sorted by class; or all."""
    if limit is None:
        return split
    require_positive("--limit", limit)
    return split.evenly_spaced(limit)


def representative(split: Split, n: int) -> Split:
    """A number of examples of a split, cycling through its classes."""
    require_positive("-n", n)
    if n > len(split):
        raise UsageError(
            "The data has fewer examples than requested.",
            got=f"-n {n}, of {counted([split])}",
            expected=f"at most {len(split)}",
            remedy="Lower -n.",
        )
    return split.subset(split.representative(n))


def seen(model: Model, some: Split) -> tuple[Tensor, Given | None]:
    """A few examples and their conditions, as model inputs."""
    import torch

    return model.see(some.batch(torch.arange(len(some)), model.device))


def require_positive(name: str, value: int) -> None:
    """Refuses a number below one."""
    if value < 1:
        raise UsageError(f"{name} must be at least 1.", got=value, remedy=f"Try {name} 16.")


def affordable(name: str, count: int, model: Model) -> None:
    """Refuses more examples than fit in memory, including their means, samples and images.

    Args:
        name: The option to lower.
        count: Number of examples.
        model: The model that generates them.
    """
    from ..data.store import memory_limit

    size = 16 * (1 if model.data_spec is None else model.data_spec.dimensions)
    if count * size > memory_limit():
        raise UsageError(
            "Too many examples for the memory.",
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
    """The model of a run and the file to write; refuses before the work a file that cannot be written.

    Args:
        run: The run folder.
        name: The default file name, in the samples of the run.
        out: The file to write; None for the default.
        overwrite: Whether it may exist.
        device: The device to compute on.
        *sources: Other files and data that the command reads.
        n: Number of examples, if known.

    Raises:
        UsageError: If the file cannot be written, or n examples do not fit in memory.
        CheckpointError: If the folder holds no complete run.
    """
    from ..runs import RunFolder

    require_positive("-n", 1 if n is None else n)
    require_writable(out, overwrite, run, *sources)
    model = model_of(run, device)
    path = check_output(out or RunFolder(run).samples / name, model.data_spec)
    affordable("-n", n or 1, model)
    return model, path


def require_writable(out: Path | None, overwrite: bool, *sources: object) -> None:
    """Refuses to overwrite existing files without ``overwrite``, and runs or data always; called before the work.

    Args:
        out: The file to write; None for the command's default.
        overwrite: Whether it may exist.
        *sources: Run folders and data, by their paths or names, which must not be overwritten.

    Raises:
        UsageError: If it must not be overwritten.
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
            raise _not_there(out, f"a file of {source}")
    if not overwrite:
        raise UsageError(
            f"{out} already exists.",
            got=f"--out {out}",
            expected="an unused name",
            remedy="Choose another name, or overwrite it: --overwrite.",
        )


def _data_of(source: object) -> set[Path]:
    """The files and folders of a run or of data."""
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
        f"{out} must not be overwritten.", got=f"--out {out}", expected=f"not {what}", remedy="Choose another name."
    )
