"""The house in numbers: how long its functions are, what asks for the class of a part, what imports in a circle.

    python tests/measures.py [SRC] [--json] [--list probes|instances|long-functions|long-files|any|...]

Everything is read from the syntax trees of the sources, so that any version can be measured by this one script.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

LONG_FUNCTION, LONG_FILE = 50, 400
PARTS = (
    *("posteriors", "priors", "likelihoods", "quantizers", "models", "networks", "objectives", "recipes"),
    *("conditions", "correlated", "completion", "autoregressive", "pixels", "latents"),
)
"""The rooms, and loose files, whose classes are parts of a model."""
NAMES = re.compile(
    r"\b(px|model|module|part|posterior|prior|likelihood|recipe|space|quantizer|condition|network|encoder|decoder|"
    r"objective|first|second|stage|grid|embedding|layer|head|terms|q|p)s?\b"
)
"""Words for a part in the first argument of `hasattr` and its like."""
PROBES = ("hasattr", "getattr", "setattr")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """A statement that imports, and when it does.

    Args:
        line: Where it stands.
        targets: The modules of the package that it may load.
        deferred: Whether it stands in a function.
        typing: Whether it is for type checkers only.
    """

    line: int
    targets: tuple[str, ...]
    deferred: bool
    typing: bool


class Module:
    """A source file.

    Args:
        root: The folder of the package.
        path: The file.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self.path, self.package = path.relative_to(root), root.name
        self.text = path.read_text(encoding="utf8")
        self.tree = ast.parse(self.text)
        parts = self.path.with_suffix("").parts
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def functions(self) -> list[Function]:
        return [node for node in self.nodes if isinstance(node, Function)]

    def calls(self, *names: str) -> Iterator[ast.Call]:
        """The calls of builtins of these names, with two arguments or more."""
        for node in self.nodes:
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
            if isinstance(node, ast.Call) and named and len(node.args) >= 2:
                yield node

    def imports(self, modules: Mapping[str, Module]) -> Iterator[Import]:
        """Every import, wherever it stands."""
        yield from self._imports(self.tree.body, modules, deferred=False, typing=False)

    def _imports(
        self, body: list[ast.stmt], modules: Mapping[str, Module], *, deferred: bool, typing: bool
    ) -> Iterator[Import]:
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield Import(node.lineno, tuple(self._targets(node, modules)), deferred, typing)
            only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            within = {"deferred": deferred or isinstance(node, Function), "typing": typing or only}
            for block in ("body", "handlers", "orelse", "finalbody", "cases"):
                below = [each for each in getattr(node, block, []) if not isinstance(each, ast.expr)]
                yield from self._imports(below, modules, **within)

    def _targets(self, node: ast.Import | ast.ImportFrom, modules: Mapping[str, Module]) -> Iterator[str]:
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (".".join(parts[1:]) for parts in names if parts[0] == self.package)
            return
        named = node.module.split(".") if node.module else []
        if node.level:
            here = self.name.split(".") if self.name else []
            up = node.level - (self.path.name == "__init__.py")
            base = here[: len(here) - up] + named
        elif named[:1] == [self.package]:
            base = named[1:]
        else:
            return
        for alias in node.names:
            below = ".".join([*base, alias.name])
            yield below if below in modules else ".".join(base)


