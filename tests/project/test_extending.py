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

Command = Callable[..., str]


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
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Command:
    """Runs Python on a copy of the sources with the diffs of a section applied."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    apply(diff_of(request.param), tmp_path)

    def run(*words: str) -> str:
        own = {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        done = subprocess.run(
            [sys.executable, *words], env=os.environ | own, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def added(section: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("command", [section], indirect=True, ids=[section])


def examples_run(command: Command, module: str) -> None:
    """The examples in the docstrings of a module, of which there is one at least."""
    code = f"import doctest, tightbound.{module} as m; print(*doctest.testmod(m, optionflags=doctest.ELLIPSIS))"
    failed, tried = command("-c", code).split()[-2:]
    assert failed == "0"
    assert tried != "0"


TIGHTBOUND = ("-m", "tightbound")
TRAIN = ("--data", "digits", "--steps", "5", "--out", "run")
EVALUATE = (*TIGHTBOUND, "evaluate", "run", "-k", "5", "--limit", "20", "--json")


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
def test_a_prior_is_offered_trained_loaded_and_evaluated(command: Command) -> None:
    assert "student" in command(*TIGHTBOUND, "train", "vae", "--help")
    command(*TIGHTBOUND, "train", "vae", "--prior", "student", *TRAIN)
    assert json.loads(command(*EVALUATE))["nll"]["value"] > 0
    loaded = command("-c", "import tightbound; print(tightbound.load('run').prior)")
    assert loaded.startswith("StudentPrior")
    examples_run(command, "priors.student")


@added("A likelihood")
def test_a_likelihood_integrates_to_one_and_trains(command: Command) -> None:
    integral = """
import torch
from tightbound.likelihoods.laplace import LaplaceLikelihood
p = LaplaceLikelihood(torch.nn.Linear(2, 2), (2,), (1,)).double()(torch.randn(2, dtype=torch.float64))
x = torch.linspace(-60, 60, 1_200_001, dtype=torch.float64)
print(torch.trapezoid(p.log_prob(x.unsqueeze(-1)).exp(), x).item())
"""
    assert float(command("-c", integral)) == pytest.approx(1, abs=1e-6)
    command(*TIGHTBOUND, "train", "vae", "--likelihood", "laplace", *TRAIN)
    found = json.loads(command(*EVALUATE))
    assert found["measure"] == "density"
    assert "laplace" in command(*TIGHTBOUND, "train", "autoencoder", "--help")
    examples_run(command, "likelihoods.laplace")


@added("A recipe")
def test_a_recipe_is_offered_trained_loaded_by_name_and_measured_by_layer(command: Command) -> None:
    assert "two-layer-vae" in command(*TIGHTBOUND, "recipes")
    command(*TIGHTBOUND, "train", "two-layer-vae", "--top-dim", "3", *TRAIN)
    found = json.loads(command(*EVALUATE))
    assert {name: len(kl) for name, kl in found["kl_per_dimension"].items()} == {"z1": 16, "z2": 3}
    assert "TwoLayerVAE" in command("-c", "import tightbound; print(tightbound.load('run').recipe)")
    command(*TIGHTBOUND, "sample", "run", "-n", "4", "--out", "samples.png")
    examples_run(command, "recipes.two_layer")
    light = "import sys, tightbound.recipes; print('torch' in sys.modules)"
    assert command("-c", light) == "False\n"


@added("A reported number")
def test_a_number_is_in_json_the_table_and_the_report(command: Command, tmp_path: Path) -> None:
    command(*TIGHTBOUND, "train", "vae", *TRAIN)
    found = json.loads(command(*EVALUATE))
    assert found["hardest"] > found["nll"]["value"]
    assert "hardest example" in command(*TIGHTBOUND, "evaluate", "run", "-k", "5")
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["hardest"] > 0
    command(*TIGHTBOUND, "report", "run", "--quick", "0")
    assert "hardest example" in (tmp_path / "run" / "report.html").read_text(encoding="utf8")
