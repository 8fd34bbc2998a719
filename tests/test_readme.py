"""What the README shows, runs."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tightbound.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf8")
SHORTER = ["--steps", "20", "--no-pictures", "--device", "cpu"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block.replace("epochs=30", "epochs=3"), "README.md", "exec"), names)


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for line in blocks("sh")[0].splitlines() if line.startswith("tightbound")]
    assert len(lines) >= 10
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        code = main([*words, *(SHORTER if words[0] == "train" else [])])
        assert code == 0, line
    assert (tmp_path / "runs" / "digits" / "report.html").stat().st_size > 50_000


def test_the_other_commands_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that need a stranger's data or several processes: here with a little of it and one process."""
    monkeypatch.chdir(tmp_path)
    for folder, count in (("photos", 12), ("new", 2)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            Image.effect_noise((90, 70), i + 1).save(tmp_path / folder / f"{i}.png")
    Image.effect_noise((90, 70), 5).save(tmp_path / "me.jpg")
    rows = [f"{i},{1000 * i},{('setosa', 'virginica')[i % 2]}" for i in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["width,height,species", *rows]), encoding="utf8")
    for line in blocks("sh")[1].splitlines():
        words = shlex.split(line, comments=True)
        words = ["digits" if word == "mnist" else word for word in words[words.index("tightbound") + 1 :]]
        assert main([*words, *(SHORTER if words[0] == "train" else [])]) == 0, line


def test_two_stages_and_conditions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in blocks("sh")[3].splitlines():
        words = shlex.split(line)[1:]
        assert main([*words, *(SHORTER if words[0] in ("train", "fit-prior") else [])]) == 0, line
    assert (tmp_path / "sevens.png").is_file()


def test_pictures_from_texts_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "captioned"
    folder.mkdir()
    lines = []
    for i in range(60):
        kind, color = ("circle", "square")[i % 2], ("red", "green", "blue")[i % 3]
        image = Image.new("RGB", (32, 32), "white")
        draw = ImageDraw.Draw(image)
        (draw.ellipse if kind == "circle" else draw.rectangle)((4 + i % 5, 6, 20 + i % 7, 24), fill=color)
        image.save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a {color} {kind}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    for line in blocks("sh")[4].splitlines():
        words = shlex.split(line)[1:]
        less = {"train": SHORTER, "fit-prior": SHORTER, "train-contrastive": ["--epochs", "2"]}.get(words[0], [])
        assert main([*words, *less]) == 0, line
    assert (tmp_path / "runs" / "pictures" / "samples" / "samples.png").is_file()


def test_the_first_two_commands_are_targets() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf8")
    commands = re.findall(r"^    make (\w+)", README, flags=re.MULTILINE)
    assert commands == ["demo", "test"]
    assert all(re.search(rf"^{name}:", makefile, flags=re.MULTILINE) for name in commands)
