"""Every public name is listed, sorted, importable and documented; of the mathematics, with an example that runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import tightbound

ROOT = Path(tightbound.__file__).parent
MODULES = sorted(
    ".".join(("tightbound", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.name != "__main__.py" and len(ast.parse(path.read_text(encoding="utf8")).body) > 1
)
"""But those that only say what a room is for."""
MATHEMATICS = [
    *(
        "distributions",
        "networks",
        "quantizers",
        "conditions",
        "likelihoods",
        "posteriors",
        "priors",
        "models",
    ),
    *("objectives", "annealing", "autoregressive", "recipes", "evaluation"),
]
SHOWN_ELSEWHERE = {
    "Evaluation": "evaluate returns it",
}
"""Names whose example is another's."""


def all_of(name: str) -> list[str]:
    return importlib.import_module(name).__all__


def ruff_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


def own(name: str) -> list[tuple[str, Any]]:
    """The classes and functions on a module's list that it defines itself."""
    module = importlib.import_module(name)
    values = [(n, getattr(module, n)) for n in module.__all__]
    return [
        (n, v) for n, v in values if (inspect.isclass(v) or inspect.isfunction(v)) and v.__module__ == module.__name__
    ]


def has_example(value: Any) -> bool:
    """Whether its docstring, or that of one of its methods, has an example."""
    return any(test.examples for test in doctest.DocTestFinder(recurse=True).find(value, value.__name__))


@pytest.mark.parametrize("name", MODULES)
def test_names_are_listed_sorted_and_importable(name: str) -> None:
    listed = all_of(name)
    assert listed == sorted(listed, key=ruff_order)
    assert len(set(listed)) == len(listed)
    for each in listed:
        getattr(importlib.import_module(name), each)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "tightbound"])
def test_the_list_heads_the_module(name: str) -> None:
    path = ROOT.joinpath(*name.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf8")).body
    heads = [
        i
        for i, node in enumerate(body)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    definitions = [i for i, node in enumerate(body) if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert len(heads) == 1
    assert not definitions or heads[0] < definitions[0]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented(name: str) -> None:
    assert importlib.import_module(name).__doc__
    for each, value in own(name):
        doc = inspect.getdoc(value) if not inspect.isclass(value) else value.__doc__
        assert doc, f"{name}.{each} has no docstring"
        assert doc.strip().split("\n\n")[0].rstrip().endswith((".", ":", "::")), f"{name}.{each}: a sentence first"


@pytest.mark.parametrize("name", MATHEMATICS)
def test_mathematics_comes_with_an_example(name: str) -> None:
    module = importlib.import_module(f"tightbound.{name}")
    values = [getattr(module, each) for each in module.__all__ if each not in SHOWN_ELSEWHERE]
    documented = [v for v in values if inspect.isclass(v) or inspect.isfunction(v)]
    assert documented
    concrete = [v for v in documented if not (v.__doc__ or "").startswith("Abstract")]
    assert [v.__name__ for v in concrete if not has_example(v)] == []


def test_the_package_loads_its_names_when_they_are_asked_for() -> None:
    for name in tightbound.__all__:
        assert name in dir(tightbound)
        assert getattr(tightbound, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        tightbound.no_such_name  # noqa: B018 # pyright: ignore
    with pytest.raises(AttributeError):
        tightbound.posterior  # noqa: B018 # pyright: ignore
