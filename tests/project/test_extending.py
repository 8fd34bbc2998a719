"""Every diff of docs/extending.md applies to the sources, and what it adds runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
ADDED = ["A prior", "A likelihood", "A recipe", "A reported number"]

Python = Callable[[str], list[str]]


def apply(diff: str, root: Path) -> list[str]:
    """Applies a unified diff by the text of its hunks, wherever that stands in the files; their names."""
    files = re.split(r"^diff --git .*\n", diff, flags=re.MULTILINE)[1:]
    named = [re.findall(r"^\+\+\+ b/(.+)$", each, flags=re.MULTILINE)[0] for each in files]
    for name, each in zip(named, files, strict=True):
        path = root / name
        text = path.read_text(encoding="utf8") if "new file mode" not in each else ""
        for hunk in re.split(r"^@@ .*\n", each, flags=re.MULTILINE)[1:]:
            lines = [(line[:1] or " ", line[1:]) for line in hunk.splitlines()]
            before, after = ("".join(f"{rest}\n" for mark, rest in lines if mark != sign) for sign in "+-")
            assert not before or text.count(before) == 1, f"{name} has {text.count(before)} times:\n{before}"
            text = text.replace(before, after) if before else after
        path.write_text(text, encoding="utf8")
    return named


def diff_of(section: str) -> str:
    (found,) = re.findall(r"^```diff\n(.*?)^```", SECTIONS[section], flags=re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture
def extended(request: pytest.FixtureRequest, tmp_path: Path) -> Python:
    """Runs Python on a copy of the sources with the diffs of a section applied."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    apply(diff_of(request.param), tmp_path)

    def run(code: str) -> list[str]:
        own = {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        done = subprocess.run(
            [sys.executable, "-c", f"{HELPERS}\n{code}"],
            env=os.environ | own,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split(NEXT)[1:]

    return run


NEXT = "---- next ----\n"
HELPERS = f"""
import doctest, importlib, sys
from tightbound.cli.main import main

def tightbound(words):
    print({NEXT!r}, end="")
    assert main(words.split()) == 0

def examples(module):
    print({NEXT!r}, end="")
    failed, tried = doctest.testmod(importlib.import_module(f"tightbound.{{module}}"))
    assert tried and not failed

def tell(value):
    print({NEXT!r}, end="")
    print(value)
"""
"""What the code of a test calls: what each call prints is told apart."""


def added(section: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("extended", [section], indirect=True, ids=[section])


TRAIN = "--data digits --steps 5 --out run"
EVALUATE = "evaluate run -k 5 --limit 20 --json"


def test_every_diff_of_the_page_is_tested() -> None:
    assert [name for name in SECTIONS if "```diff" in SECTIONS[name]] == ADDED
    assert PAGE.count("```diff") == len(ADDED)


@pytest.mark.parametrize("section", ["A prior", "A reported number"])
def test_a_named_prior_and_a_reported_number_take_two_places(section: str) -> None:
    assert diff_of(section).count("diff --git") == 2


@pytest.mark.parametrize("section", ADDED)
def test_a_diff_is_one_that_git_applies(section: str, tmp_path: Path) -> None:
    """Where git is: line numbers in the diff may be old, its counts of lines may not."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    words = ["git", "apply", "--whitespace=error", "-"]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    subprocess.run(words, input=diff_of(section), text=True, cwd=tmp_path, env=environment, check=True)


def test_a_diff_that_does_not_fit_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    diff = "diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,2 @@\n one\n-{}\n+three\n"
    with pytest.raises(AssertionError, match=r"a\.txt has 0 times"):
        apply(diff.format("four"), tmp_path)
    assert apply(diff.format("two"), tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "one\nthree\n"


@added("A prior")
def test_a_prior_is_offered_trained_loaded_and_evaluated(extended: Python) -> None:
    help_text, _, found, loaded, _ = extended(f"""
tightbound("train vae --help")
tightbound("train vae --prior student {TRAIN}")
tightbound("{EVALUATE}")
import tightbound as tb
tell(tb.load("run").prior)
examples("priors.student")
""")
    assert "student" in help_text
    assert json.loads(found)["nll"]["value"] > 0
    assert loaded.startswith("StudentPrior")


@added("A likelihood")
def test_a_likelihood_integrates_to_one_and_trains(extended: Python) -> None:
    integral, _, found, help_text, _ = extended(f"""
import torch
from tightbound.likelihoods.laplace import LaplaceLikelihood
p = LaplaceLikelihood(torch.nn.Linear(2, 2), (2,), (1,)).double()(torch.randn(2, dtype=torch.float64))
x = torch.linspace(-60, 60, 1_200_001, dtype=torch.float64)
tell(torch.trapezoid(p.log_prob(x.unsqueeze(-1)).exp(), x).item())
tightbound("train vae --likelihood laplace {TRAIN}")
tightbound("{EVALUATE}")
tightbound("train autoencoder --help")
examples("likelihoods.laplace")
""")
    assert float(integral) == pytest.approx(1, abs=1e-6)
    assert json.loads(found)["measure"] == "density"
    assert "laplace" in help_text


@added("A recipe")
def test_a_recipe_is_offered_trained_loaded_by_name_and_measured_by_layer(extended: Python, tmp_path: Path) -> None:
    light, known, _, found, loaded, _, _ = extended(f"""
import tightbound.recipes as recipes
tell("torch" in sys.modules)
tightbound("recipes")
tightbound("train two-layer-vae --top-dim 3 {TRAIN}")
tightbound("{EVALUATE}")
import tightbound as tb
tell(tb.load("run").recipe)
tightbound("sample run -n 4 --out samples.png")
examples("recipes.two_layer")
""")
    assert light == "False\n"
    assert "two-layer-vae" in known
    assert {name: len(kl) for name, kl in json.loads(found)["kl_per_dimension"].items()} == {"z1": 16, "z2": 3}
    assert "TwoLayerVAE" in loaded
    assert (tmp_path / "samples.png").is_file()


@added("A reported number")
def test_a_number_is_in_json_the_table_and_the_report(extended: Python, tmp_path: Path) -> None:
    _, found, table, _ = extended(f"""
tightbound("train vae {TRAIN}")
tightbound("{EVALUATE}")
tightbound("evaluate run -k 5")
tightbound("report run --quick 0")
""")
    assert json.loads(found)["hardest"] > json.loads(found)["nll"]["value"]
    assert "hardest example" in table
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["hardest"] > 0
    assert "hardest example" in (tmp_path / "run" / "report.html").read_text(encoding="utf8")
