"""Folders of images and archives of them: what is read, in what order, and what is refused."""

from __future__ import annotations

import io
import json
import os
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from data_helpers import flat, grey, image_bytes, make_tar, make_zip, refused, write_files
from tightbound.data import Data, load_data
from tightbound.data.sources.images import decoded
from tightbound.errors import DataError

CLASSES = {f"{name}/{name}_{i:02}.png": grey(10 * i + k) for k, name in enumerate(("cat", "dog")) for i in range(10)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIGHTBOUND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def levels(data: Data) -> list[list[int]]:
    """The grey values of one-coloured images, by split."""
    splits = (data.train, data.valid, data.test)
    return [[int(s.batch(torch.tensor([i])).x[0, 0, 0, 0] * 255 + 0.5) for i in range(len(s))] for s in splits]


def pixel(content: bytes, mode: Any = "RGB") -> list[int]:
    return decoded("image", content, mode, None)[:, 0, 0].tolist()


def test_class_folders(tmp_path: Path) -> None:
    data = load_data(write_files(tmp_path / "pets", CLASSES | {"notes.txt": b"", "cat/.hidden.png": b"no"}))
    assert data.spec.name == "pets"
    assert data.spec.shape == (1, 8, 8)
    assert data.spec.levels == 256
    assert data.spec.classes == ("cat", "dog")
    assert [len(data.train), len(data.valid), len(data.test)] == [16, 2, 2]
    labels = [(s.labels, s) for s in (data.train, data.valid, data.test)]
    values = levels(data)
    assert [x.tolist() for x, _ in labels if x is not None] == [[v % 10 for v in part] for part in values]
    assert sorted(flat(values)) == sorted(10 * i + k for i in range(10) for k in (0, 1))


def test_the_order_of_the_file_system_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_files(tmp_path / "pets", CLASSES)
    first = levels(load_data(folder))
    walk, shuffle = os.walk, random.Random(0).shuffle

    def shuffled(*args: Any, **kwargs: Any) -> Any:
        for root, folders, names in walk(*args, **kwargs):
            shuffle(names)
            yield root, folders, names

    monkeypatch.setattr(os, "walk", shuffled)
    assert levels(load_data(folder)) == first


@pytest.mark.parametrize("top", ["", "pets/", "./pets/"])
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tgz", "zip"])
def test_an_archive_is_its_folder(kind: str, top: str, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "pets", CLASSES)
    shuffled = list(CLASSES.items())
    random.Random(1).shuffle(shuffled)
    files = {top + name: content for name, content in shuffled} | {f"{top}__MACOSX/._cat.png": b"no"}
    path = tmp_path / f"pets.{kind}"
    archive = make_zip(path, files) if kind == "zip" else make_tar(path, files, "w" if kind == "tar" else "w:gz")
    data, expected = load_data(archive), load_data(folder)
    assert data.spec == expected.spec
    assert levels(data) == levels(expected)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["pets", path.name]


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    import tarfile

    path = make_tar(tmp_path / "pets.tar", CLASSES)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert load_data(path).summary()["examples"] == {"train": 16, "valid": 2, "test": 2}


@pytest.mark.parametrize("valid", ["valid", "val"])
def test_split_folders(valid: str, tmp_path: Path) -> None:
    files = {f"{split}/{name}": content for split in ("train", "test", valid) for name, content in CLASSES.items()}
    data = load_data(write_files(tmp_path / "pets", files))
    assert [len(data.train), len(data.valid), len(data.test)] == [20, 20, 20]
    assert data.spec.classes == ("cat", "dog")
    assert levels(data)[0] == levels(data)[2]
    only_train = load_data(make_tar(tmp_path / "p.tar", {k: v for k, v in files.items() if k.startswith("train")}))
    assert [len(only_train.train), len(only_train.valid), len(only_train.test)] == [16, 2, 2]
    assert only_train.spec.classes == ("cat", "dog")


def test_vehicles_are_classes(tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": grey(i) for name in ("train", "bus") for i in range(5)}
    assert load_data(write_files(tmp_path / "vehicles", files)).spec.classes == ("bus", "train")


def test_captions(tmp_path: Path) -> None:
    lines = [json.dumps({"file_name": f"{i}.png", "text": f"grey {i}", "group": "x"}) for i in range(20)]
    files = {f"{i}.png": grey(i) for i in range(20)} | {"metadata.jsonl": "\n".join([*lines, ""]).encode()}
    for source in (write_files(tmp_path / "greys", files), make_tar(tmp_path / "greys.tar", files)):
        data = load_data(source)
        captions = [split.captions for split in (data.train, data.valid, data.test)]
        assert captions == [tuple(f"grey {v}" for v in part) for part in levels(data)]
        assert data.spec.classes == ()
        assert data.test.subset(1).captions == data.test.captions[:1]  # pyright: ignore


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (b'{"file_name": "0.png", "text": "a"}\n{"file_name": "9.png", "text": "b"}', ["line 2", "missing", "9.png"]),
        (b'{"file_name": "0.png", "text": "a"', ["line 1", "cannot be read"]),
        (b'["0.png", "a"]', ["line 1", "malformed"]),
        (b'{"name": "0.png"}', ["line 1", "file_name"]),
        (b'{"file_name": "0.png", "text": 3}', ["line 1", "malformed"]),
        (b'{"file_name": "0.png", "text": "a"}', ["1 images have no caption", "1.png"]),
        (b"\xff\xfe", ["cannot be read", "UTF-8"]),
    ],
)
def test_wrong_metadata_is_refused(lines: bytes, parts: list[str], tmp_path: Path) -> None:
    files = {"0.png": grey(0), "1.png": grey(1), "metadata.jsonl": lines}
    with refused(DataError, *parts):
        load_data(write_files(tmp_path / "greys", files))


