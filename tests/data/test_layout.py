"""What the folders of images mean: splits, classes, strays, and what is said of them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from data_helpers import grey, make_tar, make_zip, refused, write_files
from tightbound.data import Data, load_data
from tightbound.data.sources.layout import layout_of
from tightbound.errors import DataError
from tightbound.evaluation import evaluate
from tightbound.recipes import CVAE
from tightbound.training import train


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGHTBOUND_CACHE", str(tmp_path / "cache"))


def names(splits: dict[str, int], classes: tuple[str, ...] = ("bar", "disc"), top: str = "") -> list[str]:
    """The paths of so many images in every class of every split folder."""
    return [f"{top}{split}/{name}/{i}.png" for split, n in splits.items() for name in classes for i in range(n)]


def files(paths: list[str]) -> dict[str, bytes]:
    return {path: grey(i) for i, path in enumerate(paths)}


@pytest.mark.parametrize(
    ("split", "meant"),
    [
        *[("test", "test"), ("TEST", "test"), ("testing", "test"), ("Testing", "test")],
        *[("val", "valid"), ("valid", "valid"), ("Validation", "valid"), ("dev", "valid")],
    ],
)
@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("top", ["", "birds/", "data/birds/"])
def test_split_folders_in_any_capitals_at_any_level(top: str, train: str, split: str, meant: str) -> None:
    found = layout_of(names({train: 3, split: 2}, top=top))
    assert {name: len(images) for name, images in found.splits.items()} == {"train": 6, meant: 4}
    assert found.classes == ("bar", "disc")
    assert all(found.classes[number] in name for name, number in found.labels.items())
    assert found.notes == ()


@pytest.mark.parametrize("stray", ["preview.png", "extras/1.png", "extras/a/b/1.png"])
@pytest.mark.parametrize("top", ["", "birds/"])
def test_what_lies_beside_splits_is_left_out_and_said(top: str, stray: str) -> None:
    for inside in (stray, top + stray):
        found = layout_of([*names({"train": 6, "test": 2}, top=top), inside])
        assert {name: len(images) for name, images in found.splits.items()} == {"train": 12, "test": 4}
        assert found.classes == ("bar", "disc")
        assert found.notes == (f"1 image beside the split folders is left out: {inside}.",)


def test_many_images_beside_two_splits_do_not_undo_them() -> None:
    found = layout_of([*names({"train": 2, "test": 2}), *(f"unlabelled/{i}.png" for i in range(50))])
    assert sorted(found.splits) == ["test", "train"]
    assert "50 images beside the split folders are left out: unlabelled/0.png" in found.notes[0]
    assert "and 45 more" in found.notes[0]


@pytest.mark.parametrize("others", [("bus",), ("bus", "car"), ("plane", "tram")])
def test_vehicles_are_classes_and_that_is_said(others: tuple[str, ...]) -> None:
    found = layout_of([f"{name}/{i}.png" for name in ("train", *others) for i in range(5)])
    assert sorted(found.splits) == ["train"]
    assert found.classes == tuple(sorted(("train", *others)))
    assert found.notes == (f"Not read as splits: train, because {min(others)}/0.png is beside them.",)


def test_the_class_may_come_first() -> None:
    paths = [f"{name}/{split}/{i}.png" for name in ("cat", "dog") for split in ("train", "test") for i in range(4)]
    found = layout_of(paths)
    assert {name: len(images) for name, images in found.splits.items()} == {"train": 8, "test": 8}
    assert found.classes == ("cat", "dog")
    assert found.labels["dog/test/3.png"] == 1


def test_a_folder_that_an_archive_unpacks_twice() -> None:
    found = layout_of([f"{s}/{s}/{name}/{i}.png" for s in ("train", "test") for name in "ab" for i in range(3)])
    assert {name: len(images) for name, images in found.splits.items()} == {"train": 6, "test": 6}
    assert found.classes == ("a", "b")


def test_a_folder_deep_in_a_class_makes_no_split_of_all() -> None:
    paths = [*(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(20)), "cat/train/x.png", "cat/test/x.png"]
    found = layout_of(paths)
    assert {name: len(images) for name, images in found.splits.items()} == {"train": 42}
    assert found.classes == ("cat", "dog")
    assert any(
        "Not read as splits: cat/test, cat/train, because cat/0.png is beside them." in note for note in found.notes
    )


@pytest.mark.parametrize("tops", [("seg_train", "seg_test"), ("train2017", "val2017"), ("trainA", "testA")])
def test_folders_named_nearly_like_splits_are_told(tops: tuple[str, str]) -> None:
    found = layout_of([f"{top}/{i}.png" for top in tops for i in range(3)])
    assert found.classes == tuple(sorted(tops))
    assert "name them train, valid and test" in found.notes[0]
    assert all(top in found.notes[0] for top in tops)


def test_a_stray_beside_classes_is_left_out_and_said() -> None:
    paths = [*(f"{name}/{i}.png" for name in ("bar", "disc") for i in range(6)), "overview.png"]
    for top in ("", "pets/", "data/pets/"):
        found = layout_of([top + path for path in paths])
        assert found.classes == ("bar", "disc")
        assert len(found.images) == len(found.labels) == 12
        assert found.notes == (f"1 image beside the class folders is left out: {top}overview.png.",)


def test_many_images_in_no_class_are_kept_without_classes_and_said() -> None:
    inside = [f"{name}/{i}.png" for name in ("raw", "edited") for i in range(2)]
    found = layout_of([*inside, *(f"{i}.png" for i in range(9))])
    assert (len(found.images), found.classes, found.labels) == (13, (), {})
    (note,) = found.notes
    assert note == "The folders are not read as classes: 9 of 13 images are outside class folders, such as 0.png."


def test_a_test_split_without_classes_is_not_discarded() -> None:
    found = layout_of([*names({"train": 20}), "test/1.png", "test/2.png"])
    assert {name: len(images) for name, images in found.splits.items()} == {"train": 40, "test": 2}
    assert found.classes == ()
    assert "2 of 42 images are outside class folders, such as test/1.png" in found.notes[0]


def test_deeper_folders_are_not_told_apart_and_that_is_said() -> None:
    found = layout_of([f"{a}/{b}/{i}.png" for a in ("animals", "plants") for b in "xy" for i in range(2)])
    assert found.classes == ("animals", "plants")
    assert found.notes == ("The first folder is the class; 4 sub-folders are ignored.",)


def counts(data: Data) -> tuple[int, ...]:
    return len(data.train), len(data.valid), len(data.test)


@pytest.mark.parametrize("top", ["", "birds/", "data/birds/"])
def test_a_folder_and_its_archives_are_the_same(top: str, tmp_path: Path) -> None:
    content = files([*names({"Train": 6, "TEST": 3}, top=top), f"{top}preview.png"])
    content |= {f"{top}README.txt": b"", "__MACOSX/birds/._a.png": b"no", f"{top}.DS_Store": b"no", "Thumbs.db": b"no"}
    folder = load_data(write_files(tmp_path / "b", content))
    assert counts(folder) == (11, 1, 6)
    assert folder.spec.classes == ("bar", "disc")
    assert [f"{top}preview.png" in note for note in folder.notes[:2]] == [True, False]
    assert folder.notes[1] == "Ignored files that are not images: 1 .txt."
    for archive in (make_tar(tmp_path / "b.tar", content), make_zip(tmp_path / "b.zip", content)):
        data = load_data(archive)
        assert data.fingerprint == folder.fingerprint
        assert (data.spec.classes, data.notes) == (folder.spec.classes, folder.notes)


def test_a_zip_with_the_separators_of_windows(tmp_path: Path) -> None:
    content = files(names({"train": 6, "test": 3}))
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("train\\"), b"")
        for name, image in content.items():
            info = zipfile.ZipInfo("x")
            info.filename = name.replace("/", "\\")
            archive.writestr(info, image)
    assert load_data(path).fingerprint == load_data(write_files(tmp_path / "b", content)).fingerprint


def test_a_link_to_elsewhere_is_followed_once(tmp_path: Path) -> None:
    target = write_files(tmp_path / "target", files([f"{i}.png" for i in range(10)]))
    (folder := tmp_path / "f").mkdir()
    (folder / "a").symlink_to(target)
    data = load_data(folder)
    assert counts(data) == (8, 1, 1)
    assert data.said == ()
    (folder / "b").symlink_to(target)
    again = load_data(folder)
    assert again.fingerprint == data.fingerprint
    assert again.said == ("Ignored links to folders that are already read: b.",)


@pytest.mark.parametrize("target", [".", "..", "real", "f"])
def test_a_real_folder_is_visited_once_and_under_its_own_name(target: str, tmp_path: Path) -> None:
    """Links to itself, to what holds it, to a folder beside it, and in a circle."""
    folder = write_files(tmp_path / "f", files([f"{name}/{i}.png" for name in ("real", "rest") for i in range(6)]))
    plain = load_data(folder)
    (folder / "a-link").symlink_to(tmp_path if target == ".." else folder if target in (".", "f") else folder / target)
    (folder / "real" / "loop").symlink_to(folder)
    data = load_data(folder)
    assert data.fingerprint == plain.fingerprint
    assert data.spec.classes == ("real", "rest")
    assert "real/loop" in data.notes[0]


def test_what_is_no_file_is_left_out_and_said(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "f", files([f"{i}.png" for i in range(10)]))
    (folder / "broken.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "empty").mkdir()
    data = load_data(folder)
    assert counts(data) == (8, 1, 1)
    assert data.said == (
        "Ignored broken links and special files: broken.png, pipe.png.",
        "Folders without readable images: empty.",
    )


def test_kinds_of_files_that_are_left_out_are_counted(tmp_path: Path) -> None:
    content = files(names({"train": 6, "test": 3}))
    content |= {f"train/bar/{i}.heic": b"" for i in range(3)} | {"valid/x.HEIC": b"", "notes": b"", "a.xml": b""}
    data = load_data(write_files(tmp_path / "f", content))
    assert data.said == (
        "Ignored files that are not images: 4 .heic, 1 .xml, 1 without a suffix.",
        "Folders without readable images: valid.",
    )
    with refused(DataError, "holds no images", "2 .txt, 1 .npy", "such as a.npy"):
        load_data(write_files(tmp_path / "g", {"a.npy": b"", "b.txt": b"", "c.txt": b""}))


@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_examples_of_both_splits_are_told(suffix: str, tmp_path: Path) -> None:
    content = files([f"train/{i}.png" for i in range(9)]) | {f"test/{i}.png": grey(i) for i in (3, 4, 40)}
    notes = load_data(write_files(tmp_path / suffix, content)).notes
    assert "Of 3 test examples, 2 are exact duplicates of training examples." in notes


def test_training_says_once_what_it_learns_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_data(write_files(tmp_path / "birds", files(names({"train": 8, "test": 3})) | {"a.txt": b""}))
    model = CVAE(latent_dim=1).build(data.spec)
    train(model, data, steps=1, out=tmp_path / "run")
    said = capsys.readouterr().err
    start = "data: birds: 14 training, 2 validation and 6 test examples; shape 1 x 8 x 8; 256 levels; 2 classes\n"
    assert said.startswith(start)
    assert said.count("note: Ignored files that are not images: 1 .txt.\n") == 1
    evaluate(model, data.test, 2)
    assert capsys.readouterr().err == ""
