"""The Bernoulli that the fast paths use, and the driver's arithmetic; nothing here is timed."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import tightbound
from tightbound.distributions import Bernoulli

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "contenders")]
    try:
        return importlib.import_module(name)
    finally:
        del sys.path[:2]


@pytest.mark.parametrize("x", ["binary", "grey"])
def test_bernoulli_is_torchs(x: str) -> None:
    logits = (8 * torch.randn(7, 5, 3, dtype=torch.float64)).requires_grad_()
    value = torch.rand(5, 3, dtype=torch.float64)
    value = value.round() if x == "binary" else value
    ours = Bernoulli(logits).log_prob(value).sum((-1, -2))
    theirs = torch.distributions.Bernoulli(logits=logits, validate_args=False).log_prob(value).sum((-1, -2))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(total.sum(), logits)[0] for total in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


def test_bernoulli_at_extreme_logits_and_broadcast() -> None:
    logits = torch.tensor([-800.0, -41.0, -39.0, 0.0, 39.0, 41.0, 800.0], dtype=torch.float64)
    for bit in (0.0, 1.0):
        ours = Bernoulli(logits).log_prob(torch.full((3, 7), bit, dtype=torch.float64))
        theirs = torch.distributions.Bernoulli(logits=logits).log_prob(torch.full((3, 7), bit, dtype=torch.float64))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_float32_bernoulli_stays_near_float64_at_confident_logits() -> None:
    value = torch.rand(50, 784).round()
    logits = (2 * value - 1) * 12 + torch.randn(50, 784)
    single, double = (
        Bernoulli(logits).log_prob(value).sum(1),
        Bernoulli(logits.double()).log_prob(value.double()).sum(1),
    )
    assert (single - double).abs().max() < 1e-3


def test_ratios_are_taken_round_by_round() -> None:
    process = load("process")
    ours, theirs = [{"v": [2.0, 4.0, 6.0]}, {"v": 1.0}, {"v": 9.0}], [{"v": 1.0}, {"v": 1.0}, {"v": 3.0}]
    assert process.median_ratio(ours, theirs, "v") == 3.0
    assert process.median_of(ours, "v") == 4.0


def test_contenders_take_turns() -> None:
    called: list[str] = []
    runs = {name: lambda name=name: called.append(name) or {} for name in ("a", "b")}
    load("process").alternate(runs, rounds=2)
    assert called == ["a", "b", "a", "b"]


def test_the_page_says_what_was_met_and_missed_on_each_kind_of_processor(tmp_path: Path) -> None:
    environment = {"processor": "P", "cores": 2, "threads": 2, "capability": "AVX512", "amx": False, "python": "3.11"}
    environment |= {"torch": "2.13.0", "date": "2026-11-20", "commit": "abc", "load_average": 0.1}
    row = {"what": "pythae", "value": 12345.6, "unit": "examples/s", "ratio": 1.25, "target": "≥ 1.5", "met": False}
    result = {"case": "train-mlp", "about": "About.", "rounds": 3, "rows": [row], "environment": environment}
    other = {**result, "environment": {**environment, "processor": "Q", "matrices": "torch"}}
    for each in (result, other):
        folder = tmp_path / load("process").folder_of(each["environment"])
        folder.mkdir()
        (folder / "train-mlp.json").write_text(json.dumps(each), encoding="utf8")
    (tmp_path / "reproduce-digits.json").write_text("{}", encoding="utf8")
    load("table").write_page(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf8")
    assert page.count("| pythae | 12,346 examples/s | 1.25 | ≥ 1.5 | **missed** |") == 2
    headings = [line for line in page.splitlines() if line.startswith("##")]
    assert headings == ["## train-mlp", "### P, AVX512", "### Q, AVX512"]
    assert page.count("matrices by torch") == 1


def test_a_step_clock_counts_whole_epochs_behind_the_first() -> None:
    common = load("common")
    clock = common.StepClock()
    clock.times = [1.0, 2.0, 3.0, 5.0, 6.0, 10.0]
    assert clock.result(examples=256)["examples_per_second"] == [256 / 3, 256 / 5]


@pytest.mark.parametrize("name", ["cases", "cases_codes"])
def test_every_case_says_what_it_measures(name: str) -> None:
    module = load(name)
    cases = module.CASES.values() if name == "cases" else [getattr(module, case) for case in module.__all__]
    assert all((case.__doc__ or "").endswith((".", ".\n    ")) for case in cases)
    assert set(cases) <= set(load("cases").CASES.values())


def plan(tmp_path: Path, grids: tuple[int, ...]) -> Any:
    sizes = {"examples": 1, "epochs": 1, "rounds": 2, "images": 1, "turns": 2, "threads": 1}
    return load("rows").Plan(grids=grids, weights=tmp_path, **sizes)


@pytest.mark.parametrize("seconds", [2.4, 2.6])
def test_the_quantizer_is_held_to_its_product_and_its_distances(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = load("cases_codes")

    def contender(_: str, task: str, **options: Any) -> dict[str, Any]:
        if task == "memory":
            return {"peak_mebibytes": 100 * seconds, "distances_mebibytes": 250 / 1.3}
        slow_then_fast = (5.0, 1.0)  # a machine that changes in between: the ratio of neighbours does not
        rates = {who: [1 / (seconds * s) for s in slow_then_fast] for who in codes.QUANTIZERS}
        return {"vectors_per_second": rates | {"product": [1 / s for s in slow_then_fast]}}

    monkeypatch.setattr(codes, "contender", contender)
    rows = {row.what: row for row in codes.quantizer(plan(tmp_path, (1, 2)))}
    product = rows["its distance product alone"]
    assert product.ratio == pytest.approx(1 / seconds, rel=1e-12)
    assert product.met is (seconds <= 2.5)
    assert rows["peak memory of tightbound, 2,048 vectors"].met is (seconds <= 2.5)
    assert rows["peak memory of pythae, 2,048 vectors"].met is None


@pytest.mark.parametrize(
    ("case", "ours", "theirs", "least"),
    [("pixelcnn_sampling", "cached", "uncached", 30), ("transformer_sampling", "ours", "transformers", 1 / 1.1)],
)
def test_samplers_are_compared_batch_by_batch(
    case: str, ours: str, theirs: str, least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = load("cases_codes")

    def contender(*_: str, n: int, **options: Any) -> dict[str, Any]:
        speed = least * (1.01 if n == 1 else 0.99)
        rates = {theirs: [1.0, 3.0], ours: [speed, 3 * speed]}
        return {"codes_per_second": rates, "largest_difference": n * 1e-6, "same_codes": 1.0}

    monkeypatch.setattr(codes, "contender", contender)
    rows = getattr(codes, case)(plan(tmp_path, (1, 16)))
    assert [row.met for row in rows[:4]] == [None, True, None, False]
    assert [row.ratio for row in rows[1:4:2]] == pytest.approx([1.01 * least, 0.99 * least], rel=1e-12)
    assert rows[4].value == 16e-6
    assert rows[4].met is (case == "transformer_sampling")


def test_only_contenders_beside_peers_find_this_package_there(monkeypatch: pytest.MonkeyPatch) -> None:
    process, started = load("process"), dict[str, tuple[str, Any]]()

    def run(command: list[str], env: Any = None, **options: Any) -> Any:
        started[Path(command[1]).stem] = command[0], env and env["PYTHONPATH"]
        return SimpleNamespace(returncode=0, stdout='noise\n{"loss": 1.0}\n')

    monkeypatch.setattr(process.subprocess, "run", run)
    for name in ("ours", "peer", "quantizer"):
        assert process.contender(name, "task", threads=1, flag=True, left_out=None) == {"loss": 1.0}
    source = str(Path(tightbound.__file__).parent.parent)
    assert started["ours"] == (sys.executable, None)
    assert started["peer"] == (str(process.PEER_PYTHON), None)
    assert started["quantizer"] == (str(process.PEER_PYTHON), source)


def test_the_plain_quantizer_is_one() -> None:
    torch.manual_seed(1)
    step = load("quantizer").plain(codes=7)
    torch.manual_seed(1)
    codebook, z = torch.randn(7, 64), torch.randn(2, 64, 3, 3, requires_grad=True)
    rows = z.detach().movedim(1, -1).reshape(-1, 64)
    indices = torch.cdist(rows, codebook).argmin(1)
    vectors, loss = step(z)
    torch.testing.assert_close(vectors, codebook[indices])
    torch.testing.assert_close(loss, (rows - codebook[indices]).square().sum())
    (gradient,) = torch.autograd.grad((3 * vectors).sum(), z)
    torch.testing.assert_close(gradient, torch.full_like(z, 3))


def test_the_quantizer_in_one_piece_is_ours() -> None:
    quantizer, pieces, outputs = load("quantizer"), [], []
    z, product = torch.randn(4, 64, 32, 32), torch.addmm

    def counted(*given: Any, **options: Any) -> torch.Tensor:
        pieces[-1] += 1
        return product(*given, **options)

    for name in ("ours", "unchunked", "ours"):
        torch.manual_seed(1)
        step = quantizer.CONTENDERS[name](codes=1024)
        pieces.append(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "addmm", counted)
            outputs.append(step(z))
    assert pieces == [2, 1, 2]  # each of at most 2^21 distances, and all 2^22
    torch.testing.assert_close(outputs[1], outputs[0])


def test_sampling_is_not_timed_where_the_cache_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    pixelcnn = load("pixelcnn")
    given = Namespace(levels=5, side=4, n=2, attention_every=0, passes=3, turns=2)
    found = pixelcnn.draw(given)
    assert found["largest_difference"] < 1e-5
    assert {name: len(rates) for name, rates in found["codes_per_second"].items()} == {"cached": 2, "uncached": 2}
    logits = pixelcnn.PixelCache.logits
    monkeypatch.setattr(pixelcnn.PixelCache, "logits", lambda *given: 1.001 * logits(*given))
    with pytest.raises(SystemExit, match="same logits"):
        pixelcnn.draw(given)


def test_turns_before_the_first_are_not_counted() -> None:
    called: list[str] = []
    runs = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    times = load("common").in_turn(runs, turns=2, warm_up=1)
    assert called == ["a", "b"] * 3
    assert [len(taken) for taken in times.values()] == [2, 2]


def test_a_study_of_two_stages_leaves_its_numbers_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tightbound.cli.main import main

    two_stages = load("two_stages")

    def run_here(words: str) -> str:
        capsys.readouterr()
        assert main(words.split()) == 0
        return capsys.readouterr().out

    for name, value in {"ROOT": tmp_path, "RESULTS": tmp_path, "PAGE": tmp_path / "page.md"}.items():
        monkeypatch.setattr(two_stages, name, value)
    monkeypatch.setattr(two_stages, "tightbound", run_here)
    monkeypatch.setattr(two_stages, "provenance", lambda: {"commit": "abc", "date": "today"})
    monkeypatch.setattr(two_stages, "DIMENSIONS", {"digits": 64})
    small = "--steps 3 --channels 4 --seed 1"
    study = two_stages.Study("tiny", "4 × 4 of 8", "digits", f"vq-vae --codes 8 {small}", f"--layers 1 {small}", 48.0)
    monkeypatch.setattr(two_stages, "STUDIES", [study])
    found = two_stages.run(study, "digits", again=False)
    assert found["evaluation"]["sample_quality"]["uniform"]["value"] > 0
    evaluation = json.loads((tmp_path / "runs" / "codes-tiny-prior" / "evaluation.json").read_text())
    assert found["squared_error_per_entry"] == pytest.approx(evaluation["squared_error"]["value"] / 64)
    two_stages.write_page()
    page = (tmp_path / "page.md").read_text()
    assert f"| {found['evaluation']['codebook_usage']:.1%} |" in page
    assert "tightbound fit-prior RUN --layers 1" in page


def test_every_study_names_options_that_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options are read before data and runs, so that what is missed is the data."""
    from tightbound.cli.main import main

    nowhere = str(tmp_path / "nowhere")
    for study in load("two_stages").STUDIES:
        for words in (f"train {study.first} --data {nowhere}", f"fit-prior {nowhere} {study.second}"):
            assert main([*words.split(), "--out", str(tmp_path / "out")]) != 0
            assert "nowhere" in capsys.readouterr().err


def test_the_order_of_two_runs_alternates_and_their_ratio_is_taken_round_by_round() -> None:
    speed, called = load("diffusion_speed"), list[str]()
    runs = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    times = speed.in_turn(runs, rounds=2)
    assert called == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(taken) for name, taken in times.items()} == {"a": 2, "b": 2}
    rows = speed.compared({"a": [1.0, 2.0, 9.0], "b": [3.0, 4.0, 9.0]}, "a", "b", 10, 2.1)
    assert [(row.value, row.ratio, row.met) for row in rows] == [(5.0, None, None), (2.5, 2.0, False)]
