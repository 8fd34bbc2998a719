"""What contributors are shown is in the code, and what is cited is this version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tightbound

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
SHOWN = re.findall(r"From `([\w/]+\.py)`.*?```python\n(.*?)\n```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize(("path", "code"), SHOWN, ids=[path for path, _ in SHOWN])
def test_what_is_shown_as_style_is_in_the_code(path: str, code: str) -> None:
    assert code in (ROOT / "src" / "tightbound" / path).read_text(encoding="utf8")


def test_there_is_something_shown() -> None:
    assert len(SHOWN) == PAGE.count("```python") == 3


def test_every_target_of_the_makefile_is_explained() -> None:
    targets = set(re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf8"), flags=re.MULTILINE))
    named = {target for line in targets for target in line.split()} - {"clean"}
    assert named == set(re.findall(r"^\| `make (\w+)`", PAGE, flags=re.MULTILINE))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "docs/architecture.md", "docs/extending.md"])
def test_links_to_files_of_the_repository_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf8")):
        assert (path.parent / target).exists(), f"{page} links to {target}"


def fields(text: str) -> dict[str, str | list[str]]:
    """The keys at the top of a file of YAML as plain as a citation: a text, or the lines of a list."""
    found: dict[str, str | list[str]] = {}
    for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]:
        head, *items = block.rstrip().splitlines()
        match = re.fullmatch(r"([\w-]+):(?: (.+))?", head)
        assert match, f"no key: {head!r}"
        assert bool(match[2]) != bool(items), f"{match[1]} has a text and a list, or neither"
        assert all(re.fullmatch(r"  - \S.*", item) for item in items), items
        value = match[2] or ""
        assert ": " not in value or value[0] == value[-1] == '"', f"{match[1]} needs quotes"
        found[match[1]] = value.strip('"') or [item[4:] for item in items]
    return found


def test_the_citation_is_of_this_version_and_licence() -> None:
    found = fields((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    assert {"cff-version", "message", "title", "authors"} <= set(found)
    assert found["cff-version"] == "1.2.0"
    assert found["type"] == "software"
    assert found["authors"] == ["name: The tightbound developers"]
    assert found["version"] == tightbound.__version__
    project = (ROOT / "pyproject.toml").read_text(encoding="utf8")
    assert f'license = "{found["license"]}"' in project
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf8")


def test_a_citation_that_is_no_yaml_is_noticed() -> None:
    with pytest.raises(AssertionError, match="needs quotes"):
        fields("title: one: two\n")
    with pytest.raises(AssertionError, match="no key"):
        fields("title one\n")
