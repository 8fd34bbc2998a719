"""A data set: its three splits and its description for a model."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import UnknownName, UsageError
from ..options.data import DataOptions, sides, wider
from ..options.data_spec import DataSpec
from ..spec import Option
from .divide import divided
from .learned import as_learned
from .observed import described, levels_in_use, observed
from .reshape import fit_images
from .sources.arrays import from_arrays
from .sources.levels import fit_levels
from .sources.raw import Array, Part, Raw
from .sources.tables import require_table
from .spacing import evenly_spaced_rows
from .split import Split, joined
from .standardise import standardised
from .transform import Transform

__all__ = ["Data", "SplitName"]

SplitName = Literal["train", "valid", "test", "all"]

WHOLE, SOME = 2**30, 2**24
"""The fingerprint uses at most this many bytes of a split, from evenly spaced rows."""


@dataclass(frozen=True, eq=False)
class Data:
    """Three splits of the same kind of example; for new data of a trained model, its official splits.

    Args:
        spec: The description that a model is built from.
        options: The options used.
        train: Training examples; all examples, as split ``"all"``, if new data is not divided.
        valid: Validation examples; may be empty.
        test: Test examples.
        said: Notes on what the reader left out, scaled or chosen, a sentence each.
        new: Whether it is new data for a trained model, without held-out splits.
        levels_declared: Whether the levels were declared, or found while scaling.

    Example:
        >>> from tightbound.data import load_data
        >>> data = load_data("digits", binarize="dynamic")
        >>> len(data.train), len(data.valid), len(data.test), data.spec.levels
        (1293, 144, 360, 2)
    """

    spec: DataSpec
    options: DataOptions
    train: Split
    valid: Split
    test: Split
    said: tuple[str, ...] = field(default=(), kw_only=True)
    levels_declared: bool = field(default=False, kw_only=True)
    new: bool = field(default=False, kw_only=True)

    @classmethod
    def from_raw(cls, raw: Raw, options: DataOptions) -> Data:
        """Divides, scales and describes the output of a reader.

        Raises:
            DataError: If there are too few examples.
            UsageError: If an option does not fit this data.
        """
        declared = options.levels != "auto" or raw.levels not in (None, 256)
        raw, options = fit_levels(raw, options)
        raw = fit_images(raw, options)
        parts = divided(raw.parts, options)
        spec, notes = standardised(_described(raw, options), parts["train"], options)
        spec = replace(spec, absent=_absent(parts["train"], len(raw.classes)))
        train, valid, test = (_split(name, parts[name], raw, spec, options) for name in ("train", "valid", "test"))
        return cls(spec, options, train, valid, test, said=(*raw.notes, *notes), levels_declared=declared)

    def scaled_as(self, spec: DataSpec) -> Data:
        """The same data, standardised by the location and scale of a trained run's data.

        Args:
            spec: The data spec of the model.

        Example:
            >>> train = Data.from_arrays(1000 * torch.randn(20, 4))
            >>> Data.from_arrays(torch.randn(20, 4)).scaled_as(train.spec).spec.scale == train.spec.scale
            True
        """
        if self.spec.levels is not None:
            return self
        train, valid, test = (split.scaled_as(spec) for split in (self.train, self.valid, self.test))
        return replace(self, spec=self.spec.scaled_as(spec), train=train, valid=valid, test=test)

    @classmethod
    def for_learned(cls, raw: Raw, options: DataOptions, model: DataSpec) -> Data:
        """All of some new data for a trained model: in its official splits, or in one called "all".

        Args:
            raw: The output of a reader.
            options: How the model's own data was read.
            model: The data spec of the model.

        Raises:
            DataError: If values exceed the model's levels.
            UsageError: If an option does not fit this data.
        """
        raw, options = fit_levels(raw, options)
        raw = as_learned(fit_images(raw, options), model, options)
        spec, whole = _described(raw, options).scaled_as(model), len(raw.parts) == 1
        nothing = next(iter(raw.parts.values())).take(np.arange(0))
        parts = [(name, raw.parts.get(name, nothing)) for name in ("train", "valid", "test")]
        splits = (_split("all" if whole else name, part, raw, spec, options) for name, part in parts)
        train, valid, test = (split.still for split in splits)
        said = (*raw.notes, *_as_declared((train, valid, test), options))
        return cls(spec, options, train, valid, test, said=said, new=True)

    @classmethod
    def from_arrays(
        cls,
        train: Array | Tensor,
        test: Array | Tensor | None = None,
        valid: Array | Tensor | None = None,
        *,
        labels: Array | Tensor | Mapping[str, Array | Tensor] | None = None,
        conditions: Array | Tensor | Mapping[str, Array | Tensor] | None = None,
        captions: Mapping[str, tuple[str, ...]] | None = None,
        levels: int | Literal["auto"] | None = "auto",
        name: str = "arrays",
        classes: tuple[str, ...] = (),
        **options: Option,
    ) -> Data:
        """Data from arrays of this process.

        Args:
            train: Examples, ``[N, features]``, ``[N, H, W]``, ``[N, C, H, W]`` or ``[N, H, W, C]``.
            test: Test examples; held out of ``train`` if absent.
            valid: Validation examples; held out of ``train`` if absent.
            labels: Class indices of ``train``, or of each split by name.
            conditions: Conditions of ``train``, or of each split by name.
            captions: Texts of each split, by name.
            levels: Number of values an entry can take, None if continuous; ``"auto"``: 256 for bytes and other
                integers, 2 for booleans, continuous for floats, 16 bits scaled to 256.
            name: Title of the data.
            classes: Names of the classes; their indices if absent.
            **options: Other fields of :class:`DataOptions`.

        Raises:
            DataError: If the arrays are invalid.
            UsageError: If an option does not fit.

        Example:
            >>> images = np.zeros((20, 8, 8), dtype=np.uint8)
            >>> Data.from_arrays(images, labels=np.arange(20) % 2, levels=17).spec.shape
            (1, 8, 8)
        """
        asked = replace(DataOptions(data=""), **options)  # no name refers to these
        require_table(asked)
        arrays = {"train": train, "valid": valid, "test": test}
        arrays = {name: split for name, split in arrays.items() if split is not None}
        given = {"labels": labels, "captions": captions, "conditions": conditions}
        raw = from_arrays(name, arrays, **given, levels=levels, classes=classes)
        wide = isinstance(levels, int) and levels > 256
        return cls.from_raw(raw, replace(asked, levels=levels) if wide else asked)

    @cached_property
    def fingerprint(self) -> str:
        """Number of training, validation and test examples, and a digest of their shape and stored values.

        The same for the same values, in memory or mapped from a file. For a split above 1 GiB it uses evenly spaced
        rows only.

        Example:
            >>> data = Data.from_arrays(np.zeros((20, 4), dtype=np.uint8))
            >>> data.fingerprint
            '16-2-2-...'
        """
        counts = "-".join(str(len(split)) for split in (self.train, self.valid, self.test))
        digest = hashlib.blake2b(repr((counts, self.spec.shape)).encode(), digest_size=8)
        for split in (self.train, self.valid, self.test):
            for part in _stored(split):
                digest.update(part)
        return f"{counts}-{digest.hexdigest()}"

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Notes to check before training, a sentence each: from the reader, and on the values.

        Example:
            >>> Data.from_arrays(np.eye(20, 4, dtype=np.uint8)).notes[0]
            'Of values 0 ... 255 only 0 ... 1 are in use: ...'
        """
        splits = (self.train, self.valid, self.test)
        return (*self.said, *observed(self.spec, splits, declared=self.levels_declared))

    @property
    def description(self) -> str:
        """Examples, shape, levels, classes and captions in one line.

        Example:
            >>> from tightbound.data import load_data
            >>> load_data("digits").description
            'digits: 1,293 training, 144 validation and 360 test examples; shape 1 x 8 x 8; 17 levels; 10 classes'
        """
        return described(self.spec, (self.train, self.valid, self.test))

    def split(self, name: str) -> Split:
        """The named split, or all examples as one split.

        Raises:
            UnknownName: If it is not ``"train"``, ``"valid"``, ``"test"`` or ``"all"``.
            UsageError: If the data is not divided.

        Example:
            >>> data = Data.from_arrays(np.zeros((20, 4), dtype=np.uint8))
            >>> len(data.split("test")), len(data.split("all"))
            (2, 20)
        """
        if name == "all":
            parts = self.parts(name)
            return parts[0] if self.train.name == "all" else joined("all", parts)
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        if name not in splits:
            raise UnknownName("split", name, [*splits, "all"])
        if self.train.name == "all":
            raise UsageError(
                f"This data is not divided, so it has no {name} split.",
                got=f"{len(self.train)} examples of {self.spec.name!r}",
                remedy="Leave --split out, or use --split all.",
            )
        return splits[name]

    def parts(self, name: str) -> list[Split]:
        """The named split; for ``"all"``, every non-empty one, without random flips and crops."""
        if name != "all":
            return [self.split(name)]
        found = [split for split in (self.train, self.valid, self.test) if len(split)] or [self.train]
        return [split.still for split in found]

    @property
    def default(self) -> SplitName:
        """The default split to evaluate and show: for a model's own data, the test split."""
        return "all" if self.new else "test"

    def summary(self) -> dict[str, Any]:
        """A description as JSON values."""
        splits = (self.train, self.valid, self.test)
        return {
            "name": self.spec.name,
            "source": self.options.data,
            "shape": list(self.spec.shape),
            "cropped_from": list(self.train.values.shape[1:]) if self.options.crop else None,
            "levels": self.spec.levels,
            "levels_in_use": levels_in_use((self.train, self.valid, self.test)),
            "dequantized": self.spec.dequantized,
            "classes": list(self.spec.classes),
            "examples": {split.name: len(split) for split in splits},
            "captions": self.train.captions is not None,
            "stored_as": str(self.train.values.dtype).removeprefix("torch."),
            "memory_mapped": not isinstance(self.train.values, Tensor),
            "notes": list(self.notes),
            "options": dataclasses.asdict(self.options),
        }


