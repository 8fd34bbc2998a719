"""What docs/architecture.md says of the code is so: the picture of the rooms, and two walks, hop by hop."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import tightbound
from tightbound.cli.main import main

ROOT = Path(__file__).parents[2]
SOURCES = Path(tightbound.__file__).parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf8")
SERVING = ("errors.py", "spec.py", "options/", "runtime/", "cli/choices.py")
"""What is passed without a hop."""
DEEP = 2
"""Calls below the function of a command that are followed."""

Hop = tuple[str, tuple[str, ...]]


def walk_of(heading: str) -> list[Hop]:
    """The hops under a heading of the page: files, and the functions that are named."""
    section = PAGE.partition(f"### {heading}\n")[2].partition("\n###")[0]
    items = re.findall(r"^\d+\. `(.+?)`(?:: ((?:`\w+`(?:, )?)+))?", section, flags=re.MULTILINE)
    return [(file, tuple(re.findall(r"\w+", names))) for file, names in items]


def properties() -> set[CodeType]:
    """The code of every property of the package, all of which is imported here, so that no walk imports."""
    found = set[CodeType]()
    for path in sorted(SOURCES.rglob("*.py")):
        parts = path.relative_to(SOURCES.parent).with_suffix("").parts
        if path.name == "__main__.py":
            continue
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        classes = [each for each in vars(module).values() if inspect.isclass(each)]
        own: list[Any] = [value for each in classes for value in vars(each).values()]
        found |= {each.fget.__code__ for each in own if isinstance(each, property) and inspect.isfunction(each.fget)}
    return found


def calls(words: list[str]) -> Iterator[tuple[int, str, str]]:
    """Every call of a command, and every return to a caller: how deep it is, the file, the function that is called."""
    passed, stack, found = properties(), list[tuple[str, bool]](), list[tuple[int, str, str]]()

    def deep() -> int:
        return sum(counts for _, counts in stack)

    def note(frame: FrameType, event: str, _: object) -> None:
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if not path.startswith(str(SOURCES)):
            return
        if event == "call":
            file = Path(path).relative_to(SOURCES).as_posix()
            serving = file.startswith(SERVING) or name.startswith(("__", "<")) or frame.f_code in passed
            stack.append((file, not serving))
            if not serving:
                found.append((deep(), file, name))
        elif event == "return" and stack and stack.pop()[1]:
            callers = [file for file, counts in stack if counts]
            if callers:
                found.append((deep() + 1, callers[-1], ""))

    sys.setprofile(note)
    try:
        assert main(words) == 0
    finally:
        sys.setprofile(None)
    yield from found


def walked(command: str, words: list[str]) -> list[Hop]:
    """The hops that a command takes."""
    hops, start = list[tuple[str, list[str]]](), None
    for deep, file, name in calls([command, *words]):
        start = deep if start is None and name == command.replace("-", "_") else start
        if start is not None and deep - start > DEEP:
            continue
        if not hops or hops[-1][0] != file:
            hops.append((file, []))
        hops[-1][1].append(name)
    return [(file, tuple(filter(None, names))) for file, names in hops]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("walk") / "run"
    words = ["--data", "digits", "--steps", "2", "--latent-dim", "2", "--hidden", "8", "--no-pictures"]
    assert main(["train", "vae", *words, "--out", str(out)]) == 0
    return out


def check(heading: str, found: list[Hop], at_most: int) -> None:
    told = walk_of(heading)
    now = "\n".join(f"{file}: {', '.join(names)}" for file, names in found)
    assert [file for file, _ in told] == [file for file, _ in found], now
    for (file, named), (_, there) in zip(told, found, strict=True):
        assert set(named) <= set(there), f"{file} is passed through {there}"
    assert len(found) <= at_most


def test_the_walk_from_sample_to_the_picture(run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "samples.png"
    found = walked("sample", [str(run), "-n", "4", "--out", str(picture)])
    assert picture.is_file()
    check("From `tightbound sample RUN` to the picture", found, at_most=18)


def test_the_walk_from_fit_prior_to_the_run_folder(run: Path, tmp_path: Path) -> None:
    words = [str(run), "--prior", "flow", "--steps", "2", "--no-pictures", "--out", str(tmp_path / "second")]
    found = walked("fit-prior", words)
    assert (tmp_path / "second" / "model.safetensors").is_file()
    check("From `tightbound fit-prior RUN` to the run folder", found, at_most=23)


def test_every_function_that_the_page_names_beside_a_file_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py): (\w+)`", PAGE)
    named += [
        (file, name)
        for heading in re.findall(r"^### (.+)", PAGE, re.MULTILINE)
        for file, names in walk_of(heading)
        for name in names
    ]
    assert len(named) > 20
    for file, name in named:
        assert re.search(rf"\bdef {name}\(", (SOURCES / file).read_text(encoding="utf8")), f"{file} has no {name}"


def test_every_path_that_the_page_names_is_there() -> None:
    for path in re.findall(r"`([\w/]+(?:\.py|/))`", PAGE):
        assert (SOURCES / path).exists() or (ROOT / path).exists() or (SOURCES / "training" / path).exists(), path


def test_the_picture_of_the_rooms_is_that_of_the_sources() -> None:
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
    assert spec is not None
    assert spec.loader is not None
    rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rooms)
    told = "draw it anew: python docs/rooms.py > docs/rooms.svg"
    assert (ROOT / "docs" / "rooms.svg").read_text(encoding="utf8") == f"{rooms.picture()}\n", told
