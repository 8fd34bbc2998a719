"""Output of what each layer of a hierarchy holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .output import as_names, print_written, write_arrays

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import DataSpec
    from ..views.layers import LayerViews

__all__ = ["write_layers"]


def write_layers(views: LayerViews, path: Path, spec: DataSpec | None) -> None:
    """Writes a sheet, or the arrays ``sample``, ``redrawn`` with a row for each layer, and ``layers``, their names.

    Args:
        views: The images.
        path: The .png or .npz.
        spec: Of the data.
    """
    import torch

    from ..pictures.sheets import layer_sheet
    from ..views.samples import save_picture

    n = len(next(iter(views.redrawn.values())))
    told = f"{n} sample{'s' * (n != 1)} for each of {views.omitted or f'{len(views.names)} layers'}"
    if path.suffix == ".png":
        save_picture(layer_sheet(views, spec), path)
        print_written(path, told)
        return
    images = {"sample": views.sample, "redrawn": torch.stack([*views.redrawn.values()])}
    arrays = {name: _in_data_units(x, spec).cpu().numpy() for name, x in images.items()}
    write_arrays(arrays | {"layers": as_names(list(views.redrawn))}, path, told)


def _in_data_units(x: Tensor, spec: DataSpec | None) -> Tensor:
    from ..data.transform import in_data_units

    return x if spec is None else in_data_units(x, spec)
