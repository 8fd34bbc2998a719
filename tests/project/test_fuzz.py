"""Damaged files of every reader are read or refused by one typed error; `make fuzz` tries thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import READERS, SLOW, outcome, write_inputs
from mutations import KINDS, mutated


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("sound")
    write_inputs(top)
    return top


@pytest.mark.parametrize("name", [name for name in READERS if name not in SLOW])
def test_damaged_files_are_read_or_refused(name: str, inputs: Path) -> None:
    for seed in range(3):
        told = outcome(inputs, name, seed)
        assert told in ("read", "refused"), f"seed {seed}: {told}"


@pytest.mark.parametrize("name", READERS)
def test_sound_files_are_read(name: str, inputs: Path) -> None:
    """Else nothing above would tell of anything."""
    assert outcome(inputs, name, None) == "read"


def test_the_damage_is_the_same_for_the_same_seed() -> None:
    content = bytes(range(256)) * 4
    for kind in KINDS:
        assert mutated(kind, content, 3) == mutated(kind, content, 3)
    assert len({mutated("bytes", content, seed) for seed in range(20)}) > 15