def _as_declared(splits: tuple[Split, ...], options: DataOptions) -> Iterator[str]:
    """The note that new data uses at most the lower half of the declared levels."""
    used, levels = levels_in_use(splits), splits[0].transform.levels
    if options.levels != "auto" and used and levels and used["highest"] < (levels - 1) / 2:
        yield (
            f"With the levels of the model's own data (--levels {options.levels}), the values reach only "
            f"{used['highest']} of {levels - 1}: is this data of the same kind?"
        )


def _described(raw: Raw, options: DataOptions) -> DataSpec:
    shape = _seen(raw.parts["train"].values.shape[1:], options)
    if raw.levels is None and (options.binarize != "none" or options.dequantize):
        raise UsageError(
            "Continuous data cannot be binarized or dequantized.",
            got=f"{raw.name!r}, floats; binarize={options.binarize!r}, dequantize={options.dequantize}",
            expected="data with levels",
            remedy="Leave the option out, or provide the data as uint8 levels.",
        )
    if options.flip and len(shape) != 3:
        raise UsageError("Only images can be flipped.", got=f"examples of shape {shape}", remedy="Leave flip out.")
    levels = raw.levels if options.binarize == "none" else 2
    given = raw.parts["train"].conditions
    return DataSpec(
        raw.name,
        tuple(shape),
        levels,
        dequantized=options.dequantize,
        classes=raw.classes,
        captioned=raw.parts["train"].captions is not None,
        condition_shape=() if given is None else tuple(given.shape[1:]),
    )


