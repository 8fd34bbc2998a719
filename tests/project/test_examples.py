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

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def laboratory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return example("collapse_laboratory", monkeypatch)


def measured(laboratory: ModuleType, out: Path, *cells: int) -> list[dict[str, Any]]:
    assert laboratory.main(["--quick", "--only", *map(str, cells), "--out", str(out)]) == 0
    return json.loads((out / "collapse.json").read_text(encoding="utf8"))


def test_the_laboratory_measures_what_it_trains(
    laboratory: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One cell of every kind of part: masked convolutions, a prior of posteriors, a prior that is a model."""
    cells = laboratory.CELLS
    special = [i for i, cell in enumerate(cells) if cell.prior or cell.options.get("prior") == "vamp"]
    chosen = [0, *special]
    rows = measured(laboratory, tmp_path / "out", *chosen)
    assert [row["cell"] for row in rows] == [cells[i].name for i in chosen]
    for row in rows:
        assert 0 < row["nll"] < 64 * math.log(2)  # fair coins for the 64 pixels of a digit
        assert row["nll_error"] > 0
        assert 0 <= row["active_units"] <= laboratory.QUICK.latents
        assert -0.1 < row["mutual_information"] < 1.2 * row["kl"] + 0.2  # at most the KL, of other test examples
    deeper = [cells[i].prior == "hierarchical" for i in chosen]
    assert not any(row["bound"] for row in rows)  # the densities of a hierarchy are exact too
    assert sum(deeper) == 1
    written = (tmp_path / "out" / "collapse.md").read_text(encoding="utf8")
    assert written in capsys.readouterr().out
    assert len(written.splitlines()) == 2 + len(rows)
    assert (tmp_path / "out" / "collapse.png").stat().st_size > 0


def test_tables_of_several_folders_can_be_joined(laboratory: ModuleType, tmp_path: Path) -> None:
    folders = [tmp_path / "second", tmp_path / "first"]
    rows = [measured(laboratory, folder, cell) for folder, cell in zip(folders, (4, 0), strict=True)]
    assert laboratory.main(["--join", *map(str, folders), "--out", str(tmp_path / "both")]) == 0
    joined = json.loads((tmp_path / "both" / "collapse.json").read_text(encoding="utf8"))
    assert joined == [*rows[1], *rows[0]]


def test_every_remedy_belongs_to_a_patient_that_comes_before_it(laboratory: ModuleType) -> None:
    seen: set[str] = set()
    for cell in laboratory.CELLS:
        assert cell.name.startswith("+") == (cell.patient in seen)
        seen.add(cell.patient)
    assert seen == {"decoder", "weight", "hierarchy"}


def test_the_diagnosis_tells_of_the_layers_of_hierarchies(laboratory: ModuleType, tmp_path: Path) -> None:
    chosen = [i for i, cell in enumerate(laboratory.CELLS) if cell.patient == "hierarchy"]
    rows = measured(laboratory, tmp_path, *chosen)
    assert [len(row["layers"]) for row in rows] == [0 if "one layer" in row["cell"] else 2 for row in rows]
    for row in rows:
        assert row["first_dead"] is None or row["first_dead"] in row["layers"]
        told = [each["kl"] for each in row["layers"].values()]
        assert not told or row["kl"] == pytest.approx(sum(told), abs=1.0)
    assert (tmp_path / "collapse.md").read_text(encoding="utf8").count("**chain of 16 and 8 latents**") == 2


def test_all_cells_start_from_the_same_encoder(laboratory: ModuleType) -> None:
    plan = laboratory.QUICK
    data = laboratory.load(plan)
    cells = [cell for cell in laboratory.CELLS if cell.recipe == "vae"]
    encoders = [laboratory.build(cell, plan, data).posterior.state_dict() for cell in cells]
    for other in encoders[1:]:
        assert other.keys() == encoders[0].keys()
        for name, value in encoders[0].items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=0)


def test_variances_of_gradients_are_plotted_in_the_published_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("gradient_variances", monkeypatch)
    picture = tmp_path / "variances.png"
    assert module.main(["--steps", "30", "--stops", "2", "--draws", "30", "--out", str(picture)]) == 0
    assert picture.stat().st_size > 0
    lines = capsys.readouterr().out.splitlines()
    last = [float(line.split()[-1]) for line in lines[1 : 1 + len(module.ESTIMATORS)]]
    score, controlled, pathwise = last[0], last[1], last[2:]
    assert score > 10 * controlled > 10 * max(pathwise)


def test_pictures_from_texts_are_drawn_and_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = example("text_to_image", monkeypatch)
    words = ["--quick", "--captions", "12", "--samples", "2", "--out", str(tmp_path)]
    assert module.main(words) == 0
    found = json.loads((tmp_path / "numbers.json").read_text(encoding="utf8"))
    assert set(found) == {"seen in training", "held out"}
    for part in found.values():
        assert set(part["accuracy"]) == {"one sample", "the best of several", "the true picture"}
        assert all(0 <= value["value"] <= 1 for value in part["accuracy"].values())
    assert (tmp_path / "seen-in-training.png").is_file()
    written = (tmp_path / "judge.safetensors").stat().st_mtime_ns
    assert module.main(words) == 0  # what is there is used as it is
    assert (tmp_path / "judge.safetensors").stat().st_mtime_ns == written


def test_samples_of_the_prior_miss_what_samples_of_the_posterior_find(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("naive_monte_carlo", monkeypatch)
    out = tmp_path / "naive"
    assert (
        module.main(["--out", str(out), "-k", "200", "-n", "20", "--steps", "3", "--samples", "3", "--digits", "4"])
        == 0
    )
    found = json.loads((out / "naive.json").read_text(encoding="utf8"))
    rows = found["estimates"]
    assert [row["latents"] for row in rows] == [1, 2, 4, 8, 16, 32]
    for row in rows:
        assert row["naive"] < row["exact"] + 4 * row["naive error"] / 20**0.5
        assert 1 <= row["naive effective samples"] <= row["importance effective samples"] <= 200
        assert row["importance error"] < 1
    errors = [row["naive error"] for row in rows]
    assert errors[-1] > 10 * errors[2] > 10 * errors[0]
    for row in found["trained"]:
        difference = row["naive"]["value"] - row["elbo"]["value"]
        assert row["difference"]["value"] == pytest.approx(difference, abs=1e-6)
    assert (out / "naive.md").read_text(encoding="utf8") in capsys.readouterr().out
    assert (out / "naive.png").stat().st_size > 10_000


def test_scores_of_two_numbers_lead_to_the_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("diffusion_2d", monkeypatch)
    words = ["--only", "eight-gaussians", "--steps", "30", "--examples", "500", "--tested", "100"]
    assert module.main([*words, "--out", str(tmp_path)]) == 0
    trained, exact = json.loads((tmp_path / "numbers.json").read_text(encoding="utf8"))
    assert trained["bound"] > trained["entropy"] + 0.3  # after thirty steps
    assert exact["flow"] == pytest.approx(exact["entropy"], abs=0.1)  # with the noise of the first level
    assert exact["bound"] == pytest.approx(exact["entropy"], abs=4 * exact["bound error"])
    assert "| eight-gaussians: exact |" in capsys.readouterr().out
    assert (tmp_path / "eight-gaussians.png").stat().st_size > 10_000


def test_the_entropies_of_the_sets_of_two_numbers_are_those_of_their_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("diffusion_2d", monkeypatch)
    torch.manual_seed(0)
    x = module.checkerboard(4000) + module.SQUARES / 2
    assert (x.floor().sum(1) % 2 == 0).all()
    cells = torch.bincount((4 * x[:, 0].floor() + x[:, 1].floor()).long(), minlength=16)
    assert sorted(cells.tolist())[8] > 400
    assert module.entropy("checkerboard", x) == pytest.approx(math.log(8))
