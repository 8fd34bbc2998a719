"""Output of the commands: tables, JSON, images and arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor

    from ..data import DataSpec
    from ..evaluation import Diagnosis, Evaluation
    from ..evaluation.collapse.layer import Layer
    from ..evaluation.levels import LevelDiagnosis
    from ..evaluation.numbers import Row
    from ..reporting.comparing.comparison import Comparison

__all__ = [
    "as_names",
    "check_output",
    "examples_of",
    "print_comparison",
    "print_diagnosis",
    "print_evaluation",
    "print_json",
    "print_levels",
    "print_pairs",
    "print_rows",
    "print_written",
    "write",
    "write_arrays",
]


def examples_of(n: int, split: str) -> str:
    """A number of examples of a split, as text.

    Example:
        >>> examples_of(40, "test"), examples_of(1, "all")
        ('40 test examples', '1 example')
    """
    return f"{n:,} {'' if split == 'all' else f'{split} '}example{'s' * (n != 1)}"


def print_evaluation(found: Evaluation, units: str = "the data's units") -> None:
    """Prints an evaluation as a table with notes.

    Args:
        found: The evaluation.
        units: The units of an example's values, as text.
    """
    from rich.console import Console

    from ..evaluation.numbers import rows

    how = {
        "importance": f"k = {found.k}",
        "auto": f"k = {found.k} or more",
        "exact": "exact",
        "bound": f"a bound, k = {found.k}",
        "ode": f"NLL of the flow, ELBO of the chain, k = {found.k}",
    }
    told = how.get(found.method, f"k = {found.k}, {found.method} sampling")
    table = _table(f"{examples_of(found.n, found.split)}, {told}", rows(found, units=f"{units}, squared"))
    notes, quality = list(found.notes), found.sample_quality
    notes += [] if found.decoder_noise is None else [found.decoder_noise.remark]
    notes += [] if quality is None else quality.notes
    console = Console()
    console.print(f"[bold]{found.headline}[/bold]", highlight=False)
    console.print(table)
    _print_notes(console, notes)


def print_diagnosis(found: Diagnosis) -> None:
    """Prints a diagnosis as a verdict, a table and notes."""
    from rich.console import Console

    from ..evaluation.numbers import rows

    fewer = f"; likelihood and gap: {found.fit_n}" if found.fit_n not in (0, found.n) else ""
    table = _table(f"{examples_of(found.n, found.split)}{fewer}, nats per example", rows(found))
    console = Console(highlight=False)
    console.print(f"[bold]{found.verdict}[/bold]: {found.cause}.", f"Remedy: {found.remedy}.", sep="\n")
    for sentence in found.players:
        console.print(sentence)
    console.print(table)
    if found.layers:
        console.print(_layers(found.layers))
    _print_notes(console, found.notes)


def print_levels(found: LevelDiagnosis) -> None:
    """Prints what each noise level of a diffusion model costs, and remarks."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{examples_of(found.n, found.split)}; nats per example")
    for title in ("gamma", "sigma", found.split, "training"):
        table.add_column(title, justify="right")
    table.add_row("least noise", "", f"{-found.reconstruction:.3f}", "")
    for low, high, here, train in zip(found.edges, found.edges[1:], found.nats, found.train_nats, strict=False):
        sigmas = f"{math.exp(low / 2):.3g} to {math.exp(high / 2):.3g}"
        table.add_row(f"{low:.1f} to {high:.1f}", sigmas, f"{here:.3f}", f"{train:.3f}")
    table.add_row("most noise", "", f"{found.prior_term:.3f}", "")
    console = Console(highlight=False)
    for remark in found.remarks or ("Both ends of the schedule fit the data, and no noise level is overfitted.",):
        console.print(remark)
    console.print(table)


def _layers(layers: Sequence[Layer]) -> Table:
    """What each layer of a hierarchy carries, from the data up."""
    from rich.table import Table

    from ..evaluation.collapse.layer import COLUMNS, cells

    table = Table(title="each layer, from the data up; nats per example")
    for title in COLUMNS:
        table.add_column(title, justify="right" if title not in ("layer", "") else "left", no_wrap=True)
    for row in cells(layers):
        table.add_row(*row)
    return table


def _table(title: str, rows: Iterable[Row]) -> Table:
    """Numbers with errors, a rule between sections, and a column for units if there are any."""
    from rich.table import Table

    there = list(rows)
    units = any(row.unit for row in there)
    table = Table(title=title)
    for column in ("", "value", "standard error", "unit")[: 3 + units]:
        table.add_column(column, justify="left" if column in ("", "unit") else "right", no_wrap=column != "unit")
    for row, after in zip(there, [*there[1:], None], strict=True):
        cells = (row.words, row.value, row.error, row.unit)[: 3 + units]
        table.add_row(*cells, end_section=after is not None and after.number.section != row.number.section)
    return table


