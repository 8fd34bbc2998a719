"""Two versions of this package, timed in turns: ``python benchmarks/before_after.py OTHER_TREE [--rounds 5]``.

OTHER_TREE is another checkout. Each measurement is a fresh process that runs its own tree's contender; the two trees
take turns, and which of them is first alternates. It prints the medians and the median of the ratios, after / before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from process import BESIDE_PEERS, PEER_PYTHON, ROOT

CASES: dict[str, tuple[str, str, str]] = {
    "train-mlp": ("ours", "train --examples 60000 --epochs 3 --threads 2", "examples_per_second"),
    "importance-weighted-nll": ("ours", "nll --images 100 --repeats 5 --threads 2", "points_times_k_per_second"),
    "quantizer": ("quantizer", "step --turns 10 --threads 2", "vectors_per_second"),
    "transformer-sampling": ("transformer", "draw --turns 5 --threads 2", "codes_per_second"),
    "import": ("startup", "", ""),
    "help": ("", "", ""),
}
"""By case: the contender's script, what it is told, and the rate that it reports; seconds where there is none."""


def main() -> None:
    given = _options()
    for name in given.cases:
        pairs = [_in_turn(name, given.other.resolve(), i) for i in range(given.rounds)]
        before, after = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        spread = ", ".join(f"{b / a:.3f}" for a, b in pairs)
        unit = "per second (more is better)" if CASES[name][2] else "seconds (less is better)"
        print(f"{name}: before {before:,.4g}, after {after:,.4g} {unit}; ratio {ratio:.3f} ({spread})", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="a checkout of the version before")
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _in_turn(name: str, other: Path, i: int) -> tuple[float, float]:
    order = (other, ROOT) if i % 2 == 0 else (ROOT, other)
    found = {tree: _measure(name, tree) for tree in order}
    return found[other], found[ROOT]


def _measure(name: str, tree: Path) -> float:
    script, words, key = CASES[name]
    if not script:
        return _seconds([sys.executable, "-m", "tightbound", "--help"], tree)
    python = str(PEER_PYTHON) if script in BESIDE_PEERS else sys.executable
    result = json.loads(_run([python, f"benchmarks/contenders/{script}.py", *words.split()], tree).splitlines()[-1])
    return sum(result.values()) if not key else _rate(result[key])


def _rate(found: Any) -> float:
    found = found["ours"] if isinstance(found, dict) else found
    return statistics.median(found) if isinstance(found, list) else found


def _run(command: list[str], tree: Path) -> str:
    variables = {**os.environ, "PYTHONPATH": str(tree / "src")}
    return subprocess.run(command, cwd=tree, env=variables, check=True, capture_output=True, text=True).stdout


def _seconds(command: list[str], tree: Path) -> float:
    begin = time.perf_counter()
    _run(command, tree)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
