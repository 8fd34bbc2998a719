"""Two conditions at once: by a recipe, at the command line, and in each kind of prior."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tightbound as tb
from tightbound.cli.main import main
from tightbound.conditions import Conditions, Given
from tightbound.data import DataSpec
from tightbound.distributions import Embeddings, Sampling
from tightbound.errors import ShapeError, UnknownName, UsageError
from tightbound.options.priors import PixelCNNPrior, TransformerPrior
from tightbound.recipes import CVAE, VAE, VQVAE, TransformerRecipe
from tightbound.recipes.base import Stage
from tightbound.recipes.two_stage import TwoStage

SPEC = DataSpec("x", (1, 8, 8), levels=4, classes=tuple("abc"), condition_shape=(2,), captioned=True)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose top row tells their class, and whose bottom row the first of two numbers beside them."""
    random = np.random.default_rng(0)
    labels, numbers = random.integers(0, 3, 300), random.normal(size=(300, 2)).astype(np.float32)
    x = random.integers(0, 2, (300, 4, 6)).astype(np.uint8)
    x[np.arange(300), 0, 2 * labels] = 3
    x[:, 3] = np.where(numbers[:, :1] > 0, 3, 0)
    path = tmp_path_factory.mktemp("data") / "both.npz"
    np.savez(path, x=x, y=labels, c=numbers, levels=4, classes=np.array(["a", "b", "c"]))
    return path


@pytest.fixture(scope="module")
def run(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "both"
    words = ["--condition", "class", "vector", "--drop-condition", "0.2", "--hidden", "32", "--latent-dim", "2"]
    more = ["--steps", "300", "--lr", "1e-2", "--batch-size", "60", "--no-pictures", "--device", "cpu"]
    assert main(["train", "cvae", "--data", str(file), "--out", str(out), *words, *more]) == 0
    return out


def told(model: Any, *words: str) -> torch.Tensor:
    """The mean picture given words, with one noise."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        px = model(model.condition.read(*words))
        return px.likelihood(px.sample_latent((200,))).mean.mean(0)[0]


def test_a_cvae_learns_both_conditions_and_each_alone(run: Path) -> None:
    model = tb.load(run)
    assert isinstance(model.condition, Conditions)
    assert model.recipe.condition == ("class", "vector")
    for vector in ((), ("vector=1.5 0",), ("vector=-1.5 0",)):
        for place, name in enumerate("abc"):
            top = told(model, f"class={name}", *vector)[0, ::2]
            assert top.argmax() == place, (name, vector)
    for named in ((), ("class=a",)):
        assert told(model, "vector=1.5 0", *named)[3].mean() > 0.7
        assert told(model, "vector=-1.5 0", *named)[3].mean() < 0.3


def test_the_commands_take_each_condition_by_its_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--condition", "class=b", "--condition", "vector=1.5 0"]
    sample = ["sample", str(run), "-n", "3", "--device", "cpu", "--out"]
    assert main([*sample, str(tmp_path / "a.npz"), *words]) == 0
    assert np.load(tmp_path / "a.npz")["mean"].shape == (3, 1, 4, 6)
    assert main([*sample, str(tmp_path / "b.png"), "--condition", "class=b"]) == 0
    assert main([*sample, str(tmp_path / "c.png")]) == 0
    assert main(["interpolate", str(run), "-n", "2", "--device", "cpu", "--out", str(tmp_path / "d.png")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "-k", "20", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nll"]["value"] > 0
    for wrong in ("b", "label=b"):
        assert main([*sample, str(tmp_path / "e.png"), "--condition", wrong]) == 2
        assert "class=... vector=..." in capsys.readouterr().err
    (tmp_path / "c.txt").write_text("b\n")
    assert main([*sample, str(tmp_path / "e.png"), "--condition-file", str(tmp_path / "c.txt")]) == 2
    assert "several" in capsys.readouterr().err


def test_a_model_file_holds_each_embedding_by_its_name(run: Path) -> None:
    names = set(tb.load(run).state_dict())
    for part in ("prior.given", "likelihood.embedding", "posterior.embedding"):
        assert {f"{part}.each.class.table.weight", f"{part}.each.vector.map.weight"} <= names


PRIORS = {
    "pixelcnn": PixelCNNPrior(condition=("class", "text"), channels=8, layers=2, vocabulary=300),
    "transformer": TransformerPrior(condition=("class", "text"), width=16, layers=1, heads=2, vocabulary=300),
    "rotary": TransformerPrior(
        condition=("text", "vector"), width=16, layers=1, heads=2, vocabulary=300, text_positions="rotary"
    ),
}


@pytest.mark.parametrize("kind", PRIORS)
def test_priors_over_codes_are_given_both_and_guided_by_both(kind: str) -> None:
    first = Stage(VQVAE(codes=8, channels=(4,), blocks=1))
    model = TwoStage(first, PRIORS[kind]).build(SPEC)
    model.load_state_dict(model.state_dict())
    assert isinstance(model.prior.grids[0].embedding, Embeddings)
    with torch.no_grad():
        for parameter in model.prior.grids.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    entries = {"class": torch.tensor([[0], [2]]), "vector": torch.randn(2, 2), "text": torch.randint(9, (2, 32))}
    c = Given({name: entries[name] for name in model.condition.parts})
    codes = model(c).prior().sample((3,), how=Sampling(guidance=2.0))
    assert codes.shape[:2] == (3, 2)
    masses = [model(each).prior().log_prob(codes) for each in (c, *(c.missing(name) for name in c), c.missing())]
    for i, one in enumerate(masses):
        for other in masses[:i]:
            assert not torch.allclose(one, other)


def test_a_model_of_pixels_is_given_both() -> None:
    model = TransformerRecipe(condition=("class", "vector"), width=16, layers=1, heads=2).build(SPEC)
    c = Given({"vector": torch.randn(2, 2), "class": torch.tensor([[0], [1]])})
    x = model(c).sample()
    assert not torch.allclose(model(c).log_prob(x), model(c.missing("vector")).log_prob(x))


@pytest.mark.parametrize(
    ("condition", "error", "says"),
    [
        (("class", "image"), UsageError, "image"),
        (("class", "class"), UsageError, "same name"),
        (("class", "txt"), UnknownName, "text"),
        ("clas", UnknownName, "class"),
        ((), UsageError, "none"),
    ],
)
def test_conditions_that_there_are_not_are_refused(condition: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        CVAE(condition=condition).build(SPEC)


def test_conditions_of_other_names_or_sizes_are_refused() -> None:
    model = CVAE(latent_dim=2, hidden=(4,), condition=("class", "vector")).build(SPEC)
    classes, vector = torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, 2)
    with pytest.raises(UsageError, match="not the conditions of this model") as caught:
        model(Given({"class": classes, "vektor": vector}))
    assert caught.value.expected == "class, vector"
    with pytest.raises(ShapeError, match="vector has the wrong size"):
        model(Given({"class": classes, "vector": torch.zeros(3, 9)}))
    with pytest.raises(UsageError, match="must be a Given"):
        model(classes)
    with pytest.raises(UsageError, match="not the conditions") as caught:
        VAE(latent_dim=2, hidden=(4,)).build(SPEC)(Given({"class": classes}))
    assert "unconditional" in str(caught.value.expected)
