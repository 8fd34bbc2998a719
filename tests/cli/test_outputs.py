"""What a command writes never takes the place of what it did not make, unless told to."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_helpers import refused
from tightbound.cli.arguments import require_writable
from tightbound.cli.main import main
from tightbound.errors import UsageError

TRAIN = ["--steps", "2", "--latent-dim", "3", "--hidden", "4", "--no-pictures", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures in a folder, one of which is its test split."""
    path = tmp_path_factory.mktemp("outputs")
    (path / "photos").mkdir()
    for i in range(12):
        Image.effect_noise((8, 8), i + 1).save(path / "photos" / f"{i}.png")
    assert main(["train", "vae", "--data", str(path / "photos"), "--out", str(path / "run"), *TRAIN]) == 0
    return path / "run"


COMMANDS = {
    "sample": ("sample", "RUN", "-n", "2"),
    "reconstruct": ("reconstruct", "RUN", "--split", "train", "-n", "2"),
    "interpolate": ("interpolate", "RUN", "--split", "train", "-n", "2"),
    "traverse": ("traverse", "RUN", "--split", "train", "-n", "2"),
    "encode": ("encode", "RUN"),
    "compare": ("compare", "RUN", "RUN", "-k", "2"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_there_stays_unless_told(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / {"encode": "thesis.npz"}.get(command, "thesis.png")
    out.write_text("a thesis")
    words = [*(word.replace("RUN", str(run)) for word in COMMANDS[command]), "--out", str(out)]
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "a thesis"
    assert main([*words, "--overwrite"]) == 0
    assert out.stat().st_size > 20


def test_a_judge_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "judge.safetensors"
    out.write_text("a thesis")
    assert main(["train-contrastive", "--data", "digits", "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "a thesis"


def test_its_own_places_need_no_word(run: Path) -> None:
    for _ in range(2):
        assert main(["sample", str(run), "-n", "2"]) == 0
        assert main(["reconstruct", str(run), "--split", "train", "-n", "2"]) == 0


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "report.html", "checkpoints/last.safetensors", "checkpoints/new.npz"]
)
def test_the_files_of_a_run_are_never_written_over(name: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    for place in (run, tmp_path / "link"):
        with refused(UsageError, "must not be overwritten"):
            require_writable(place / name, True)
    require_writable(run / "samples" / "mine.png", False)
    require_writable(run / "mine.npz", False, run)


def test_data_is_never_written_over(run: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.npz"
    np.savez(values, x=np.zeros((4, 3)))
    photos = run.parent / "photos"
    for out, *sources in [(values, values), (photos / "0.png", run), (photos / "0.png", photos), (photos, photos)]:
        with refused(UsageError, "must not be overwritten"):
            require_writable(out, True, *sources)
    with refused(UsageError, "must not be overwritten", "a folder"):
        require_writable(tmp_path, True)
    require_writable(tmp_path / "new.npz", False, values, "digits", None)
    require_writable(photos / "new.npz", False, run, photos)
    require_writable(None, False, values)


def test_a_new_run_needs_a_place_without_files_of_another(run: Path, tmp_path: Path) -> None:
    for name, content in {"config.json": b"{}", "model.safetensors": b"weights", "metrics.jsonl": b"{}"}.items():
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(content)
        assert main(["train", "vae", "--out", str(folder), *TRAIN]) == 2
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_bytes() == content


def test_a_run_that_had_not_begun_starts(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("new", "on"):
        (tmp_path / name).mkdir()
        shutil.copy(run / "config.json", tmp_path / name)
    data = ["--data", str(run.parent / "photos")]
    assert main(["evaluate", str(tmp_path / "on")]) == 1
    assert f"tightbound train --resume --out {tmp_path / 'on'}" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(tmp_path / "on")]) == 0
    assert "starting at step 0" in capsys.readouterr().err
    assert main(["train", "vae", *data, "--out", str(tmp_path / "new"), *TRAIN]) == 0
    for name in ("new", "on"):
        assert (tmp_path / name / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
