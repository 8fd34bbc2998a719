"""From results to the page docs/benchmarks.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

INTRODUCTION = """# Benchmarks

Written by `make bench` from `benchmarks/results/*.json`; do not edit. Every measurement runs in a process of its own,
the contenders in turn for several rounds; values are medians, and a ratio is the median over the rounds of
tightbound's value over that contender's, so above 1 tightbound is faster. All have the same torch and threads.

In training and likelihood pythae has the same initial weights, the same data (synthetic binary 28 × 28 pictures) and
the same Adam; before anything is timed, both must give the same loss for the same batch and noise. `tightbound` is
`tb.train` with its logging and checkpoints, and `tb.evaluation.per_example`; the bare loop is what one writes by hand
on tensors in memory. A rate of training counts all that happens between the last step of one epoch and the last step
of the next.

Which library multiplies matrices, and which vectors a processor has, changes these ratios, so every kind of processor
has a table of its own; `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 make bench` shows
a processor with AVX-512 as one without.

Quantisers, and samplers of codes, take turns within one process, several times in each round, and a ratio is the median
over all turns; samplers of the same network must agree on its logits before anything is timed.
"""
PEERS = ("diffusers", "pythae", "transformers", "vector-quantize-pytorch")


def write_page(results: Path, page: Path) -> None:
    """Writes the page from every result there is: a section for each case, a table for each kind of processor."""
    found = [json.loads(file.read_text(encoding="utf8")) for file in sorted(results.glob("*/*.json"))]
    cases: dict[str, list[dict[str, Any]]] = {}
    for result in found:
        cases.setdefault(result["case"], []).append(result)
    sections = [_section(cases[name]) for name in sorted(cases)]
    page.write_text("\n".join([INTRODUCTION, *sections]), encoding="utf8")


def _section(results: list[dict[str, Any]]) -> str:
    newest = max(results, key=lambda result: result["environment"]["date"])
    lines = [f"## {newest['case']}", "", newest["about"], ""]
    for result in results:
        lines += [f"### {result['environment']['processor']}, {result['environment']['capability']}", ""]
        lines += ["| | value | tightbound / it | target | |", "|---|---:|---:|---|---|"]
        lines += [*(_line(row) for row in result["rows"]), "", *_footnotes(result), ""]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    met = {None: "", True: "met", False: "**missed**"}[row["met"]]
    return f"| {row['what']} | {_number(row['value'])} {row['unit']} | {ratio} | {row['target']} | {met} |"


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _footnotes(result: dict[str, Any]) -> list[str]:
    e = result["environment"]
    library = f", matrices by {e['matrices']}" if "matrices" in e else ""
    where = f"{e['cores']} cores, {e['threads']} threads{library}"
    when = f"{e['date']}, commit {e['commit']}, load average {e['load_average']} before the start"
    peers = [name.replace("==", " ") for name in e.get("peers", []) if name.split("==")[0] in PEERS]
    versions = ", ".join([f"Python {e['python']}", f"torch {e['torch']}", *peers])
    notes = [f"{where}; {versions}; {when}; {result['rounds']} rounds."]
    if result["case"] == "train-convolutional" and not e["amx"]:
        notes.append("This processor has no AMX, so `auto` means float32: the target is for processors that have it.")
    return notes
