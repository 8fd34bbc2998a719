"""A progress bar is for people who wait at a terminal."""

from __future__ import annotations

import sys

import pytest

from tightbound.autoregressive import PixelCNN, Transformer
from tightbound.runtime.progress import progress, silent


@pytest.mark.parametrize(("patience", "terminal", "shown"), [(0.0, True, True), (0.0, False, False), (60, True, False)])
@pytest.mark.parametrize("unit", ["count", "bytes"])
def test_a_bar(
    patience: float,
    terminal: bool,
    shown: bool,
    unit: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tightbound.runtime.progress.PATIENCE", patience)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with progress("decoding", total=3, unit=unit) as advance:
        for _ in range(3):
            advance()
    output = capsys.readouterr()
    assert output.out == ""
    assert ("decoding" in output.err) == shown


def test_off_a_terminal_a_line_tells_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tightbound.runtime.progress.LINES", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with progress("decoding", total=3000) as advance:
        advance(1200)
        with silent():
            advance(1000)
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "decoding: 1,200 of 3,000\n")


def test_a_terminal_has_room_for_one_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tightbound.runtime.progress.PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("outer", total=2) as outer:
        outer()
        with progress("inner", total=2) as inner:
            inner()
        with silent(), progress("another", total=2) as another:
            another()
    with progress("later", total=1) as later:
        later()
    shown = capsys.readouterr().err
    assert "outer" in shown
    assert "later" in shown
    assert "inner" not in shown
    assert "another" not in shown


NETWORKS = [PixelCNN(5, (4, 3), channels=8, layers=2), Transformer(5, (4, 3), 8, 1, 2)]


@pytest.mark.parametrize("network", NETWORKS, ids=["cnn", "transformer"])
def test_drawing_codes_is_followed(
    network: PixelCNN | Transformer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tightbound.runtime.progress.PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    network.generate(2)
    assert "drawing codes" in capsys.readouterr().err
