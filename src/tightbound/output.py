"""What the commands print and write: tables, JSON, pictures and arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from .models import LatentVariableModel

__all__ = ["print_evaluation", "print_json", "print_pairs", "write", "write_arrays"]


def print_evaluation(found: dict[str, Any]) -> None:
    """An evaluation as a table, its notes below."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found['n']} {found['split']} examples, k = {found['k']}")
    for column in ("", "value", "standard error", "unit"):
        table.add_column(column, justify="left" if column in ("", "unit") else "right")
    units = {"bits_per_dim": "bits per dimension"}
    digits = {"bits_per_dim": 4}
    for name in ("elbo", "reconstruction", "kl", "nll", "bits_per_dim"):
        value, d = found[name], digits.get(name, 2)
        cells = ("–", "–") if value is None else (f"{value['value']:.{d}f}", f"{value['standard_error']:.{d}f}")
        table.add_row(name, *cells, units.get(name, "nats per example"))
    for name in ("effective_sample_size", "active_units"):
        value = found[name]
        text = "–" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
        table.add_row(name, text, "", "")
    console = Console()
    console.print(table)
    for note in found["notes"]:
        console.print(f"note: {note}", highlight=False)


def write(
    parts: dict[str, Tensor], path: Path, model: LatentVariableModel, columns: int | None = None, across: bool = False
) -> None:
    """Pictures under their titles, or arrays under the first word of each title, as the name of the file says."""
    from . import pictures

    if path.suffix == ".npz":
        write_arrays({title.split()[0]: value.cpu().numpy() for title, value in parts.items()}, path)
        return
    if path.suffix != ".png":
        raise UsageError("The kind of file is not known.", got=path, expected="a name that ends in .png or .npz")
    if model.data_spec is not None:
        pictures.check_image(model.data_spec)
    sheets = [(title, pictures.grid(images, columns)) for title, images in parts.items()]
    pictures.save_picture(pictures.panels(sheets, across), path)
    print(path)


def write_arrays(arrays: dict[str, Any], path: Path) -> None:
    """Arrays in an .npz file, all of it or nothing."""
    import numpy as np

    from .checkpoint import write_atomically

    def save(temporary: str) -> None:
        with Path(temporary).open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(path, save)
    print(f"{path}: " + ", ".join(f"{name} {tuple(value.shape)}" for name, value in arrays.items()))


def print_json(value: object) -> None:
    """Any value as JSON."""
    print(json.dumps(value, indent=2, default=str))


def print_pairs(pairs: dict[str, Any]) -> None:
    """Names and values as two columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in pairs.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(f"[bold]{name}[/bold]", text)
    Console(highlight=False).print(table)
