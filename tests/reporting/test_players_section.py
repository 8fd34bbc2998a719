"""The report of two players: what the log tells in words, and curves; nothing where there is one player."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tightbound.data import Data
from tightbound.recipes import KLAutoencoder
from tightbound.reporting import write_report
from tightbound.runs import RunFolder
from tightbound.training.loop import train
from tightbound.training.start import build_seeded

ALONE = KLAutoencoder(factor=4, channels=(8, 8), groups=4, mid_attention=False)
PLAYING = KLAutoencoder(
    factor=4, channels=(8, 8), groups=4, mid_attention=False, adversarial="hinge", discriminator_width=4
)


@pytest.fixture(scope="module")
def data() -> Data:
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    return Data.from_arrays(images[:16], images[20:], images[16:20])


def page(data: Data, recipe: KLAutoencoder, out: Path) -> str:
    model = build_seeded(recipe, data.spec, 0)
    train(model, data, out=out, steps=8, batch_size=8, log_every=2, pictures=False, device="cpu")
    return write_report(out, data=data, quick=0).read_text(encoding="utf8")


def test_a_run_with_two_players_has_a_section_with_sentence_and_curves(data: Data, tmp_path: Path) -> None:
    text = page(data, PLAYING, tmp_path)
    section = text[text.index("<h2>Two players</h2>") :].partition("</section>")[0]
    assert section.count("<svg") == 2
    assert "The discriminator" in section or "The two players are balanced" in section
    for label in ("gap of the logits", "accuracy", "adaptive weight", "ramp", "latent deviation", "largest activation"):
        assert label in section
    last = [r for r in RunFolder(tmp_path).records() if r["split"] == "train"][-1]
    assert json.loads(json.dumps(last))["ramp"] == 1


def test_one_player_has_no_section(data: Data, tmp_path: Path) -> None:
    assert "Two players" not in page(data, ALONE, tmp_path)
