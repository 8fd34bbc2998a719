"""Which choices are made for which processor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tightbound.cli.main import main
from tightbound.errors import UnknownName
from tightbound.runtime import processor
from tightbound.runtime.processor import amd_family, matrix_library, multiplies_bf16, slow_arithmetic

ZEN4 = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC"
ZEN5 = ZEN4.replace("25", "26")
XEON = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143"


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("TIGHTBOUND_MATRICES", raising=False)
    matrix_library.cache_clear()
    yield
    matrix_library.cache_clear()


@pytest.mark.parametrize(
    ("told", "family"),
    [(ZEN4, 25), (ZEN5, 26), (XEON, 0), ("AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", 25), ("", 0)],
)
def test_the_family_of_a_processor(told: str, family: int) -> None:
    assert amd_family(told) == family


@pytest.mark.parametrize(
    ("told", "capability", "expected"),
    [
        (ZEN5, "AVX512", "onednn"),
        (ZEN5, "AVX2", "torch"),
        (ZEN4, "AVX512", "torch"),
        (ZEN4, "AVX2", "torch"),
        (XEON, "AVX512", "torch"),
        ("", "DEFAULT", "torch"),
    ],
)
def test_the_library_follows_from_the_processor(
    told: str, capability: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "description", lambda: told)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert matrix_library() == expected


def test_a_variable_overrides_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "onednn"):
        monkeypatch.setenv("TIGHTBOUND_MATRICES", name)
        matrix_library.cache_clear()
        assert matrix_library() == name
    monkeypatch.setenv("TIGHTBOUND_MATRICES", "onednm")
    matrix_library.cache_clear()
    with pytest.raises(UnknownName, match="Did you mean 'onednn'"):
        matrix_library()


@pytest.mark.parametrize(("precision", "device"), [("bf16-mixed", "cpu"), ("bf16", "cpu")])
def test_bf16_without_instructions_for_it_is_said(precision: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "multiplies_bf16", lambda: False)
    assert ["many times slower" in line for line in slow_arithmetic(precision, device)] == [True]
    assert [*slow_arithmetic(precision, "cuda"), *slow_arithmetic("32-true", device)] == []
    monkeypatch.setattr(processor, "multiplies_bf16", lambda: True)
    assert [*slow_arithmetic(precision, device)] == []


def test_avx2_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert not multiplies_bf16()


def test_evaluate_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "vae", "--data", "digits", "--steps", "2", "--hidden", "8", "--out", str(tmp_path / "run")]
    assert main([*words, "--device", "cpu", "--no-pictures"]) == 0
    monkeypatch.setattr(processor, "multiplies_bf16", lambda: False)
    measured = ["evaluate", str(tmp_path / "run"), "-k", "2", "--limit", "4", "--device", "cpu", "--precision"]
    assert main([*measured, "bf16"]) == 0
    assert "many times slower" in capsys.readouterr().err
