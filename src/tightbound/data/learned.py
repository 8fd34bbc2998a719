"""New data for a trained model: converted to its form, with notes on changes."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..errors import DataError
from ..options.data import DataOptions
from ..options.data_spec import DataSpec
from .reshape import fit_images
from .sources.arrays import chunks
from .sources.raw import Part, Raw

__all__ = ["as_learned"]


def as_learned(raw: Raw, spec: DataSpec, options: DataOptions) -> Raw:
    """New data with the colours, levels and classes of a model's training data.

    Args:
        raw: The output of a reader.
        spec: The data spec of the model.
        options: How its own data was read.

    Raises:
        DataError: If values exceed the model's levels.

    Example:
        >>> new = Raw("new", {"train": Part(np.ones((2, 3, 4, 4), np.uint8))}, 256)
        >>> found = as_learned(new, DataSpec("own", (1, 4, 4), 256), DataOptions())
        >>> found.parts["train"].values.shape, found.notes
        ((2, 1, 4, 4), ('new: the images were converted to grey, as the model expects.',))
    """
    return _classes(_levels(_colours(raw, spec, options), spec, options), spec)


def _colours(raw: Raw, spec: DataSpec, options: DataOptions) -> Raw:
    shape = raw.parts["train"].values.shape[1:]
    channels = {shape[0], spec.shape[0]} if len(shape) == len(spec.shape) == 3 else set[int]()
    if channels != {1, 3}:
        return raw
    grey = spec.shape[0] == 1
    turned = fit_images(raw, dataclasses.replace(options, color="grey" if grey else "rgb", image_size=None))
    return _said(turned, f"the images were converted to {'grey' if grey else 'RGB'}, as the model expects.")


def _levels(raw: Raw, spec: DataSpec, options: DataOptions) -> Raw:
    """Bytes are read as the model's levels if it has fewer than 256."""
    binary = options.binarize != "none"
    known = 2 if binary else spec.levels
    if known is None or raw.levels is None or raw.levels <= known:
        return raw
    top = max(int(part.max()) for each in raw.parts.values() for _, part in chunks(each.values))
    if binary:
        dark = f"its values reach only {top} of {raw.levels - 1}, so nearly all of it is black; {_DECLARED}"
        return _said(raw, dark) if 2 * top < raw.levels - 1 else raw
    if top >= known:
        raise DataError(
            f"{raw.name} has more levels than the model's data had.",
            got=f"levels up to {top}",
            expected=f"integers 0 ... {known - 1}",
            remedy=f"Scale them down and save them as an array: round(values * {known - 1} / {raw.levels - 1}).",
        )
    told = f"its values, up to {top}, are read as the {known} levels of the model."
    return _said(dataclasses.replace(raw, levels=known), told)


_DECLARED = "if there are fewer levels, declare them: np.savez(file, x=values, levels=17)"


def _classes(raw: Raw, spec: DataSpec) -> Raw:
    """Classes by name: those of the model keep their indices, others follow."""
    if not spec.classes:
        return raw
    raw = raw if raw.classes else _class_of_folder(raw, spec)
    counted = raw.classes == tuple(map(str, range(len(raw.classes))))
    if not raw.classes or raw.classes == spec.classes:
        return raw
    if counted and len(raw.classes) <= len(spec.classes):  # indices without names
        return dataclasses.replace(raw, classes=spec.classes)
    classes = (*spec.classes, *(name for name in raw.classes if name not in spec.classes))
    numbers = np.array([classes.index(name) for name in raw.classes])
    parts = {name: _renumbered(part, numbers) for name, part in raw.parts.items()}
    found = dataclasses.replace(raw, parts=parts, classes=classes)
    strange = classes[len(spec.classes) :]
    return _said(found, f"classes that the model's data did not have: {', '.join(strange)}.") if strange else found


def _class_of_folder(raw: Raw, spec: DataSpec) -> Raw:
    """Images of one class, in a folder named after it."""
    tops = {name.partition("/")[0] for part in raw.parts.values() for name in part.names or ("",) if "/" in name}
    if len(raw.parts) > 1 or len(tops) != 1 or not tops <= set(spec.classes):
        return raw
    part = raw.parts["train"]
    labelled = dataclasses.replace(part, labels=np.zeros(len(part), np.int64))
    return dataclasses.replace(raw, parts={"train": labelled}, classes=tuple(tops))


def _renumbered(part: Part, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Part:
    return part if part.labels is None else dataclasses.replace(part, labels=numbers[part.labels])


def _said(raw: Raw, note: str) -> Raw:
    return dataclasses.replace(raw, notes=(*raw.notes, f"{raw.name}: {note}"))
