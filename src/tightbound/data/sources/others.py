"""Unsupported file formats, with the command that converts them."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import DataError

__all__ = ["refuse_others"]

_TORCH = "torch.load(FILE, weights_only=True)"
_OTHERS: dict[tuple[str, ...], tuple[str, str]] = {
    (".mat",): ("a MATLAB file", "scipy.io.loadmat(FILE)[NAME]"),
    (".pt", ".pth", ".ckpt"): ("a file of torch.save, a pickle, which is never read since it could run code", _TORCH),
    (".pkl", ".pickle", ".joblib"): ("a pickle, which is never read since it could run code", "..."),
    (".h5", ".hdf5", ".hdf", ".nc"): ("an HDF5 file", "h5py.File(FILE)[NAME][:]"),
    (".safetensors",): ("a file of tensors", "safetensors.numpy.load_file(FILE)[NAME]"),
    (".json", ".jsonl"): ("a JSON file", "numpy.array(json.load(open(FILE)))"),
    (".txt", ".dat", ".data"): ("a text file", "numpy.loadtxt(FILE)"),
    (".feather", ".arrow"): ("an Arrow table", "pyarrow.feather.read_table(FILE).to_pandas().to_numpy()"),
    (".xls", ".xlsx", ".ods"): ("a spreadsheet", ""),
    (".7z", ".rar"): ("an unsupported archive", ""),
}
"""Extensions, descriptions, and the expression that gives the array."""
_OTHERWISE = {".xls": "Export the sheet as a .csv.", ".7z": "Unpack it, and use the folder."}
LOOKED_AT = 1000
"""Number of files of a folder that are inspected."""


def refuse_others(path: Path) -> None:
    """Refuses unsupported file formats, and a folder of arrays.

    Raises:
        DataError: With the command for conversion.
    """
    if path.is_dir():
        _refuse_folder_of_arrays(path)
        return
    for endings, (what, array) in _OTHERS.items():
        if path.suffix.lower() in endings:
            save = f"numpy.save('{path.stem}.npy', {array.replace('FILE', repr(path.name))})"
            raise DataError(
                f"{path} is {what}.",
                got=f"a file ending in {path.suffix!r}",
                expected="a folder or archive of images, an .npy or .npz, or a .csv or .parquet table",
                remedy=_OTHERWISE.get(endings[0], f"{save}, with the examples along the first dimension."),
            )


def _refuse_folder_of_arrays(folder: Path) -> None:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry, _ in zip(entries, range(LOOKED_AT), strict=False))
    seen = [name for name in names if not name.startswith(".")]
    for ending in (".npy", ".npz", ".csv", ".pt", ".mat"):
        if seen and all(name.lower().endswith(ending) for name in seen):
            raise DataError(
                f"{folder} is a folder of {ending} files.",
                got=f"{seen[0]}{', ...' if len(seen) > 1 else ''}",
                expected="a folder of images, or one array of all examples",
                remedy=_ONE_ARRAY if ending == ".npy" else "Join them: one file, whose first dimension is examples.",
            )


_ONE_ARRAY = (
    "If each file is an example: numpy.save('all.npy', numpy.stack([numpy.load(f) for f in sorted(glob.glob("
    "'*.npy'))])); if each is a split: numpy.savez('all.npz', train=..., test=...)."
)
