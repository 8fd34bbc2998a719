"""Pictures and captions in one space: the loss by its definition, retrieval by its odds, and an encoder that learns."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tightbound import checkpoint
from tightbound.data import Data
from tightbound.encoders.contrastive import Contrastive, ContrastiveConfig, TextImageEncoder, load_clip
from tightbound.errors import CheckpointError, ShapeError, TrainingError, UsageError
from tightbound.evaluation.samples.retrieval import best_of, fits, rank, retrieval_accuracy
from tightbound.training.contrastive import train_contrastive, vary

COLOURS = {"red": 0, "green": 1, "blue": 2}
PLACES = {"top left": (0, 0), "top right": (0, 4), "bottom left": (4, 0), "bottom right": (4, 4), "middle": (2, 2)}
CAPTIONS = [f"{colour} {place}" for colour, place in itertools.product(COLOURS, PLACES)]
SMALL = ContrastiveConfig((3, 8, 8), vocabulary=300, length=8, dim=8, channels=(8,))


def model(seed: int = 0) -> Contrastive:
    torch.manual_seed(seed)
    found = Contrastive(SMALL)
    found.text.initialise_captions(CAPTIONS)
    return found


def pictures(n: int) -> tuple[Any, list[str]]:
    """Coloured squares on a noisy ground, and what they are called."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 60, (n, 3, 8, 8), dtype=np.uint8)
    captions = [CAPTIONS[i] for i in generator.integers(0, len(CAPTIONS), n)]
    for image, caption in zip(images, captions, strict=True):
        colour, place = caption.split(" ", 1)
        row, column = PLACES[place]
        image[COLOURS[colour], row : row + 4, column : column + 4] = 255
    return images, captions


def data() -> Data:
    images, captions = pictures(360)
    parts = {"train": slice(240), "valid": slice(240, 300), "test": slice(300, 360)}
    return Data.from_arrays(
        **{name: images[part] for name, part in parts.items()},
        captions={name: tuple(captions[part]) for name, part in parts.items()},
        levels=256,
    )


class Given(TextImageEncoder):
    """Images and tokens that are the numbers of rows of given features."""

    def __init__(self, images: Tensor, texts: Tensor) -> None:
        super().__init__()
        self.images, self.texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)

    def tokens(self, captions: Iterable[str]) -> Tensor:
        return torch.tensor([[int(caption)] for caption in captions])

    def image_features(self, x: Tensor) -> Tensor:
        return self.images[x.flatten(1)[:, 0].long()]

    def text_features(self, tokens: Tensor) -> Tensor:
        return self.texts[tokens[:, 0]]


def numbered(n: int) -> tuple[Tensor, Tensor]:
    return torch.arange(n).float().view(n, 1, 1, 1), torch.arange(n).view(n, 1)


def test_features_have_length_one_and_do_not_depend_on_the_batch() -> None:
    encoder, x = model().double(), torch.rand(6, 3, 8, 8, dtype=torch.float64)
    tokens = encoder.tokens(CAPTIONS[:6])
    u, v = encoder.image_features(x), encoder.text_features(tokens)
    for features in (u, v):
        assert features.shape == (6, 8)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(encoder.image_features(x[2:3]), u[2:3])
    torch.testing.assert_close(encoder.similarity(x, tokens[:4]), u @ v[:4].T)
    torch.testing.assert_close(encoder(x, tokens), encoder.log_scale.exp() * (u @ v.T))
    assert (encoder.similarity(x, tokens).abs() <= 1 + 1e-12).all()
    with pytest.raises(ShapeError, match="do not fit"):
        encoder.image_features(x[:, :1])


def test_the_loss_is_by_its_definition() -> None:
    encoder, x = model().double(), torch.rand(5, 3, 8, 8, dtype=torch.float64)
    tokens = encoder.tokens(CAPTIONS[:5])
    odds = encoder(x, tokens).exp()
    expected = [-(odds[i, i] / odds[i].sum()).log() / 2 - (odds[i, i] / odds[:, i].sum()).log() / 2 for i in range(5)]
    torch.testing.assert_close(encoder.loss(x, tokens), torch.stack(expected))
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(encoder.loss(x[order], tokens[order]), torch.stack(expected)[order])
    assert encoder.loss(x[:1], tokens[:1]).item() == 0


