"""What docs/notes.md and docs/diffusion.md show, runs."""

import re
import shlex
from pathlib import Path

import pytest

from tightbound.cli.main import main
from tightbound.diffusion import STEPS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / name).read_text(encoding="utf8") for name in ("notes.md", "diffusion.md")}
SHORTER = ["--steps", "2", "--no-pictures", "--device", "cpu"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_and_what_they_assert_holds(page: str) -> None:
    names: dict[str, object] = {"__name__": "page"}
    assert len(blocks(page, "python")) > 10
    for block in blocks(page, "python"):
        exec(compile(block, f"docs/{page}", "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert all(line.startswith("tightbound ") for line in lines)
    for line in lines:
        words = shlex.split(line)[1:]
        assert main([*words, *(SHORTER if words[0] in ("train", "fit-prior") else [])]) == 0, line


@pytest.mark.parametrize("page", PAGES)
def test_what_it_links_to_is_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGES[page]):
        assert (DOCS / target).exists(), target


def test_the_table_of_samplers_is_that_of_the_steps() -> None:
    for name, rule in STEPS.items():
        noisy = "yes" if rule.random else "no"
        row = f"| `{name}` | {rule.order} | {rule.evaluations} | {noisy} | {rule.integrates} |"
        assert row in PAGES["diffusion.md"]
