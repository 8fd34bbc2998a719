"""A progress bar is for people who wait at a terminal."""

from __future__ import annotations

import sys

import pytest

from tightbound.progress import progress


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
    monkeypatch.setattr("tightbound.progress.PATIENCE", patience)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with progress("decoding", total=3, unit=unit) as advance:
        for _ in range(3):
            advance()
    output = capsys.readouterr()
    assert output.out == ""
    assert ("decoding" in output.err) == shown
