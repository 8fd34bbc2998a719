"""The measures of the house find what is put there for them to find."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import tightbound
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


BARS = {"probes": 0, "long functions": 10, "long files": 0, "any": 30, "type ignores": 20, "circles": 0}
"""What the house may have at most."""

CLASSES_ASKED_FOR: dict[str, tuple[str, set[str]]] = {
    "LatentVariableModel": (
        "a kind of model: what a model offers is declared by its type",
        {
            "evaluation/evaluate.py",
            "evaluation/passes.py",
            "models/latent.py",
            "training/validation.py",
            "views/latents.py",
        },
    ),
    "Marginal": (
        "a kind of distribution: what it offers, such as terms, is declared by its type",
        {
            "evaluation/samples/quality.py",
            "models/latent.py",
            "pictures/sheets.py",
            "reporting/quick.py",
            "views/samples.py",
        },
    ),
    "Model": ("a part may be a model, whose recipe starts it", {"training/start.py"}),
    "Posterior": ("any module can be a posterior; of others the latents are read as reals", {"models/latent.py"}),
    "Likelihood": (
        "any module can be a likelihood; `declared` says what holds of others",
        {"likelihoods/base.py", "training/opening.py"},
    ),
    "EntryLikelihood": (
        "only these fall into a network and a density behind it that can be compiled",
        {"evaluation/log_likelihood/compiled.py"},
    ),
    "EndsInLayer": ("any module can be a network; the last layer of others is not known", {"networks/output.py"}),
    "EndsInConvolution": ("any module can be a network; the last layer of others is not known", {"networks/output.py"}),
    "RelaxedPosterior": ("the relaxation gap is of these alone", {"evaluation/collapse/relaxation.py"}),
    "Codes": (
        "a kind of space: latents are codes, layers or reals",
        {"evaluation/latents/positions.py", "models/model.py"},
    ),
    "Latent": ("a kind of entry: a latent with densities, or an estimated number", {"models/terms.py"}),
    "TwoStage": (
        "a kind of recipe, and no part: its command is another",
        {"reporting/command.py", "reporting/settings.py", "training/opening.py", "training/stages.py"},
    ),
    "GridAutoencoder": (
        "a kind of recipe: its models have the format of other libraries",
        {"cli/main.py", "exchange/autoencoder.py"},
    ),
    "Given": ("a tensor in a condition's place is refused with the remedy", {"conditions/given.py"}),
}
"""Classes of parts that may be asked for, each with its reason and where."""


@cache
def package() -> House:
    return House(Path(tightbound.__file__).parent)


@pytest.mark.parametrize("figure", BARS)
def test_the_house_keeps_its_bars(figure: str) -> None:
    found = package().places[figure.replace(" ", "-")]
    assert len(found) <= BARS[figure], "\n".join(found)


def test_parts_are_asked_for_their_class_only_where_there_is_a_reason() -> None:
    """Declare what is needed as a method of the abstract class, or give the reason above."""
    found: dict[str, set[str]] = {}
    for place in package().places["instances"]:
        file, _, what = place.split(":", maxsplit=2)
        for name in set(re.findall(r"\w+", what)) & package().parts:
            found.setdefault(name, set()).add(file)
    assert found == {name: files for name, (_, files) in CLASSES_ASKED_FOR.items()}
