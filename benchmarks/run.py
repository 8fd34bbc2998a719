"""Runs the benchmarks: ``python benchmarks/run.py [--quick] [--cases train-mlp startup]``; ``make bench`` sets up."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import tempfile
from pathlib import Path

from cases import CASES
from process import HERE, PEER_PYTHON, ROOT, environment, folder_of
from rows import Plan
from table import write_page


def main() -> None:
    given = _options()
    if not PEER_PYTHON.exists():
        raise SystemExit("The peers' environment is missing; `make bench` makes it.")
    with tempfile.TemporaryDirectory() as weights:
        plan = _plan(given, Path(weights))
        for name in given.cases:
            _measure(name, plan, given.results)
    write_page(given.results, given.page)
    print(f"wrote {given.page}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer examples, epochs and rounds")
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, help="how often the contenders take turns (3; quick: 2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every contender")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    return parser.parse_args()


def _plan(given: argparse.Namespace, weights: Path) -> Plan:
    shared = {"threads": given.threads, "weights": weights}
    if given.quick:
        rounds = given.rounds or 2
        return Plan(examples=6_400, epochs=3, rounds=rounds, images=50, turns=3, grids=(4,), **shared)
    rounds = given.rounds or 3
    return Plan(examples=60_000, epochs=6, rounds=rounds, images=200, turns=10, grids=(1, 16), **shared)


def _measure(name: str, plan: Plan, folder: Path) -> None:
    print(name, flush=True)
    facts = environment(plan.threads)
    rows = CASES[name](plan)
    about = inspect.getdoc(CASES[name]) or ""
    result = {"case": name, "about": about, "rounds": plan.rounds, "rows": [r.json() for r in rows]}
    folder = folder / folder_of(facts)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**result, "environment": facts}, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf8")
    for row in rows:
        ratio = "" if row.ratio is None else f"  tightbound / it {row.ratio:.2f}"
        print(f"    {row.what}: {row.value:.4g} {row.unit}{ratio}  {row.target}", flush=True)


if __name__ == "__main__":
    main()