class House:
    """A package, measured.

    Args:
        root: Its folder.
    """

    def __init__(self, root: Path) -> None:
        found = [Module(root, path) for path in sorted(root.rglob("*.py"))]
        self.modules = {module.name: module for module in found}
        self.parts = {
            node.name
            for module in found
            if module.name.split(".")[0] in PARTS
            for node in module.nodes
            if isinstance(node, ast.ClassDef)
        }

    @property
    def figures(self) -> dict[str, float | str]:
        """What the table shows."""
        lengths = sorted(_length(f) for module in self.modules.values() for f in module.functions)
        places = self.places
        return {
            "source files": len(self.modules),
            "source lines": sum(module.lines for module in self.modules.values()),
            "functions": len(lengths),
            "function lines, median": statistics.median(lengths),
            "function lines, p90": lengths[int(0.9 * len(lengths))],
            "function lines, max": lengths[-1],
            "modules at the top": sum(module.path.parent == Path() for module in self.modules.values()),
            **{f"{name.replace('-', ' ')}": len(found) for name, found in places.items()},
        }

    @property
    def places(self) -> dict[str, list[str]]:
        """Where something is, ``file:line: what``."""
        return {
            "long-functions": self._found(self._long_functions),
            "long-files": [f"{m.path}: {m.lines}" for m in self.modules.values() if m.lines > LONG_FILE],
            **{name: self._found(partial(_calls, name)) for name in PROBES},
            "probes": self._found(self._probes),
            "instances": self._found(self._instances),
            "any": self._found(_any),
            "type-ignores": self._found(_ignored),
            "deferred-imports": self._found(self._deferred),
            "circles-at-import": self.circles(),
            "circles-deferred": self.circles(deferred=True),
            "circles-typing": self.circles(typing=True),
            "circles": self.circles(deferred=True, typing=True),
        }

    def _found(self, finds: Callable[[Module], Iterable[tuple[int, str]]]) -> list[str]:
        return [f"{m.path}:{line}: {what}" for m in self.modules.values() for line, what in sorted(finds(m))]

    def _long_functions(self, module: Module) -> Iterator[tuple[int, str]]:
        for node in module.functions:
            if _length(node) > LONG_FUNCTION:
                yield node.lineno, f"{node.name} {_length(node)}"

    def _probes(self, module: Module) -> Iterator[tuple[int, str]]:
        """What asks a part for an attribute by its name."""
        for call in module.calls(*PROBES):
            of = ast.unparse(call.args[0])
            if NAMES.search(of.replace("_", " ")) and "import_module" not in of:
                yield call.lineno, ast.unparse(call)

    def _instances(self, module: Module) -> Iterator[tuple[int, str]]:
        """What asks a part for its class."""
        for call in module.calls("isinstance", "issubclass"):
            if self._names_part(call.args[1]):
                yield call.lineno, ast.unparse(call)
        for node in module.nodes:
            if isinstance(node, ast.MatchClass) and self._names_part(node.cls):
                yield node.lineno, f"case {ast.unparse(node)}"

    def _names_part(self, node: ast.expr) -> bool:
        """Whether a class of a part is among those that are asked for, torch's own of that name aside."""
        named = {ast.unparse(each) for each in ast.walk(node) if isinstance(each, ast.Name | ast.Attribute)}
        return any(name.split(".")[-1] in self.parts for name in named if not name.startswith(("nn.", "torch.")))

    def _deferred(self, module: Module) -> Iterator[tuple[int, str]]:
        lines = module.text.splitlines()
        for each in module.imports(self.modules):
            if each.deferred:
                yield each.line, lines[each.line - 1].strip()

    def circles(self, *, deferred: bool = False, typing: bool = False) -> list[str]:
        """Modules that import each other, each group once.

        Args:
            deferred: Whether imports in functions count.
            typing: Whether imports for type checkers count.
        """
        graph = {
            name: {
                target
                for each in module.imports(self.modules)
                if (deferred or not each.deferred) and (typing or not each.typing)
                for target in each.targets
                if target not in ("", name) and target in self.modules
            }
            for name, module in self.modules.items()
        }
        reached = {name: _reached(graph, name) for name in graph}
        groups = {frozenset({b for b in reached[a] if a in reached[b]}) for a in graph if a in reached[a]}
        return sorted(" <-> ".join(sorted(group)) for group in groups)


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Everything that can be come to from a module, itself only by a circle."""
    found: set[str] = set()
    ahead = [*graph[start]]
    while ahead:
        if (name := ahead.pop()) not in found:
            found.add(name)
            ahead += graph[name]
    return found


def _length(node: Function) -> int:
    """Lines with the docstring, without decorators."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _calls(name: str, module: Module) -> Iterator[tuple[int, str]]:
    yield from ((call.lineno, ast.unparse(call)) for call in module.calls(name))


def _any(module: Module) -> Iterator[tuple[int, str]]:
    """Annotations that are Any, or Any or None."""
    for node in module.nodes:
        told = node.returns if isinstance(node, Function) else getattr(node, "annotation", None)
        if isinstance(told, ast.expr) and ast.unparse(told) in ("Any", "Any | None"):
            named = node.name if isinstance(node, Function) else ast.unparse(node).split(":")[0]
            yield told.lineno, f"{named}{' ->' if isinstance(node, Function) else ':'} {ast.unparse(told)}"


def _ignored(module: Module) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(module.text.splitlines(), start=1):
        if re.search(r"#\s*(pyright|type):\s*ignore", line):
            yield number, line.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    here = Path(__file__).resolve().parent.parent / "src" / "tightbound"
    parser.add_argument("src", nargs="?", type=Path, default=here, help="the folder of the package")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--list", help="the places of one figure")
    given = parser.parse_args()
    house = House(given.src.resolve())
    if given.list is not None:
        print(*house.places[given.list], sep="\n")
    elif given.json:
        print(json.dumps({"figures": house.figures, "places": house.places}, indent=1))
    else:
        print(*(f"{name:<26}{value:>9,g}" for name, value in house.figures.items()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
