"""The examples run, and their tables say what was measured."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def laboratory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    name = "collapse_laboratory"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def measured(laboratory: ModuleType, out: Path, *cells: int) -> list[dict[str, Any]]:
    assert laboratory.main(["--quick", "--only", *map(str, cells), "--out", str(out)]) == 0
    return json.loads((out / "collapse.json").read_text(encoding="utf8"))


def test_the_laboratory_measures_what_it_trains(
    laboratory: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One cell of every kind of part: masked convolutions, a prior of posteriors, a prior that is a model."""
    cells = laboratory.CELLS
    chosen = [
        0,
        next(i for i, cell in enumerate(cells) if cell.options.get("prior") == "vamp"),
        next(i for i, cell in enumerate(cells) if cell.hierarchical),
    ]
    rows = measured(laboratory, tmp_path / "out", *chosen)
    assert [row["cell"] for row in rows] == [cells[i].name for i in chosen]
    for row in rows:
        assert 0 < row["nll"] < 64 * math.log(2)  # fair coins for the 64 pixels of a digit
        assert row["nll_error"] > 0
        assert 0 <= row["active_units"] <= laboratory.QUICK.latents
        assert -0.1 < row["mutual_information"] < 1.2 * row["kl"] + 0.2  # at most the KL, of other test examples
    assert [row["bound"] for row in rows] == [False, False, True]  # the deeper prior has no exact density
    written = (tmp_path / "out" / "collapse.md").read_text(encoding="utf8")
    assert written in capsys.readouterr().out
    assert len(written.splitlines()) == 2 + len(rows)
    assert (tmp_path / "out" / "collapse.png").stat().st_size > 0


def test_every_remedy_belongs_to_a_patient_that_comes_before_it(laboratory: ModuleType) -> None:
    seen: set[str] = set()
    for cell in laboratory.CELLS:
        assert cell.name.startswith("+") == (cell.patient in seen)
        seen.add(cell.patient)
    assert seen == {"decoder", "weight"}


def test_all_cells_start_from_the_same_encoder(laboratory: ModuleType) -> None:
    plan = laboratory.QUICK
    data = laboratory.load(plan)
    encoders = [laboratory.build(cell, plan, data).posterior.state_dict() for cell in laboratory.CELLS]
    for other in encoders[1:]:
        assert other.keys() == encoders[0].keys()
        for name, value in encoders[0].items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=0)
