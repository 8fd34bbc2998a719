"""What docs/notes.md shows, runs."""

import re
import shlex
from pathlib import Path

import pytest

from tightbound.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"
NOTES = (DOCS / "notes.md").read_text(encoding="utf8")
SHORTER = ["--steps", "2", "--no-pictures", "--device", "cpu"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", NOTES, flags=re.DOTALL)


def test_python_blocks_run_and_what_they_assert_holds() -> None:
    names: dict[str, object] = {}
    assert len(blocks("python")) > 10
    for block in blocks("python"):
        exec(compile(block, "docs/notes.md", "exec"), names)


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert all(line.startswith("tightbound ") for line in lines)
    for line in lines:
        words = shlex.split(line)[1:]
        assert main([*words, *(SHORTER if words[0] in ("train", "fit-prior") else [])]) == 0, line


def test_what_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", NOTES):
        assert (DOCS / target).exists(), target
