"""The net under a refactoring holds what it should: the same code gives the same figures, other figures are seen."""

from __future__ import annotations

import re
from typing import Any

import pytest

import net

SOME = ("vae-vamp-ema-accumulate", "cvae-hybrid", "vq-fsq", "prior-vq-fsq", "pixelcnn-class")
"""Of the combinations, a fast few of different kinds."""


def some(seed: str = "") -> dict[str, Any]:
    """Those combinations, without what is drawn last and slowly, with another seed in training if told."""
    chosen = {name: [c for c in net.NET[name] if not re.match("report|diagnose|.*--budget", c)] for name in SOME}
    return {name: [f"{made}{seed}", *then] for name, (made, *then) in chosen.items()}


@pytest.fixture(scope="module")
def recorded() -> dict[str, net.Figures]:
    return net.record(some())


def test_the_same_code_gives_the_same_figures(recorded: dict[str, net.Figures]) -> None:
    assert net.compare(recorded, net.record(some()), words=True) == []


def test_another_seed_is_seen_in_the_weights_readings_and_evaluation_of_each(recorded: dict[str, net.Figures]) -> None:
    other = net.record(some(" --seed 1"))
    for name in SOME:
        changed = "\n".join(net.compare({name: recorded[name]}, {name: other[name]}))
        for figure in (
            "run.weights.floats",
            "run.last",
            r"run.metrics.train.\d+.(objective|log_prior)",
            "evaluate.nll.value",
        ):
            assert re.search(f"changed {figure}", changed), f"{name} {figure}"
        if "sample.exit" in recorded[name]:
            assert re.search(r"changed sample.out.\w+.digest", changed), name


def test_every_command_of_the_subset_does_what_it_is_asked(recorded: dict[str, net.Figures]) -> None:
    """Refusals are figures too, but these few are to reach their ends."""
    ended = {f"{name} {path}": value for name in SOME for path, value in recorded[name].items()}
    refused = {path for path, value in ended.items() if path.endswith(".exit") and value != 0}
    assert refused == {"vq-fsq traverse.exit", "vq-fsq reconstruct-2.exit", "pixelcnn-class encode.exit"}


def test_every_name_that_a_combination_uses_is_one() -> None:
    order = net.needed(net.NET, net.NET)
    assert sorted(order) == sorted(net.NET)
    assert order.index("vq") < order.index("prior-vq") < order.index("compare")


def test_a_figure_is_told_as_moved_missing_new_or_changed() -> None:
    before = {"a.kl.0": 1.5, "gone": 2, "kept": 3, "changed": 4.0, "said": "in words"}
    after = {"a.kl.z.0": 1.5, "new": 5, "kept": 3, "changed": 4.5, "said": "in other words"}
    told = ["a.kl.0 -> a.kl.z.0", "gone (was 2)", "new = 5", "changed: 4.0 -> 4.5"]
    kinds = ["moved", "missing", "new", "changed"]
    lines = [f"vae: {kind} {what}" for kind, what in zip(kinds, told, strict=True)]
    assert sorted(net.compare({"vae": before}, {"vae": after})) == sorted(lines)
    assert len(net.compare({"vae": before}, {"vae": after}, words=True)) == len(lines) + 1
    assert net.compare({"vae": before}, {}) == ["vae: missing"]


def test_a_renamed_option_is_tried_where_the_old_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[str]] = []

    def refuses_the_old(words: list[str], verbose: bool) -> tuple[int, str]:
        tried.append(words)
        return (0 if "--new" in words else 2), ""

    monkeypatch.setattr(net, "SPELLINGS", [("--old", "--new"), ("--new", "--newer")])
    monkeypatch.setattr(net, "_run_here", refuses_the_old)
    assert net.run("train vae --old 1 --out @", "mine", "train")[0] == 0
    assert tried == [["train", "vae", name, "1", "--out", "runs/mine"] for name in ("--old", "--new")]
