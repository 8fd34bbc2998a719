"""The house stands: nothing imports upward, nothing imports in a circle, and what should be light is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tightbound

ROOT = Path(tightbound.__file__).parent
PACKAGE = "tightbound"

ORDER = [
    *("errors", "spec", "options", "annealing", "information"),
    *("runtime.progress", "runtime.memory", "runtime.processor", "runtime.lock", "runtime.files", "runtime.randomness"),
    *("runtime.modes", "checkpoint", "runtime.budget", "runtime"),
    *("conditions", "distributions", "networks", "quantizers", "likelihoods", "posteriors", "priors"),
    *("encoders", "models", "objectives", "autoregressive", "diffusion"),
    *("recipes", "assembly"),
    "data",
    *("views", "pictures", "runs", "exchange"),
    *("training", "evaluation", "reporting"),
    *("cli", "__main__"),
]
"""Reading order: a module imports only what stands before it. A package stands for all its modules that are not named
themselves; among those, no circle."""


def module_name(path: Path) -> str:
    """``data.spec`` of ``data/spec.py``, ``data`` of ``data/__init__.py``, and the empty name of the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf8")) for name, path in FILES.items()}


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported."""
    for statement in body:
        if isinstance(statement, ast.If):
            if ast.unparse(statement.test) != "TYPE_CHECKING":
                yield from at_import([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handlers = [line for handler in statement.handlers for line in handler.body]
            yield from at_import([*statement.body, *handlers, *statement.orelse, *statement.finalbody])
        elif isinstance(statement, ast.With | ast.ClassDef):
            yield from at_import(statement.body)
        else:
            yield statement


def imported(name: str) -> set[str]:
    """The modules of this package that a module imports when it is imported."""
    is_package = FILES[name].name == "__init__.py"
    found: set[str] = set()
    for statement in at_import(TREES[name].body):
        if isinstance(statement, ast.Import):
            targets = [alias.name for alias in statement.names]
            found |= {t.removeprefix(PACKAGE).lstrip(".") for t in targets if t.split(".")[0] == PACKAGE}
        if isinstance(statement, ast.ImportFrom):
            parts = [*name.split(".")] if name else []
            if statement.level:
                up = statement.level - 1 if is_package else statement.level
                base = parts[: len(parts) - up] + (statement.module.split(".") if statement.module else [])
            elif (statement.module or "").split(".")[0] == PACKAGE:
                base = (statement.module or "").split(".")[1:]
            else:
                continue
            for alias in statement.names:
                below = ".".join([*base, alias.name])
                found.add(below if below in FILES else ".".join(base))
    return found


def place(name: str) -> str:
    """The longest entry of the order that stands for a module."""
    parts = name.split(".")
    entries = [".".join(parts[:i]) for i in range(len(parts), 0, -1)]
    for entry in entries:
        if entry in ORDER:
            return entry
    pytest.fail(f"{name} has no place in the order of tests/project/test_structure.py: give it one.")


def test_every_module_has_a_place_and_every_place_a_module() -> None:
    places = {place(name) for name in FILES if name}
    assert places == set(ORDER)


@pytest.mark.parametrize("name", [name for name in FILES if name])
def test_nothing_imports_upward(name: str) -> None:
    mine = place(name)
    for target in imported(name) - {""}:  # the package itself holds the version, and loads the rest lazily
        theirs = place(target)
        assert theirs == mine or ORDER.index(theirs) < ORDER.index(mine), f"{name} imports {target}"


def test_the_package_itself_imports_nothing_but_the_place_that_it_fills() -> None:
    """So that nobody who imports it, for its version, comes back to himself."""
    assert imported("") == {"options.building"}
    assert imported("options.building") == set()


def test_no_circles() -> None:
    graph = {name: imported(name) - {"", name} for name in FILES if name}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"Modules import each other in a circle: {' -> '.join(reversed(error.args[1]))}")


def test_the_reader_of_imports_reads() -> None:
    """Else the tests above would hold of anything."""
    assert "distributions" in imported("likelihoods.base")
    assert "options.data_spec" in imported("likelihoods.base")
    assert "errors" in imported("data.divide")
    assert "models.latent" in imported("objectives.bounds")
    assert "recipes.base" not in imported("models.latent"), "for type checkers only"


def loaded_by(statement: str, *modules: str) -> list[str]:
    """Which of the modules a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*[m for m in {modules!r} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


HEAVY = ("torch", "numpy", "sklearn", "matplotlib", "lightning_fabric", "PIL", "safetensors", "pooch")


@pytest.mark.parametrize(
    "statement",
    [
        "import tightbound",
        "import tightbound.recipes, tightbound.data, tightbound.options.training, tightbound.spec",
        "from tightbound.recipes import VAE, find_recipe; VAE(latent_dim=3)",
        "import tightbound.cli.main",
    ],
)
def test_what_the_command_line_needs_for_its_help_is_light(statement: str) -> None:
    assert loaded_by(statement, *HEAVY) == []


@pytest.mark.parametrize("name", [name for name in FILES if name.split(".")[0] in ("options", "recipes")])
def test_options_and_recipes_are_data_even_where_imports_wait(name: str) -> None:
    """But for what only type checkers read."""
    light = {"__future__", "collections", "contextlib", "dataclasses", "math", "typing"}
    own = {"annealing", "errors", "options", "recipes", "spec"}
    for statement in ast.walk(TREES[name]):
        if isinstance(statement, ast.Import):
            assert {alias.name.split(".")[0] for alias in statement.names} <= light
        if isinstance(statement, ast.ImportFrom) and not statement.level:
            assert (statement.module or "").split(".")[0] in light
        if isinstance(statement, ast.ImportFrom) and statement.level == 2:
            target = (statement.module or "").split(".")[0]
            assert target in own or target == "models"


def test_the_core_needs_torch_and_nothing_heavy_beside_it() -> None:
    statement = "import tightbound; tightbound.LatentVariableModel, tightbound.objectives, tightbound.recipes.VAE"
    assert loaded_by(statement, *HEAVY[2:]) == []


def test_importing_everything_leaves_torchs_state_alone() -> None:
    code = f"""
import importlib, torch
from torch.distributions import Distribution
before = Distribution._validate_args, torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state().sum()
for name in {[name for name in FILES if name and name != "__main__"]!r}:
    importlib.import_module("tightbound." + name)
after = Distribution._validate_args, torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state().sum()
assert before == after, (before, after)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


BROAD = {
    "errors": "`reading` is where every reader's exceptions become one error",
}
"""Where everything may be caught, and why."""


READS_TENSORS = {"networks.weights": "published weights are pickles of tensors"}
"""Modules that may read a file of torch, of nothing but tensors, each with its reason."""
UNPICKLES = "exchange.inert"
"""Reads pickles, and lets no name in one be imported: tests/exchange/test_inert.py."""


@pytest.mark.parametrize("name", FILES)
def test_habits(name: str) -> None:
    """No assert for users, nothing swallowed, nothing unpickled."""
    for node in ast.walk(TREES[name]):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise an error with got, expected, remedy"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            narrow = caught not in ("everything", "Exception", "BaseException")
            assert narrow or name in BROAD, f"line {node.lineno} catches {caught}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert name == UNPICKLES or not {n.split(".")[0] for n in names} & {
                "pickle",
                "cloudpickle",
                "dill",
                "marshal",
                "shelve",
            }
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("torch.save", "eval", "exec"), f"line {node.lineno} calls {called}"
            told = [ast.unparse(k.value) for k in node.keywords if k.arg == "weights_only"]
            tensors_only = name in READS_TENSORS and told == ["True"]
            assert called != "torch.load" or tensors_only, f"line {node.lineno} calls {called}"
            allowed = [k for k in node.keywords if k.arg == "allow_pickle"]
            assert all(ast.unparse(k.value) == "False" for k in allowed), f"line {node.lineno} allows pickles"


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf8")
    assert re.findall(r"^## (\S+)", changelog, flags=re.MULTILINE)[0] == tightbound.__version__


def test_tests_lie_in_folders_named_like_the_rooms() -> None:
    tests = Path(__file__).parents[1]
    folders = {path.name for path in tests.iterdir() if any(path.glob("test_*.py"))}
    assert folders - {path.name for path in ROOT.iterdir() if path.is_dir()} == {"project"}
