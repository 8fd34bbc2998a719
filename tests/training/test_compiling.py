"""A training whose step is compiled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributions import kl

import tightbound as tb
from tightbound.recipes import HVAE, Ladder, Recipe
from tightbound.training.start import build_seeded

RECIPES = {
    "ladder": Ladder(grids=(1, 4), groups=(1, 2), channels=8, latent_channels=2, blocks=1),
    "chain": HVAE(layers=(4, 3), hidden=(16,)),
}


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it imports its compiler
@pytest.mark.parametrize("name", RECIPES)
def test_a_hierarchy_compiles_though_its_kl_was_never_looked_up(name: str, tmp_path: Path) -> None:
    """As in a new process: a graph that breaks there once ended the training of a ladder."""
    recipe: Recipe = RECIPES[name]
    torch.compiler.reset()
    kl._KL_MEMOIZE.clear()
    data = tb.load_data("digits")
    bounds = list[float]()
    for compiled in (True, False):  # the compiler draws other noise, so only the means agree
        model = build_seeded(recipe, data.spec, 0)
        result = tb.train(model, data, steps=60, out=tmp_path / str(compiled), compile=compiled, pictures=False)
        assert result.best_bound is not None
        bounds.append(result.best_bound)
    assert bounds[0] == pytest.approx(bounds[1], rel=0.02)