def _seen(shape: tuple[int, ...], options: DataOptions) -> tuple[int, ...]:
    """The shape of an example as a model sees it."""
    if options.crop is None or (crop := sides(options.crop)) is None:
        return shape
    if len(shape) != 3:
        raise UsageError("Only images can be cropped.", got=f"examples of shape {shape}", remedy="Leave crop out.")
    if crop[0] > shape[1] or crop[1] > shape[2]:
        raise UsageError(
            "A crop must not be larger than the image.",
            got=f"crop {crop[0]} x {crop[1]} of images of {shape[1]} x {shape[2]} (height x width)",
            expected=f"at most {shape[1]} x {shape[2]}",
            remedy=f"Lower --crop, or resize the images first: --image-size {wider(options.crop)}.",
        )
    return (shape[0], *crop)


def _absent(train: Part, classes: int) -> tuple[int, ...]:
    """The classes without an example."""
    if train.labels is None:
        return ()
    return tuple(np.flatnonzero(np.bincount(train.labels, minlength=classes) == 0).tolist())


def _stored(split: Split) -> Iterator[bytes]:
    """The values of a split, or of evenly spaced rows of a large one."""
    values = split.values.cpu().numpy() if isinstance(split.values, Tensor) else split.values
    dtype = np.float32 if split.transform.levels is None else np.uint8
    size = max(1, math.prod(values.shape[1:]) * np.dtype(dtype).itemsize)
    count = len(split) if len(split) * size <= WHOLE else max(2, SOME // size)
    picked = evenly_spaced_rows(len(split), count)
    rows = picked if split.rows is None else split.rows.numpy()[picked]
    step = max(1, SOME // size)
    for start in range(0, count, step):
        yield np.ascontiguousarray(values[rows[start : start + step]], dtype).tobytes()


def _split(name: str, part: Part, raw: Raw, spec: DataSpec, options: DataOptions) -> Split:
    binarize = "none" if raw.levels == 2 else options.binarize
    transform = Transform(
        raw.levels,
        binarize=binarize,
        dequantize=options.dequantize,
        flip=options.flip and name == "train",
        crop=sides(options.crop),
        anywhere=options.crop is not None and name == "train",
        location=spec.location,
        scale=spec.scale,
    )
    labels = None if part.labels is None else torch.from_numpy(part.labels.astype(np.int64))
    given = None if part.conditions is None else torch.from_numpy(part.conditions)
    numbers = None if part.rows is None else torch.from_numpy(part.rows)
    known = {"files": part.names, "numbers": numbers}
    if isinstance(part.values, np.memmap):
        return Split(name, spec, part.values, transform, labels, part.captions, given, numbers, **known)
    values = torch.from_numpy(np.ascontiguousarray(part.dense()))
    return Split(name, spec, values, transform, labels, part.captions, given, **known)
