"""Every reported number says what it is in one place, from which all that print numbers take it."""

from __future__ import annotations

import dataclasses
import runpy
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from tightbound.cli.output import print_evaluation
from tightbound.evaluation import DecoderNoise, Diagnosis, Estimate, Evaluation, SampleQuality
from tightbound.evaluation.numbers import Number, numbers_of, rows

DOCS = Path(__file__).parents[2] / "docs"
REMEDY = "run: python docs/list_numbers.py > docs/numbers.md"
ONE = Estimate(-1.5, 0.25)
FOUND: dict[str, Any] = {"reconstruction": ONE, "method": "auto", "k": 500, "n": 9, "split": "test", "notes": ("why",)}
FOUND |= {"active_units": 2, "measure": "mass"}


@dataclass(frozen=True, kw_only=True)
class More(Evaluation):
    """With one number more: a field, and whatever computes it."""

    surprise: Annotated[float | None, Number("surprise", "bound", "what nobody expected", unit="nats", digits=1)] = None


@pytest.mark.parametrize("kind", [Evaluation, Diagnosis, SampleQuality])
def test_every_estimate_is_reported(kind: type[Any]) -> None:
    hints = typing.get_type_hints(kind)
    estimates = {f.name for f in dataclasses.fields(kind) if hints[f.name] in (Estimate, Estimate | None, float | None)}
    reported = {name for name, number in numbers_of(kind).items() if number is not None}
    assert estimates <= reported


def test_a_new_number_is_printed_without_being_known_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    found = More(**FOUND, surprise=3.14)
    assert [row.text for row in rows(found) if row.name == "surprise"] == ["3.1"]
    print_evaluation(found)
    line = next(line for line in capsys.readouterr().out.splitlines() if "surprise" in line)
    assert "3.1" in line
    assert "nats" in line


def test_what_a_model_does_not_define_has_no_row() -> None:
    names = {row.name for row in rows(Evaluation(**FOUND))}
    assert names == {"reconstruction", "active_units"}
    assert "active_units" not in {row.name for row in rows(Evaluation(**FOUND, dimensions=0))}


def test_a_bound_is_marked_and_a_doubtful_one_has_no_error() -> None:
    def text(**more: Any) -> str:
        return next(row.text for row in rows(Evaluation(**{**FOUND, "nll": Estimate(83.2, 0.5), **more})))

    assert text() == "83.20 ± 0.50"
    assert text(measure="bound") == "≤ 83.20 ± 0.50"
    assert text(trusted=False) == "≤ 83.20"


def test_results_within_are_told_behind_it_with_facts_of_their_own() -> None:
    noise = DecoderNoise(0.1, error=0.09, data_std=0.2, fixed=False)
    found = Evaluation(**FOUND, decoder_noise=noise, proposals={"posterior": 3, "optimised": 6}, dimensions=5)
    told = {row.name: row for row in rows(found)}
    assert (told["std"].text, told["std"].unit) == ("0.100", "the data's 0.200")
    assert told["std"].meaning == noise.remark
    assert told["proposals"].text == "6 of 9"
    assert told["active_units"].text == "2 of 5"


def test_the_documentation_lists_them() -> None:
    told = runpy.run_path(str(DOCS / "list_numbers.py"))["page"]()
    assert (DOCS / "numbers.md").read_text(encoding="utf8") == told, REMEDY