def test_indifference_costs_the_logarithm_of_the_batch() -> None:
    encoder, x = model().double(), torch.rand(1, 3, 8, 8, dtype=torch.float64).expand(6, -1, -1, -1)
    last: Any = encoder.text_encoder.mix[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.ones_(last.bias)
    loss = encoder.loss(x, encoder.tokens(CAPTIONS[:6]))
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(6)))
    loss = encoder.loss(x, encoder.tokens([*CAPTIONS[:5], CAPTIONS[0]]))  # 0 and 5 are not told apart
    expected = torch.tensor([5, 6, 6, 6, 6, 5], dtype=torch.float64).log()
    torch.testing.assert_close(loss, expected)


def test_the_gradient_reaches_every_parameter_but_the_scale_no_further_than_its_limit() -> None:
    encoder = model()
    x, tokens = torch.rand(8, 3, 8, 8), encoder.tokens(CAPTIONS[:8])
    encoder.loss(x, tokens).sum().backward()
    unreached = [name for name, p in encoder.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert unreached == ["text_encoder.none"]  # there is a text
    encoder.log_scale.data.fill_(50.0)
    assert encoder(x, tokens).abs().max() <= 100 + 1e-3


def odds(images: Tensor, texts: Tensor, among: int) -> float:
    """The same by trying every choice of others."""
    fits = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    won = []
    for i in range(len(fits)):
        others = [j for j in range(len(texts)) if j != i]
        choices = itertools.combinations(others, among - 1)
        won += [all(fits[i, i] > fits[i, j] for j in chosen) for chosen in choices]
    return sum(won) / len(won)


@pytest.mark.parametrize("among", [2, 3, 6])
def test_retrieval_is_the_mean_over_all_draws(among: int) -> None:
    images, texts = torch.randn(2, 6, 3, dtype=torch.float64)
    texts = texts + images
    found = retrieval_accuracy(Given(images, texts), *numbered(6), among=among)
    assert found.value == pytest.approx(odds(images, texts, among), abs=1e-12)


def test_retrieval_of_the_blind_is_chance_of_the_perfect_certain_and_of_the_indifferent_nothing() -> None:
    n, features = 600, torch.randn(600, 64)
    blind = retrieval_accuracy(Given(torch.randn(n, 64), features), *numbered(n))
    assert abs(blind.value - 0.01) < 0.01
    assert retrieval_accuracy(Given(features, features + 0.1 * torch.randn(n, 64)), *numbered(n)).value == 1
    assert retrieval_accuracy(Given(features, torch.ones(n, 64)), *numbered(n)).value == 0


def test_the_same_caption_is_no_rival_and_rivals_may_come_from_a_pool() -> None:
    texts = torch.eye(4)
    encoder = Given(texts[[0, 0, 1, 2]], texts)
    x, _ = numbered(4)
    own = torch.tensor([[0], [0], [1], [2]])
    assert retrieval_accuracy(encoder, x, own, among=3).value == 1
    with pytest.raises(UsageError, match="Too few captions") as caught:
        retrieval_accuracy(encoder, x, own, among=4)
    assert "4 of 3" in str(caught.value.got)
    pool = torch.arange(4).view(4, 1)
    assert retrieval_accuracy(encoder, x, own, among=4, pool=pool).value == 1
    assert retrieval_accuracy(encoder, x[:1], own[:1], among=4, pool=pool[1:]).value == 1
    with pytest.raises(ShapeError, match="Each image"):
        retrieval_accuracy(encoder, x, own[:2])


def test_the_best_sample_comes_first() -> None:
    texts = torch.eye(3)
    images = torch.cat([texts, texts + 0.5, texts + 0.2, -texts])  # 4 samples of each
    samples, tokens = torch.arange(12.0).view(4, 3, 1, 1, 1), torch.arange(3).view(3, 1)
    encoder = Given(images, texts).train()
    order = rank(encoder, samples, tokens)
    assert order.tolist() == [[0] * 3, [2] * 3, [1] * 3, [3] * 3]
    cosines = fits(encoder, samples, tokens)
    torch.testing.assert_close(cosines[0], torch.ones(3))
    torch.testing.assert_close(cosines[1], torch.full((3,), 1.5 / (1.5**2 + 2 * 0.5**2) ** 0.5))
    torch.testing.assert_close(cosines[3], -torch.ones(3))
    assert encoder.training
    mixed = samples.flatten(0, 1)[torch.tensor([3, 1, 8, 0, 10, 5])].view(2, 3, 1, 1, 1)
    assert best_of(encoder, mixed, tokens).flatten().tolist() == [0, 1, 8]
    for wrong in (samples[0], samples[:, :2]):
        with pytest.raises(ShapeError, match="samples of its own"):
            rank(encoder, wrong, tokens)


def test_variations_are_shifts_with_the_edges_drawn_out() -> None:
    x = torch.rand(200, 3, 16, 32)
    padded = F.pad(x, (2, 2, 1, 1), mode="replicate")
    moves = set()
    for before, after in zip(padded, vary(x, shift=1 / 16, tint=0.0), strict=True):
        found = [
            (row, column)
            for row, column in itertools.product(range(3), range(5))
            if torch.equal(after, before[:, row : row + 16, column : column + 32])
        ]
        assert len(found) == 1
        moves |= set(found)
    assert len(moves) == 15


def test_variations_of_the_tint_are_as_said() -> None:
    zero, one = (vary(torch.full((4000, 1, 4, 4), value), tint=0.1)[:, 0, 0, 0] for value in (0.0, 1.0))
    assert zero.std().item() == pytest.approx(0.05, rel=0.1)
    assert one.std().item() == pytest.approx(math.hypot(0.1, 0.05), rel=0.1)
    assert abs(one.mean().item() - 1) < 5 * 0.112 / math.sqrt(4000)


@pytest.fixture(scope="module")
def trained() -> Contrastive:
    return train_contrastive(data(), SMALL, epochs=16, batch_size=40, lr=1e-2)


def test_it_learns_which_caption_belongs_to_which_picture(trained: Contrastive) -> None:
    test = data().test.batch(torch.arange(60))
    assert test.captions is not None
    found = retrieval_accuracy(trained, test.x, trained.tokens(test.captions), among=10)
    assert not trained.training
    assert found.value > 0.6  # chance: 0.1
    candidates = torch.stack([test.x.roll(shift, 0) for shift in (3, 0, 7)])
    chosen = rank(trained, candidates, trained.tokens(test.captions))[0]
    same = [
        [test.captions[(i - shift) % 60] == test.captions[i] for shift in (3, 0, 7)] for i in range(60)
    ]  # pictures of the caption, its own or not
    assert sum(same[i][int(chosen[i])] for i in range(60)) > 40


def test_training_is_reproducible_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    first = train_contrastive(data(), SMALL, epochs=1, batch_size=40)
    after = torch.rand(1)
    torch.manual_seed(5)
    second = train_contrastive(data(), SMALL, epochs=1, batch_size=40)
    other = train_contrastive(data(), SMALL, epochs=1, batch_size=40, seed=1)
    one, two, three = (checkpoint.tensors_of(m) for m in (first, second, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["text_encoder.places"], three["text_encoder.places"])
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


def test_training_stops_when_nothing_gets_better_and_gives_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    from tightbound.training import contrastive

    losses, seen = iter([3.0, 2.0, 2.5, 2.0, 1.0]), []

    def told(fit: Any) -> float:
        seen.append(fit.model.text_encoder.places.detach().clone())
        return next(losses)

    monkeypatch.setattr(contrastive._Fit, "validation_loss", told)
    found = train_contrastive(data(), SMALL, epochs=5, batch_size=40, patience=2)
    assert len(seen) == 4
    assert torch.equal(found.text_encoder.places, seen[1])


def test_training_refuses_what_it_cannot_learn_from() -> None:
    images, _ = pictures(60)
    with pytest.raises(UsageError, match="needs captions"):
        train_contrastive(Data.from_arrays(images, levels=256), SMALL)
    alike: dict[str, tuple[str, ...]] = dict.fromkeys(("train", "valid", "test"), ("A cat", "a  cat") * 10)
    same = Data.from_arrays(images[:20], images[20:40], images[40:], captions=alike, levels=256)
    with pytest.raises(UsageError, match="needs different captions"):
        train_contrastive(same, SMALL)
    wrong: dict[str, Any]
    for wrong in ({"lr": 0.0}, {"lr": math.nan}, {"weight_decay": -1.0}):
        with pytest.raises(UsageError, match="must be positive"):
            train_contrastive(data(), SMALL, **wrong)
    with pytest.raises(TrainingError, match="never finite"):
        train_contrastive(data(), SMALL, epochs=1, lr=1e30)
    for wrong in ({"epochs": 0}, {"batch_size": 1}, {"patience": 0}):
        with pytest.raises(UsageError, match="two examples"):
            train_contrastive(data(), SMALL, **wrong)
    with pytest.raises(UsageError, match="too long"):
        train_contrastive(data(), ContrastiveConfig((3, 8, 8), vocabulary=256, length=8))
    for wrong in ({"shape": (64,)}, {"dim": 0}, {"channels": (8, 0)}):
        with pytest.raises(UsageError, match="needs images"):
            ContrastiveConfig(**{"shape": (3, 8, 8), **wrong})


def test_an_encoder_comes_back_from_its_file(trained: Contrastive, tmp_path: Path) -> None:
    trained.save(tmp_path / "encoder.safetensors")
    again = Contrastive.load(tmp_path / "encoder.safetensors")
    assert again.config == trained.config
    assert not again.training
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(again.tokens(CAPTIONS), trained.tokens(CAPTIONS))
    assert torch.equal(again(x, again.tokens(CAPTIONS)), trained(x, trained.tokens(CAPTIONS)))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path, encoder = tmp_path / "encoder.safetensors", model()
    encoder.save(path)
    state = checkpoint.read(path)
    for damaged, says in (
        ({"weights": state["weights"]}, "not a contrastive encoder"),
        ({**state, "config": 3}, "not a contrastive encoder"),
        ({**state, "config": {**state["config"], "dim": "8"}}, "type"),
        ({**state, "config": {**state["config"], "dim": 9}}, "does not fit"),
        ({**state, "weights": {**state["weights"], "log_scale": torch.tensor(math.nan)}}, "not finite"),
    ):
        checkpoint.write(path, damaged)
        with pytest.raises(CheckpointError, match=says):
            Contrastive.load(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Contrastive.load(tmp_path / "none.safetensors")


def test_a_folder_without_a_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no CLIP") as caught:
        load_clip(tmp_path)
    assert "config.json" in str(caught.value.got)
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf8")
    with pytest.raises(CheckpointError, match="no CLIP") as caught:
        load_clip(tmp_path)
    assert "bert" in str(caught.value.got)


def test_without_transformers_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text('{"model_type": "clip"}', encoding="utf8")
    with pytest.raises(UsageError, match="transformers") as caught:
        load_clip(tmp_path)
    assert "tightbound[transformers]" in str(caught.value.remedy)


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    """A tiny CLIP with random weights, as `save_pretrained` writes it."""
    transformers: Any = pytest.importorskip("transformers", reason="the transformers library is not there")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 514, "max_position_embeddings": 20, "bos_token_id": 512, "eos_token_id": 513}
    config = transformers.CLIPConfig(
        text_config={**tower, **text, "pad_token_id": 513},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    told = json.loads(model().text.tokenizer.json())["model"]["vocab"]
    letters = [letter for letter in told if len(letter) == 1]
    words = [*letters, *[f"{letter}</w>" for letter in letters], "<|startoftext|>", "<|endoftext|>"]
    vocabulary = json.dumps({word: number for number, word in enumerate(words)})
    (tmp_path / "vocab.json").write_text(vocabulary, encoding="utf8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf8")
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.4, 0.3]}', encoding="utf8")
    return tmp_path


@pytest.mark.filterwarnings("default")  # of other people's code
def test_a_clip_from_a_file_gives_its_own_cosines(clip_folder: Path) -> None:
    clip = load_clip(clip_folder)
    x, tokens = torch.rand(3, 3, 32, 32), clip.tokens(["a cat", "a red dog"])
    assert tokens.shape == (2, 20)
    assert tokens[0].tolist()[:1] + tokens[0].tolist()[5:7] == [512, 513, -1]
    cosines = clip.similarity(x, tokens)
    for row, length in ((0, 6), (1, 9)):
        ids = tokens[row : row + 1, :length]
        assert (tokens[row, length:] == -1).all()
        pixels = (x - clip.mean) / clip.std
        logits = clip.model(input_ids=ids, pixel_values=pixels).logits_per_image
        torch.testing.assert_close(cosines[:, row : row + 1], logits / clip.model.logit_scale.exp())
    assert clip.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert clip.similarity(torch.rand(3, 1, 28, 28), tokens).shape == (3, 2)
    with pytest.raises(UsageError, match="too long"):
        clip.tokens(["a caption of more than twenty letters"])
    assert rank(clip, torch.rand(4, 2, 3, 16, 16), tokens).shape == (4, 2)


@pytest.mark.filterwarnings("default")
def test_a_damaged_clip_is_refused(clip_folder: Path) -> None:
    weights = checkpoint.read(clip_folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, clip_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks weights") as caught:
        load_clip(clip_folder)
    assert "visual_projection" in str(caught.value.got)
    (clip_folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_clip(clip_folder)
