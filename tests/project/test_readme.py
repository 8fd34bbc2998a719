"""What the README shows, runs."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tightbound.cli.main import main

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf8")
SHORTER = ["--steps", "20", "--no-pictures", "--device", "cpu"]


def blocks(language: str, heading: str = "") -> list[str]:
    """Blocks of a language, of the whole page or of the section under a heading."""
    text = README.split(f"# {heading}\n")[1].split("\n#")[0] if heading else README
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(heading: str, block: int = 0) -> list[str]:
    lines = blocks("sh", heading)[block].splitlines()
    assert all(line.startswith(("tightbound ", "torchrun ")) for line in lines)
    return lines


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block.replace("epochs=30", "epochs=3"), "README.md", "exec"), names)


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = commands("On the command line")
    assert len(lines) >= 10
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        code = main([*words, *(SHORTER if words[0] == "train" else [])])
        assert code == 0, line
    assert (tmp_path / "runs" / "digits" / "report.html").stat().st_size > 50_000


def test_the_first_minute_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in commands("One minute to the first picture", 1):
        words = shlex.split(line.replace("--epochs 30", "--epochs 2"), comments=True)[1:]
        assert main(words) == 0, line
    with Image.open(tmp_path / "first.png") as picture:
        assert picture.width > 400


def test_parts_combined_by_options_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = {"train": SHORTER, "evaluate": ["--limit", "2", "--temperatures", "20"]}
    for line in commands("Your own data", 1):
        words = shlex.split(line, comments=True)[1:]
        words = [word for word in words if word not in ("--limit", "20")]
        assert main([*words, *few[words[0]]]) == 0, line


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
    for line in commands("Your own data"):
        words = shlex.split(line, comments=True)
        words = ["digits" if word == "mnist" else word for word in words[words.index("tightbound") + 1 :]]
        assert main([*words, *(SHORTER if words[0] == "train" else [])]) == 0, line


def test_two_stages_and_conditions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in commands("Two stages, and conditions"):
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
    for line in commands("Two stages, and conditions", 1):
        words = shlex.split(line)[1:]
        less = {"train": SHORTER, "fit-prior": SHORTER, "train-contrastive": ["--epochs", "2"]}.get(words[0], [])
        assert main([*words, *less]) == 0, line
    assert (tmp_path / "runs" / "pictures" / "samples" / "samples.png").is_file()


def test_the_first_two_commands_are_targets() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf8")
    commands = re.findall(r"^    make (\w+)", README, flags=re.MULTILINE)
    assert commands == ["demo", "test"]
    assert all(re.search(rf"^{name}:", makefile, flags=re.MULTILINE) for name in commands)