def test_an_empty_folder(tmp_path: Path) -> None:
    with refused(DataError, "holds no images", "no files"):
        load_data(write_files(tmp_path, {}))
    with refused(DataError, "holds no images", "notes.txt", ".png"):
        load_data(write_files(tmp_path / "folder", {"notes.txt": b""}))


def test_one_image_is_too_few(tmp_path: Path) -> None:
    with refused(DataError, "too few examples", "1 example"):
        load_data(write_files(tmp_path / "folder", {"a.png": grey(0)}))


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"nothing")
    with refused(DataError, "a.bin", "a folder of images"):
        load_data(tmp_path / "a.bin")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_a_truncated_archive(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    files = {f"{i}.png": image_bytes(noise) for i in range(9)}
    path = tmp_path / f"pets.{kind}"
    make_zip(path, files) if kind == "zip" else make_tar(path, files, "w" if kind == "tar" else "w:gz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with refused(DataError, path.name):
        load_data(path)


def corrupt(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = image_bytes(noise, kind)
    return content[: len(content) // 2]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "gif", "tiff"])
@pytest.mark.parametrize("options", [{}, {"image_size": 8, "color": "rgb"}], ids=["as-is", "resized"])
def test_a_truncated_image_is_refused_by_name(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    good = image_bytes(np.zeros((64, 64, 3), np.uint8))
    with refused(DataError, f"d/broken.{kind}", "cannot be read", "Remove the file"):
        load_data(write_files(tmp_path / "f", {"a.png": good, f"d/broken.{kind}": corrupt(kind)}), **options)


def test_truncated_images_are_refused_even_where_pillow_was_told_to_accept_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with refused(DataError, "2 of 2 images cannot be read", "a.png: ", "b.png: "):
        load_data(write_files(tmp_path / "f", {"a.png": corrupt("png"), "b.png": corrupt("png")}))
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_file_that_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"):
        with refused(DataError, "b.png cannot be read"):
            load_data(write_files(tmp_path / "f", {"a.png": grey(0), "b.png": content}))


def test_images_of_different_sizes(tmp_path: Path) -> None:
    files = {f"{i}.png": grey(i, 8) for i in range(5)} | {f"odd/{i}.png": grey(i, 12 + i) for i in range(5)}
    folder = write_files(tmp_path / "f", files)
    with refused(
        DataError, "different sizes", "5 of 8x8", "odd/0.png (12x12)", "2 more", "--image-size 8", "image_size=..."
    ):
        load_data(folder)
    assert load_data(folder, image_size=6).spec.shape == (1, 6, 6)


def bomb() -> bytes:
    """A small PNG that says it has 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = (30_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("options", [{}, {"image_size": 8, "color": "grey"}], ids=["as-is", "resized"])
@pytest.mark.parametrize("limit", [100_000, 2**31, None], ids=["error", "warning", "off"])
def test_a_decompression_bomb(
    limit: int | None, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000_000 if limit == 2**31 else limit)
    with refused(DataError, "b.png", "decompression bomb"):
        load_data(write_files(tmp_path / "f", {"a.png": grey(0), "b.png": bomb()}), **options)


def test_a_file_too_large_to_be_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightbound.data.sources.files.MOST_BYTES", 1000)
    with refused(DataError, "b.png", "too large", "9,000 bytes"):
        load_data(make_zip(tmp_path / "f.zip", {"a.png": grey(0), "b.png": bytes(9000)}))


def test_modes() -> None:
    full = np.full((2, 2), 255, np.uint8)
    assert pixel(image_bytes(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))) == [255, 255, 255]
    assert pixel(image_bytes(Image.new("RGBA", (2, 2), (255, 0, 0, 255)))) == [255, 0, 0]
    assert pixel(image_bytes(Image.new("RGBA", (2, 2), (0, 0, 0, 51)))) == [204, 204, 204]
    assert pixel(image_bytes(Image.new("LA", (2, 2), (0, 51))), "L") == [204]
    assert pixel(image_bytes(Image.new("1", (2, 2), 1)), "L") == [255]
    assert pixel(image_bytes(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "tiff")) == [255, 0, 0]
    assert pixel(image_bytes(np.full((2, 2), 65535, np.uint16)), "L") == [255]
    assert pixel(image_bytes(np.full((2, 2), 257 * 100 + 20, np.uint16)), "L") == [100]
    assert pixel(image_bytes(np.full((2, 2), 257 * 100, np.uint16), "tiff")) == [100, 100, 100]
    palette = Image.fromarray(full).convert("RGB").quantize(4)
    assert pixel(image_bytes(palette)) == [255, 255, 255]
    assert pixel(image_bytes(palette, transparency=0)) == [255, 255, 255]
    assert pixel(image_bytes(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))) == [255, 255, 255]
    with refused(DataError, "no fixed range"):
        pixel(image_bytes(np.full((2, 2), 0.5, np.float32), "tiff"))
    with refused(DataError, "no fixed range", "70000"):
        pixel(image_bytes(np.full((2, 2), 70_000, np.int32), "tiff"))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize(("note", "turn"), [(6, Image.Transpose.ROTATE_90), (3, Image.Transpose.ROTATE_180)])
def test_a_noted_orientation_is_applied(kind: str, note: int, turn: Image.Transpose, tmp_path: Path) -> None:
    """In every format that has one: the upper half is white in what is shown."""
    upright = np.zeros((16, 24), np.uint8)
    upright[:8] = 255
    turned = Image.fromarray(upright).convert("RGB").transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = note
    options = {"lossless": True} if kind == "webp" else {}
    files = {f"{i}.{kind}": image_bytes(turned, kind, exif=exif, **options) for i in range(5)}
    data = load_data(write_files(tmp_path / "f", files))
    assert data.spec.shape == (1, 16, 24)
    x = data.train.batch(torch.tensor([0])).x
    assert x[..., :8, :].min() > 0.95
    assert x[..., 8:, :].max() < 0.05


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4), 9).save(file, "gif", save_all=True, append_images=[Image.new("L", (4, 4), 200)])
    assert pixel(file.getvalue()) == [9, 9, 9]


def test_grey_and_coloured_images_together_are_coloured(tmp_path: Path) -> None:
    coloured = image_bytes(np.full((8, 8, 3), (1, 2, 3), np.uint8))
    folder = write_files(tmp_path / "f", {"a.PNG": grey(7), "b.png": coloured, "c.Jpeg": grey(8), "d.png": grey(9)})
    data = load_data(folder)
    assert data.spec.shape == (3, 8, 8)
    assert sorted(flat(levels(data))) == [1, 7, 8, 9]
    assert load_data(folder, color="grey").spec.shape == (1, 8, 8)


def test_one_kind_of_file_in_any_letters(tmp_path: Path) -> None:
    kinds = {"jpg": "jpeg", "JPEG": "jpeg", "webp": "webp", "bmp": "bmp", "GIF": "gif", "tif": "tiff", "TIFF": "tiff"}
    picture = np.zeros((8, 8, 3), np.uint8)
    files = {f"a.{suffix}": image_bytes(picture, kind) for suffix, kind in kinds.items()}
    data = load_data(write_files(tmp_path / "f", files))
    assert sum(data.summary()["examples"].values()) == len(kinds)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_does_not_fit_in_memory_is_decoded_once_into_the_cache(
    kind: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_zip(tmp_path / "p.zip", CLASSES) if kind == "zip" else write_files(tmp_path / "p", CLASSES)
    here = load_data(source)
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "100")
    mapped = load_data(source)
    assert isinstance(mapped.train.values, np.memmap)
    assert levels(mapped) == levels(here)
    (file,) = cache.rglob("*.*")
    assert file.suffix == ".npy"
    monkeypatch.setattr("tightbound.data.sources.decode.decoded", lambda *_: pytest.fail("decoded again"))
    assert levels(load_data(source)) == levels(here)


def test_a_changed_folder_is_decoded_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "100")
    folder = write_files(tmp_path / "p", CLASSES)
    load_data(folder)
    (folder / "cat/cat_00.png").write_bytes(grey(255))
    os.utime(folder / "cat/cat_00.png", (0, 0))
    assert 255 in flat(levels(load_data(folder)))
    load_data(folder, image_size=4)
    assert len(list(cache.rglob("*.npy"))) == 3


def test_a_failed_decoding_leaves_nothing_in_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIGHTBOUND_MEMORY_LIMIT", "100")
    good = image_bytes(np.zeros((64, 64, 3), np.uint8))
    with refused(DataError, "z.png"):
        load_data(write_files(tmp_path / "f", {"a.png": good, "z.png": corrupt("png")}))
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    folder = write_files(tmp_path / "p", CLASSES)
    monkeypatch.setattr(Path, "read_bytes", denied)
    with refused(DataError, "cat_00.png", "Permission denied"):
        load_data(folder)
