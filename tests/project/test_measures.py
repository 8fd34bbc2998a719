"""The measures of the house find what is put there for them to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from measures import House

FILES = {
    "__init__.py": "",
    "errors.py": "def one() -> int:\n    '''Says.'''\n    return 1\n",
    "models/__init__.py": "",
    "models/latent.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..recipes import base\n"
    "class Model:\n    pass\n",
    "recipes/__init__.py": "",
    "recipes/base.py": "from typing import Any\nfrom ..models.latent import Model\n"
    "def build(x: Any, space: Any) -> Any:  # pyright: ignore\n"
    "    return isinstance(x, Model) and hasattr(space, 'codes_of') and getattr(x, 'y', 1)\n",
    "a.py": "def f():\n    from .b import g\n    return g\n",
    "b.py": "from . import a\ndef g():\n" + "    a.f()\n" * 50,
}


@pytest.fixture
def house(tmp_path: Path) -> House:
    for name, content in FILES.items():
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / name).write_text(content)
    return House(tmp_path / "package")


def test_the_places_are_found(house: House) -> None:
    assert house.places == {
        "long-functions": ["b.py:2: g 51"],
        "long-files": [],
        "hasattr": ["recipes/base.py:4: hasattr(space, 'codes_of')"],
        "getattr": ["recipes/base.py:4: getattr(x, 'y', 1)"],
        "setattr": [],
        "probes": ["recipes/base.py:4: hasattr(space, 'codes_of')"],
        "instances": ["recipes/base.py:4: isinstance(x, Model)"],
        "any": ["recipes/base.py:3: build -> Any", "recipes/base.py:3: space: Any", "recipes/base.py:3: x: Any"],
        "type-ignores": ["recipes/base.py:3: def build(x: Any, space: Any) -> Any:  # pyright: ignore"],
        "deferred-imports": ["a.py:2: from .b import g"],
        "circles-at-import": [],
        "circles-deferred": ["a <-> b"],
        "circles-typing": ["models.latent <-> recipes.base"],
        "circles": ["a <-> b", "models.latent <-> recipes.base"],
    }


def test_the_figures_are_counted(house: House) -> None:
    assert house.figures["source files"] == 8
    assert house.figures["modules at the top"] == 4
    assert house.figures["functions"] == 4
    assert house.figures["function lines, median"] == 3
    assert house.figures["function lines, max"] == 51
