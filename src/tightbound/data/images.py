"""One image file to bytes: what it must be, and what is refused.

Transparent pixels are laid on white; sixteen bits become eight; the first frame of an animation is taken; the
orientation that a camera noted in a JPEG is applied. A file that is truncated, no image, or larger than
``MOST_PIXELS`` is refused by its name.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from ..errors import DataError, TightboundError

__all__ = ["SUFFIXES", "ImageSize", "decoded", "header", "strict_pillow"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""What the name of an image ends in, in small or capital letters."""
MOST_PIXELS = 89_478_485
"""A larger image is refused as a decompression bomb (Pillow's own limit for a warning)."""
LARGE, STRIP = 2**24, 2**22
"""Pixels of a picture that is decoded while no other large one is, and of the part of it that is laid on white."""
_one_at_a_time = threading.Lock()

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
GREY_MODES = ("1", "L", "LA", "La", "I", "F")
CAMERA_FORMATS = ("JPEG", "MPO")
TURNED = (5, 6, 7, 8)
ORIENTATION = 0x0112

Mode = Literal["L", "RGB"]


@dataclass(frozen=True)
class ImageSize:
    """What the head of an image file says: pixels, upright, and whether it is grey."""

    width: int
    height: int
    grey: bool

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def header(name: str, content: bytes) -> ImageSize:
    """Reads the head of an image file only.

    Raises:
        DataError: If it is no image, or too large a one.
    """
    with _opened(name, content) as image:
        width, height = image.size
        if _turned(image):
            width, height = height, width
        return ImageSize(width, height, _grey(image))


def decoded(name: str, content: bytes, mode: Mode, size: int | None) -> npt.NDArray[np.uint8]:
    """The pixels of an image file, ``[C, H, W]``.

    Args:
        name: Its name, for messages.
        content: Its bytes.
        mode: ``"L"`` for grey, ``"RGB"`` for colours.
        size: Side to which the shorter side is resized (bilinear, antialiased) before the centre is cut out; None: as
            it is.

    Raises:
        DataError: If it is truncated, corrupt, no image, or too large a one.
    """
    with _opened(name, content) as image, _turn(image.width * image.height):
        upright = ImageOps.exif_transpose(image) if image.format in CAMERA_FORMATS else image
        pixels = _on_white(_eight_bits(name, upright))
        pixels = pixels if pixels.mode == mode else pixels.convert(mode)
        array = np.asarray(pixels if size is None else _square(pixels, size))
        return array[None] if mode == "L" else array.transpose(2, 0, 1)


def _turn(pixels: int) -> AbstractContextManager[object]:
    """Large pictures are decoded one after the other, so that many threads do not fill the memory."""
    return _one_at_a_time if pixels > LARGE else nullcontext()


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Makes Pillow refuse bombs and truncated files, whatever it was told before; to be held round all threads."""
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


@contextmanager
def _opened(name: str, content: bytes) -> Iterator[Image.Image]:
    Image.init()  # does nothing but once; without it, Pillow does not know all of the formats
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_pixels(name, image.size)
            yield image
    except TightboundError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _bomb(name, str(error)) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise DataError(
            f"The image {name} cannot be read.",
            got=f"{type(error).__name__}: {error}",
            expected="a complete PNG, JPEG, WebP, BMP, GIF or TIFF file",
            remedy="Remove the file or replace it by an undamaged copy.",
        ) from error


def _check_pixels(name: str, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise _bomb(name, f"{width}x{height} = {width * height:,} pixels")
    if width * height == 0:
        raise DataError(f"The image {name} has no pixels.", got=f"{width}x{height}", remedy="Remove the file.")


def _bomb(name: str, got: str) -> DataError:
    return DataError(
        f"The image {name} is too large to be opened safely (a decompression bomb?).",
        got=got,
        expected=f"at most {MOST_PIXELS:,} pixels",
        remedy="Remove the file, or scale it down with another program.",
    )


def _turned(image: Image.Image) -> bool:
    """Whether a photograph is to be shown with its sides exchanged."""
    return image.format in CAMERA_FORMATS and image.getexif().get(ORIENTATION) in TURNED


def _grey(image: Image.Image) -> bool:
    return image.mode in GREY_MODES or image.mode.startswith("I;16")


def _eight_bits(name: str, image: Image.Image) -> Image.Image:
    if not (image.mode in ("I", "F") or image.mode.startswith("I;16")):
        return image
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise DataError(
            f"The image {name} has no fixed range of grey values.",
            got=f"{image.mode!r} pixels from {levels.min()} to {levels.max()}",
            expected="8 or 16 bits per channel",
            remedy="Save it with 8 bits, or give the images as floats in an .npy file.",
        )
    return Image.fromarray(((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if not (image.has_transparency_data or image.mode in ("La", "RGBa")):
        return image
    width, height = image.size
    laid = Image.new("RGB", image.size)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):  # so that a large picture is in memory twice, and not five times
        strip = image.crop((0, top, width, min(height, top + rows)))
        strip = strip.convert("LA" if strip.mode == "La" else "RGBA").convert("RGBA")
        laid.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return laid


def _square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    target = max(size, round(width * scale)), max(size, round(height * scale))
    image = image.resize(target, Image.Resampling.BILINEAR)
    left, top = (target[0] - size) // 2, (target[1] - size) // 2
    return image.crop((left, top, left + size, top + size))
