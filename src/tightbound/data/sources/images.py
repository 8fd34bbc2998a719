"""Decoding and checking of one image file.

Transparent pixels are blended with white; only the first frame of an animation is read; the EXIF orientation is
applied. Grey values of 16 bits and floats can be kept. Files that are truncated, not images, or larger than
``MOST_PIXELS`` are refused with their name.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ...errors import DataError, reading

__all__ = ["DTYPES", "SUFFIXES", "Head", "Mode", "decoded", "header", "require_whole", "strict_pillow"]

PNM = (".pgm", ".ppm", ".pnm", ".pbm")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", *PNM)
"""Extensions of images, case-insensitive."""
MOST_PIXELS = 89_478_485
"""A larger image is refused as a decompression bomb (Pillow's own limit for a warning)."""
LARGE, STRIP = 2**24, 2**22
"""Pixels above which an image is decoded alone, and of the chunks blended with white."""
_one_at_a_time = threading.Lock()

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
GREY_MODES = ("1", "L", "LA", "La")
TURNED = (5, 6, 7, 8)
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 0x0102

Mode = Literal["L", "RGB", "I", "F"]
"""Grey of 8 bits, colours, grey of 16 bits, floats."""
DTYPES = {"L": np.uint8, "RGB": np.uint8, "I": np.uint16, "F": np.float32}


@dataclass(frozen=True)
class Head:
    """The header of an image file: upright size; the mode that keeps all information; bits per channel."""

    width: int
    height: int
    mode: Mode
    bits: int

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"


def header(name: str, content: bytes) -> Head:
    """Reads the header of an image file only.

    Raises:
        DataError: If it is not an image, or too large.
    """
    with _opened(name, content) as image:
        width, height = image.size
        if image.format != "TIFF" and image.getexif().get(ORIENTATION) in TURNED:  # of a TIFF, Pillow turns the size
            width, height = height, width
        return Head(width, height, _mode(image), _bits(image, content))


def require_whole(name: str, content: bytes) -> None:
    """Decodes a file to check it.

    Raises:
        DataError: If it is truncated, corrupt, not an image, or too large.
    """
    with _opened(name, content) as image:
        image.load()


def decoded(name: str, content: bytes, mode: Mode, size: tuple[int, int] | None) -> npt.NDArray[Any]:
    """The pixels of an image file, ``[C, H, W]``, of the type in :data:`DTYPES`.

    Args:
        name: Its name, for messages.
        content: Its bytes.
        mode: The mode to decode to.
        size: Height and width to resize (bilinear, antialiased) and center-crop to; None for its own size.

    Raises:
        DataError: If it is truncated, corrupt, not an image, or too large.
    """
    with _opened(name, content) as image, _turn(image.width * image.height):
        upright = ImageOps.exif_transpose(image)
        pixels = _converted(name, upright, mode)
        array = np.asarray(pixels if size is None else _covering(pixels, *size))
        return array.transpose(2, 0, 1) if mode == "RGB" else array.astype(DTYPES[mode], copy=False)[None]


def _converted(name: str, image: Image.Image, mode: Mode) -> Image.Image:
    if mode == "F":
        return image
    if mode == "I":
        return _sixteen_bits(name, image)
    pixels = _on_white(_eight_bits(name, image))
    return pixels if pixels.mode == mode else pixels.convert(mode)


def _turn(pixels: int) -> AbstractContextManager[object]:
    """Decodes large images one at a time, so that threads do not fill the memory."""
    return _one_at_a_time if pixels > LARGE else nullcontext()


@contextmanager
def strict_pillow() -> Generator[None]:
    """Makes Pillow refuse bombs and truncated files, inside the block, for all threads."""
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


@contextmanager
def _opened(name: str, content: bytes) -> Generator[Image.Image]:
    Image.init()  # does nothing but once; without it, Pillow does not know all of the formats
    expected, remedy = "a complete PNG, JPEG, WebP, BMP, GIF, TIFF or PNM file", "replace it by an undamaged copy"
    with reading(f"The image {name}", expected=expected, remedy=f"Remove the file or {remedy}."):
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_pixels(name, image.size)
                yield image
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _bomb(name, str(error)) from error
        except (UnidentifiedImageError, SyntaxError, struct.error) as error:  # whose messages are for programmers
            raise DataError(
                f"The image {name} cannot be read.", got=_beginning(content), expected=expected,
                remedy=f"Remove the file or {remedy}.",
            ) from error  # fmt: skip


def _beginning(content: bytes) -> str:
    """A description of a file that is not an image, by its first bytes."""
    if not content:
        return "an empty file"
    text = content[:40].decode("ascii", errors="replace").partition("\n")[0]
    return (
        f"not an image: it begins with {text}" if text.isprintable() and text.isascii() else "not an image, or damaged"
    )


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


def _mode(image: Image.Image) -> Mode:
    if image.mode == "F":
        return "F"
    return "I" if _wide(image) else "L" if image.mode in GREY_MODES else "RGB"


def _wide(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _bits(image: Image.Image, content: bytes) -> int:
    """Bits per channel in the file; Pillow keeps the upper 8 of colours."""
    if image.format == "PNG":
        return content[24]
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (8,)))
    if image.format == "PPM" and isinstance(depth := vars(image)["tile"][0].args, tuple):
        return int(depth[1]).bit_length()
    return 16 if _wide(image) else 8


def _grey_levels(name: str, image: Image.Image) -> npt.NDArray[np.int32]:
    """Grey values of 16 bits."""
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise DataError(
            f"The image {name} has no fixed range of grey values.",
            got=f"{'floats' if image.mode == 'F' else 'integers'} from {levels.min()} to {levels.max()}",
            expected="8 or 16 bits per channel, or floats in all images",
            remedy="Save it with 8 or 16 bits, or all images as floats (TIFF, or one .npy).",
        )
    return levels.astype(np.int32)


def _sixteen_bits(name: str, image: Image.Image) -> Image.Image:
    if _wide(image):
        return Image.fromarray(_grey_levels(name, image))
    return Image.fromarray(np.asarray(_on_white(image).convert("L"), np.int32) * 257)


def _eight_bits(name: str, image: Image.Image) -> Image.Image:
    if not (image.mode == "F" or _wide(image)):
        return image
    return Image.fromarray(((_grey_levels(name, image) * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if not (image.has_transparency_data or image.mode in ("La", "RGBa")):
        return image
    width, height = image.size
    laid = Image.new("RGB", image.size)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):  # so that a large image needs twice its memory, not five times
        strip = image.crop((0, top, width, min(height, top + rows)))
        strip = strip.convert("LA" if strip.mode == "La" else "RGBA").convert("RGBA")
        laid.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return laid


def _covering(image: Image.Image, height: int, width: int) -> Image.Image:
    if image.size == (width, height):
        return image
    scale = max(height / image.height, width / image.width)
    target = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    image = image.resize(target, Image.Resampling.BILINEAR)
    left, top = (target[0] - width) // 2, (target[1] - height) // 2
    return image.crop((left, top, left + width, top + height))
