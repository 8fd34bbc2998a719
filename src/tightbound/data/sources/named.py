"""Readers of the named data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import DataError
from ...options.data import DataOptions, sides
from ..divide import held_out
from .decode import decode_images
from .download import Mirror, fetched
from .files import FileTree, open_tree
from .formats import AGAIN, read_amat, read_idx
from .raw import Array, Part, Raw

__all__ = ["READERS"]

OMNIGLOT_SIZE = 28
SPRITE_SIZE = 32
DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)  # fmt: skip


def digits(options: DataOptions, mirror: Mirror) -> Raw:
    """1,797 handwritten digits at 8x8 with 17 levels, divided 1,437 to 360 by the seed of the options."""
    from sklearn.datasets import load_digits  # slow to import

    values, labels = load_digits(return_X_y=True)
    part = Part(np.asarray(values, np.uint8).reshape(-1, 1, 8, 8), np.asarray(labels, np.int64))
    train, test = held_out(part, 360, options.split_seed, "test")
    return Raw("digits", {"train": train, "test": test}, 17, DIGITS)


def large_digits(options: DataOptions, mirror: Mirror) -> Raw:
    """The same digits, enlarged to 22x22 (bicubic) in the middle of 28x28: larger, without more information."""
    raw = digits(options, mirror)
    parts = {name: Part(np.stack(list(map(_enlarged, part.dense()))), part.labels) for name, part in raw.parts.items()}
    return Raw("large-digits", parts, 256, DIGITS)


def mnist(options: DataOptions, mirror: Mirror) -> Raw:
    """Handwritten digits, from the four idx files."""
    return Raw("mnist", _idx_parts(fetched("mnist", mirror)), 256, DIGITS)


def fashion_mnist(options: DataOptions, mirror: Mirror) -> Raw:
    """Images of clothes, from the four idx files."""
    return Raw("fashion-mnist", _idx_parts(fetched("fashion-mnist", mirror)), 256, CLOTHES)


def binarized_mnist(options: DataOptions, mirror: Mirror) -> Raw:
    """Larochelle's binarisation, with its official validation split and without labels."""
    paths = fetched("binarized-mnist", mirror)
    arrays = [read_amat(path, 784).reshape(-1, 1, 28, 28) for path in paths]
    return Raw("binarized-mnist", {n: Part(a) for n, a in zip(("train", "valid", "test"), arrays, strict=True)}, 2)


def omniglot(options: DataOptions, mirror: Mirror) -> Raw:
    """Handwritten characters, bright on dark, at 28x28 by default; labels are the alphabets."""
    trees = dict(zip(("train", "test"), map(open_tree, fetched("omniglot", mirror)), strict=True))
    alphabets = tuple(sorted({_alphabet(name) for tree in trees.values() for name in _drawn(tree)}))
    parts = {split: _drawings(tree, alphabets, options) for split, tree in trees.items()}
    return Raw("omniglot", parts, 256, alphabets)


def sprites(options: DataOptions, mirror: Mirror) -> Raw:
    """7,680 images of a shape, drawn in memory at 32x32 by default; labels are the shapes."""
    from .sprites import SHAPES, factors, sprites

    values = factors()
    side = max(sides(options.image_size) or (SPRITE_SIZE,))  # of a rectangle, the middle is cut out
    images = sprites(values, side).numpy()
    # Many edges pass through the middle of a pixel: a level that lies half-way is the upper one on every machine.
    levels = np.floor(255 * images + 0.5 + 1e-6).astype(np.uint8)
    return Raw("sprites", {"train": Part(levels, values[:, 0].long().numpy())}, 256, SHAPES)


READERS: dict[str, Callable[[DataOptions, Mirror], Raw]] = {
    "digits": digits,
    "large-digits": large_digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "binarized-mnist": binarized_mnist,
    "omniglot": omniglot,
    "sprites": sprites,
}
"""The reader of each named data set: options and mirror to raw data."""


def _enlarged(digit: Array) -> Array:
    """From 17 levels to 256; in integers, so that it is the same on every machine."""
    grey = Image.fromarray((digit[0].astype(np.uint16) * 255 // 16).astype(np.uint8))
    return np.pad(np.asarray(grey.resize((22, 22), Image.Resampling.BICUBIC)), 3)[None]


def _idx_parts(paths: list[Path]) -> dict[str, Part]:
    train_images, train_labels, test_images, test_labels = paths
    return {"train": _idx_part(train_images, train_labels), "test": _idx_part(test_images, test_labels)}


def _idx_part(images: Path, labels: Path) -> Part:
    values, numbers = read_idx(images), read_idx(labels)
    fits = values.ndim == 3 and values.shape[1:] == (28, 28) and numbers.shape == (len(values),)
    if not fits or (len(numbers) and numbers.max() > 9):
        raise DataError(
            f"{images} and {labels.name} do not match.",
            got=f"images {values.shape}, labels {numbers.shape} up to {numbers.max(initial=0)}",
            expected="images [N, 28, 28], labels [N] of 0 ... 9",
            remedy=AGAIN,
        )
    return Part(values[:, None], numbers.astype(np.int64))


def _drawings(tree: FileTree, alphabets: tuple[str, ...], options: DataOptions) -> Part:
    names = _drawn(tree)
    if not names:
        raise DataError(
            f"{tree.path} is not the published file.", got="no drawings", expected="alphabet/character01/0001_01.png"
        )
    images = decode_images(
        tree, names, image_size=sides(options.image_size or OMNIGLOT_SIZE), color="grey", mode="L"
    ).values
    labels = np.array([alphabets.index(_alphabet(name)) for name in names])
    return Part(255 - images, labels)


def _drawn(tree: FileTree) -> list[str]:
    """The drawings, ``images_background/alphabet/character01/0001_01.png``."""
    return [name for name in tree.sizes if name.endswith(".png") and name.count("/") >= 2]


def _alphabet(name: str) -> str:
    return name.split("/")[-3]