def _print_notes(console: Console, notes: Iterable[str]) -> None:
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def print_comparison(found: Comparison) -> None:
    """Prints runs as columns of a table, differences of the first from the others, and notes."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..reporting.comparing.table import about, differences, numbers

    console, labels = Console(highlight=False), [escape(run.label) for run in found.runs]
    table = Table("", *labels, title=f"{examples_of(found.n, found.split)}, k = {found.k}")
    for section in (about(found), numbers(found)):
        for name, cells in section:
            table.add_row(escape(name), *map(escape, cells))
        table.add_section()
    console.print(table)
    head, *lines = differences(found)
    table = Table(*head, title="paired differences")
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table)
    for run in found.runs:
        for note in run.notes:
            console.print(f"{run.label}: {note}", markup=False)


def print_rows(title: str, rows: Sequence[Sequence[str]], notes: Iterable[str]) -> None:
    """Prints a header and rows of text as a table, and notes."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    head, *lines = rows
    table, console = Table(title=title), Console(highlight=False)
    for place, column in enumerate(head):
        table.add_column(escape(column), justify="right" if place else "left", no_wrap=place > 0)
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table)
    _print_notes(console, notes)


def check_output(path: Path, spec: DataSpec | None) -> Path:
    """The path, if the output can be written there; called before the work.

    Raises:
        UsageError: If its extension is unknown, or the data cannot be drawn.
    """
    if path.suffix not in (".png", ".npz"):
        raise UsageError("Unknown kind of file.", got=path, expected="a name that ends in .png or .npz")
    if path.suffix == ".png" and spec is not None:
        from ..views.samples import require_drawable

        require_drawable(spec)
    return path


def write(
    parts: dict[str, Tensor],
    path: Path,
    spec: DataSpec | None,
    across: bool = False,
    told: str = "",
    names: Sequence[str] = (),
    **more: Tensor,
) -> None:
    """Writes images under their titles, or arrays under the first words of the titles.

    Arrays are in the data's own units.

    Args:
        parts: Images ``(n, *shape)``, or ``(rows, columns, *shape)``, by title.
        path: The .png or .npz.
        spec: Of the data; None for unscaled outputs of a model built by hand.
        across: Whether parts are side by side.
        told: A description to print.
        names: For arrays only: names of the n examples.
        **more: Further arrays, for arrays only.
    """
    from ..pictures.sheets import sheet
    from ..views.samples import save_picture

    if path.suffix == ".npz":
        from ..data.transform import in_data_units

        own = {title: in_data_units(value, spec) if spec else value for title, value in parts.items()}
        arrays = {title.split()[0]: value for title, value in own.items()} | more
        called = {"names": as_names(names)} if names else {}
        write_arrays({name: value.cpu().numpy() for name, value in arrays.items()} | called, path, told)
        return
    save_picture(sheet(parts, spec, across=across), path)
    print_written(path, told)


def print_written(path: Path, told: str) -> None:
    """Prints the path and a description of a written file."""
    print(f"{path}: {told}" if told else path)


def as_names(names: Sequence[str]) -> np.ndarray:
    """Names as an array of text, readable without pickle.

    Example:
        >>> as_names(["a.png", "b.png"]).dtype.kind
        'U'
    """
    import numpy as np

    return np.array(names, dtype=np.str_)


def write_arrays(arrays: dict[str, Any], path: Path, told: str = "") -> None:
    """Writes arrays to an .npz file atomically; ``told`` is a description."""
    import numpy as np

    from ..runtime.files import write_atomically

    def save(temporary: str) -> None:
        with Path(temporary).open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(path, save)
    what = ", ".join(f"{name} {tuple(value.shape)}" for name, value in arrays.items())
    print_written(path, f"{told}; {what}" if told else what)


def print_json(value: object) -> None:
    """Prints any value as JSON."""
    print(json.dumps(value, indent=2, default=str))


def print_pairs(pairs: dict[str, Any]) -> None:
    """Prints names and values in two columns."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in pairs.items():
        text = ", ".join(f"{k} {_brief(v)}" for k, v in value.items()) if isinstance(value, dict) else _brief(value)
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(text))
    Console(highlight=False).print(table)


def _brief(value: object) -> str:
    """A value as text; of many numbers only the first."""
    if isinstance(value, tuple | list) and len(value) > 8 and all(isinstance(one, float) for one in value):
        return f"{str(list(value[:8]))[:-1]}, ... {len(value):,} numbers]"
    return str(value)
