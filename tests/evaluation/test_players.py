"""The log of two players is told as sentences."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tightbound.evaluation.players import health_of_players
from tightbound.options.adversarial import Adversarial

GOOD = {"accuracy": 0.75, "gap": 0.6, "adaptive_weight": 120.0, "largest_activation": 40.0}
LATENTS = {"latent_means": [0.1, -2.0, 0.0], "latent_deviations": [1.0, 0.9, 1.3]}


def log(steps: int = 20, start: int = 5, **late: Any) -> list[dict[str, Any]]:
    """A log whose last records have some other values."""
    return [
        {"step": 50 * (i + 1), "ramp": float(i >= start), **GOOD, **LATENTS, **(late if i > steps / 2 else {})}
        for i in range(steps)
    ]


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "wins": ({"accuracy": 0.98, "gap": 5.0}, r"wins: it tells 98 % .* gap of 5 .*--discriminator-share 0.25"),
    "fooled": ({"accuracy": 0.5, "gap": 0.01}, "is fooled: it tells 50 % .*--discriminator-share 2"),
    "clamped": ({"adaptive_weight": 1e4}, "adaptive weight is at its largest value, 10000: .*--adaptive none"),
    "dead": ({"latent_deviations": [1.0, 0.001, 1.3]}, "Of 3 channels of the latent, channel 1 is dead"),
    "several": ({"latent_deviations": [1e-4, 0.001, 1.3]}, "channels 0, 1 are dead: .* fewer --latent-channels"),
    "loud": ({"largest_activation": 31000.0}, "largest activation is 31,000, near .* 65,504: .* bf16 or float32"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_trouble_has_its_sentence_and_a_remedy(name: str) -> None:
    late, expected = CASES[name]
    found = health_of_players(log(**late), Adversarial())
    assert len([sentence for sentence in found if "Remedy: " in sentence]) == 1
    assert any(re.search(expected, sentence) for sentence in found)


def test_two_players_that_are_balanced_have_one_sentence_without_a_remedy() -> None:
    (found,) = health_of_players(log(), Adversarial())
    assert found == (
        "The two players are balanced: the discriminator is at 75 % accuracy with a gap of 0.6 between its logits, and "
        "the adaptive weight is 120."
    )


def test_a_discriminator_that_never_judges_is_told_with_the_step_of_the_end() -> None:
    (found,) = health_of_players(log(start=99), Adversarial(start=0.3))
    assert "never judges: the run was to start it after 30%" in found
    assert "ended at step 1,000" in found
    assert "--adversarial-start" in found


def test_early_troubles_that_have_passed_are_not_told() -> None:
    early = [{**record, "accuracy": 0.99} if i < 8 else record for i, record in enumerate(log())]
    (found,) = health_of_players(early, Adversarial())
    assert "balanced" in found


def test_a_damaged_or_empty_log_is_not_an_error() -> None:
    assert health_of_players([], Adversarial(game="none")) == ()
    damaged = [{"step": 1, "ramp": 1.0, "accuracy": "a", "gap": None, "latent_deviations": [None]}]
    assert health_of_players(damaged, Adversarial()) == ()


def test_a_perceptual_term_alone_has_no_discriminator_to_tell_of() -> None:
    records = [{"step": 1, "largest_activation": 3.0, **LATENTS}]
    assert health_of_players(records, Adversarial(game="none")) == ()
