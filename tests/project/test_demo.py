"""`make demo` keeps what it promises: real digits, a held-out likelihood."""

import json
import re
from pathlib import Path

import pytest

from tightbound.cli.main import main

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf8")


def test_the_demo_reaches_76_nats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Independent pixels have 186.5 nats."""
    command = re.findall(r"tightbound (train .*) --out runs/demo", MAKEFILE.replace("\\\n", ""))[0].split()
    run = str(tmp_path / "demo")
    assert main([*command, "--out", run, "--no-pictures"]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--budget", "1000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 360
    assert found["measure"] == "mass"
    assert found["nll"]["value"] < 76
    assert found["trusted"] is True
    assert "±" in found["headline"]
    assert sum(found["proposals"].values()) == 360
